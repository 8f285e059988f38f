"""Scores with intervals, and the paired comparison of two models on the same rows.

Every number comes with a 95 % interval from a bootstrap over groups
(:mod:`tiewise.evaluation.resampling`); below 30 groups the intervals are flagged as rough. Labels
and columns are A, B, tie = 0, 1, 2.
"""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from tiewise.errors import ScoresError
from tiewise.evaluation.intervals import (
    FEW_GROUPS,
    FloatArray,
    IntArray,
    Interval,
    check_confidence,
)
from tiewise.evaluation.metrics import (
    brier_scores,
    calibration_error,
    check_labels,
    check_probs,
    decisive_correct,
    log_losses,
)
from tiewise.evaluation.resampling import bootstrap, group_rows, mean_of_sums
from tiewise.evaluation.totals import score_columns, score_statistic

Metric = Literal["log_loss", "accuracy", "brier", "decisive_accuracy"]

METRICS = {
    "log_loss": np.inf,
    "accuracy": 1.0,
    "brier": 2.0,
    "ece": 1.0,
    "decisive_accuracy": 1.0,
    "macro_f1": 1.0,
    "auc": 1.0,
}
"""Names of the scores, in the order they are shown, and the most each can be; the least is 0."""


@dataclass(frozen=True)
class Scores:
    """How well probabilities foretold labels, each score with its interval."""

    n: int
    """Rows scored."""

    n_groups: int
    """Groups they fall into: what was resampled."""

    log_loss: Interval
    """Mean of minus the log of the true class's probability, in nats. Uniform: 1.0986."""

    accuracy: Interval
    """Share of rows whose likeliest class is the label; A before B before tie among equals."""

    brier: Interval
    """Sum of squared differences over the three classes, in [0, 2]. Uniform: 0.6667."""

    ece: Interval
    """Calibration error: root mean square over bins of equal mass, bias-corrected, top label."""

    decisive_accuracy: Interval
    """Among rows that are no tie, how often the likelier of A and B won; NaN if all are ties."""

    macro_f1: Interval
    """Unweighted mean of the F1 of each class that occurs or is predicted."""

    auc: Interval
    """Mean over classes of the area under the curve of that class against the rest."""

    n_decisive: int
    """Rows that are no tie."""

    confidence_level: float = 0.95
    """Of every interval."""

    @property
    def has_few_groups(self) -> bool:
        """Whether there are fewer than 30 groups, so that intervals are rough."""
        return self.n_groups < FEW_GROUPS

    def to_dict(self) -> dict[str, Any]:
        """Return what ``scores.json`` holds; what is not defined is None."""
        scores = {name: getattr(self, name).to_dict() for name in METRICS}
        return {
            "n": self.n,
            "n_groups": self.n_groups,
            "n_decisive": self.n_decisive,
            "confidence_level": self.confidence_level,
            "few_groups": self.has_few_groups,
            **scores,
        }

    def __str__(self) -> str:
        lines = [f"{name.replace('_', ' '):18}{getattr(self, name):.4f}" for name in METRICS]
        return "\n".join([self.describe(), *lines])

    def describe(self) -> str:
        """Say in one line what was scored, and how sure the intervals are."""
        warning = (
            f"; fewer than {FEW_GROUPS} groups, so they are rough" if self.has_few_groups else ""
        )
        return (
            f"{self.n:,} rows in {self.n_groups:,} groups; {self.confidence_level:.0%} intervals "
            f"by bootstrap over groups{warning}"
        )

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th>{html.escape(name.replace('_', ' '))}</th>"
            f"<td>{html.escape(f'{getattr(self, name):.4f}')}</td></tr>"
            for name in METRICS
        )
        return f"<table><caption>{html.escape(self.describe())}</caption>{rows}</table>"


