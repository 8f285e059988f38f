"""Calibration: maps of logits to probabilities, their fit, and the test of whether they help.

Each method is linear in the log-probabilities of a row, before a softmax: `temperature` divides all
by one number; `bias` adds a constant to each class; `vector` scales each class and adds a constant.
The log loss is convex in the parameters, so every fit has one optimum.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Unpack

import numpy as np
import numpy.typing as npt
from scipy.optimize import Bounds, minimize
from scipy.special import log_softmax, softmax

from tiewise.data.class_columns import LOGITS, check_order, read_columns
from tiewise.data.folds import fold_by_group
from tiewise.errors import ScoresError
from tiewise.evaluation.intervals import (
    BootstrapOptions,
    FloatArray,
    IntArray,
    Interval,
    Result,
    check_confidence,
    few_groups_mark,
    group_codes,
    to_json,
)
from tiewise.evaluation.metrics import N_CLASSES, check_labels
from tiewise.evaluation.scores import compare

METHODS = ("temperature", "bias", "vector")
N_SPLITS = 5
_SMALLEST_SCALE, _LARGEST_SCALE = 0.05, 20.0
_LARGEST_BIAS = 20.0


@dataclass(frozen=True)
class Calibration(Result):
    """A map of logits to probabilities: ``softmax(scale * log_softmax(logits) + bias)``."""

    method: str
    """The method that was fitted, or "none"."""

    scale: tuple[float, float, float] = (1.0, 1.0, 1.0)
    bias: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def apply(self, logits: npt.ArrayLike) -> FloatArray:
        """Return the calibrated probabilities of `logits` or log-probabilities (n, 3)."""
        values = _check_logits(logits)
        if self.method == "none":  # no second rounding: the softmax itself, bit for bit
            return np.asarray(softmax(values, axis=1), dtype=np.float64)
        shifted = log_softmax(values, axis=1)
        return np.asarray(softmax(shifted * self.scale + self.bias, axis=1), dtype=np.float64)


NO_CALIBRATION = Calibration("none")


@dataclass(frozen=True)
class CalibrationResult(Result):
    """Effect of each calibration method, and the calibration that was adopted."""

    adopted: Calibration
    """Fitted on all rows; `NO_CALIBRATION` when no method helps."""

    differences: dict[str, Interval]
    """By method: log loss after minus before, on groups that it was not fitted on; negative is
    better."""

    probs: FloatArray
    """Probabilities (n, 3): cross-fitted if a method was adopted, otherwise uncalibrated."""

    n_groups: int
    confidence_level: float
    """Level of the intervals, corrected for the number of methods."""

    @property
    def is_worth_it(self) -> bool:
        """Whether a calibration was adopted."""
        return self.adopted.method != "none"

    def to_dict(self) -> dict[str, Any]:
        """Return the decision and the differences for JSON, without the probabilities."""
        names = ("is_worth_it", "adopted", "differences", "confidence_level")
        return to_json({name: getattr(self, name) for name in names})  # type: ignore[no-any-return]

    def __str__(self) -> str:
        verdict = (
            f"{self.adopted.method} is adopted"
            if self.is_worth_it
            else "none is adopted, because none is clearly better"
        )
        lines = [f"calibration: {verdict}{few_groups_mark(self.n_groups)}"]
        if self.differences:
            level = f"{self.confidence_level:.1%} intervals"
            lines.append(
                f"log loss after minus before, on other groups; {level}; negative is better"
            )
        lines += [f"{method:12}{change:+.4f}" for method, change in self.differences.items()]
        return "\n".join(lines)


def fit_temperature(labels: npt.ArrayLike, logits: npt.ArrayLike) -> float:
    """Return the temperature T for which ``softmax(logits / T)`` has the least log loss.

    Parameters
    ----------
    labels
        0 (A), 1 (B) or 2 (tie), (n,).
    logits
        Finite logits or log-probabilities, (n, 3). The columns of a table are found by name.

    Returns
    -------
    float
        In [0.05, 20]. Above one means that the model was overconfident.

    Raises
    ------
    ScoresError
        Labels or logits are invalid.

    References
    ----------
    Guo, Pleiss, Sun and Weinberger (2017), On calibration of modern neural networks.

    Examples
    --------
    >>> confident = np.log([[0.9, 0.05, 0.05]] * 4)  # right in three of four rows
    >>> round(fit_temperature([0, 0, 0, 1], confident), 2)
    1.61
    """
    return 1 / fit_calibration(labels, logits, method="temperature").scale[0]


def fit_calibration(
    labels: npt.ArrayLike, logits: npt.ArrayLike, *, method: str, symmetric: bool = False
) -> Calibration:
    """Fit one of `METHODS` to all rows; arguments are those of :func:`fit_temperature`.

    With `symmetric`, A and B have the same parameters, so that symmetric probabilities stay
    symmetric.

    >>> fitted = fit_calibration([0, 1, 2, 2], np.zeros((4, 3)), method="bias", symmetric=True)
    >>> fitted.apply([[0.0, 0.0, 0.0]]).round(3)
    array([[0.25, 0.25, 0.5 ]])
    """
    check_order(labels=labels, logits=logits)
    labels = check_labels(labels)
    log_probs = log_softmax(_check_logits(logits, len(labels)), axis=1)
    fixed, design = _parametrise(method, symmetric)
    # Every parameter moves all entries of its column alike, so the bounds of one of them hold.
    is_scale = np.argmax(design, axis=0) < N_CLASSES
    least = np.where(is_scale, _SMALLEST_SCALE, -_LARGEST_BIAS)
    most = np.where(is_scale, _LARGEST_SCALE, _LARGEST_BIAS)
    found = minimize(
        _loss_and_gradient,
        is_scale.astype(np.float64),
        args=(fixed, design, labels, log_probs),
        jac=True,
        method="L-BFGS-B",
        bounds=Bounds(least, most),
        options={"ftol": 1e-15, "gtol": 1e-9, "maxiter": 500},
    )
    scale, bias = np.split(fixed + design @ found.x, 2)
    return Calibration(method, tuple(scale.tolist()), tuple(bias.tolist()))


def calibrate(
    labels: npt.ArrayLike,
    logits: npt.ArrayLike,
    *,
    groups: npt.ArrayLike | None = None,
    symmetric: bool = False,
    **options: Unpack[BootstrapOptions],
) -> CalibrationResult:
    """Cross-fit each method over groups and adopt the best one if it is clearly better.

    A method is never tested on a group that it was fitted on: the interval of the difference of log
    loss, clustered by group and Bonferroni-corrected for the number of methods, must be below zero.

    >>> verdict = calibrate([0, 1, 2] * 40, np.zeros((120, 3)))
    >>> print(str(verdict).splitlines()[0])
    calibration: none is adopted, because none is clearly better
    """
    check_order(labels=labels, logits=logits, groups=groups)
    labels = check_labels(labels)
    values = _check_logits(logits, len(labels))
    confidence_level = check_confidence(options.get("confidence_level", 0.95))
    before = NO_CALIBRATION.apply(values)
    codes = group_codes(groups, len(labels))
    n_groups = int(codes.max()) + 1
    options["confidence_level"] = level = 1 - (1 - confidence_level) / len(METHODS)
    if n_groups < 2:
        return CalibrationResult(NO_CALIBRATION, {}, before, n_groups, level)
    names = codes if groups is None else groups
    folds = fold_by_group(names, labels, min(N_SPLITS, n_groups), seed=options.get("seed", 0))
    fitted = {method: _cross_fit(labels, values, folds, method, symmetric) for method in METHODS}
    differences = {
        method: compare(labels, after, before, groups=groups, **options)
        for method, after in fitted.items()
    }
    better = {method: change.value for method, change in differences.items() if change.high < 0}
    if not better:
        return CalibrationResult(NO_CALIBRATION, differences, before, n_groups, level)
    best = min(better, key=lambda method: better[method])
    adopted = fit_calibration(labels, values, method=best, symmetric=symmetric)
    return CalibrationResult(adopted, differences, fitted[best], n_groups, level)


def _check_logits(logits: npt.ArrayLike, n_rows: int | None = None) -> FloatArray:
    """Return `logits` as finite float64 (n, 3), or raise ScoresError and name the rows."""
    values = np.asarray(read_columns(logits, "logits", known=LOGITS), dtype=np.float64)
    if values.ndim != 2 or values.shape[1] != N_CLASSES or n_rows not in (None, len(values)):
        raise ScoresError(
            f"logits has shape {values.shape}; expected ({n_rows or 'n'}, 3), one row per label."
        )
    wrong = np.flatnonzero(~np.isfinite(values).all(1))
    if len(wrong):
        raise ScoresError(
            f"logits is not finite in {len(wrong)} rows, the first at row {wrong[0]}. If these are "
            "log-probabilities, clip the probabilities above zero first."
        )
    return values


def _parametrise(method: str, symmetric: bool) -> tuple[FloatArray, FloatArray]:
    """Return the fixed part of (scale, bias), (6,), and how each parameter moves it, (6, k)."""
    eye = np.eye(2 * N_CLASSES)
    scales = [eye[0] + eye[1], eye[2]] if symmetric else [*eye[:3]]
    # One bias stays zero, because a constant added to all three has no effect.
    biases = [eye[5]] if symmetric else [eye[3], eye[4]]
    rows = {"temperature": [eye[:3].sum(0)], "bias": biases, "vector": scales + biases}
    if method not in rows:
        raise ScoresError(f"method is {method!r}; expected one of {', '.join(METHODS)}.")
    fixed_scale = 1.0 if method == "bias" else 0.0
    return np.repeat([fixed_scale, 0.0], N_CLASSES), np.array(rows[method]).T


def _loss_and_gradient(
    parameters: FloatArray,
    fixed: FloatArray,
    design: FloatArray,
    labels: IntArray,
    log_probs: FloatArray,
) -> tuple[float, FloatArray]:
    scale, bias = np.split(fixed + design @ parameters, 2)
    scaled = log_softmax(log_probs * scale + bias, axis=1)
    residual = (np.exp(scaled) - np.eye(N_CLASSES)[labels]) / len(labels)
    gradient = np.r_[(residual * log_probs).sum(0), residual.sum(0)]
    return float(-scaled[np.arange(len(labels)), labels].mean()), gradient @ design


def _cross_fit(
    labels: IntArray, logits: FloatArray, folds: npt.NDArray[Any], method: str, symmetric: bool
) -> FloatArray:
    probs = np.empty_like(logits)
    for fold in np.unique(folds):
        held_out = folds == fold
        train = labels[~held_out], logits[~held_out]
        fitted = fit_calibration(*train, method=method, symmetric=symmetric)
        probs[held_out] = fitted.apply(logits[held_out])
    return probs
