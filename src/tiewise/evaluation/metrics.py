"""What one row contributes to a score, and the two scores that are more than a sum of rows.

Log loss, accuracy, Brier score, macro F1 and area under the curve equal scikit-learn's (a test
holds each); they stand here as sums over rows because only sums can be resampled by the thousand.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import rankdata, t

from tiewise.errors import ScoresError
from tiewise.evaluation.intervals import FloatArray, IntArray, Interval, shown_rows
from tiewise.evaluation.resampling import GroupedRows, Statistic, jackknife

N_CLASSES = 3

MAX_BINS = 15
MIN_GROUPS_PER_BIN = 10
SUM_TOLERANCE = 1e-4
"""How far a row of probabilities may be from summing to one."""


def check_labels(labels: npt.ArrayLike) -> IntArray:
    """Return `labels` as int64 (n,), each 0, 1 or 2, at least one.

    Raises
    ------
    ScoresError
        A label is missing or not 0, 1, 2; names the rows.

    Examples
    --------
    >>> check_labels([0, 2, 1])
    array([0, 2, 1])
    """
    values = np.asarray(labels)
    if values.ndim != 1 or not len(values):
        raise ScoresError(f"labels has shape {values.shape}; expected (n,) with n at least 1.")
    numbers = _as_floats(values, "labels")
    wrong = np.flatnonzero(~np.isin(numbers, (0, 1, 2)))
    if len(wrong):
        raise ScoresError(
            f"labels is not 0 (A), 1 (B) or 2 (tie) in {len(wrong)} rows, the first at "
            f"{shown_rows(wrong)} ({values[wrong[0]]!r}). Leave rows without a label out."
        )
    return numbers.astype(np.int64)


def check_probs(probs: npt.ArrayLike, n_rows: int, name: str = "probs") -> npt.NDArray[Any]:
    """Return `probs` as a floating array (n_rows, 3) that really holds probabilities.

    Nothing is renormalised: rows that do not sum to one within 1e-4 are refused.

    Raises
    ------
    ScoresError
        Wrong shape, a value that is not finite or outside [0, 1], a row that does not sum to 1.

    Examples
    --------
    >>> check_probs([[0.5, 0.25, 0.25]], 1)
    array([[0.5 , 0.25, 0.25]])
    """
    values = np.asarray(probs)
    if values.shape != (n_rows, N_CLASSES):
        raise ScoresError(
            f"{name} has shape {values.shape}; expected ({n_rows}, 3), the columns P(A), P(B), "
            "P(tie), a row per label."
        )
    if not np.issubdtype(values.dtype, np.floating):
        values = _as_floats(values, name)
    with np.errstate(invalid="ignore"):
        outside = np.flatnonzero(~((values >= 0) & (values <= 1)).all(1))
        total = values.astype(np.float64).sum(1)
        unsummed = np.flatnonzero(np.abs(total - 1) > SUM_TOLERANCE)
    if len(outside):
        raise ScoresError(
            f"{name} is not a number in [0, 1] in {len(outside)} rows, the first at "
            f"{shown_rows(outside)} ({values[outside[0]].tolist()}). "
            "Are these logits? Take their softmax."
        )
    if len(unsummed):
        raise ScoresError(
            f"{name} does not sum to 1 within {SUM_TOLERANCE} in {len(unsummed)} rows, the first "
            f"at {shown_rows(unsummed)} (sum {total[unsummed[0]]:.6g}). If rounding did that, "
            "divide each row by its sum first."
        )
    return values


def log_losses(
    labels: IntArray, probs: npt.NDArray[Any], *, eps: float | None = None
) -> FloatArray:
    """Minus the log of what each row's own class was given, clipped as scikit-learn clips.

    Parameters
    ----------
    labels, probs
        Shapes (n,) and (n, 3).
    eps
        Probabilities are clipped to [eps, 1 - eps]; that of the type of `probs` when None.

    Returns
    -------
    float64 (n,)
        In nats; at most ``-log(eps)`` of the type of `probs` (36.04 for float64, 15.94 for
        float32), so a zero at the true label costs much but not everything.

    Examples
    --------
    >>> log_losses(np.array([0]), np.array([[0.5, 0.25, 0.25]])).round(4)
    array([0.6931])
    """
    eps = np.finfo(probs.dtype).eps if eps is None else eps
    own = probs[np.arange(len(labels)), labels].astype(np.float64)
    return np.asarray(-np.log(np.clip(own, eps, 1 - eps)), dtype=np.float64)


def brier_scores(labels: IntArray, probs: npt.NDArray[Any]) -> FloatArray:
    """Sum over the three classes of the squared difference to the one-hot label: in [0, 2].

    References
    ----------
    Brier (1950), Verification of forecasts expressed in terms of probability: the original,
    multi-class form, twice the usual binary one.

    Examples
    --------
    >>> brier_scores(np.array([2]), np.array([[0.0, 0.5, 0.5]]))
    array([0.5])
    """
    one_hot = np.eye(N_CLASSES)[labels]
    return np.asarray(((probs.astype(np.float64) - one_hot) ** 2).sum(1), dtype=np.float64)


def decisive_correct(labels: IntArray, probs: npt.NDArray[Any]) -> FloatArray:
    """Whether the likelier of A and B won, P(tie) left aside; 0 for rows that are ties.

    A row with P(A) = P(B) counts one half, so knowing nothing scores 0.5.

    Examples
    --------
    >>> decisive_correct(np.array([0, 1, 2]), np.array([[0.3, 0.2, 0.5]] * 3))
    array([1., 0., 0.])
    """
    lead = np.sign(probs[:, 0].astype(np.float64) - probs[:, 1])
    won = np.where(labels == 0, 1.0, -1.0)
    return np.asarray(np.where(labels < 2, (1 + lead * won) / 2, 0.0), dtype=np.float64)


def area_components(labels: IntArray, probs: npt.NDArray[Any]) -> FloatArray:
    """Placement of each row among the rows of the other side, for each class against the rest.

    Returns
    -------
    float64 (n, 6)
        Columns 0-2: for a row of class k, the share of other rows ranked below it by P(k), half
        for equals. Columns 3-5: for a row not of class k, the share of class k ranked above it.
        The mean over the rows concerned is the area under the curve in either half.

    References
    ----------
    DeLong, DeLong and Clarke-Pearson (1988), Biometrics 44, 837-845. Obuchowski (1997), Biometrics
    53, 567-578 (clustered rows).
    """
    components = np.zeros((len(labels), 2 * N_CLASSES))
    for k in range(N_CLASSES):
        inside = labels == k
        n_inside, n_outside = inside.sum(), (~inside).sum()
        rank, own_rank = rankdata(probs[:, k]), np.zeros(len(labels))
        for side in (inside, ~inside):
            own_rank[side] = rankdata(probs[side, k])
        below = rank - own_rank
        components[inside, k] = below[inside] / max(n_outside, 1)
        components[~inside, N_CLASSES + k] = 1 - below[~inside] / max(n_inside, 1)
    return components


def confidence_bins(confidence: npt.NDArray[Any], n_bins: int) -> IntArray:
    """Give each row the number of its bin; bins have equal mass, equals stay together.

    Examples
    --------
    >>> confidence_bins(np.array([0.4, 0.9, 0.5, 0.4]), 2)
    array([0, 1, 1, 0])
    """
    edges = np.unique(np.quantile(confidence, np.arange(1, n_bins) / n_bins))
    return np.searchsorted(edges, confidence, side="right").astype(np.int64)


def calibration_error(
    labels: IntArray, probs: npt.NDArray[Any], grouped: GroupedRows, confidence_level: float
) -> Interval:
    """Root mean square gap between the confidence in the likeliest class and how often it is right.

    Rows fall into bins of equal mass by confidence (15 of them, fewer where there are fewer than
    150 groups). From each bin's squared gap its sampling variance is taken, clustered by group, so
    that a calibrated model is not charged for the noise of its bins; what is left below zero is
    zero. The interval is a jackknife one over groups with Student's t, on the square.

    Returns
    -------
    Interval
        In [0, 1]; not defined for a single group.

    References
    ----------
    Kumar, Liang and Ma (2019), Verified uncertainty calibration, section 5 (the debiased
    estimator). Roelofs et al. (2022), Mitigating bias in calibration error estimation (equal mass).
    """
    if grouped.n_groups < 2:
        return Interval(math.nan, math.nan, math.nan)
    confidence, right = probs.max(1).astype(np.float64), probs.argmax(1) == labels
    n_bins = min(MAX_BINS, max(2, grouped.n_groups // MIN_GROUPS_PER_BIN))
    member = np.eye(n_bins)[confidence_bins(confidence, n_bins)]
    sums = grouped.sums(np.hstack([member, member * (confidence - right)[:, None]]))
    noise = _bin_noise(sums)
    statistic = _squared_gap(noise)
    value = statistic(sums.sum(0))[0]
    # The jackknife is blind to the noise of a squared gap where the gap happens to be about zero,
    # and counts it twice elsewhere; one share of it covers best (benchmarks/coverage.md).
    error = math.hypot(jackknife(sums, statistic)[1][0], np.linalg.norm(noise))
    half = t.ppf((1 + confidence_level) / 2, grouped.n_groups - 1) * error
    return Interval(*(math.sqrt(max(0.0, end)) for end in (value, value - half, value + half)))


def _bin_noise(sums: FloatArray) -> FloatArray:
    """Part of each bin in the mean squared gap that is sampling noise, clustered by group."""
    counts, gaps = np.split(sums, 2, axis=1)
    n_groups, total = len(sums), np.maximum(counts.sum(0), 1)
    residual = gaps - counts * gaps.sum(0) / total
    variance = (residual**2).sum(0) / total**2 * n_groups / (n_groups - 1)
    return np.asarray(variance * counts.sum(0) / counts.sum())


def _squared_gap(noise: FloatArray) -> Statistic:
    """Mean squared gap over bins less its noise, as a function of totals (counts, then gaps)."""

    def statistic(totals: FloatArray) -> FloatArray:
        counts, gaps = np.split(totals, 2, axis=-1)
        squared = (gaps**2 / np.maximum(counts, 1)).sum(-1, keepdims=True)
        return np.asarray(squared / counts.sum(-1, keepdims=True) - noise.sum())

    return statistic


def _as_floats(values: npt.NDArray[Any], name: str) -> FloatArray:
    """Numbers as float64, what is missing as NaN; text is refused."""
    try:
        if values.dtype == object:
            values = (
                pd.array(values.ravel()).to_numpy(np.float64, na_value=np.nan).reshape(values.shape)
            )
        if values.dtype.kind not in "biuf":
            raise TypeError
        return values.astype(np.float64)
    except (TypeError, ValueError):
        raise ScoresError(f"{name} holds something that is not a number.") from None
