"""Maps of logits to calibrated probabilities, and their fit.

Each family is linear in a row's log-probabilities before the softmax: `temperature` divides all by
one number; `bias` adds a constant to each class; `vector` scales each class and adds a constant.
The loss is convex in every family, so each fit has one answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import Bounds, minimize
from scipy.special import log_softmax, softmax

from tiewise.errors import ScoresError
from tiewise.evaluation.intervals import FloatArray, IntArray
from tiewise.evaluation.metrics import N_CLASSES, check_labels

METHODS = ("temperature", "bias", "vector")
SMALLEST_SCALE, LARGEST_SCALE = 0.05, 20.0
_LARGEST_BIAS = 20.0
_N_SCALES = N_CLASSES


@dataclass(frozen=True)
class Calibration:
    """A map of logits: ``softmax(scale * log_softmax(logits) + bias)``."""

    method: str
    """Its family, or "none"."""

    scale: tuple[float, float, float] = (1.0, 1.0, 1.0)
    bias: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def apply(self, logits: npt.ArrayLike) -> FloatArray:
        """Return calibrated probabilities of `logits` (n, 3); log-probabilities will do."""
        values = check_logits(logits)
        if self.method == "none":  # bit for bit what it was
            return np.asarray(softmax(values, axis=1), dtype=np.float64)
        shifted = log_softmax(values, axis=1)
        return np.asarray(softmax(shifted * self.scale + self.bias, axis=1), dtype=np.float64)

    def to_dict(self) -> dict[str, Any]:
        """Return method, scale and bias for JSON."""
        return {"method": self.method, "scale": list(self.scale), "bias": list(self.bias)}


NO_CALIBRATION = Calibration("none")


def fit_temperature(labels: npt.ArrayLike, logits: npt.ArrayLike) -> float:
    """Return the temperature T for which ``softmax(logits / T)`` has the least log loss.

    Parameters
    ----------
    labels
        0 (A), 1 (B) or 2 (tie), (n,).
    logits
        Finite, (n, 3); logarithms of probabilities will do.

    Returns
    -------
    float
        In [0.05, 20]. Above one: the model was too sure of itself.

    Raises
    ------
    ScoresError
        Labels or logits are not what they should be.

    References
    ----------
    Guo, Pleiss, Sun and Weinberger (2017), On calibration of modern neural networks.

    Examples
    --------
    >>> sure = np.log([[0.9, 0.05, 0.05]] * 4)  # and right in three of four
    >>> round(fit_temperature([0, 0, 0, 1], sure), 2)
    1.61
    """
    return 1 / fit_calibration(labels, logits, method="temperature").scale[0]


def fit_calibration(
    labels: npt.ArrayLike, logits: npt.ArrayLike, *, method: str, symmetric: bool = False
) -> Calibration:
    """Fit one family to all rows.

    Parameters
    ----------
    labels, logits
        As in :func:`fit_temperature`.
    method
        "temperature", "bias" or "vector".
    symmetric
        Treat A and B alike, so that what was symmetric under the swap stays so.

    Raises
    ------
    ScoresError
        As :func:`fit_temperature`, and for an unknown method.

    Examples
    --------
    >>> fitted = fit_calibration([0, 1, 2, 2], np.zeros((4, 3)), method="bias", symmetric=True)
    >>> fitted.apply([[0.0, 0.0, 0.0]]).round(3)
    array([[0.25, 0.25, 0.5 ]])
    """
    labels = check_labels(labels)
    log_probs = log_softmax(check_logits(logits, len(labels)), axis=1)
    start, design = _family(method, symmetric)
    least = np.r_[np.full(_N_SCALES, SMALLEST_SCALE), np.full(N_CLASSES, -_LARGEST_BIAS)]
    most = np.r_[np.full(_N_SCALES, LARGEST_SCALE), np.full(N_CLASSES, _LARGEST_BIAS)]
    # Each free number moves the entries of its column alike, so their bounds are its own.
    first = np.argmax(design, axis=0)
    found = minimize(
        _loss_and_gradient,
        np.where(first < _N_SCALES, 1.0, 0.0),
        args=(start, design, labels, log_probs),
        jac=True,
        method="L-BFGS-B",
        bounds=Bounds(least[first], most[first]),
        options={"ftol": 1e-15, "gtol": 1e-9, "maxiter": 500},
    )
    scale, bias = np.split(start + design @ found.x, [_N_SCALES])
    return Calibration(method, tuple(scale.tolist()), tuple(bias.tolist()))


def check_logits(logits: npt.ArrayLike, n_rows: int | None = None) -> FloatArray:
    """Return `logits` as float64 (n, 3), finite.

    Raises
    ------
    ScoresError
        Another shape, or a value that is not finite; names the rows.
    """
    values = np.asarray(logits, dtype=np.float64)
    if values.ndim != 2 or values.shape[1] != N_CLASSES or n_rows not in (None, len(values)):
        raise ScoresError(
            f"logits has shape {values.shape}; expected ({n_rows or 'n'}, 3), a row per label."
        )
    wrong = np.flatnonzero(~np.isfinite(values).all(1))
    if len(wrong):
        raise ScoresError(
            f"logits is not finite in {len(wrong)} rows, the first at row {wrong[0]}. If these are "
            "logarithms of probabilities, clip the probabilities above zero first."
        )
    return values


def _family(method: str, symmetric: bool) -> tuple[FloatArray, FloatArray]:
    """Scale and bias (6,) where nothing is fitted, and what each free number moves (6, k)."""
    eye = np.eye(N_CLASSES)
    alike = np.array([[1.0, 0], [1, 0], [0, 1]]) if symmetric else eye
    # One bias is held at zero: a constant added to all three has no effect.
    biases = eye[:, 2:] if symmetric else eye[:, :2]
    nothing = np.zeros((N_CLASSES, 0))
    scales_and_biases = {
        "temperature": (np.ones((N_CLASSES, 1)), nothing),
        "bias": (nothing, biases),
        "vector": (alike, biases),
    }
    if method not in scales_and_biases:
        raise ScoresError(f"method is {method!r}; expected one of {', '.join(METHODS)}.")
    scales, biases = scales_and_biases[method]
    design = np.zeros((2 * N_CLASSES, scales.shape[1] + biases.shape[1]))
    design[:_N_SCALES, : scales.shape[1]] = scales
    design[_N_SCALES:, scales.shape[1] :] = biases
    start = np.r_[np.full(_N_SCALES, 0.0 if scales.shape[1] else 1.0), np.zeros(N_CLASSES)]
    return start, design


def _loss_and_gradient(
    free: FloatArray,
    start: FloatArray,
    design: FloatArray,
    labels: IntArray,
    log_probs: FloatArray,
) -> tuple[float, FloatArray]:
    scale, bias = np.split(start + design @ free, [_N_SCALES])
    scaled = log_softmax(log_probs * scale + bias, axis=1)
    residual = (np.exp(scaled) - np.eye(N_CLASSES)[labels]) / len(labels)
    gradient = np.r_[(residual * log_probs).sum(0), residual.sum(0)]
    return float(-scaled[np.arange(len(labels)), labels].mean()), gradient @ design
