"""Time of a training step: the notebook's way and ours, on the same rows, weights and adapters.

    python -m benchmarks train --quick

A step has eight pairs, as in the notebook. The notebook's way, with today's libraries: pairs in
file order, two by two, padded to the longer one; every layer is checkpointed, and the inputs
require gradients, as `prepare_model_for_kbit_training` arranges; eager attention; the accumulated
loss is normalised correctly. Ours is a :class:`~tiewise.models.model.PairClassifier` with packed
rows. Dropout is off in both, so that the gradients of the timed steps can be compared.

`train.notebook`
    The notebook's adapters: q, k, v; the first 8 of 21 layers frozen. Nothing is recomputed.
`train.checkpointed`
    The same; the trainable layers recompute their activations, and no micro-batch exceeds the
    notebook's 2,048 tokens.
`train.recommended`
    Adapters on all linear layers, no layer frozen, in both ways.
`train.peak_memory`
    Peak resident memory of `train.checkpointed` above that of the loaded model, each way in its own
    process.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.midsize import (
    NOTEBOOK_TARGETS,
    PAD,
    VOCABULARY,
    as_rows,
    build_ours,
    draw_lengths,
    load_theirs,
    write_backbone,
)
from benchmarks.rounds import compared, read_peak, start_peak
from tiewise.models.attention import collate
from tiewise.models.model import PairClassifier
from tiewise.tokens.batches import Layout, plan_step
from tiewise.tokens.rows import TokenRows

N_LAYERS, N_FROZEN = 21, 8
BATCH_SIZE = 8
MAX_LENGTH = 1024
NOTEBOOK_TOKENS = 2 * MAX_LENGTH


@dataclasses.dataclass(frozen=True)
class Setting:
    """Linear layers that have adapters, and the number of first layers without."""

    targets: tuple[str, ...]
    n_frozen_layers: int


NOTEBOOK = Setting(NOTEBOOK_TARGETS, N_FROZEN)
RECOMMENDED = Setting(("all-linear",), 0)


def run(*, is_quick: bool) -> list[dict[str, Any]]:
    """Time the cases; the rows of the benchmark."""
    torch.set_num_threads(1)
    n_rounds = 3 if is_quick else 9
    with tempfile.TemporaryDirectory() as folder:
        backbone_dir = write_backbone(Path(folder) / "backbone", n_layers=N_LAYERS)
        steps = draw_steps(n_rounds + 1)
        cases = {"train.notebook": "none", "train.checkpointed": "trainable"}
        rows = time_setting(backbone_dir, NOTEBOOK, steps, cases)
        rows += time_setting(backbone_dir, RECOMMENDED, steps, {"train.recommended": "none"})
        return [*rows, compare_memory(backbone_dir)]


def draw_steps(n_steps: int, *, max_length: int = MAX_LENGTH) -> list[TokenRows]:
    """Draw the rows of each step: real lengths, random tokens, cut at `max_length`."""
    generator = np.random.default_rng(0)
    lengths = draw_lengths(n_steps * BATCH_SIZE).sum(1)
    contents = [generator.integers(3, VOCABULARY, length) for length in lengths]
    return [
        as_rows(contents[start : start + BATCH_SIZE], max_length=max_length)
        for start in range(0, len(contents), BATCH_SIZE)
    ]


# ---- the two ways -------------------------------------------------------------------------


def step_ours(
    classifier: PairClassifier,
    rows: TokenRows,
    micro_batch_tokens: int,
    *,
    layout: Layout = "packed",
) -> None:
    """Run one step forward and backward."""
    labels = labels_of(rows).to(classifier.device)
    [plan] = plan_step(rows.lengths, micro_batch_tokens=micro_batch_tokens, layout=layout)
    for part in plan:
        batch = collate(rows, part, layout=layout, pad_id=PAD, device=classifier.device)
        with classifier.autocast():
            logits = classifier(batch)
        loss = torch.nn.functional.cross_entropy(logits, labels[part], reduction="sum")
        (loss / len(rows)).backward()


def step_theirs(
    model: Any, rows: TokenRows, *, autocast: Callable[[], Any] = contextlib.nullcontext
) -> None:
    """Run one step two by two, padded, with the accumulated loss normalised over the step."""
    labels = labels_of(rows).to(model.device)
    for start in range(0, len(rows), 2):
        part = np.arange(start, min(start + 2, len(rows)))
        batch = collate(rows, part, layout="padded", pad_id=PAD, device=model.device)
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
        with autocast():
            loss = model(**inputs, labels=labels[part]).loss
        (loss * len(part) / len(rows)).backward()


def labels_of(rows: TokenRows) -> Tensor:
    """Give the rows A, B, tie in turn."""
    return torch.arange(len(rows)) % 3


# ---- timing -------------------------------------------------------------------------------


def time_setting(
    backbone_dir: Path,
    setting: Setting,
    steps: list[TokenRows],
    cases: dict[str, Any],
) -> list[dict[str, Any]]:
    """Time our cases of one setting and the notebook's way, alternating at each step."""
    ours, theirs = build_both(backbone_dir, setting)
    seconds: dict[str, list[float]] = {name: [] for name in (*cases, "notebook")}
    differences = dict.fromkeys(cases, 0.0)
    for number, rows in enumerate(steps):
        grads = {}
        for name in rotate(list(seconds), number):
            ours.checkpoint(cases.get(name, "none"))
            budget = NOTEBOOK_TOKENS if cases.get(name) == "trainable" else 8 * MAX_LENGTH
            model = theirs if name == "notebook" else ours
            model.zero_grad(set_to_none=True)
            start = time.process_time()
            if name == "notebook":
                step_theirs(theirs, rows)
            else:
                step_ours(ours, rows, budget)
            seconds[name].append(time.process_time() - start)
            grads[name] = dict(gradients(model))
        for name in cases:
            differences[name] = max(
                differences[name], largest_difference(grads[name], grads["notebook"])
            )
    # The first step warms up caches and buffers, and is not counted.
    counted = {name: values[1:] for name, values in seconds.items()}
    factor = padding_factor(steps[1:])
    return [
        compared(name, counted[name], counted["notebook"], unit="CPU s", equal_to=differences[name])
        | {"padding_factor": factor, "notes": f"the notebook's padding: x{factor:.2f}"}
        for name in cases
    ]


