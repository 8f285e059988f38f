"""Score pairs with a classifier, without gradients and independent of the order of the rows.

Floating-point sums depend on which rows share a forward pass. So equal rows are scored once, and
rows are batched by length and content: shuffling a file, repeating a row or swapping pairs changes
no bit, and `p(swap(pair)) == swap(p(pair))` holds exactly when both orders are averaged. Another
set of rows, token budget or layout can change the last bits, unless each row is scored alone.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from tiewise.console import progress_bar
from tiewise.models.attention import collate
from tiewise.models.model import PairClassifier
from tiewise.models.predictions import check_finite, tabulate_pairs
from tiewise.tokens.batches import Layout, plan_batches
from tiewise.tokens.ragged import IntArray
from tiewise.tokens.rows import TokenRows, find_distinct, take_rows
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
    return check_finite(logits[inverse], range(len(rows)) if names is None else names)


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
    """Predict the winner of each pair; see :func:`tiewise.models.predictions.tabulate_pairs`.

    `options` are `layout` and `batch_tokens` of :func:`score_rows`.
    """
    score = functools.partial(score_rows, classifier, **options)
    return tabulate_pairs(
        score, pairs, tokenizer, template, both_orders=both_orders, cache_dir=cache_dir
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
