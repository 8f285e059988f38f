"""Scores with intervals, and the paired comparison of two models on the same rows.

Every interval is clustered by group (:mod:`tiewise.evaluation.intervals`). Labels and columns
are in the order A, B, tie = 0, 1, 2.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Unpack

import numpy as np
import numpy.typing as npt
import pandas as pd

from tiewise.data.class_columns import check_order
from tiewise.data.labels import Winner
from tiewise.evaluation.intervals import (
    FEW_GROUPS,
    Bootstrap,
    BootstrapOptions,
    FloatArray,
    IntArray,
    Interval,
    Result,
    bootstrap,
    few_groups_mark,
    group_rows,
    mean_of_sums,
    show_table,
    weighted_mean,
)
from tiewise.evaluation.metrics import (
    N_CLASSES,
    Metric,
    are_verdicts,
    area_components,
    brier_scores,
    check_labels,
    check_probs,
    decisive_correct,
    expected_calibration_error,
    log_losses,
    normalize_probs,
    rms_calibration_error,
    row_terms,
)

METRICS = {
    "log_loss": np.inf,
    "accuracy": 1.0,
    "brier": 2.0,
    "ece": 1.0,
    "rms_calibration_error": 1.0,
    "decisive_accuracy": 1.0,
    "macro_f1": 1.0,
    "auc": 1.0,
}
"""Largest possible value of each score, in the order in which they are shown; the least is 0."""

CALIBRATION_ERRORS = {
    "ece": expected_calibration_error,
    "rms_calibration_error": rms_calibration_error,
}
"""Scores that are no function of sums over rows."""

OF_VERDICTS = ("accuracy", "decisive_accuracy", "macro_f1")
"""Scores that are shown where every probability is 0 or 1; the others then only count errors."""

_VERDICTS = (
    "The predictions are verdicts (all 0, 1, or 1/2 for two orders): log loss, Brier score and "
    "calibration errors then only count errors, and are not shown. Compare accuracy, decisive "
    "accuracy and macro F1."
)
_DIFFERENCE_OF_VERDICTS = (
    "%s are verdicts, all 0, 1 or 1/2: the difference of %s then only counts errors. Give "
    "metric='accuracy' or 'decisive_accuracy'."
)
_NO_TIES = (
    "%d of %d rows are ties, and every P(tie) is 0: the judge has two classes, and these rows "
    "decide log loss and accuracy. Compare decisive accuracy, which leaves them out."
)
_log = logging.getLogger(__name__)
_LABELS = {"ece": "ECE (L1)", "rms_calibration_error": "ECE (RMS, debiased)"}

# Columns of the sums that the scores are computed from.
_ROWS, _LOSS, _BRIER, _DECISIVE, _DECISIVE_CORRECT = range(5)
_CONFUSION, _INSIDE, _OUTSIDE = slice(5, 14), slice(14, 17), slice(17, 20)


@dataclass(frozen=True)
class Scores(Result):
    """Scores of predicted probabilities, each with its interval."""

    n: int
    """Number of rows."""

    n_groups: int
    """Number of groups, the units that are resampled."""

    log_loss: Interval
    """Mean negative log-likelihood of the label, in nats. Uniform: 1.0986."""

    accuracy: Interval
    """Share of rows whose most probable class is the label; equal probabilities: A, then B."""

    brier: Interval
    """Squared difference to the one-hot label, summed over classes, in [0, 2]. Uniform: 0.6667."""

    ece: Interval
    """Expected calibration error of the top label: mean absolute gap, 15 bins of equal width."""

    rms_calibration_error: Interval
    """Debiased root mean square gap of the top label over bins of equal mass. A NaN value is a
    negative square: the error is below the high end."""

    decisive_accuracy: Interval
    """Share of rows, ties left out, where the more probable of A and B won; NaN if all are ties."""

    macro_f1: Interval
    """Unweighted mean of the F1 of each class that occurs or is predicted."""

    auc: Interval
    """Mean over classes of the area under the curve of that class against the rest."""

    n_decisive: int
    """Number of rows that are not ties."""

    confidence_level: float = 0.95
    """Confidence level of every interval."""

    has_verdicts: bool = False
    """Whether every probability is 0 or 1; only accuracies and macro F1 are then shown."""

    @property
    def has_few_groups(self) -> bool:
        """Whether there are fewer than 30 groups, so that the intervals are rough."""
        return self.n_groups < FEW_GROUPS

    def __str__(self) -> str:
        return "\n".join(
            [self.describe(), *(f"{name:22}{score}" for name, score in tabulate([self]))]
        )

    def to_frame(self) -> pd.DataFrame:
        """Return a row per score, indexed by its name, with the columns ``value, low, high``."""
        ends = {name: vars(getattr(self, name)) for name in shown_metrics(self)}
        return pd.DataFrame.from_dict(ends, orient="index").rename_axis("score")

    def _repr_html_(self) -> str:
        columns = ["score", f"value [{self.confidence_level:.0%} interval]"]
        return show_table(self.describe(), pd.DataFrame(tabulate([self]), columns=columns))

    def describe(self) -> str:
        """Describe in one line the rows scored and how the intervals were made."""
        return (
            f"{self.n:,} rows in {self.n_groups:,} groups; {self.confidence_level:.0%} intervals "
            f"clustered by group{few_groups_mark(self.n_groups)}"
        )


def shown_metrics(scores: Scores) -> tuple[str, ...]:
    """Return the names of the scores that mean something."""
    return OF_VERDICTS if scores.has_verdicts else tuple(METRICS)


def tabulate(scores: Sequence[Scores]) -> list[list[str]]:
    """Return a line per metric of the first: its name, then the interval of each of `scores`."""
    return [
        [_LABELS.get(name, name).replace("_", " "), *(f"{getattr(of, name):.4f}" for of in scores)]
        for name in shown_metrics(scores[0])
    ]


def evaluate(
    labels: npt.ArrayLike,
    probs: npt.ArrayLike | pd.DataFrame,
    *,
    groups: npt.ArrayLike | None = None,
    confidence_level: float = 0.95,
    n_resamples: int = 999,
    seed: int = 0,
    normalize: bool = False,
) -> Scores:
    """Score probabilities against labels, with intervals.

    Parameters
    ----------
    labels
        0 (A), 1 (B) or 2 (tie), (n,).
    probs
        P(A), P(B), P(tie), (n, 3); each row sums to 1 within 1e-4. Of a
        DataFrame the columns ``prob_a, prob_b, prob_tie`` are read, or else Kaggle's
        ``winner_model_a, winner_model_b, winner_tie``, or else ``a, b, tie``, in any order. Both of
        the latter are refused, since one may be the labels.
    groups
        Group of each row, (n,); rows of one group are resampled together. None: each row is a
        group.
    confidence_level
        Confidence level of the intervals, between 0 and 1.
    n_resamples
        Number of bootstrap resamples.
    seed
        Seed of the bootstrap.
    normalize
        Divide each row of `probs` by its sum first, for probabilities that were rounded.

    Returns
    -------
    Scores
        Bit for bit the same for any order of the rows and any names of the groups.

    Raises
    ------
    ScoresError
        Labels or probabilities are invalid, or a DataFrame has other columns; the message names
        the rows or the columns. Or two tables have the same index in different orders.

    Examples
    --------
    >>> scores = evaluate([0, 1, 2, 0], [[1 / 3, 1 / 3, 1 / 3]] * 4)
    >>> round(scores.log_loss.value, 4), scores.n, scores.has_few_groups
    (1.0986, 4, True)
    >>> table = pd.DataFrame({"prob_tie": [0.2] * 4, "prob_b": [0.3] * 4, "prob_a": [0.5] * 4})
    >>> evaluate([0, 1, 2, 0], table).accuracy.value
    0.5
    """
    check_order(labels=labels, probs=probs, groups=groups)
    labels = check_labels(labels)
    probs = check_probs(normalize_probs(probs) if normalize else probs, len(labels))
    has_verdicts = are_verdicts(probs)
    if has_verdicts:
        _log.warning(_VERDICTS)
    elif (n_ties := int((labels == Winner.TIE).sum())) and (probs[:, Winner.TIE] == 0).all():
        _log.warning(_NO_TIES, n_ties, len(labels))
    grouped = group_rows(groups, labels, probs)
    sums = grouped.sums(_score_columns(labels, probs))
    drawn = bootstrap(
        sums,
        partial(_score_totals, sample=sums.sum(0)),
        confidence_level=confidence_level,
        n_resamples=n_resamples,
        seed=seed,
    )
    names = [name for name in METRICS if name not in CALIBRATION_ERRORS]
    counts = sums[:, [_ROWS, _ROWS, _ROWS, _DECISIVE, _ROWS, _ROWS]]
    shares = drawn.share_intervals(counts)
    intervals = {
        name: share if METRICS[name] == 1 else interval
        for name, share, interval in zip(names, shares, drawn.intervals(), strict=True)
    }
    for name, measure in CALIBRATION_ERRORS.items():
        intervals[name] = measure(labels, probs, grouped, confidence_level)
    return Scores(
        n=len(labels),
        n_groups=grouped.n_groups,
        n_decisive=int((labels < 2).sum()),
        confidence_level=confidence_level,
        has_verdicts=has_verdicts,
        **{name: interval.clip(0, METRICS[name]) for name, interval in intervals.items()},
    )


def compare(
    labels: npt.ArrayLike,
    probs_1: npt.ArrayLike | pd.DataFrame,
    probs_2: npt.ArrayLike | pd.DataFrame,
    *,
    groups: npt.ArrayLike | None = None,
    metric: Metric = "log_loss",
    confidence_level: float = 0.95,
    n_resamples: int = 999,
    seed: int = 0,
) -> Interval:
    """Return the score of one model minus that of another on the same rows, paired by row.

    Parameters
    ----------
    labels
        0 (A), 1 (B) or 2 (tie), (n,).
    probs_1, probs_2
        P(A), P(B), P(tie) of each model, (n, 3), as in :func:`evaluate`.
    groups
        Group of each row, (n,); None: each row is a group.
    metric
        Score to compare. In log loss and Brier score a negative difference means that the first
        model is better.
    confidence_level, n_resamples, seed
        As in :func:`evaluate`.

    Returns
    -------
    Interval
        Of the paired difference; the models differ where it excludes zero.

    Raises
    ------
    ScoresError
        As in :func:`evaluate`, and for an unknown metric.

    Examples
    --------
    >>> confident, unsure = [[0.8, 0.1, 0.1]] * 50, [[0.4, 0.3, 0.3]] * 50
    >>> f"{compare([0] * 50, confident, unsure):.3f}"
    '-0.693 [-0.693, -0.693]'
    """
    check_order(labels=labels, probs_1=probs_1, probs_2=probs_2, groups=groups)
    labels = check_labels(labels)
    if metric in ("log_loss", "brier"):
        both = {"probs_1": probs_1, "probs_2": probs_2}
        for name, probs in both.items():
            if are_verdicts(check_probs(probs, len(labels), name)):
                _log.warning(_DIFFERENCE_OF_VERDICTS, name, metric.replace("_", " "))
    differences, counted = paired_terms(labels, probs_1, probs_2, metric=metric)
    drawn, _ = bootstrap_difference(
        labels, differences, counted, groups=groups,
        confidence_level=confidence_level, n_resamples=n_resamples, seed=seed,
    )  # fmt: skip
    bound = METRICS[metric]
    return drawn.intervals()[0].clip(-bound, bound)


def bootstrap_difference(
    labels: IntArray,
    differences: FloatArray,
    counted: FloatArray,
    *,
    groups: npt.ArrayLike | None,
    **options: Unpack[BootstrapOptions],
) -> tuple[Bootstrap, int]:
    """Resample the mean difference over the rows that count; return it and the number of groups."""
    grouped = group_rows(groups, labels, differences, counted)
    sums = grouped.sums(np.column_stack([differences, counted]))
    return bootstrap(sums, mean_of_sums, **options), grouped.n_groups


def paired_terms(
    labels: IntArray,
    probs_1: npt.ArrayLike | pd.DataFrame,
    probs_2: npt.ArrayLike | pd.DataFrame,
    *,
    metric: Metric,
) -> tuple[FloatArray, FloatArray]:
    """Return the difference of two models in each row, and 1 if the row counts: float64 (n,).

    Both models are clipped with the larger epsilon of their two dtypes.
    """
    first = check_probs(probs_1, len(labels), "probs_1")
    second = check_probs(probs_2, len(labels), "probs_2")
    eps = max(float(np.finfo(probs.dtype).eps) for probs in (first, second))
    one, other = (row_terms(labels, probs, metric, eps) for probs in (first, second))
    is_counted = labels < 2 if metric == "decisive_accuracy" else np.ones(len(labels))
    return one - other, is_counted.astype(np.float64)


def _score_columns(labels: IntArray, probs: npt.NDArray[Any]) -> FloatArray:
    """Return what each row adds to the totals that all scores are computed from: (n, 20)."""
    confusion = np.eye(N_CLASSES**2)[labels * N_CLASSES + probs.argmax(1)]
    single = [
        np.ones(len(labels)),
        log_losses(labels, probs),
        brier_scores(labels, probs),
        labels < 2,
        decisive_correct(labels, probs),
    ]
    return np.hstack([np.column_stack(single), confusion, area_components(labels, probs)])


def _score_totals(totals: FloatArray, sample: FloatArray) -> FloatArray:
    """Compute the other scores from totals (..., 20); `sample` are those of the sample, (20,)."""
    equal = np.ones((1, N_CLASSES))
    confusion = totals[..., _CONFUSION].reshape(*totals.shape[:-1], N_CLASSES, N_CLASSES)
    right = np.diagonal(confusion, axis1=-2, axis2=-1)
    inside = confusion.sum(-1)
    outside = inside.sum(-1, keepdims=True) - inside
    # The area is exact for the sample, and linearised around it for other weights.
    area = sample[_INSIDE] / sample[_CONFUSION].reshape(N_CLASSES, N_CLASSES).sum(1)
    areas = totals[..., _INSIDE] / inside + totals[..., _OUTSIDE] / outside - area
    f1 = 2 * right / (inside + confusion.sum(-2))
    rows = totals[..., _ROWS]
    return np.stack(
        [
            totals[..., _LOSS] / rows,
            right.sum(-1) / rows,
            totals[..., _BRIER] / rows,
            totals[..., _DECISIVE_CORRECT] / totals[..., _DECISIVE],
            weighted_mean(f1, equal)[..., 0],
            weighted_mean(areas, equal)[..., 0],
        ],
        axis=-1,
    )
