"""Both orders of a pair: averaging them, averaging folds, and measuring position bias.

Averaging commutes with the swap of A and B bit for bit, because every sum over the three classes
adds A and B first. For position bias, `probs_of_swapped` is the output for the swapped pair: its
column 0 belongs to the response shown first there, which is B of the pair. A model without position
bias has ``probs_of_swapped == swap_probs(probs)``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Unpack

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import log_softmax

from tiewise.data.labels import LOGIT_COLUMNS, PROB_COLUMNS, swap_probs
from tiewise.errors import PairsError
from tiewise.evaluation.intervals import (
    BootstrapOptions,
    FloatArray,
    Interval,
    Result,
    bootstrap,
    group_rows,
    mean_of_sums,
)
from tiewise.evaluation.metrics import check_probs


def tabulate_one_order(logits: FloatArray) -> pd.DataFrame:
    """Return the columns ``prob_*`` and ``logit_*`` from the logits (n, 3) of one order."""
    probs = np.exp(log_softmax(logits, axis=1))
    return pd.DataFrame(np.hstack([probs, logits]), columns=PROB_COLUMNS + LOGIT_COLUMNS)


def tabulate_both_orders(given: FloatArray, swapped: FloatArray) -> pd.DataFrame:
    """Average the logits (n, 3) of pairs and of swapped pairs, each in its own order of A and B.

    Returns n rows: ``prob_*``, the mean of both orders; ``logit_*``, its logarithm;
    ``prob_*_given`` and ``prob_*_swapped``, each order, in A and B of the pair.

    >>> table = tabulate_both_orders(np.log([[0.5, 0.25, 0.25]]), np.log([[0.5, 0.25, 0.25]]))
    >>> table.filter(regex="prob_(a|b|tie)$").round(3).values.tolist()
    [[0.375, 0.375, 0.25]]
    """
    orders = log_softmax(given, axis=1), swap_probs(log_softmax(swapped, axis=1))
    probs = [np.exp(order) for order in orders]
    columns = [f"{name}_{order}" for order in ("given", "swapped") for name in PROB_COLUMNS]
    return pd.DataFrame(
        np.hstack([(probs[0] + probs[1]) / 2, np.logaddexp(*orders) - np.log(2), *probs]),
        columns=PROB_COLUMNS + LOGIT_COLUMNS + columns,
    )


def average_folds(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Average the predictions of several models for the same pairs in the same order.

    One table is returned as it is. Of several, probabilities are means, ``logit_*`` is the
    logarithm of the mean, and the other columns are those of the first table.
    """
    if not tables:
        raise PairsError("there is no prediction to average; expected at least one finished fold.")
    first = tables[0]
    if any(not table["id"].equals(first["id"]) for table in tables):
        raise PairsError("the predictions to average are of different pairs; expected equal ids.")
    if len(tables) == 1:
        return first
    averaged = first.copy()
    for name in first.columns[first.columns.str.startswith("prob_")]:
        averaged[name] = np.mean([table[name].to_numpy() for table in tables], axis=0)
    log_probs = [log_softmax(table[LOGIT_COLUMNS].to_numpy(), axis=1) for table in tables]
    averaged[LOGIT_COLUMNS] = np.logaddexp.reduce(log_probs, axis=0) - np.log(len(tables))
    return averaged


@dataclass(frozen=True)
class PositionBias(Result):
    """Effect of the order of the responses, before and after averaging both orders."""

    bias_before: Interval
    """P(first shown wins) - P(second shown wins), averaged over both orders."""

    bias_after: Interval
    """The same for the average of both orders: zero."""

    flip_rate_before: Interval
    flip_rate_after: Interval
    """Share of rows whose most probable class changes with the order."""

    def __str__(self) -> str:
        return (
            f"{'position bias':22}{self.bias_before:.4f}    "
            "P(first shown wins) - P(second shown wins)\n"
            f"{'flip rate':22}{self.flip_rate_before:.4f}    "
            "pairs that change their outcome with the order"
        )


