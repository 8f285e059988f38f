"""Bradley-Terry leaderboards of models, from labels and from predictions, also length-controlled.

A judge that only measures length agrees with people to the extent that longer responses win. With
length controlled, the spread of its strengths shrinks to a fraction, while the spread from people's
labels does not. Where the spread is near zero, the order means nothing.

The model is Davidson's. With strengths s, a length difference d (logarithm of the ratio) and its
weight c, the odds of A winning, B winning and a tie are

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
from scipy.sparse.csgraph import connected_components
from scipy.special import softmax
from scipy.stats import kendalltau
from sklearn.linear_model import LogisticRegression

from tiewise.data.labels import PROB_COLUMNS
from tiewise.data.parse import count_characters
from tiewise.errors import ScoresError, TiewiseError
from tiewise.evaluation.intervals import (
    FloatArray,
    IntArray,
    Interval,
    Result,
    check_confidence,
    check_resamples,
    few_groups_mark,
    group_rows,
    resampled_totals,
)
from tiewise.evaluation.metrics import N_CLASSES, check_labels, check_probs
from tiewise.evaluation.slices import join_rows

PRIOR_VOTES = 0.1
"""Weight of an undecided vote added for any two models that met, which bounds every strength."""

_N_ITERATIONS = 1000
_INVERSE_PENALTY = 1e4
_TITLES = {
    "observed": "observed",
    "predicted": "predicted",
    "observed_controlled": "observed, length controlled",
    "predicted_controlled": "predicted, length controlled",
}
"""Fields of `Leaderboards` that hold a leaderboard, with their titles."""


@dataclass(frozen=True)
class Leaderboard(Result):
    """Models and their strengths, the strongest first."""

    models: tuple[str, ...]
    strengths: tuple[Interval, ...]
    """Log odds of a win against an average model; their mean is zero."""

    length_weight: Interval | None
    """Log odds that a unit of the log length ratio adds; None if length is not controlled."""

    spread: Interval
    """Standard deviation of the strengths; near zero, the models cannot be told apart."""

    def to_dict(self) -> dict[str, Any]:
        """Return the leaderboard for JSON."""
        board = zip(self.models, self.strengths, strict=True)
        found = super().to_dict()
        del found["strengths"]
        return found | {"models": [{"model": m, **strength.to_dict()} for m, strength in board]}

    def __str__(self) -> str:
        width = max(len(model) for model in self.models)
        board = zip(self.models, self.strengths, strict=True)
        lines = [f"{place:3}  {m:{width}}  {s:+.3f}" for place, (m, s) in enumerate(board, 1)]
        return "\n".join(lines)


@dataclass(frozen=True)
class Leaderboards(Result):
    """Leaderboards from labels and from predictions, without and with length control."""

    n: int
    n_groups: int
    observed: Leaderboard
    predicted: Leaderboard
    observed_controlled: Leaderboard
    predicted_controlled: Leaderboard
    agreement: Interval
    agreement_controlled: Interval
    """Kendall's tau between the predicted and the observed order."""

    omitted: tuple[str, ...]
    """Models that no chain of pairs connects with those ranked."""

    def __str__(self) -> str:
        lines = [f"{self.n:,} rows in {self.n_groups:,} groups{few_groups_mark(self.n_groups)}"]
        for name, title in _TITLES.items():
            board: Leaderboard = getattr(self, name)
            weight = f", weight of length {board.length_weight:+.3f}" if board.length_weight else ""
            lines += [f"{title} (spread {board.spread:.3f}{weight})", str(board)]
        lines.append(
            f"agreement of order (Kendall's tau) {self.agreement:+.3f}, length controlled "
            f"{self.agreement_controlled:+.3f}"
        )
        if self.omitted:
            lines.append(f"not connected with these by pairs: {', '.join(self.omitted)}")
        return "\n".join(lines)


