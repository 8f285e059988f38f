"""Metrics of single rows, calibration errors, and checks of labels and probabilities.

A metric is a sum over rows wherever possible, because sums can be resampled thousands of times.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import rankdata, t

from tiewise.data.class_columns import read_columns
from tiewise.data.ids import id_key
from tiewise.errors import ScoresError
from tiewise.evaluation.intervals import (
    FloatArray,
    GroupedRows,
    IntArray,
    Interval,
    jackknife,
    list_rows,
)

N_CLASSES = 3

Metric = Literal["log_loss", "accuracy", "brier", "decisive_accuracy"]

MAX_BINS = 15
MIN_GROUPS_PER_BIN = 10
SUM_TOLERANCE = 1e-4
"""Largest accepted difference between the sum of a row of probabilities and one."""


def check_labels(labels: npt.ArrayLike) -> IntArray:
    """Return `labels` as int64 (n,), each 0, 1 or 2, with n at least 1, or raise ScoresError."""
    values = np.asarray(labels)
    if values.ndim != 1 or not len(values):
        raise ScoresError(f"labels has shape {values.shape}; expected (n,) with n at least 1.")
    numbers = _as_floats(values, "labels")
    wrong = np.flatnonzero(~np.isin(numbers, (0, 1, 2)))
    if len(wrong):
        raise ScoresError(
            f"labels is not 0 (A), 1 (B) or 2 (tie) in {len(wrong)} rows, the first at "
            f"{list_rows(wrong)} ({values[wrong[0]]!r}). Leave out rows without a label."
        )
    return numbers.astype(np.int64)


def check_probs(
    probs: npt.ArrayLike | pd.DataFrame, n_rows: int, name: str = "probs"
) -> npt.NDArray[Any]:
    """Return `probs` as floating-point probabilities (n_rows, 3), or raise ScoresError.

    They are not renormalised. Every row must sum to one within 1e-4, or the precision of float16;
    the message names the rows. The columns of a table are found by name.
    """
    values = read_columns(probs, name)
    if values.shape != (n_rows, N_CLASSES):
        raise ScoresError(
            f"{name} has shape {values.shape}; expected ({n_rows}, 3), the columns P(A), P(B), "
            "P(tie), one row per label."
        )
    if not np.issubdtype(values.dtype, np.floating):
        values = _as_floats(values, name)
    with np.errstate(invalid="ignore"):
        outside = np.flatnonzero(~((values >= 0) & (values <= 1)).all(1))
        total = values.astype(np.float64).sum(1)
        tolerance = max(SUM_TOLERANCE, float(np.finfo(values.dtype).eps))
        unsummed = np.flatnonzero(np.abs(total - 1) > tolerance)
    if len(outside):
        raise ScoresError(
            f"{name} is not a number in [0, 1] in {len(outside)} rows, the first at "
            f"{list_rows(outside)} ({values[outside[0]].tolist()}). "
            "If these are logits, take their softmax."
        )
    if len(unsummed):
        raise ScoresError(
            f"{name} does not sum to 1 within {tolerance:.2g} in {len(unsummed)} rows, the first "
            f"at {list_rows(unsummed)} (sum {total[unsummed[0]]:.6g}). If the probabilities were "
            "rounded: normalize=True (command line: --normalize) divides each row by its sum."
        )
    return values


def normalize_probs(probs: npt.ArrayLike | pd.DataFrame, name: str = "probs") -> FloatArray:
    """Return `probs`, (n, 3), with each row divided by its sum; ScoresError where that is not > 0.

    >>> normalize_probs([[0.33, 0.33, 0.33], [1, 0, 1]]).tolist()[1]
    [0.5, 0.0, 0.5]
    """
    values = read_columns(probs, name)
    numbers = _as_floats(values, name)
    with np.errstate(invalid="ignore"):
        totals = numbers.sum(axis=-1, keepdims=True)
        wrong = np.flatnonzero(~((numbers >= 0).all(axis=-1) & (totals[..., 0] > 0)))
    if len(wrong):
        raise ScoresError(
            f"{name} cannot be normalised in {len(wrong)} rows, the first at {list_rows(wrong)} "
            f"({values[wrong[0]].tolist()}); expected numbers of 0 or more that are not all 0."
        )
    return np.asarray(numbers / totals)


def are_verdicts(probs: npt.NDArray[Any]) -> bool:
    """Return whether probabilities are words for winners: 0 and 1, or the means of two of them.

    >>> [are_verdicts(np.array(row)) for row in ([[1.0, 0, 0], [0.5, 0, 0.5]], [[0.5, 0.5, 0]])]
    [True, False]
    """
    return bool(np.isin(probs, (0, 0.5, 1)).all() and (probs == 1).any())


def find_ids(
    wanted: pd.Series, ids: pd.Series, *, name: str, allow_missing: bool = False
) -> IntArray:
    """Return the position of each of the `wanted` ids in `ids`: int64 (n,).

    Ids are compared as text or, where some are missing then, as integers: 1, "1" and 1.0 are equal.
    Raises ScoresError if an id repeats in `ids`, a column of the table called `name`, or is missing
    there; with `allow_missing` its position is -1.
    """
    index, searched = pd.Index(ids.astype(str)), pd.Index(wanted.astype(str))
    if not searched.isin(index).all():
        index, searched = index.map(id_key), searched.map(id_key)
    if not index.is_unique:
        repeated = ", ".join(index[index.duplicated()].unique()[:5])
        raise ScoresError(f"{name} has an id more than once: {repeated}; ids must be unique.")
    positions = index.get_indexer(searched)
    unknown = searched[positions < 0]
    if len(unknown) and not allow_missing:
        raise ScoresError(
            f"{name} has no row for {len(unknown)} ids: {', '.join(unknown[:5])}. "
            "Give predictions and data of the same pairs."
        )
    return positions.astype(np.int64)


def log_losses(
    labels: IntArray, probs: npt.NDArray[Any], *, eps: float | None = None
) -> FloatArray:
    """Return the negative log-likelihood of each label, in nats, float64 (n,).

    As in scikit-learn, probabilities are clipped to [eps, 1 - eps], so that one zero at the true
    label does not make the mean infinite. Without `eps` it is the machine epsilon of the dtype.

    >>> log_losses(np.array([0]), np.array([[0.5, 0.25, 0.25]])).round(4)
    array([0.6931])
    """
    eps = np.finfo(probs.dtype).eps if eps is None else eps
    own = probs[np.arange(len(labels)), labels].astype(np.float64)
    return np.asarray(-np.log(np.clip(own, eps, 1 - eps)), dtype=np.float64)


def brier_scores(labels: IntArray, probs: npt.NDArray[Any]) -> FloatArray:
    """Return the squared difference to the one-hot label, summed over the classes: in [0, 2].

    The original multi-class form of Brier (1950), twice the usual binary one.

    >>> brier_scores(np.array([2]), np.array([[0.0, 0.5, 0.5]]))
    array([0.5])
    """
    one_hot = np.eye(N_CLASSES)[labels]
    return np.asarray(((probs.astype(np.float64) - one_hot) ** 2).sum(1), dtype=np.float64)


def decisive_correct(labels: IntArray, probs: npt.NDArray[Any]) -> FloatArray:
    """Return 1 where the more probable of A and B won, ignoring P(tie); 0 for rows that are ties.

    A row with P(A) = P(B) counts 0.5, so uniform probabilities score 0.5.

    >>> decisive_correct(np.array([0, 1, 2]), np.array([[0.3, 0.2, 0.5]] * 3))
    array([1., 0., 0.])
    """
    lead = np.sign(probs[:, 0].astype(np.float64) - probs[:, 1])
    won = np.where(labels == 0, 1.0, -1.0)
    return np.asarray(np.where(labels < 2, (1 + lead * won) / 2, 0.0), dtype=np.float64)


def area_components(labels: IntArray, probs: npt.NDArray[Any]) -> FloatArray:
    """Return the placements of each row for the area under the curve of each class: (n, 6).

    Columns 0-2: for a row of class k, the share of the other rows with a lower P(k); equal values
    count half. Columns 3-5: for a row of another class, the share of class k with a higher P(k).
    The mean over the rows concerned is the area, from either half. After DeLong, DeLong and Clarke-
    Pearson (1988), Biometrics 44, 837-845; for clustered rows Obuchowski (1997), Biometrics 53,
    567-578.
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
    """Assign each row to one of at most `n_bins` bins of nearly equal mass; equal values share one.

    Up to `n_bins` different values are a bin each, so a frequent value is not merged with others.

    >>> confidence_bins(np.array([0.4, 0.4, 0.4, 0.9]), 2)
    array([0, 0, 0, 1])
    >>> confidence_bins(np.array([0.4, 0.9, 0.5, 0.8]), 2)
    array([0, 1, 0, 1])
    """
    values, place = np.unique(confidence, return_inverse=True)
    if len(values) <= n_bins:
        return np.asarray(place, dtype=np.int64)
    # The mean rank of equal values is above zero and below the number of rows.
    middle = (rankdata(confidence) - 0.5) / len(confidence)
    return np.asarray(middle * n_bins, dtype=np.int64)


