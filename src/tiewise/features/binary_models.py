"""The two questions about a pair: do the responses tie, and if not, which one wins.

Each is answered by a `Part`, a blend of a logistic regression and boosted trees. The *odd* part
(A against B) changes its sign when the responses are exchanged, the *even* part (tie or not) does
not change: both by construction, bit for bit. Splitting the question loses nothing, since
log loss of three classes = log loss of tie or not + log loss of A or B where there is no tie.
How strongly to regularise, how many trees to grow and how to blend is chosen on rows held out by
group inside the rows given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize

from tiewise.data.folds import fold_by_group, split
from tiewise.features.logistic import Logistic, fit_logistic
from tiewise.features.pair_features import PairFeatures
from tiewise.features.trees import Trees, fit_trees

FloatArray = npt.NDArray[np.float64]
IndexArray = npt.NDArray[np.intp]

_PENALTIES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
_MOST_TREES = 300
_TREE_STEP = 10
_FEWEST_GROUPS = 6
_MANY_ROWS = 12_000


@dataclass(frozen=True)
class Settings:
    """What is chosen for a part.

    Attributes
    ----------
    penalty
        Of the logistic regression.
    n_trees
        How many trees are grown.
    blend
        What the log odds of the logistic regression and of the trees are multiplied by, and what is
        added (0 in an odd part).
    log_loss
        Of the held-out rows, in nats; None where nothing was held out.
    """

    penalty: float = 0.3
    n_trees: int = 50
    blend: tuple[float, float, float] = (0.5, 0.5, 0.0)
    log_loss: float | None = None


@dataclass(frozen=True)
class Part:
    """A fitted answer to one of the two questions."""

    logistic: Logistic
    trees: Trees
    settings: Settings
    is_odd: bool

    def log_odds(self, features: PairFeatures) -> FloatArray:
        """Return log odds, shape (n,): of A against B (odd) or of a tie against none (even)."""
        first, second, constant = self.settings.blend
        from_logistic = self.logistic.log_odds(logistic_table(features, is_odd=self.is_odd))
        from_trees = _tree_log_odds(self.trees, features, self.is_odd)
        return first * from_logistic + second * from_trees + constant


@dataclass(frozen=True)
class _Rows:
    """Pairs, and what happened in them."""

    features: PairFeatures
    outcomes: FloatArray
    weights: FloatArray
    is_odd: bool

    def take(self, index: npt.ArrayLike) -> _Rows:
        chosen = np.asarray(index)
        outcomes, weights = self.outcomes[chosen], self.weights[chosen]
        return _Rows(self.features.rows(chosen), outcomes, weights, self.is_odd)

    def loss(self, log_odds: FloatArray) -> float:
        """Mean log loss of log odds for these rows, in order."""
        costs = np.logaddexp(0, log_odds) - self.outcomes * log_odds
        return float((self.weights * costs).sum() / self.weights.sum())


def fit_part(
    features: PairFeatures,
    outcomes: FloatArray,
    weights: FloatArray,
    groups: npt.NDArray[np.str_],
    *,
    is_odd: bool,
    seed: int = 0,
) -> Part:
    """Choose the settings and fit one part.

    Parameters
    ----------
    features
        Of n pairs.
    outcomes
        Shape (n,): probability that A wins (odd) or that the pair ties (even).
    weights
        Shape (n,), not negative; rows of weight 0 are left out.
    groups
        Shape (n,): rows of one group are never on both sides of a split.
    is_odd
        Which of the two questions.
    seed
        Of the splits and the trees.
    """
    counted = np.flatnonzero(weights > 0)
    rows = _soften(_Rows(features, outcomes, weights, is_odd).take(counted))
    settings = _choose(rows, groups[counted], seed)
    logistic = _grow_logistic(rows, settings.penalty)
    return Part(logistic, _grow_trees(rows, settings.n_trees, seed), settings, is_odd)


def logistic_table(features: PairFeatures, *, is_odd: bool) -> FloatArray:
    """Return what the logistic regression sees: signed features, or their sizes and shared ones."""
    return features.signed if is_odd else _even_table(features)


def _soften(rows: _Rows) -> _Rows:
    """Add half a row of each outcome where only one was seen: it cannot be certain."""
    n = rows.weights.sum()
    if not len(rows.outcomes) or rows.is_odd or rows.outcomes.min() < rows.outcomes.max():
        return rows
    return replace(rows, outcomes=(n * rows.outcomes + 0.5) / (n + 1))


def _even_table(features: PairFeatures) -> FloatArray:
    return np.concatenate([np.abs(features.signed), features.shared], axis=1)


def _odd_table(features: PairFeatures, sign: float) -> FloatArray:
    return np.concatenate([sign * features.signed, features.shared], axis=1)


def _grow_logistic(rows: _Rows, penalty: float) -> Logistic:
    table = logistic_table(rows.features, is_odd=rows.is_odd)
    return fit_logistic(table, rows.outcomes, rows.weights, penalty=penalty, is_odd=rows.is_odd)


def _grow_trees(rows: _Rows, n_trees: int, seed: int) -> Trees:
    """Grow trees; for an odd part on every pair in both orders."""
    if not rows.is_odd:
        table, outcomes, weights = _even_table(rows.features), rows.outcomes, rows.weights
    else:
        table = np.concatenate([_odd_table(rows.features, sign) for sign in (1.0, -1.0)])
        outcomes = np.concatenate([rows.outcomes, 1 - rows.outcomes])
        weights = np.tile(rows.weights, 2)
    return fit_trees(table, outcomes, weights, n_trees=n_trees, seed=seed)


def _tree_log_odds(trees: Trees, features: PairFeatures, is_odd: bool) -> FloatArray:
    if not is_odd:
        return trees.log_odds(_even_table(features))
    given, exchanged = (trees.log_odds(_odd_table(features, sign)) for sign in (1.0, -1.0))
    return (given - exchanged) / 2


def _stages(trees: Trees, features: PairFeatures, is_odd: bool) -> list[FloatArray]:
    """Log odds after 0, 10, 20, … trees."""
    if not is_odd:
        staged = list(trees.staged_log_odds(_even_table(features)))
        return staged[::_TREE_STEP]
    orders = [trees.staged_log_odds(_odd_table(features, sign)) for sign in (1.0, -1.0)]
    return [(given - swapped) / 2 for given, swapped in zip(*orders, strict=True)][::_TREE_STEP]


def _choose(rows: _Rows, groups: npt.NDArray[np.str_], seed: int) -> Settings:
    if len(np.unique(groups)) < _FEWEST_GROUPS:
        return Settings()
    splits = _make_splits(groups, rows.outcomes, seed)
    held = rows.take(np.concatenate([eval_idx for _, eval_idx in splits]))
    penalty, logistic = _choose_penalty(rows, held, splits)
    n_trees, trees = _choose_n_trees(rows, held, splits, seed)
    blend = _fit_blend(held, logistic, trees)
    loss = held.loss(blend[0] * logistic + blend[1] * trees + blend[2])
    return Settings(penalty, n_trees, blend, loss)


def _make_splits(
    groups: npt.NDArray[np.str_], outcomes: FloatArray, seed: int
) -> list[tuple[IndexArray, IndexArray]]:
    """Three folds; of many rows a quarter is held out once, which is enough to judge by."""
    n_splits, n_used = (3, 3) if len(groups) <= _MANY_ROWS else (4, 1)
    folds = fold_by_group(groups, (outcomes > 0.5).astype(int), n_splits, seed=seed)
    return [split(folds, fold) for fold in range(n_used)]


def _choose_penalty(
    rows: _Rows, held: _Rows, splits: Sequence[tuple[IndexArray, IndexArray]]
) -> tuple[float, FloatArray]:
    found = {}
    for penalty in _PENALTIES:
        parts = [
            _grow_logistic(rows.take(train_idx), penalty).log_odds(
                logistic_table(rows.features.rows(eval_idx), is_odd=rows.is_odd)
            )
            for train_idx, eval_idx in splits
        ]
        log_odds = np.concatenate(parts)
        found[held.loss(log_odds), penalty] = log_odds
    best = min(found)
    return best[1], found[best]


def _choose_n_trees(
    rows: _Rows, held: _Rows, splits: Sequence[tuple[IndexArray, IndexArray]], seed: int
) -> tuple[int, FloatArray]:
    stages = []
    for train_idx, eval_idx in splits:
        trees = _grow_trees(rows.take(train_idx), _MOST_TREES, seed)
        stages.append(_stages(trees, rows.features.rows(eval_idx), rows.is_odd))
    together = [np.concatenate(stage) for stage in zip(*stages, strict=False)]
    best = int(np.argmin([held.loss(log_odds) for log_odds in together]))
    return best * _TREE_STEP, together[best]


def _fit_blend(held: _Rows, logistic: FloatArray, trees: FloatArray) -> tuple[float, float, float]:
    def loss(blend: FloatArray) -> float:
        return held.loss(blend[0] * logistic + blend[1] * trees + blend[2])

    most = 0.0 if held.is_odd else 1.0
    bounds = [(0.0, 1.5), (0.0, 1.5), (-most, most)]
    first, second, constant = minimize(
        loss, np.array([0.3, 0.7, 0.0]), bounds=bounds, method="L-BFGS-B"
    ).x.tolist()
    return first, second, constant