def rank_models(
    pairs: pd.DataFrame,
    oof: pd.DataFrame,
    *,
    confidence_level: float = 0.95,
    n_resamples: int = 999,
    seed: int = 0,
) -> Leaderboards:
    """Rank the models of a pairs table by labels and by the predictions `oof`.

    Only the largest set of models that a chain of pairs connects is ranked. For each
    resample of prompt groups the strengths move by one Newton step, so the intervals are clustered
    by group. ScoresError is raised if no labelled row names two different models.
    """
    check_confidence(confidence_level)
    check_resamples(n_resamples)
    table, codes, models, omitted = _connected_rows(join_rows(pairs, oof[oof["label"].notna()]))
    labels = check_labels(table["label"])
    probs = check_probs(table[PROB_COLUMNS].to_numpy(), len(labels)).astype(np.float64)
    grouped = group_rows(table["group"], labels, probs)
    a, b = (table[f"response_{side}"].map(count_characters).to_numpy() for side in "ab")
    gap = np.log1p(a) - np.log1p(b)
    fits: dict[str, Fit] = {}
    influences = []
    for name in _TITLES:
        outcomes = np.eye(N_CLASSES)[labels] if name.startswith("observed") else probs
        contests = Contests(codes[:, 0], codes[:, 1], outcomes, gap, len(models))
        fits[name] = (fit_controlled if name.endswith("controlled") else fit_plain)(contests)
        influences.append(influence(contests, fits[name]))
    # All four share the resamples, so that the values which are compared move together.
    sums = grouped.sums(np.hstack(influences))
    moves = resampled_totals(sums, n_resamples, np.random.default_rng(seed)) - sums.sum(0)
    fitted = np.concatenate([fit.parameters for fit in fits.values()])
    # The sample is the first line, the resamples are the others.
    drawn = np.split(np.vstack([fitted, fitted + moves]), len(fits), axis=1)
    boards = {
        name: _board(models, fits[name], draws, confidence_level)
        for name, draws in zip(_TITLES, drawn, strict=True)
    }
    strengths = [parameters[:, : len(models)] for parameters in drawn]
    return Leaderboards(
        n=len(labels),
        n_groups=grouped.n_groups,
        **boards,
        agreement=_agreement(strengths[0], strengths[1], confidence_level),
        agreement_controlled=_agreement(strengths[2], strengths[3], confidence_level),
        omitted=omitted,
    )


def _connected_rows(
    table: pd.DataFrame,
) -> tuple[pd.DataFrame, IntArray, list[str], tuple[str, ...]]:
    """Keep the rows of the largest connected set of models, and number its models by name.

    Returns the rows, the numbers of their two models (n, 2), and the names ranked and omitted.
    """
    is_named = table["model_a"].notna() & table["model_b"].notna()
    table = table[is_named & (table["model_a"] != table["model_b"])]
    if not len(table):
        raise ScoresError(
            "no labelled row names two different models; expected the columns model_a and model_b."
        )
    names, codes = np.unique(table[["model_a", "model_b"]].astype(str), return_inverse=True)
    codes = codes.reshape(len(table), 2)
    met = sparse.coo_array((np.ones(len(codes)), codes.T), shape=(len(names), len(names)))
    _, part = connected_components(met, directed=False)
    is_ranked = part == np.bincount(part[codes[:, 0]]).argmax()
    is_kept = is_ranked[codes[:, 0]]
    numbers = np.cumsum(is_ranked) - 1
    omitted = tuple(names[~is_ranked].tolist())
    return table[is_kept], numbers[codes[is_kept]], names[is_ranked].tolist(), omitted


def _board(models: list[str], fit: Fit, drawn: FloatArray, confidence_level: float) -> Leaderboard:
    n_models = len(models)
    spread = drawn[:, :n_models].std(1, keepdims=True)
    intervals = _intervals(drawn, confidence_level)
    order = sorted(range(n_models), key=lambda k: (-fit.strengths[k], models[k]))
    return Leaderboard(
        models=tuple(models[k] for k in order),
        strengths=tuple(intervals[k] for k in order),
        length_weight=intervals[n_models] if fit.is_controlled else None,
        spread=_intervals(spread, confidence_level)[0].clip(0, np.inf),
    )


def _agreement(observed: FloatArray, predicted: FloatArray, confidence_level: float) -> Interval:
    """Return Kendall's tau of strengths, (1 + n_resamples, n_models) each."""
    taus = [kendalltau(*both).statistic for both in zip(observed, predicted, strict=True)]
    return _intervals(np.array(taus)[:, None], confidence_level)[0].clip(-1, 1)


def _intervals(drawn: FloatArray, confidence_level: float) -> list[Interval]:
    """Return intervals from the sample, in the first line, and resamples; NaN if they are equal."""
    values, drawn = drawn[0], drawn[1:]
    half = np.quantile(np.abs(drawn - drawn.mean(0)), confidence_level, axis=0)
    half = np.where(np.ptp(drawn, axis=0) > 0, half, np.nan)
    ends = zip(values.tolist(), half.tolist(), strict=True)
    return [Interval(value, value - width, value + width) for value, width in ends]


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
