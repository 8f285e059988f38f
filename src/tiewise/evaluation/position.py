"""Does a model prefer what it reads first? Measured on pairs scored in both orders.

Throughout, `probs_of_swapped` is what the model says of the swapped pair as it stands: its column 0
belongs to the answer shown first there, which is B of the pair itself. A model that does not care
about the order has ``probs_of_swapped == swap_probs(probs)``.
"""

from __future__ import annotations

import html
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from tiewise.data.labels import swap_probs
from tiewise.evaluation.intervals import FloatArray, Interval, check_confidence
from tiewise.evaluation.metrics import check_probs
from tiewise.evaluation.resampling import bootstrap, group_rows, mean_of_sums


@dataclass(frozen=True)
class PositionBias:
    """What the order of the answers does to the predictions, before and after averaging orders."""

    bias_before: Interval
    """Signed: P(first shown wins) - P(second shown wins), averaged over both orders."""

    bias_after: Interval
    """The same of the average of both orders: zero, unless something is wrong."""

    flip_rate_before: Interval
    """Share of rows whose likeliest class changes with the order."""

    flip_rate_after: Interval
    """The same of the average of both orders."""

    def to_dict(self) -> dict[str, dict[str, float | None]]:
        """Return every interval for JSON."""
        return {field.name: getattr(self, field.name).to_dict() for field in fields(self)}

    def __str__(self) -> str:
        named = [(field.name, getattr(self, field.name)) for field in fields(self)]
        return "\n".join(f"{name.replace('_', ' '):18}{value:.4f}" for name, value in named)

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(str(self))}</pre>"


def flip_rate(probs: npt.ArrayLike, probs_of_swapped: npt.ArrayLike) -> float:
    """Return the share of rows whose likeliest class changes with the order of the answers.

    Parameters
    ----------
    probs
        P(A), P(B), P(tie) of the pairs, (n, 3).
    probs_of_swapped
        The same model's output for the swapped pairs, (n, 3), columns as shown there.

    Raises
    ------
    ScoresError
        Either is not an array of probabilities, or the shapes differ.

    Examples
    --------
    >>> flip_rate([[0.5, 0.3, 0.2]], [[0.5, 0.3, 0.2]])  # always the first shown
    1.0
    >>> flip_rate([[0.5, 0.3, 0.2]], [[0.3, 0.5, 0.2]])  # always the same answer
    0.0
    """
    given, swapped = _both_orders(probs, probs_of_swapped)
    return float(_flips(given, swapped).mean())


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
        In [-1, 1]. Above zero: the answer shown first is preferred.

    Examples
    --------
    >>> first = [[0.5, 0.3, 0.2]] * 40
    >>> f"{position_bias(first, first):.2f}", f"{position_bias(first, [[0.3, 0.5, 0.2]] * 40):.2f}"
    ('0.20 [0.20, 0.20]', '0.00 [0.00, 0.00]')
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
    confidence_level: float = 0.95,
    n_resamples: int = 999,
    seed: int = 0,
) -> PositionBias:
    """Measure bias and flip rate of one order, and of the average of both.

    Parameters
    ----------
    probs, probs_of_swapped
        As in :func:`flip_rate`.
    groups, confidence_level, n_resamples, seed
        As in :func:`tiewise.evaluate`.

    Examples
    --------
    >>> first = [[0.5, 0.3, 0.2]] * 40
    >>> print(measure_position_bias(first, first))
    bias before       0.2000 [0.2000, 0.2000]
    bias after        0.0000 [0.0000, 0.0000]
    flip rate before  1.0000 [1.0000, 1.0000]
    flip rate after   0.0000 [0.0000, 0.0000]
    """
    check_confidence(confidence_level)
    given, swapped = _both_orders(probs, probs_of_swapped)
    average, average_of_swapped = _average(given, swapped), _average(swapped, given)
    terms = [
        _leads(given, swapped),
        _leads(average, average_of_swapped),
        _flips(given, swapped),
        _flips(average, average_of_swapped),
    ]
    grouped = group_rows(groups, given, swapped)
    sums = grouped.sums(np.column_stack([*terms, np.ones(len(given))]))
    drawn = bootstrap(sums, mean_of_sums, n_resamples=n_resamples, seed=seed)
    return PositionBias(*drawn.intervals(confidence_level))


def _both_orders(
    probs: npt.ArrayLike, probs_of_swapped: npt.ArrayLike
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    given = check_probs(probs, len(np.atleast_1d(np.asarray(probs, dtype=object))))
    return given, check_probs(probs_of_swapped, len(given), "probs_of_swapped")


def _average(probs: npt.NDArray[Any], probs_of_swapped: npt.NDArray[Any]) -> FloatArray:
    return np.asarray((probs + swap_probs(probs_of_swapped)) / 2, dtype=np.float64)


def _leads(given: npt.NDArray[Any], swapped: npt.NDArray[Any]) -> FloatArray:
    # In this order of operations, outputs that are only permuted cancel to exactly zero.
    lead = ((given[:, 0] - given[:, 1]) - (swapped[:, 1] - swapped[:, 0])) / 2
    return np.asarray(lead, dtype=np.float64)


def _flips(given: npt.NDArray[Any], swapped: npt.NDArray[Any]) -> FloatArray:
    flips = given.argmax(1) != swap_probs(swapped).argmax(1)
    return np.asarray(flips, dtype=np.float64)
