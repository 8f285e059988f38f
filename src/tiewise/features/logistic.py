"""Penalised logistic regression whose fitted form is a few plain arrays.

Predicting needs numpy alone, and gives each row the same value whatever rows stand beside it. An
*odd* model has no intercept and does not centre its columns: negating a row negates its log odds,
bit for bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tiewise.errors import ModelError

FloatArray = npt.NDArray[np.float64]

_LIMIT = 4.0
_CHUNK_ROWS = 4096


@dataclass(frozen=True)
class Logistic:
    """A fitted model.

    Attributes
    ----------
    centre, scale, weights
        float64, shape (n_columns,): a row is centred, scaled, cut to [-4, 4] and weighed.
    intercept
        Log odds of an average row.
    """

    centre: FloatArray
    scale: FloatArray
    weights: FloatArray
    intercept: float

    def log_odds(self, table: FloatArray) -> FloatArray:
        """Return log odds, shape (n,), of a table of shape (n, n_columns)."""
        # A matrix product may round a row differently from one batch to the next; a sum does not.
        chunks = [
            (
                _standardise(table[start : start + _CHUNK_ROWS], self.centre, self.scale)
                * self.weights
            ).sum(axis=1)
            for start in range(0, len(table), _CHUNK_ROWS)
        ]
        return np.concatenate([np.zeros(0), *chunks]) + self.intercept

    def to_json(self, *, n_digits: int = 17) -> dict[str, Any]:
        """Return the model as JSON values with so many significant digits; 17 lose nothing."""
        arrays = {name: getattr(self, name).tolist() for name in ("centre", "scale", "weights")}
        rounded = {name: [_round(x, n_digits) for x in values] for name, values in arrays.items()}
        return {**rounded, "intercept": _round(self.intercept, n_digits)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any], n_columns: int) -> Logistic:
        """Return the model that `to_json` gave.

        Raises
        ------
        ModelError
            When a part is missing, not finite, or not made for so many columns.
        """
        try:
            arrays = [np.array(values[name], np.float64) for name in ("centre", "scale", "weights")]
            intercept = float(values["intercept"])
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(_damage(f"{type(error).__name__}: {error}")) from error
        if any(array.shape != (n_columns,) for array in arrays):
            raise ModelError(_damage(f"its arrays are not made for {n_columns} columns"))
        if not all(np.isfinite(array).all() for array in (*arrays, np.array(intercept))):
            raise ModelError(_damage("it holds a value that is not finite"))
        return cls(arrays[0], arrays[1], arrays[2], intercept)


def fit_logistic(
    table: FloatArray,
    outcomes: FloatArray,
    weights: FloatArray,
    *,
    penalty: float = 0.1,
    is_odd: bool = False,
) -> Logistic:
    """Fit by penalised maximum likelihood.

    Parameters
    ----------
    table
        Shape (n, n_columns), finite. Without rows the model says even odds to everything.
    outcomes
        Shape (n,): probabilities in [0, 1]; 0 and 1 for plain labels.
    weights
        Shape (n,), positive.
    penalty
        Half of it times the sum of squared weights is added to the mean loss.
    is_odd
        Whether to fit a model without centre and intercept.

    Examples
    --------
    >>> model = fit_logistic(np.array([[-1.0], [1.0]]), np.array([0.0, 1.0]), np.ones(2))
    >>> bool(model.log_odds(np.array([[1.0]]))[0] > 0)
    True
    """
    n_columns = table.shape[1]
    if not len(table):
        return Logistic(np.zeros(n_columns), np.ones(n_columns), np.zeros(n_columns), 0.0)
    shares = weights / weights.sum()
    # About the first row, so that a constant column has a deviation of exactly 0.
    centre = np.zeros(n_columns) if is_odd else table[0] + shares @ (table - table[0])
    scale = np.sqrt(shares @ (table - centre) ** 2)
    scale = np.where(scale > 1e-9, scale, 1.0)
    columns = _standardise(table, centre, scale)
    intercept, *found = _minimise(columns, outcomes, shares, penalty, is_odd)
    return Logistic(centre, scale, np.array(found), 0.0 if is_odd else float(intercept))


def _minimise(
    columns: FloatArray, outcomes: FloatArray, weights: FloatArray, penalty: float, is_odd: bool
) -> FloatArray:
    # Predicting needs numpy alone, so scipy is loaded where it is used.
    from scipy.optimize import minimize
    from scipy.special import expit

    def loss_and_gradient(theta: FloatArray) -> tuple[float, FloatArray]:
        log_odds = columns @ theta[1:] + (0.0 if is_odd else theta[0])
        loss = (weights * (np.logaddexp(0, log_odds) - outcomes * log_odds)).sum()
        residual = weights * (expit(log_odds) - outcomes)
        gradient = np.concatenate([[0.0 if is_odd else residual.sum()], columns.T @ residual])
        gradient[1:] += penalty * theta[1:]
        return float(loss + penalty * (theta[1:] ** 2).sum() / 2), gradient

    options = {"maxiter": 500, "gtol": 1e-7, "ftol": 1e-13}
    start = np.zeros(columns.shape[1] + 1)
    found = minimize(loss_and_gradient, start, jac=True, method="L-BFGS-B", options=options)
    return np.asarray(found.x, dtype=np.float64)


def _standardise(table: FloatArray, centre: FloatArray, scale: FloatArray) -> FloatArray:
    return np.clip((table - centre) / scale, -_LIMIT, _LIMIT)


def _round(value: float, n_digits: int) -> float:
    return float(f"{value:.{n_digits}g}")


def _damage(what: str) -> str:
    return f"the logistic model is damaged: {what}; fit it again or restore its file"