def evaluate(
    labels: npt.ArrayLike,
    probs: npt.ArrayLike,
    *,
    groups: npt.ArrayLike | None = None,
    confidence_level: float = 0.95,
    n_resamples: int = 999,
    seed: int = 0,
) -> Scores:
    """Score probabilities against labels, with intervals.

    Parameters
    ----------
    labels
        0 (A), 1 (B) or 2 (tie), (n,).
    probs
        P(A), P(B), P(tie), (n, 3), each row summing to 1 within 1e-4. Never renormalised.
    groups
        A name per row, (n,); rows of one group are resampled together. None: each row alone.
    confidence_level
        Of the intervals, between 0 and 1.
    n_resamples
        Of the bootstrap.
    seed
        Of the bootstrap.

    Returns
    -------
    Scores
        The same, to the last bit of each interval, for any order of rows and names of groups.

    Raises
    ------
    ScoresError
        Labels or probabilities are not what they should be; the message names the rows.

    Examples
    --------
    >>> scores = evaluate([0, 1, 2, 0], [[1 / 3, 1 / 3, 1 / 3]] * 4)
    >>> round(scores.log_loss.value, 4), scores.n, scores.has_few_groups
    (1.0986, 4, True)
    """
    labels = check_labels(labels)
    probs = check_probs(probs, len(labels))
    level = check_confidence(confidence_level)
    grouped = group_rows(groups, labels, probs)
    sums = grouped.sums(score_columns(labels, probs))
    drawn = bootstrap(sums, score_statistic(sums.sum(0)), n_resamples=n_resamples, seed=seed)
    names = [name for name in METRICS if name != "ece"]
    intervals = dict(zip(names, drawn.intervals(level), strict=True))
    intervals["ece"] = calibration_error(labels, probs, grouped, level)
    bounded = {name: interval.clip(0, METRICS[name]) for name, interval in intervals.items()}
    n_decisive = int((labels < 2).sum())
    return Scores(
        n=len(labels),
        n_groups=grouped.n_groups,
        n_decisive=n_decisive,
        confidence_level=level,
        **bounded,
    )


def compare(
    labels: npt.ArrayLike,
    probs_1: npt.ArrayLike,
    probs_2: npt.ArrayLike,
    *,
    groups: npt.ArrayLike | None = None,
    metric: Metric = "log_loss",
    confidence_level: float = 0.95,
    n_resamples: int = 999,
    seed: int = 0,
) -> Interval:
    """Score two models on the same rows and give the first's score minus the second's.

    Parameters
    ----------
    labels
        0 (A), 1 (B) or 2 (tie), (n,).
    probs_1, probs_2
        P(A), P(B), P(tie), (n, 3) each.
    groups
        A name per row, (n,); None: each row alone.
    metric
        Which score. In log loss and Brier score a negative difference means the first is better.
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
    >>> sure, unsure = [[0.8, 0.1, 0.1]] * 50, [[0.4, 0.3, 0.3]] * 50
    >>> f"{compare([0] * 50, sure, unsure):.3f}"
    '-0.693 [-0.693, -0.693]'
    """
    labels = check_labels(labels)
    check_confidence(confidence_level)
    differences, counted = paired_terms(labels, probs_1, probs_2, metric=metric)
    grouped = group_rows(groups, labels, differences, counted)
    sums = grouped.sums(np.column_stack([differences, counted]))
    drawn = bootstrap(sums, mean_of_sums, n_resamples=n_resamples, seed=seed)
    return drawn.intervals(confidence_level)[0]


def paired_terms(
    labels: IntArray, probs_1: npt.ArrayLike, probs_2: npt.ArrayLike, *, metric: Metric
) -> tuple[FloatArray, FloatArray]:
    """Difference of two models in each row, and whether the row counts: float64 (n,) each.

    Both are clipped alike, as the coarser of their types is.
    """
    first = check_probs(probs_1, len(labels), "probs_1")
    second = check_probs(probs_2, len(labels), "probs_2")
    eps = max(float(np.finfo(probs.dtype).eps) for probs in (first, second))
    one, counted = row_terms(labels, first, metric, eps=eps)
    return one - row_terms(labels, second, metric, eps=eps)[0], counted


def row_terms(
    labels: IntArray, probs: npt.NDArray[Any], metric: Metric, *, eps: float | None = None
) -> tuple[FloatArray, FloatArray]:
    """Return what each row adds to a score, and whether it counts: float64 (n,) each.

    `eps` is as in :func:`tiewise.evaluation.metrics.log_losses`.
    """
    everything = np.ones(len(labels))
    if metric == "log_loss":
        return log_losses(labels, probs, eps=eps), everything
    if metric == "brier":
        return brier_scores(labels, probs), everything
    if metric == "accuracy":
        return (probs.argmax(1) == labels).astype(np.float64), everything
    if metric == "decisive_accuracy":
        return decisive_correct(labels, probs), (labels < 2).astype(np.float64)
    raise ScoresError(
        f"metric is {metric!r}; expected log_loss, accuracy, brier or decisive_accuracy."
    )
