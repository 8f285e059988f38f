"""What a second pass over the swapped pairs is worth where it is made only of close calls.

Scoring every pair in both orders costs twice as much as scoring one. `--swap-when 0.8` scores the
second order only of rows whose second largest probability is at least 0.8 of the largest. Rows
that were scored in both orders anyway, such as the held-out rows of a run, say beforehand what
that saves and what it loses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from tiewise.errors import ScoresError
from tiewise.evaluation.intervals import FloatArray, Interval, check_confidence
from tiewise.evaluation.metrics import check_labels, log_losses
from tiewise.evaluation.orders import is_close
from tiewise.evaluation.resampling import bootstrap, group_rows, mean_of_sums
from tiewise.pairs.labels import PROB_COLUMNS

SHARES = (0.9, 0.8, 0.6, 0.4)


@dataclass(frozen=True)
class SecondOrders:
    """What one value of ``--swap-when`` would have cost and changed."""

    swap_when: float
    """A row is scored a second time from this ratio of its two largest probabilities on."""

    swapped_share: float
    """Share of rows scored a second time, in [0, 1]."""

    token_share: float
    """The cost: tokens scored over those of one order of every row, in [1, 2]."""

    change: Interval
    """Mean log loss minus that of both orders of every row."""

    def to_dict(self) -> dict[str, Any]:
        """Return everything for JSON."""
        return {**vars(self), "change": self.change.to_dict()}

    def __str__(self) -> str:
        return (
            f"--swap-when {self.swap_when:g}: {self.swapped_share:.0%} of rows in both orders, "
            f"{self.token_share:.2f} times the tokens of one order, log loss {self.change:+.4f}"
        )


def weigh_second_orders(
    table: pd.DataFrame,
    labels: npt.ArrayLike,
    *,
    shares: Sequence[float] = SHARES,
    groups: npt.ArrayLike | None = None,
    confidence_level: float = 0.95,
    n_resamples: int = 999,
    seed: int = 0,
) -> list[SecondOrders]:
    """Say what scoring only close rows a second time would cost and change.

    Parameters
    ----------
    table
        Predictions of n rows, each scored in both orders, with ``n_tokens``. The first order is
        the one given.
    labels
        0, 1, 2 for A, B, tie, shape (n,).
    shares
        Values of ``--swap-when``, each in [0, 1].
    groups, confidence_level, n_resamples, seed
        As in :func:`tiewise.evaluate`.

    Raises
    ------
    ScoresError
        When a row was scored in one order only, or the labels are no labels.

    Examples
    --------
    >>> probs = {"prob_a": [0.5], "prob_b": [0.25], "prob_tie": [0.25]}
    >>> table = pd.DataFrame(probs | {"n_tokens": [7]})
    >>> for order in ("given", "swapped"):
    ...     table = table.assign(**{f"{name}_{order}": value for name, value in probs.items()})
    >>> [found] = weigh_second_orders(table, [0], shares=[0.4])
    >>> found.swapped_share, found.token_share, found.change.value
    (1.0, 2.0, 0.0)
    """
    check_confidence(confidence_level)
    given, both = (_probs(table, suffix) for suffix in ("_given", ""))
    if np.isnan(given + _probs(table, "_swapped")).any():
        raise ScoresError(
            "Some rows were scored in one order only; predict them without swap_when."
        )
    known = check_labels(labels)
    lost = log_losses(known, given) - log_losses(known, both)
    second = np.column_stack([is_close(_logarithms(given), share) for share in shares])
    changes = np.where(second, 0.0, lost[:, None])
    sums = group_rows(groups, given, both, known).sums(
        np.column_stack([changes, np.ones(len(known))])
    )
    drawn = bootstrap(sums, mean_of_sums, n_resamples=n_resamples, seed=seed)
    n_tokens = table["n_tokens"].to_numpy(np.float64)
    costs = 1 + n_tokens @ second / n_tokens.sum()
    columns = zip(
        shares, second.mean(axis=0), costs, drawn.intervals(confidence_level), strict=True
    )
    return [
        SecondOrders(share, float(n), float(cost), change) for share, n, cost, change in columns
    ]


def has_both_orders(table: pd.DataFrame) -> bool:
    """Tell whether every row of a table of predictions was scored in both orders."""
    columns = [f"{name}_{order}" for name in PROB_COLUMNS for order in ("given", "swapped")]
    is_there = {*columns, "n_tokens"} <= set(table)
    return is_there and len(table) > 0 and bool(table[columns].notna().all(axis=None))


def _probs(table: pd.DataFrame, suffix: str) -> FloatArray:
    return table[[f"{name}{suffix}" for name in PROB_COLUMNS]].to_numpy(np.float64)


def _logarithms(probs: FloatArray) -> FloatArray:
    return np.log(np.maximum(probs, np.finfo(np.float64).tiny))
