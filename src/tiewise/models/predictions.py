"""Turn the logits of rows of tokens into predictions of pairs; without torch.

A judge that scores rows of tokens elsewhere, such as on a server, needs nothing of torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd

from tiewise.data.pairs import is_degenerate
from tiewise.errors import NumericsError
from tiewise.evaluation.position import tabulate_both_orders, tabulate_one_order
from tiewise.tokens.rows import TokenRows, token_rows
from tiewise.tokens.template import Template
from tiewise.tokens.tokenizer import TextTokenizer

Floats = npt.NDArray[np.float64]


class ScoreRows(Protocol):
    """A function that returns the logits of n rows of tokens, float64 `(n, 3)` of A, B, tie."""

    def __call__(self, rows: TokenRows, *, names: Sequence[object]) -> Floats:
        """Score the rows; `names` are those of the rows in error messages."""
        ...


def tabulate_pairs(
    score: ScoreRows,
    pairs: pd.DataFrame,
    tokenizer: TextTokenizer,
    template: Template,
    *,
    both_orders: bool = True,
    cache_dir: Path | str | None = None,
) -> pd.DataFrame:
    """Predict the winner of each pair, in the order of the table; labels are not read.

    Returns ``id``, ``prob_*``, ``logit_*`` (with both orders the logarithm of the averaged
    probabilities), ``n_tokens``, ``n_truncated``, ``is_degenerate``; when `both_orders`, both
    are scored and averaged, with ``prob_*_given`` and ``prob_*_swapped``, the latter mapped back to
    the original A and B. No tokens are cached when `cache_dir` is None.
    """
    given = token_rows(pairs, tokenizer, template, cache_dir=cache_dir)
    names = [f"id={name}" for name in pairs["id"]]
    if both_orders:
        swapped = token_rows(pairs, tokenizer, template, cache_dir=cache_dir, is_swapped=True)
        logits = score(TokenRows.concatenate([given, swapped]), names=names * 2)
        table = tabulate_both_orders(logits[: len(pairs)], logits[len(pairs) :])
    else:
        table = tabulate_one_order(score(given, names=names))
    is_order = table.columns.str.endswith(("_given", "_swapped"))
    facts = pd.DataFrame({"n_tokens": given.lengths, "n_truncated": given.n_truncated})
    facts["is_degenerate"] = is_degenerate(pairs)
    ids = pairs["id"].reset_index(drop=True)
    return pd.concat([ids, table.loc[:, ~is_order], facts, table.loc[:, is_order]], axis=1)


def check_finite(logits: Floats, names: Sequence[object]) -> Floats:
    """Return the logits of named rows; NumericsError if some are not finite."""
    is_wrong = ~np.isfinite(logits).all(axis=1)
    if is_wrong.any():
        named = ", ".join(str(names[row]) for row in np.flatnonzero(is_wrong)[:5])
        raise NumericsError(
            f"The logits of {int(is_wrong.sum())} rows are not finite ({named}). Check the "
            "adapter, or try another dtype, such as --dtype float32."
        )
    return logits
