"""Score pairs with a classifier, without gradients and independent of the order of the rows.

- Equal rows are scored once, and the rows of a forward pass follow from the rows' contents alone
  (:mod:`tiewise.models.dedup`). Shuffling a file, repeating a row or swapping pairs therefore
  changes no bit of what one call returns, and `p(swap(pair)) == swap(p(pair))` holds exactly when
  both orders are averaged.
- Another set of rows, token budget or layout puts other rows into the same forward pass, which can
  change the last bits. With a budget of one token every row is scored alone, and nothing does.
"""

from __future__ import annotations

import contextlib
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
from tiewise.models.dedup import find_distinct, take_rows
from tiewise.models.model import PairClassifier
from tiewise.tokens.batches import Layout, plan_batches
from tiewise.tokens.rows import TokenRows, token_rows
from tiewise.tokens.template import Template
from tiewise.tokens.tokenizer import TextTokenizer

Floats = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


def score_rows(
    classifier: PairClassifier,
    rows: TokenRows,
    *,
    layout: Layout | Literal["auto"] = "auto",
    batch_tokens: int = 16_384,
    names: Sequence[object] | None = None,
) -> Floats:
    """Score rows of tokens.

    Parameters
    ----------
    classifier
        The classifier; it is in evaluation mode during the call.
    rows
        n rows of tokens.
    layout
        Layout of a forward pass; `auto` is `packed` where the backbone can, otherwise `sorted`.
    batch_tokens
        Most tokens of a forward pass, padding included. A longer row is scored alone.
    names
        Name of each row in messages, shape (n,); its position when None.

    Returns
    -------
    float64 array, shape (n, 3)
        Logits of A, B, tie, in the order of `rows`.

    Raises
    ------
    NumericsError
        When a logit is not finite; the message names the rows.
    ConfigError
        When the layout is not known.
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
    is_swapped: bool = True,
    cache_dir: Path | str | None = None,
    **options: Any,
) -> pd.DataFrame:
    """Predict the winner of each pair.

    Parameters
    ----------
    classifier
        The classifier.
    pairs
        A pairs table of n rows; labels are not read.
    tokenizer, template
        Those that the classifier was trained with.
    is_swapped
        Score both orders of each pair and average their probabilities.
    cache_dir
        Folder of cached tokens; no cache when None.
    **options
        `layout` and `batch_tokens` of :func:`score_rows`.

    Returns
    -------
    DataFrame
        One row per pair, in the same order: ``id``, ``prob_*``, ``logit_*`` (with both orders the
        logarithm of the averaged probabilities), ``n_tokens``, ``n_truncated``, ``is_degenerate``;
        with `is_swapped` also ``prob_*_given`` and ``prob_*_swapped``, the latter in the pair's
        own A and B.

    Raises
    ------
    NumericsError
        When a logit is not finite; the message names the pairs.
    """
    given = token_rows(pairs, tokenizer, template, cache_dir=cache_dir)
    names = [f"id={name}" for name in pairs["id"]]
    if is_swapped:
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
