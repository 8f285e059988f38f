"""Davidson's model of paired comparisons with ties, with or without a weight for length.

With strengths s, a length difference d (logarithm of the ratio) and its weight c, the odds of A
winning, B winning and a tie are

    exp((s_A - s_B + c d) / 2) : exp(-(s_A - s_B + c d) / 2) : exp(t + u |d|).

Without length, evalica fits it as Newman's model. With length, scikit-learn fits it as a
multinomial regression on every pair in both orders, so that the coefficients of A and B are
opposite. Outcomes may be labels or probabilities; both count as shares of a vote.

References
----------
Davidson (1970), On extending the Bradley-Terry model to accommodate ties in paired comparison
experiments. Newman (2023), Efficient computation of rankings from pairwise comparisons. Dubois,
Galambos, Liang and Hashimoto (2024), Length-controlled AlpacaEval (the idea of the control).
"""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression

from tiewise.errors import TiewiseError
from tiewise.evaluation.intervals import FloatArray, IntArray

PRIOR_VOTES = 0.1
"""Weight of an undecided vote added for any two models that met, which bounds every strength."""

_N_ITERATIONS = 1000
_INVERSE_PENALTY = 1e4


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


def fit_plain(contests: Contests) -> Fit:
    """Fit strengths and one tie constant with evalica, without length."""
    evalica = import_evalica()
    votes = contests.with_prior()
    names = list(range(votes.n_models))
    table = pd.DataFrame({"first": votes.first, "second": votes.second})
    shares = pd.DataFrame(votes.outcomes).groupby([table["first"], table["second"]]).sum()
    first, second = (shares.index.get_level_values(level).repeat(3).tolist() for level in (0, 1))
    results = [evalica.Winner.X, evalica.Winner.Y, evalica.Winner.Draw] * len(shares)
    weights = shares.to_numpy().ravel().tolist()
    found = evalica.newman(
        first, second, results, index=pd.Index(names), weights=weights, limit=_N_ITERATIONS
    )
    strengths = np.log(found.scores.loc[names].to_numpy(np.float64))
    # Newman's tie odds are 2 v sqrt(s_A s_B).
    return Fit(strengths - strengths.mean(), 0.0, (float(np.log(2 * found.v)), 0.0), False)


def fit_controlled(contests: Contests) -> Fit:
    """Fit strengths, the weight of length and both tie constants with scikit-learn."""
    votes = contests.with_prior()
    directed, undirected = _design(votes)
    features = sparse.hstack([directed, undirected[:, 1:]]).tocsr()
    exchanged = sparse.hstack([-directed, undirected[:, 1:]]).tocsr()
    n = len(votes.first)
    rows = sparse.vstack([features] * 3 + [exchanged] * 3)
    targets = np.repeat([0, 1, 2, 1, 0, 2], n)
    weights = np.tile(votes.outcomes.T.ravel(), 2)
    model = LogisticRegression(C=_INVERSE_PENALTY, max_iter=2000, tol=1e-6)
    model.fit(rows, targets, sample_weight=weights)
    a, b, tie = model.coef_
    slope, decisive = a - b, (a + b) / 2
    strengths = slope[: votes.n_models]
    constant = model.intercept_[2] - model.intercept_[:2].mean()
    return Fit(
        strengths - strengths.mean(),
        float(slope[votes.n_models]),
        (float(constant), float((tie - decisive)[-1])),
        is_controlled=True,
    )


def influence(contests: Contests, fit: Fit) -> FloatArray:
    """Return the influence of each row on each parameter of a fit: (n, n_models + 3).

    Summed within groups, influences give clustered standard errors (the sandwich estimator).
    Parameters that were not fitted have none.
    """
    directed, undirected = _design(contests)
    lead = directed @ fit.parameters[: contests.n_models + 1] / 2
    probs = softmax(np.column_stack([lead, -lead, undirected @ np.array(fit.tie)]), axis=1)
    residual = contests.outcomes - probs
    scores = np.hstack(
        [
            directed.multiply((residual[:, :1] - residual[:, 1:2]) / 2).toarray(),
            undirected * residual[:, 2:],
        ]
    )
    fitted = np.ones(scores.shape[1], dtype=bool)
    if not fit.is_controlled:
        fitted[[contests.n_models, -1]] = False
    information = _information(directed, undirected, probs)[np.ix_(fitted, fitted)]
    found = np.zeros_like(scores)
    # Strengths are known up to a constant, so the information has only a pseudo-inverse.
    found[:, fitted] = scores[:, fitted] @ np.linalg.pinv(information, hermitian=True)
    return found


def _design(contests: Contests) -> tuple[Any, FloatArray]:
    """Return the features that change sign with the order (models, d) and the others (1, |d|)."""
    n, rows = len(contests.first), np.arange(len(contests.first))
    values = np.concatenate([np.ones(n), -np.ones(n), contests.length_gap])
    places = np.concatenate([contests.first, contests.second, np.full(n, contests.n_models)])
    shape = (n, contests.n_models + 1)
    directed = sparse.csr_array((values, (np.tile(rows, 3), places)), shape=shape)
    return directed, np.column_stack([np.ones(n), np.abs(contests.length_gap)])


def _information(directed: Any, undirected: FloatArray, probs: FloatArray) -> FloatArray:
    """Return the Fisher information of all parameters: (n_models + 3, n_models + 3)."""
    lead, tie = (probs[:, 0] - probs[:, 1]) / 2, probs[:, 2]
    spread = (1 - tie) / 4 - lead**2
    upper = (directed.T @ directed.multiply(spread[:, None])).toarray()
    cross = directed.T @ (undirected * (-lead * tie)[:, None])
    lower = undirected.T @ (undirected * (tie * (1 - tie))[:, None])
    return np.block([[upper, cross], [cross.T, lower]])


def import_evalica() -> ModuleType:
    """Return the package evalica, or raise TiewiseError if it is not installed."""
    try:
        import evalica
    except ImportError as error:
        raise TiewiseError(
            "evalica is not installed; a ranking needs it. Run pip install 'tiewise[rank]'."
        ) from error
    return evalica
