"""Score pairs with a classifier, without gradients and independent of the order of the rows.

Floating-point sums depend on which rows share a forward pass. So equal rows are scored once, and
rows are batched by length and content: shuffling a file, repeating a row or swapping pairs changes
no bit, and `p(swap(pair)) == swap(p(pair))` holds exactly when both orders are averaged. Another
set of rows, token budget or layout can change the last bits, unless each row is scored alone.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from tiewise.console import progress_bar
from tiewise.data.pairs import is_degenerate
from tiewise.errors import NumericsError
from tiewise.evaluation.position import tabulate_both_orders, tabulate_one_order
from tiewise.models.attention import collate
from tiewise.models.model import PairClassifier
from tiewise.tokens.batches import Layout, plan_batches
from tiewise.tokens.ragged import IntArray, offsets_of, ranges
from tiewise.tokens.rows import TokenRows, token_rows
from tiewise.tokens.template import Template
from tiewise.tokens.tokenizer import TextTokenizer

Floats = npt.NDArray[np.float64]


def score_rows(
    classifier: PairClassifier,
    rows: TokenRows,
    *,
    layout: Layout | Literal["auto"] = "auto",
    batch_tokens: int = 16_384,
    names: Sequence[object] | None = None,
) -> Floats:
    """Return the logits of n rows of tokens: float64 `(n, 3)` of A, B, tie, in the same order.

    The layout `auto` is `packed` where the backbone can, otherwise `sorted`. `batch_tokens` limits
    the tokens of a forward pass, padding included; a longer row is scored alone. `names` are the
    rows' names in the message of NumericsError, which reports logits that are not finite.
    """
    if layout == "auto":
        layout = "packed" if classifier.can_pack else "sorted"
    representatives, inverse = find_distinct(rows)
    distinct = take_rows(rows, representatives)
    plan = plan_batches(distinct.lengths, max_tokens=batch_tokens, layout=layout)
    logits = np.empty((len(distinct), 3))
    n_tokens, shown = int(distinct.lengths.sum()), {"unit_scale": True, "delay": 2, "leave": False}
    bar = progress_bar(n_tokens, name="scoring", unit="token", **shown)
    with _evaluating(classifier), bar:
        for batch in plan:
            for part, values in _score_batch(classifier, distinct, batch, layout):
                logits[part] = values
                bar.update(int(distinct.lengths[part].sum()))
    _check_finite(logits[inverse], range(len(rows)) if names is None else names)
    return logits[inverse]


def predict_pairs(
    classifier: PairClassifier,
    pairs: pd.DataFrame,
    tokenizer: TextTokenizer,
    template: Template,
    *,
    both_orders: bool = True,
    cache_dir: Path | str | None = None,
    **options: Any,
) -> pd.DataFrame:
    """Predict the winner of each pair, in the order of the table; labels are not read.

    Returns ``id``, ``prob_*``, ``logit_*`` (with both orders the logarithm of the averaged
    probabilities), ``n_tokens``, ``n_truncated``, ``is_degenerate``; when `both_orders`, both
    are scored and averaged, with ``prob_*_given`` and ``prob_*_swapped``, the latter mapped back to
    the original A and B. `options` are `layout` and `batch_tokens` of :func:`score_rows`. No tokens
    are cached when `cache_dir` is None.
    """
    given = token_rows(pairs, tokenizer, template, cache_dir=cache_dir)
    names = [f"id={name}" for name in pairs["id"]]
    if both_orders:
        swapped = token_rows(pairs, tokenizer, template, cache_dir=cache_dir, is_swapped=True)
        both = TokenRows.concatenate([given, swapped])
        logits = score_rows(classifier, both, names=names * 2, **options)
        table = tabulate_both_orders(logits[: len(pairs)], logits[len(pairs) :])
    else:
        table = tabulate_one_order(score_rows(classifier, given, names=names, **options))
    is_order = table.columns.str.endswith(("_given", "_swapped"))
    facts = pd.DataFrame({"n_tokens": given.lengths, "n_truncated": given.n_truncated})
    facts["is_degenerate"] = is_degenerate(pairs)
    ids = pairs["id"].reset_index(drop=True)
    return pd.concat([ids, table.loc[:, ~is_order], facts, table.loc[:, is_order]], axis=1)


def find_distinct(rows: TokenRows) -> tuple[IntArray, IntArray]:
    """Return `representatives`, int64 `(m,)`, and `inverse`, int64 `(n,)`, of n rows.

    The representatives are one row for each distinct content, by length, then by digest. Row i has
    the content of row ``representatives[inverse[i]]``.
    """
    keys = [
        (len(row), hashlib.blake2b(row, digest_size=16).digest()) for row in _row_contents(rows)
    ]
    first = {key: position for position, key in reversed(list(enumerate(keys)))}
    ordered = sorted(first)
    place = {key: position for position, key in enumerate(ordered)}
    representatives = np.array([first[key] for key in ordered], dtype=np.int64)
    return representatives, np.array([place[key] for key in keys], dtype=np.int64)


def _row_contents(rows: TokenRows) -> Iterator[bytes]:
    for start, stop in itertools.pairwise(rows.offsets.tolist()):
        types = b"" if rows.type_ids is None else rows.type_ids[start:stop].tobytes()
        yield rows.values[start:stop].tobytes() + types


def take_rows(rows: TokenRows, indices: IntArray) -> TokenRows:
    """Return some rows, in the order of `indices`."""
    lengths = rows.lengths[indices]
    tokens = ranges(rows.offsets[indices], lengths)
    return dataclasses.replace(
        rows,
        values=rows.values[tokens],
        offsets=offsets_of(lengths),
        n_truncated=rows.n_truncated[indices],
        type_ids=None if rows.type_ids is None else rows.type_ids[tokens],
    )


@contextlib.contextmanager
def _evaluating(classifier: PairClassifier) -> Iterator[None]:
    """Put a classifier into evaluation mode without gradients, and back afterwards."""
    was_training = classifier.training
    classifier.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        classifier.train(was_training)


def _score_batch(
    classifier: PairClassifier, rows: TokenRows, batch: IntArray, layout: Layout
) -> Iterator[tuple[IntArray, Floats]]:
    """Yield rows and their logits; a batch that does not fit into memory is halved."""
    try:
        # The padding id is arbitrary: padding is masked.
        inputs = collate(rows, batch, layout=layout, pad_id=0, device=classifier.device)
        logits = classifier(inputs).double().cpu().numpy()
    except torch.OutOfMemoryError:
        if len(batch) == 1:
            raise
    else:
        yield batch, logits
        return
    for half in np.array_split(batch, 2):
        yield from _score_batch(classifier, rows, half, layout)


def _check_finite(logits: Floats, names: Sequence[object]) -> None:
    is_wrong = ~np.isfinite(logits).all(axis=1)
    if is_wrong.any():
        named = ", ".join(str(names[row]) for row in np.flatnonzero(is_wrong)[:5])
        raise NumericsError(
            f"The logits of {int(is_wrong.sum())} rows are not finite ({named}). Check the "
            "adapter, or try another dtype, such as --dtype float32."
        )
