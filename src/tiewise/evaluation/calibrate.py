"""Calibration that may refuse: fitted across groups, adopted only where it shows a gain.

Whether a family of :mod:`tiewise.evaluation.temperature` helps is measured on rows of groups it was
not fitted on. It is adopted when the interval of its gain, clustered by group and widened for the
number of families tried, lies above zero; otherwise the probabilities stay as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tiewise.errors import ScoresError
from tiewise.evaluation.intervals import (
    FloatArray,
    IntArray,
    Interval,
    check_confidence,
    few_groups_mark,
)
from tiewise.evaluation.metrics import check_labels
from tiewise.evaluation.resampling import group_codes
from tiewise.evaluation.scores import compare
from tiewise.evaluation.temperature import (
    METHODS,
    NO_CALIBRATION,
    Calibration,
    check_logits,
    fit_calibration,
)
from tiewise.pairs.folds import fold_by_group

N_SPLITS = 5


@dataclass(frozen=True)
class CalibrationVerdict:
    """What calibration would gain, and whether it is worth it."""

    adopted: Calibration
    """Fitted on all rows; `NO_CALIBRATION` when nothing is worth it."""

    gains: dict[str, Interval]
    """Log loss before minus after, on rows of groups not fitted on, by method."""

    probs: FloatArray
    """Probabilities (n, 3): cross-fitted where adopted, otherwise as they were."""

    n_groups: int
    """Groups that the gains were shown on."""

    @property
    def is_worth_it(self) -> bool:
        """Whether a calibration was adopted."""
        return self.adopted.method != "none"

    def to_dict(self) -> dict[str, Any]:
        """Return the decision and its grounds for JSON, without the probabilities."""
        gains = {method: gain.to_dict() for method, gain in self.gains.items()}
        return {"is_worth_it": self.is_worth_it, "adopted": self.adopted.to_dict(), "gains": gains}

    def __str__(self) -> str:
        verdict = f"adopted: {self.adopted.method}" if self.is_worth_it else "not worth it"
        verdict += few_groups_mark(self.n_groups)
        gains = [
            f"{method:12}{gain:+.4f} in log loss, on groups not fitted on"
            for method, gain in self.gains.items()
        ]
        return "\n".join([f"calibration: {verdict}", *gains])


def calibrate(
    labels: npt.ArrayLike,
    logits: npt.ArrayLike,
    *,
    groups: npt.ArrayLike | None = None,
    methods: tuple[str, ...] = METHODS,
    symmetric: bool = False,
    confidence_level: float = 0.95,
    n_resamples: int = 999,
    seed: int = 0,
) -> CalibrationVerdict:
    """Try each family across groups and adopt the best, if any shows a gain.

    Parameters
    ----------
    labels, logits
        Out-of-fold rows, as in :func:`fit_temperature`.
    groups
        A name per row, (n,); a calibration is never judged on a group it was fitted on.
    methods
        Families to try.
    symmetric
        As in :func:`fit_calibration`.
    confidence_level
        That must be met by all families together (Bonferroni).
    n_resamples, seed
        As in :func:`tiewise.evaluate`.

    Examples
    --------
    >>> verdict = calibrate([0, 1, 2] * 40, np.zeros((120, 3)))
    >>> print(str(verdict).splitlines()[0])
    calibration: not worth it
    """
    labels = check_labels(labels)
    values = check_logits(logits, len(labels))
    check_confidence(confidence_level)
    if not methods:
        raise ScoresError(f"There is no method to try; name some of {', '.join(METHODS)}.")
    before = NO_CALIBRATION.apply(values)
    level = 1 - (1 - confidence_level) / len(methods)
    n_groups = int(group_codes(groups, len(labels)).max()) + 1
    folds = _fold(groups, labels, seed)
    if folds is None:
        return CalibrationVerdict(NO_CALIBRATION, {}, before, n_groups)
    fitted = {method: _cross_fit(labels, values, folds, method, symmetric) for method in methods}
    gains = {
        method: compare(
            labels,
            before,
            after,
            groups=groups,
            confidence_level=level,
            n_resamples=n_resamples,
            seed=seed,
        )
        for method, after in fitted.items()
    }
    best = _best(gains)
    if best is None:
        return CalibrationVerdict(NO_CALIBRATION, gains, before, n_groups)
    adopted = fit_calibration(labels, values, method=best, symmetric=symmetric)
    return CalibrationVerdict(adopted, gains, fitted[best], n_groups)


def _fold(groups: npt.ArrayLike | None, labels: IntArray, seed: int) -> IntArray | None:
    """Deal groups into folds; None where there are not two to fit on one and judge on the other."""
    codes = group_codes(groups, len(labels))
    names = codes if groups is None else np.asarray(groups)
    n_splits = min(N_SPLITS, int(codes.max()) + 1)
    if n_splits < 2:
        return None
    return np.asarray(fold_by_group(names, labels, n_splits, seed=seed), dtype=np.int64)


def _cross_fit(
    labels: IntArray, logits: FloatArray, folds: IntArray, method: str, symmetric: bool
) -> FloatArray:
    probs = np.empty_like(logits)
    for fold in np.unique(folds):
        held_out = folds == fold
        train = labels[~held_out], logits[~held_out]
        fitted = fit_calibration(*train, method=method, symmetric=symmetric)
        probs[held_out] = fitted.apply(logits[held_out])
    return probs


def _best(gains: Mapping[str, Interval]) -> str | None:
    shown = {method: gain.value for method, gain in gains.items() if gain.low > 0}
    return max(shown, key=lambda method: shown[method]) if shown else None