def expected_calibration_error(
    labels: IntArray, probs: npt.NDArray[Any], grouped: GroupedRows, confidence_level: float
) -> Interval:
    """Return the expected calibration error (ECE) of the top label, in [0, 1].

    The mean absolute gap between confidence (the largest of the three probabilities) and accuracy,
    over 15 bins of equal width that include their upper end (Naeini, Cooper and Hauskrecht, 2015;
    Guo, Pleiss, Sun and Weinberger, 2017). Noise makes it too large: a calibrated model has a
    positive value. The interval accounts for that. Its low end is lower by the largest expectation
    of the noise, which it has for a calibrated model; its half width is Student's t times the
    standard error of a sum of the bins' gaps, clustered by group.
    """
    confidence = probs.max(1).astype(np.float64)
    bins = np.searchsorted(np.linspace(0, 1, MAX_BINS + 1)[1:-1], confidence, side="left")
    sums = _bin_sums(confidence - (probs.argmax(1) == labels), bins, MAX_BINS, grouped)
    counts, gaps = np.split(sums.sum(0), 2)
    value = float(np.abs(gaps).sum() / len(labels))
    if grouped.n_groups < 2:
        return Interval(value, math.nan, math.nan)
    noise = np.sqrt(_bin_variances(sums)) * counts / len(labels)
    half = t.ppf((1 + confidence_level) / 2, grouped.n_groups - 1) * np.linalg.norm(noise)
    low = value - math.sqrt(2 / math.pi) * noise.sum() - half
    return Interval(value, max(0.0, float(low)), min(1.0, float(value + half)))


