"""Time of scoring pairs: the notebook's evaluation and ours, on the same rows and weights.

    python -m benchmarks predict --quick

The notebook's way is the Trainer's evaluation: eight rows a batch in file order, padded to the
longest, eager attention. Ours is `score_rows` with its defaults. Both get the same rows of tokens,
so only the scoring is timed.

`predict.one_order`
    Each pair as given.
`predict.both_orders`
    Each pair as given and swapped.
`predict.rank`
    All ordered pairs of six responses to one prompt, several prompts.

`equal_to` is the largest difference of a logit in float32; `equal_to_float64` the same for the
first rows in float64.
"""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.midsize import (
    PAD,
    VOCABULARY,
    as_rows,
    build_ours,
    draw_lengths,
    keep_freed_memory,
    load_theirs,
    write_backbone,
)
from benchmarks.rounds import alternate, compared
from tiewise.models.attention import collate
from tiewise.models.scoring import score_rows
from tiewise.tokens.rows import TokenRows, take_rows

BATCH_SIZE = 8
N_RESPONSES = 6
N_ROWS_FLOAT64 = 16


def run(*, is_quick: bool) -> list[dict[str, Any]]:
    """Time the three cases; the rows of the benchmark."""
    torch.set_num_threads(1)
    keep_freed_memory()
    n_pairs, n_prompts, n_layers, n_rounds = (16, 1, 7, 3) if is_quick else (48, 2, 21, 3)
    cases = {
        "predict.one_order": make_one_order(n_pairs),
        "predict.both_orders": make_both_orders(n_pairs),
        "predict.rank": make_rankings(n_prompts),
    }
    with tempfile.TemporaryDirectory() as folder:
        both = {dtype: load_both(Path(folder), dtype, n_layers) for dtype in ("float32", "float64")}
    return [time_case(name, rows, both, n_rounds) for name, rows in cases.items()]


def load_both(folder: Path, dtype: str, n_layers: int) -> tuple[Any, Any]:
    """Build our classifier, save it, and load it the notebook's way."""
    backbone_dir = write_backbone(folder / "backbone", n_layers=n_layers)
    ours = build_ours(backbone_dir, dtype=dtype, n_frozen_layers=n_layers * 16 // 42).eval()
    ours.save(folder / dtype)
    return ours, load_theirs(backbone_dir, folder / dtype, dtype=dtype)


def time_case(
    name: str, rows: TokenRows, both: dict[str, tuple[Any, Any]], n_rounds: int
) -> dict[str, Any]:
    """Time one case in float32, and compare the logits of both ways in both precisions."""
    ours, theirs = both["float32"]
    scored = []

    def score_ours() -> None:
        scored.append(score_rows(ours, rows))

    def score_theirs() -> None:
        scored.append(evaluate(theirs, rows))

    seconds = alternate(score_ours, score_theirs, n_rounds=n_rounds)
    difference = float(np.abs(scored[0] - scored[1]).max())
    few = take_rows(rows, np.arange(min(len(rows), N_ROWS_FLOAT64)))
    exact = [score_rows(both["float64"][0], few), evaluate(both["float64"][1], few)]
    in_float64 = float(np.abs(exact[0] - exact[1]).max())
    row = compared(name, *seconds, unit="s CPU", equal_to=difference)
    return row | {"equal_to_float64": in_float64, "notes": f"in float64 equal to {in_float64:.1e}"}


def evaluate(model: Any, rows: TokenRows) -> np.ndarray:
    """Score rows as the notebook's Trainer evaluates them."""
    logits = []
    for first in range(0, len(rows), BATCH_SIZE):
        part = range(first, min(first + BATCH_SIZE, len(rows)))
        batch = collate(rows, part, layout="padded", pad_id=PAD, device=model.device)
        batch.pop("lengths")
        with torch.no_grad():
            logits.append(model(**batch).logits)
    return torch.cat(logits).double().cpu().numpy()


def draw_texts(n: int) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Draw prompt, response A and response B of n pairs: random tokens of real lengths."""
    generator = np.random.default_rng(0)
    return [
        tuple(generator.integers(3, VOCABULARY, int(length)) for length in lengths)  # type: ignore[misc]
        for lengths in draw_lengths(n)
    ]


def make_one_order(n_pairs: int) -> TokenRows:
    """Return each pair as given."""
    return as_rows([np.concatenate(texts) for texts in draw_texts(n_pairs)])


def make_both_orders(n_pairs: int) -> TokenRows:
    """Return each pair as given, then each pair swapped."""
    swapped = as_rows([np.concatenate([p, b, a]) for p, a, b in draw_texts(n_pairs)])
    return TokenRows.concatenate([make_one_order(n_pairs), swapped])


def make_rankings(n_prompts: int) -> TokenRows:
    """Return all ordered pairs of six responses to each prompt, the responses of three pairs."""
    contents = []
    drawn = draw_texts(n_prompts * N_RESPONSES // 2)
    for first in range(0, len(drawn), N_RESPONSES // 2):
        texts = drawn[first : first + N_RESPONSES // 2]
        prompt, responses = texts[0][0], [text for _, *pair in texts for text in pair]
        contents += [
            np.concatenate([prompt, a, b]) for a, b in itertools.permutations(responses, 2)
        ]
    return as_rows(contents)