def flip_rate(probs: npt.ArrayLike, probs_of_swapped: npt.ArrayLike) -> float:
    """Return the share of rows whose most probable class changes with the order of the responses.

    Parameters
    ----------
    probs
        P(A), P(B), P(tie) of the pairs, (n, 3).
    probs_of_swapped
        Output of the same model for the swapped pairs, (n, 3), in their own order of A and B.

    Returns
    -------
    float
        In [0, 1]; 0 without position bias.

    Raises
    ------
    ScoresError
        Either is not an array of probabilities, or the shapes differ.

    Examples
    --------
    >>> flip_rate([[0.5, 0.3, 0.2]], [[0.5, 0.3, 0.2]])  # always the response shown first
    1.0
    >>> flip_rate([[0.5, 0.3, 0.2]], [[0.3, 0.5, 0.2]])  # always the same response
    0.0
    """
    return float(_flips(*_both_orders(probs, probs_of_swapped)).mean())


def position_bias(
    probs: npt.ArrayLike,
    probs_of_swapped: npt.ArrayLike,
    *,
    groups: npt.ArrayLike | None = None,
    confidence_level: float = 0.95,
    n_resamples: int = 999,
    seed: int = 0,
) -> Interval:
    """Return the mean of P(first shown wins) - P(second shown wins) over both orders.

    Parameters
    ----------
    probs, probs_of_swapped
        As in :func:`flip_rate`.
    groups, confidence_level, n_resamples, seed
        As in :func:`tiewise.evaluate`.

    Returns
    -------
    Interval
        In [-1, 1]; above 0 the response that is shown first is favoured.

    Raises
    ------
    ScoresError
        As in :func:`flip_rate`.

    Examples
    --------
    >>> always_first = [[0.5, 0.25, 0.25]] * 40
    >>> f"{position_bias(always_first, always_first):.2f}"
    '0.25 [0.25, 0.25]'
    """
    return measure_position_bias(
        probs,
        probs_of_swapped,
        groups=groups,
        confidence_level=confidence_level,
        n_resamples=n_resamples,
        seed=seed,
    ).bias_before


def measure_position_bias(
    probs: npt.ArrayLike,
    probs_of_swapped: npt.ArrayLike,
    *,
    groups: npt.ArrayLike | None = None,
    **options: Unpack[BootstrapOptions],
) -> PositionBias:
    """Measure bias and flip rate of one order and of the average of both.

    >>> first = [[0.5, 0.3, 0.2]] * 40
    >>> print(str(measure_position_bias(first, first)).splitlines()[0])
    position bias         0.2000 [0.2000, 0.2000]    P(first shown wins) - P(second shown wins)
    """
    given, swapped = _both_orders(probs, probs_of_swapped)
    before = given, swapped
    after = (given + swap_probs(swapped)) / 2, (swapped + swap_probs(given)) / 2
    terms = [measure(*orders) for measure in (lead_of_first, _flips) for orders in (before, after)]
    grouped = group_rows(groups, given, swapped)
    sums = grouped.sums(np.column_stack([*terms, np.ones(len(given))]))
    drawn = bootstrap(sums, mean_of_sums, **options)
    found = [interval.clip(-1, 1) for interval in drawn.intervals()]
    # The rate after averaging is zero by construction, whatever the rows, so it keeps no width.
    found[2] = drawn.share_intervals(np.repeat(sums[:, -1:], len(terms), axis=1))[2]
    return PositionBias(*found)


def _both_orders(
    probs: npt.ArrayLike, probs_of_swapped: npt.ArrayLike
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    given = check_probs(probs, len(np.atleast_1d(np.asarray(probs, dtype=object))))
    return given, check_probs(probs_of_swapped, len(given), "probs_of_swapped")


def lead_of_first(given: npt.NDArray[Any], swapped: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return P(first shown wins) - P(second shown wins) of each pair, averaged over both orders.

    Both are probabilities (n, 3), each in its own order of A and B; the result is (n,), in [-1, 1].

    >>> lead_of_first(np.array([[0.5, 0.25, 0.25]]), np.array([[0.75, 0.0, 0.25]]))
    array([0.5])
    """
    # In this order of operations, outputs that are only permuted cancel to exactly zero.
    return np.asarray(((given[:, 0] - given[:, 1]) - (swapped[:, 1] - swapped[:, 0])) / 2)


def _flips(given: npt.NDArray[Any], swapped: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return np.asarray(given.argmax(1) != swap_probs(swapped).argmax(1))
