"""Fit the two estimators of the feature model: logistic regression and boosted trees.

Both take soft outcomes in [0, 1] and row weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from sklearn.ensemble import HistGradientBoostingClassifier

FloatArray = npt.NDArray[np.float64]

_LIMIT = 4.0
_CHUNK_ROWS = 4096


@dataclass(frozen=True)
class Logistic:
    """A fitted logistic regression.

    A row is centred, scaled, clipped to [-4, 4] and multiplied by the weights; all three have the
    shape (n_columns,). `intercept` is the log odds of a row at the centre.
    """

    centre: FloatArray
    scale: FloatArray
    weights: FloatArray
    intercept: float

    def log_odds(self, table: FloatArray) -> FloatArray:
        """Return log odds, shape (n,), of a table of shape (n, n_columns)."""
        # A matrix product rounds a row differently in batches of other sizes; a row sum does not.
        log_odds = np.empty(len(table))
        for i in range(0, len(table), _CHUNK_ROWS):
            rows = _standardise(table[i : i + _CHUNK_ROWS], self.centre, self.scale)
            log_odds[i : i + _CHUNK_ROWS] = (rows * self.weights).sum(axis=1)
        return log_odds + self.intercept


def fit_logistic(
    table: FloatArray,
    outcomes: FloatArray,
    weights: FloatArray,
    *,
    penalty: float = 0.1,
    is_odd: bool = False,
) -> Logistic:
    """Fit a logistic regression by penalised maximum likelihood.

    scikit-learn's ``LogisticRegression`` accepts neither soft outcomes nor rows of one outcome.
    `table`, shape (n, n_columns), is finite. Half of `penalty` times the sum of squared weights is
    added to the mean loss. An odd model has no centre and no intercept, so that negating a row
    negates its log odds exactly.

    >>> model = fit_logistic(np.array([[-1.0], [1.0]]), np.array([0.0, 1.0]), np.ones(2))
    >>> bool(model.log_odds(np.array([[1.0]]))[0] > 0)
    True
    """
    n_columns = table.shape[1]
    if not len(table):
        return Logistic(np.zeros(n_columns), np.ones(n_columns), np.zeros(n_columns), 0.0)
    shares = weights / weights.sum()
    # Relative to the first row, so that a constant column has a deviation of exactly 0.
    centre = np.zeros(n_columns) if is_odd else table[0] + shares @ (table - table[0])
    scale = np.sqrt(shares @ (table - centre) ** 2)
    scale = np.where(scale > 1e-9, scale, 1.0)
    columns = _standardise(table, centre, scale)
    intercept, *found = _minimise(columns, outcomes, shares, penalty, is_odd)
    return Logistic(centre, scale, np.array(found), 0.0 if is_odd else float(intercept))


@dataclass(frozen=True)
class Trees:
    """Boosted trees; `constant` are the log odds before the first tree, or without any tree."""

    model: HistGradientBoostingClassifier | None
    constant: float

    def log_odds(self, table: FloatArray) -> FloatArray:
        """Return log odds, shape (n,), of a table of shape (n, n_columns)."""
        if self.model is None or not len(table):
            return np.full(len(table), self.constant)
        return np.asarray(self.model.decision_function(table), dtype=np.float64)

    def staged_log_odds(self, table: FloatArray) -> Iterator[FloatArray]:
        """Yield the log odds, shape (n,), without a tree, with one tree, with two, and so on."""
        yield np.full(len(table), self.constant)
        if self.model is not None:
            for stage in self.model.staged_decision_function(table):
                yield stage.ravel().copy()


def fit_trees(
    table: FloatArray, outcomes: FloatArray, weights: FloatArray, *, n_trees: int, seed: int = 0
) -> Trees:
    """Grow boosted trees; with one outcome only, none.

    `table`, shape (n, n_columns), is finite. Only ratios of weights count. `seed` chooses the
    columns of each split.
    """
    # scikit-learn and scipy are loaded where they are needed: `tiewise.score` needs numpy alone.
    from scipy.special import logit
    from sklearn.ensemble import HistGradientBoostingClassifier

    parts = np.stack([1 - outcomes, outcomes], axis=1) * weights[:, None]
    rows, labels = np.nonzero(parts > 0)
    if n_trees < 1 or len(np.unique(labels)) < 2:
        loses, wins = parts.sum(axis=0) + 0.5  # half a row of each outcome: never certain
        return Trees(None, float(np.log(wins) - np.log(loses)))
    model = HistGradientBoostingClassifier(
        learning_rate=0.05,
        max_iter=n_trees,
        max_leaf_nodes=12,
        min_samples_leaf=40,
        l2_regularization=20.0,
        max_features=0.1,
        early_stopping=False,
        random_state=seed,
    )
    seen = parts[rows, labels] / parts[rows, labels].mean()
    # scikit-learn is many times slower with weights, so equal weights are left out.
    sample_weight = seen if (seen != 1).any() else None
    model.fit(table[rows], labels, sample_weight=sample_weight)
    return Trees(model, float(logit(np.average(labels, weights=sample_weight))))


def _minimise(
    columns: FloatArray, outcomes: FloatArray, shares: FloatArray, penalty: float, is_odd: bool
) -> FloatArray:
    """Return intercept and weights, shape (1 + n_columns,)."""
    from scipy.optimize import minimize
    from scipy.special import expit

    def loss_and_gradient(theta: FloatArray) -> tuple[float, FloatArray]:
        log_odds = columns @ theta[1:] + (0.0 if is_odd else theta[0])
        loss = (shares * (np.logaddexp(0, log_odds) - outcomes * log_odds)).sum()
        residual = shares * (expit(log_odds) - outcomes)
        gradient = np.concatenate([[0.0 if is_odd else residual.sum()], columns.T @ residual])
        gradient[1:] += penalty * theta[1:]
        return float(loss + penalty * (theta[1:] ** 2).sum() / 2), gradient

    options = {"maxiter": 500, "gtol": 1e-7, "ftol": 1e-13}
    start = np.zeros(columns.shape[1] + 1)
    found = minimize(loss_and_gradient, start, jac=True, method="L-BFGS-B", options=options)
    return np.asarray(found.x, dtype=np.float64)


def _standardise(table: FloatArray, centre: FloatArray, scale: FloatArray) -> FloatArray:
    return np.clip((table - centre) / scale, -_LIMIT, _LIMIT)
