"""Probabilities for rows and pairs, whatever the batch, the file's order or the pair's order.

What is equal to what:

- Equal rows are scored once, and which rows share a forward pass follows from the rows' contents
  alone (:mod:`tiewise.models.dedup`). So shuffling a file, repeating a row or swapping
  pairs changes no bit of what is scored in one call, and `p(swap(pair)) == swap(p(pair))` holds
  exactly when both orders are averaged.
- Another set of rows, another token budget or layout gives a row other batch-mates, and with them
  other last bits. With a budget of one token every row goes alone, and not even those change.

A leaf: imports torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tiewise.data.table import is_degenerate
from tiewise.errors import NumericsError
from tiewise.evaluation.swap_averaging import tabulate_both_orders, tabulate_one_order
from tiewise.models.batching import (
    Floats,
    Layout,
    choose_layout,
    evaluating,
    plan_passes,
    score_batch,
)
from tiewise.models.dedup import find_distinct, take_rows
from tiewise.models.model import PairClassifier
from tiewise.progress import progress_bar
from tiewise.tokens.rows import TokenRows, token_rows
from tiewise.tokens.template import Template
from tiewise.tokens.tokenizer import TextTokenizer


def score_rows(
    classifier: PairClassifier,
    rows: TokenRows,
    *,
    layout: Layout = "auto",
    batch_tokens: int = 16_384,
    names: Sequence[object] | None = None,
) -> Floats:
    """Score rows of tokens.

    Parameters
    ----------
    classifier
        The classifier; it is put into evaluation mode for the time being.
    rows
        Token rows, n of them.
    layout
        How rows share a forward pass; `auto` is `packed` where the backbone can, else `sorted`.
    batch_tokens
        Most tokens of a forward pass, padding included. A longer row goes alone.
    names
        What a message calls each row, shape (n,); its position when None.

    Returns
    -------
    float64 array, shape (n, 3)
        Logits of A, B, tie, in the order of `rows`.

    Raises
    ------
    NumericsError
        When a logit is not finite; the rows are named.
    ConfigError
        When the layout is not known.
    """
    representatives, inverse = find_distinct(rows)
    distinct = take_rows(rows, representatives)
    chosen = choose_layout(classifier, layout)
    logits = np.empty((len(distinct), 3))
    with evaluating(classifier), _progress(int(distinct.lengths.sum())) as bar:
        for batch in plan_passes(distinct, chosen, batch_tokens):
            for part, values in score_batch(classifier, distinct, batch, chosen):
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
    """Predict who wins each pair.

    Parameters
    ----------
    classifier
        The classifier.
    pairs
        A pairs table of n rows; labels are not looked at.
    tokenizer, template
        Those the classifier was trained with.
    is_swapped
        Score both orders of each pair and average their probabilities.
    cache_dir
        Where tokens are cached; not at all when None.
    **options
        `layout`, `batch_tokens` of :func:`score_rows`.

    Returns
    -------
    DataFrame
        A line per pair, in their order: ``id``, ``prob_*``, ``logit_*`` (of both orders averaged:
        the logarithm of the probabilities), ``n_tokens``, ``n_truncated``, ``is_degenerate``; and
        with `is_swapped` ``prob_*_given`` and ``prob_*_swapped``, the latter in the pair's own A
        and B.

    Raises
    ------
    NumericsError
        When a logit is not finite; the pairs are named.
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


def _progress(n_tokens: int) -> Any:
    """Return a bar on standard error: silent in pipes, and for what is done in two seconds."""
    return progress_bar(
        n_tokens, name="scoring", unit="token", unit_scale=True, delay=2, leave=False
    )


def _check_finite(logits: Floats, names: Sequence[object]) -> None:
    is_wrong = ~np.isfinite(logits).all(axis=1)
    if is_wrong.any():
        named = ", ".join(str(names[row]) for row in np.flatnonzero(is_wrong)[:5])
        raise NumericsError(
            f"The logits of {int(is_wrong.sum())} rows are not finite ({named}). The adapter may "
            "be damaged, or the backbone needs another dtype: try --dtype float32."
        )
