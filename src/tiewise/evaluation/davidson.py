"""Davidson's model of pairwise comparisons with ties, with and without a weight of length.

With strengths s, a length difference d (logarithm of the ratio) and its weight c, the odds of A
winning, B winning and a tie are

    exp((s_A - s_B + c d) / 2) : exp(-(s_A - s_B + c d) / 2) : exp(t + u |d|).

Without length, c and u are zero. Outcomes may be labels or probabilities; both count as shares of a
vote. The log likelihood is concave, and SciPy finds its maximum with the exact second derivatives.

References
----------
Davidson (1970), On extending the Bradley-Terry model to accommodate ties in paired comparison
experiments. Dubois, Galambos, Liang and Hashimoto (2024), Length-controlled AlpacaEval (the idea of
the control).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

from tiewise.errors import ScoresError
from tiewise.evaluation.intervals import FloatArray, IntArray

PRIOR_VOTES = 0.1
"""Weight of an undecided vote added for any two models that met, which bounds every strength."""

_PENALTY = 1e-4  # bounds c and u, which a difference of length that is always zero leaves free
_N_STEPS = 20
_LARGEST_STEP = 1e-8


@dataclass(frozen=True)
class Contests:
    """Models, outcome and length difference of every pair."""

    first: IntArray
    second: IntArray
    """Indices of the models of responses A and B, (n,) each."""

    outcomes: FloatArray
    """Shares of a vote for A, B, tie, (n, 3)."""

    length_gap: FloatArray
    """Logarithm of A's length over B's, (n,)."""

    n_models: int

    def with_prior(self) -> Contests:
        """Add a tenth of an undecided vote, at equal length, for any two models that met."""
        pairs = np.sort(np.column_stack([self.first, self.second]), axis=1)
        first, second = np.unique(pairs, axis=0).T
        undecided = np.full((len(first), 3), PRIOR_VOTES / 3)
        return Contests(
            np.concatenate([self.first, first]),
            np.concatenate([self.second, second]),
            np.vstack([self.outcomes, undecided]),
            np.concatenate([self.length_gap, np.zeros(len(first))]),
            self.n_models,
        )


@dataclass(frozen=True)
class Fit:
    """A fitted model."""

    strengths: FloatArray
    """(n_models,), with mean zero."""

    length_weight: float
    tie: tuple[float, float]
    """Log odds of a tie at equal length, t, and their change per unit of |d|, u."""

    is_controlled: bool
    """Whether the weight of length was fitted."""

    @property
    def parameters(self) -> FloatArray:
        """Strengths, length weight and tie constants: (n_models + 3,)."""
        return np.concatenate([self.strengths, [self.length_weight], self.tie])


def fit_davidson(contests: Contests, *, is_controlled: bool) -> Fit:
    """Return the maximum likelihood fit, with the weight of length if `is_controlled`.

    It is finite if every model that met another has a share of each outcome, as
    :meth:`Contests.with_prior` ensures. ScoresError is raised if the search does not converge.

    >>> votes = np.array([[600.0, 400.0, 100.0]])
    >>> fit = fit_davidson(
    ...     Contests(np.array([0]), np.array([1]), votes, np.zeros(1), 2), is_controlled=False
    ... )
    >>> fit.strengths.round(3)  # log(600 / 400) / 2 above and below the mean
    array([ 0.203, -0.203])
    """
    likelihood = _Likelihood(contests, is_controlled)
    found = minimize(
        likelihood.loss,
        np.zeros(likelihood.is_fitted.sum()),
        jac=True,
        hess=likelihood.curvature,
        method="trust-exact",
        options={"gtol": 1e-9, "maxiter": 500},
    )
    parameters = likelihood.fill(_refine(likelihood, found.x))
    strengths = parameters[: contests.n_models]
    weight, constant, slope = parameters[contests.n_models :].tolist()
    return Fit(strengths - strengths.mean(), weight, (constant, slope), is_controlled)


def _refine(likelihood: _Likelihood, fitted: FloatArray) -> FloatArray:
    """Take Newton steps from a point near the optimum until they are negligible."""
    for _ in range(_N_STEPS):
        step = np.linalg.solve(likelihood.curvature(fitted), likelihood.loss(fitted)[1])
        fitted = fitted - step
        if np.abs(step).max() < _LARGEST_STEP:
            return fitted
    raise ScoresError(
        f"the strengths did not converge: a step still moves them by {np.abs(step).max():.1g}; "
        f"expected less than {_LARGEST_STEP}. Leave out models with few pairs."
    )


def influence(contests: Contests, fit: Fit) -> FloatArray:
    """Return the influence of each row on each parameter of a fit: (n, n_models + 3).

    Summed within groups, influences give clustered standard errors (the sandwich estimator). `fit`
    is of the rows and their prior votes. Those on the strengths sum to zero over the models;
    parameters that were not fitted have none.
    """
    likelihood = _Likelihood(contests, fit.is_controlled)
    scores = likelihood.scores(fit.parameters)
    fitted = likelihood.is_fitted
    with_prior = _Likelihood(contests.with_prior(), fit.is_controlled)
    curvature = with_prior.curvature(fit.parameters[fitted])
    found = np.zeros_like(scores)
    found[:, fitted] = np.linalg.solve(curvature, scores[:, fitted].T).T
    return found


class _Likelihood:
    """Minus the log likelihood of the fitted parameters, and its derivatives.

    Strengths are known up to a constant. A penalty on the square of their sum fixes it, which
    changes neither their differences nor, at a sum of zero, the likelihood.
    """

    def __init__(self, contests: Contests, is_controlled: bool) -> None:
        n, k = len(contests.first), contests.n_models
        rows = np.tile(np.arange(n), 3)
        values = np.concatenate([np.ones(n), -np.ones(n), contests.length_gap])
        places = np.concatenate([contests.first, contests.second, np.full(n, k)])
        # Features that change sign with the order (models, d), and the others (1, |d|).
        self.directed = sparse.csr_array((values, (rows, places)), shape=(n, k + 1))
        self.undirected = np.column_stack([np.ones(n), np.abs(contests.length_gap)])
        self.outcomes = contests.outcomes
        self.votes = contests.outcomes.sum(1)
        self.is_fitted = np.ones(k + 3, dtype=bool)
        self.is_fitted[[k, k + 2]] = is_controlled
        self.penalty = np.diag(np.repeat([0, _PENALTY, 0, _PENALTY], [k, 1, 1, 1]))
        self.penalty[:k, :k] = self.votes.sum() / k**2

    def fill(self, fitted: FloatArray) -> FloatArray:
        """Return all parameters, zero where not fitted: (n_models + 3,)."""
        parameters = np.zeros(len(self.is_fitted))
        parameters[self.is_fitted] = fitted
        return parameters

    def loss(self, fitted: FloatArray) -> tuple[float, FloatArray]:
        """Return minus the penalised log likelihood and its gradient."""
        parameters = self.fill(fitted)
        logits = self._logits(parameters)
        gradient = self.penalty @ parameters - self._score_sums(softmax(logits, axis=1))
        loss = parameters @ self.penalty @ parameters / 2
        loss -= (self.outcomes * log_softmax(logits, axis=1)).sum()
        return float(loss), gradient[self.is_fitted]

    def curvature(self, fitted: FloatArray) -> FloatArray:
        """Return the second derivatives, the Fisher information and the penalty."""
        probs = softmax(self._logits(self.fill(fitted)), axis=1)
        lead, tie = (probs[:, 0] - probs[:, 1]) / 2, probs[:, 2]
        spread = self.votes * ((1 - tie) / 4 - lead**2)
        upper = (self.directed.T @ self.directed.multiply(spread[:, None])).toarray()
        cross = self.directed.T @ (self.undirected * (-self.votes * lead * tie)[:, None])
        lower = self.undirected.T @ (self.undirected * (self.votes * tie * (1 - tie))[:, None])
        information = np.block([[upper, cross], [cross.T, lower]]) + self.penalty
        return np.asarray(information[np.ix_(self.is_fitted, self.is_fitted)])

    def scores(self, parameters: FloatArray) -> FloatArray:
        """Return the derivative of each row's log likelihood: (n, n_models + 3)."""
        lead, tie = self._residuals(softmax(self._logits(parameters), axis=1))
        return np.hstack([self.directed.multiply(lead).toarray(), self.undirected * tie])

    def _score_sums(self, probs: FloatArray) -> FloatArray:
        lead, tie = self._residuals(probs)
        sums = [self.directed.T @ lead[:, 0], self.undirected.T @ tie[:, 0]]
        return np.concatenate(sums)

    def _residuals(self, probs: FloatArray) -> tuple[FloatArray, FloatArray]:
        residual = self.outcomes - self.votes[:, None] * probs
        return (residual[:, :1] - residual[:, 1:2]) / 2, residual[:, 2:]

    def _logits(self, parameters: FloatArray) -> npt.NDArray[Any]:
        lead = self.directed @ parameters[:-2] / 2
        return np.column_stack([lead, -lead, self.undirected @ parameters[-2:]])