def rms_calibration_error(
    labels: IntArray, probs: npt.NDArray[Any], grouped: GroupedRows, confidence_level: float
) -> Interval:
    """Return the debiased root mean square (RMS) calibration error of the top label, in [0, 1].

    The error of a bin is the mean of confidence minus accuracy, where confidence is the largest of
    the three probabilities. Its square is averaged over bins of equal mass (15, fewer below 150
    groups; Roelofs et al., 2022), minus the sampling variance of each bin, clustered by group (the
    debiased estimator of Kumar, Liang and Ma, 2019, Verified uncertainty calibration, section 5).
    Where the result is negative, the value is NaN, and the error is only known to be below the high
    end. The interval is a jackknife interval over groups with Student's t, on the square.
    """
    if grouped.n_groups < 2:
        return Interval(math.nan, math.nan, math.nan)
    confidence = probs.max(1).astype(np.float64)
    n_bins = min(MAX_BINS, max(2, grouped.n_groups // MIN_GROUPS_PER_BIN))
    bins = confidence_bins(confidence, n_bins)
    sums = _bin_sums(confidence - (probs.argmax(1) == labels), bins, n_bins, grouped)
    noise = _bin_variances(sums) * sums[:, :n_bins].sum(0) / len(labels)
    statistic = partial(_squared_gap, noise=noise)
    value = statistic(sums.sum(0))[0]
    # The jackknife does not see the noise of a squared gap that happens to be near zero, and counts
    # it twice elsewhere; adding the noise once has the best coverage (benchmarks/coverage.md).
    error = math.hypot(jackknife(sums, statistic)[1][0], np.linalg.norm(noise))
    half = t.ppf((1 + confidence_level) / 2, grouped.n_groups - 1) * error
    low, high = (math.sqrt(max(0.0, end)) for end in (value - half, value + half))
    return Interval(math.sqrt(value) if value >= 0 else math.nan, low, min(1.0, high))


def _bin_sums(gaps: FloatArray, bins: IntArray, n_bins: int, grouped: GroupedRows) -> FloatArray:
    """Return the rows and the gaps of each group in each bin: (n_groups, 2 * n_bins)."""
    member = np.eye(n_bins)[bins]
    return grouped.sums(np.hstack([member, member * gaps[:, None]]))


def _bin_variances(sums: FloatArray) -> FloatArray:
    """Return the sampling variance of each bin's mean gap, clustered by group: (n_bins,)."""
    counts, gaps = np.split(sums, 2, axis=1)
    n_groups, total = len(sums), np.maximum(counts.sum(0), 1)
    residual = gaps - counts * gaps.sum(0) / total
    return np.asarray((residual**2).sum(0) / total**2 * n_groups / (n_groups - 1))


def _squared_gap(totals: FloatArray, noise: FloatArray) -> FloatArray:
    """Compute the mean squared gap minus its noise from totals (counts, gaps)."""
    counts, gaps = np.split(totals, 2, axis=-1)
    squared = (gaps**2 / np.maximum(counts, 1)).sum(-1, keepdims=True)
    return np.asarray(squared / counts.sum(-1, keepdims=True) - noise.sum())


def _as_floats(values: npt.NDArray[Any], name: str) -> FloatArray:
    """Convert numbers to float64 and missing values to NaN; refuse text."""
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


def row_terms(labels: IntArray, probs: npt.NDArray[Any], metric: Metric, eps: float) -> FloatArray:
    """Return what each row adds to the sum of a score: float64 (n,)."""
    if metric == "log_loss":
        return log_losses(labels, probs, eps=eps)
    if metric == "brier":
        return brier_scores(labels, probs)
    if metric == "accuracy":
        return np.asarray(probs.argmax(1) == labels, dtype=np.float64)
    if metric == "decisive_accuracy":
        return decisive_correct(labels, probs)
    raise ScoresError(
        f"metric is {metric!r}; expected log_loss, accuracy, brier or decisive_accuracy."
    )