def build_both(backbone_dir: Path, setting: Setting) -> tuple[PairClassifier, Any]:
    """Build our classifier in training mode, and load what it saves the notebook's way."""
    ours = build_ours(
        backbone_dir, targets=setting.targets, n_frozen_layers=setting.n_frozen_layers
    ).train()
    with tempfile.TemporaryDirectory() as folder:
        ours.save(folder)
        return ours, load_theirs(backbone_dir, Path(folder), is_training=True)


def rotate(names: list[str], number: int) -> list[str]:
    """Return the names so that each comes first equally often."""
    first = number % len(names)
    return names[first:] + names[:first]


def gradients(model: torch.nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield every gradient under the name it has in the notebook's model."""
    for name, part in model.named_parameters():
        if part.requires_grad:
            assert part.grad is not None, f"{name} has no gradient"
            yield name.removeprefix("network."), part.grad.clone()


def largest_difference(first: dict[str, Tensor], second: dict[str, Tensor]) -> float:
    """Return the largest difference of a gradient between the two ways."""
    assert first.keys() == second.keys()
    return max(float((first[name] - second[name]).abs().max()) for name in first)


def padding_factor(steps: list[TokenRows]) -> float:
    """Return the tokens of rows that are padded two by two, relative to their own tokens."""
    padded = sum(
        2 * max(rows.lengths[start : start + 2])
        for rows in steps
        for start in range(0, len(rows), 2)
    )
    return padded / sum(int(rows.lengths.sum()) for rows in steps)


# ---- memory -------------------------------------------------------------------------------


def compare_memory(backbone_dir: Path) -> dict[str, Any]:
    """Measure the peak of each way in its own process, on the same long rows."""
    ours, theirs = (peak_in_process(backbone_dir, way) for way in ("ours", "notebook"))
    row = compared("train.peak_memory", [ours], [theirs], unit="MiB", equal_to=0.0)
    return row | {"equal_to": None, "notes": "peak resident memory above the loaded model"}


def peak_in_process(backbone_dir: Path, way: str) -> float:
    """Return the MiB that :func:`measure_peak` prints in a fresh interpreter."""
    code = "import sys; from benchmarks.train import measure_peak; measure_peak(*sys.argv[1:])"
    command = [sys.executable, "-c", code, str(backbone_dir), way]
    done = subprocess.run(
        command, check=True, capture_output=True, text=True, cwd=Path(__file__).parents[1]
    )
    return float(json.loads(done.stdout)["peak"])


def measure_peak(backbone_dir: str, way: str) -> None:
    """Print the peak memory of one step with two rows of full length in it."""
    torch.set_num_threads(1)
    contents = [np.ones(length, np.int64) for length in (2000, 2000, 528, 300)]
    rows = as_rows(contents, max_length=MAX_LENGTH)
    ours, theirs = build_both(Path(backbone_dir), NOTEBOOK)
    ours.checkpoint("trainable")
    before = start_peak("cpu")
    if way == "notebook":
        step_theirs(theirs, rows)
    else:
        step_ours(ours, rows, NOTEBOOK_TOKENS)
    print(json.dumps({"peak": (read_peak("cpu") - before) / 2**20}))
