"""Fit two binary models of a pair: of a tie, and of A against B where there is no tie.

Each model blends a logistic regression with boosted trees and, where a language model has read the
pairs, with a logistic regression on its hidden states. The model of A against B is *odd*:
exchanging the responses changes exactly the sign of its log odds. The model of ties is *even*:
exchanging the responses changes nothing. The log loss of three classes is the sum of both losses.
Settings are chosen on held-out prompt groups of the training rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize

from tiewise.data.folds import fold_by_group, split
from tiewise.errors import ModelError
from tiewise.features.estimators import Logistic, Trees, fit_logistic, fit_trees
from tiewise.features.pair_features import PairFeatures
from tiewise.features.state_model import Projection, StateModel, States, fit_state_model

FloatArray = npt.NDArray[np.float64]
Splits = Sequence[tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]]

_PENALTIES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
_MAX_TREES = 300
_TREE_STEP = 10
_MIN_GROUPS = 6
_MANY_ROWS = 12_000


@dataclass(frozen=True)
class Settings:
    """Settings that are chosen on held-out rows, and the log loss of these rows in nats.

    `blend` is the factor on the log odds of the logistic regression, the factor on those of the
    trees, and a constant (0 in an odd model); `states` is the factor on those of the hidden states.
    `log_loss` is None where groups were too few to choose.
    """

    penalty: float = 0.3
    n_trees: int = 50
    blend: tuple[float, float, float] = (0.5, 0.5, 0.0)
    log_loss: float | None = None
    states: float = 0.0


FOR_NEW_SOURCES = Settings(penalty=0.1, n_trees=100)
"""Settings of A against B for votes of sources that are not among the training rows.

Settings that are chosen on held-out rows of the training sources grow trees that learn what these
sources have in common (``benchmarks/sources.md``)."""


@dataclass(frozen=True)
class BinaryModel:
    """A fitted binary model."""

    logistic: Logistic
    trees: Trees
    settings: Settings
    is_odd: bool
    states: StateModel | None = None

    def log_odds(self, features: PairFeatures) -> FloatArray:
        """Return log odds, shape (n,): of A against B (odd) or of a tie against none (even)."""
        logistic = self.logistic.log_odds(_logistic_table(features, self.is_odd))
        orders = [self.trees.log_odds(table) for table in _tree_tables(features, self.is_odd)]
        log_odds = _blend(self.settings.blend, logistic, _join_orders(orders))
        if self.states is None:
            return log_odds
        of_states = self.states.log_odds(_states_of(features), is_odd=self.is_odd)
        return log_odds + self.settings.states * of_states

    def to_dict(self) -> dict[str, Any]:
        """Return the model as dictionaries, numbers, arrays and a scikit-learn estimator."""
        values = {name: vars(getattr(self, name)) for name in ("logistic", "trees", "settings")}
        if self.states is not None:
            values["projection"] = vars(self.states.projection)
            values["state_logistic"] = vars(self.states.logistic)
        return values

    @classmethod
    def from_dict(cls, values: dict[str, Any], *, is_odd: bool) -> BinaryModel:
        """Return the model that `to_dict` described."""
        settings, states = Settings(**values["settings"]), None
        if "projection" in values:
            projection = Projection(**values["projection"])
            states = StateModel(projection, Logistic(**values["state_logistic"]))
        logistic, trees = Logistic(**values["logistic"]), Trees(**values["trees"])
        return cls(logistic, trees, settings, is_odd, states)


@dataclass(frozen=True)
class _Rows:
    """Pairs with outcomes in [0, 1] and weights, both of shape (n,)."""

    features: PairFeatures
    outcomes: FloatArray
    weights: FloatArray
    is_odd: bool

    def take(self, index: npt.ArrayLike) -> _Rows:
        """Return some of the rows."""
        chosen = np.asarray(index)
        outcomes, weights = self.outcomes[chosen], self.weights[chosen]
        return _Rows(self.features.rows(chosen), outcomes, weights, self.is_odd)

    def loss(self, log_odds: FloatArray) -> float:
        """Return the mean log loss of log odds for these rows."""
        costs = np.logaddexp(0, log_odds) - self.outcomes * log_odds
        return float((self.weights * costs).sum() / self.weights.sum())


def fit_binary_model(
    features: PairFeatures,
    outcomes: FloatArray,
    weights: FloatArray,
    groups: npt.NDArray[np.object_],
    *,
    is_odd: bool,
    seed: int = 0,
    settings: Settings | None = None,
) -> BinaryModel:
    """Choose the settings, unless they are given, and fit one binary model.

    `outcomes`, shape (n,), are the probability that A wins (odd) or that the pair is a tie (even).
    Rows of one group are never on both sides of a split.
    """
    used = np.flatnonzero(weights > 0)
    rows = _soften(_Rows(features, outcomes, weights, is_odd).take(used))
    settings = settings or _choose_settings(rows, groups[used], seed)
    logistic, states = _fit_logistic(rows, settings.penalty), None
    if rows.features.states is not None and settings.states:
        states = _fit_states(rows)
    trees = _fit_trees(rows, settings.n_trees, seed)
    return BinaryModel(logistic, trees, settings, is_odd, states)


def _soften(rows: _Rows) -> _Rows:
    """Add half a row of each outcome where all outcomes of an even model are the same."""
    n = rows.weights.sum()
    if not len(rows.outcomes) or rows.is_odd or rows.outcomes.min() < rows.outcomes.max():
        return rows
    return replace(rows, outcomes=(n * rows.outcomes + 0.5) / (n + 1))


def _logistic_table(features: PairFeatures, is_odd: bool) -> FloatArray:
    return features.signed if is_odd else _tree_tables(features, is_odd)[0]


def _tree_tables(features: PairFeatures, is_odd: bool) -> list[FloatArray]:
    """Return the columns of the trees: for an odd model of both orders, else of one."""
    signed = [features.signed, -features.signed] if is_odd else [np.abs(features.signed)]
    return [np.concatenate([part, features.shared], axis=1) for part in signed]


def _join_orders(log_odds: Sequence[FloatArray]) -> FloatArray:
    """Return the odd part of log odds in both orders; those of one order as they are."""
    return log_odds[0] if len(log_odds) == 1 else (log_odds[0] - log_odds[1]) / 2


def _fit_logistic(rows: _Rows, penalty: float) -> Logistic:
    table = _logistic_table(rows.features, rows.is_odd)
    return fit_logistic(table, rows.outcomes, rows.weights, penalty=penalty, is_odd=rows.is_odd)


def _fit_states(rows: _Rows) -> StateModel:
    states = _states_of(rows.features)
    return fit_state_model(states, rows.outcomes, rows.weights, is_odd=rows.is_odd)


def _states_of(features: PairFeatures) -> States:
    if features.states is None:
        raise ModelError("The feature model was fitted with hidden states, and these are missing.")
    return features.states


def _fit_trees(rows: _Rows, n_trees: int, seed: int) -> Trees:
    tables = _tree_tables(rows.features, rows.is_odd)
    outcomes = np.concatenate([rows.outcomes, 1 - rows.outcomes][: len(tables)])
    weights = np.tile(rows.weights, len(tables))
    return fit_trees(np.concatenate(tables), outcomes, weights, n_trees=n_trees, seed=seed)


def _choose_settings(rows: _Rows, groups: npt.NDArray[np.object_], seed: int) -> Settings:
    if len(np.unique(groups)) < _MIN_GROUPS:
        return Settings()
    splits = _make_splits(groups, rows.outcomes, seed)
    scored = replace(rows, features=replace(rows.features, states=None))  # they take memory
    held_out = scored.take(np.concatenate([eval_idx for _, eval_idx in splits]))
    penalty, logistic = _choose_penalty(scored, held_out, splits)
    n_trees, trees = _choose_n_trees(scored, held_out, splits, seed)
    states = _hold_out_states(rows, splits)
    blend, factor = _fit_blend(held_out, logistic, trees, states)
    log_odds = _blend(blend, logistic, trees) + (0.0 if states is None else factor * states)
    return Settings(penalty, n_trees, blend, held_out.loss(log_odds), factor)


def _hold_out_states(rows: _Rows, splits: Splits) -> FloatArray | None:
    """Return the held-out log odds of the model of states; None without states."""
    if rows.features.states is None:
        return None
    parts = [
        _fit_states(rows.take(train_idx)).log_odds(
            rows.features.states[eval_idx], is_odd=rows.is_odd
        )
        for train_idx, eval_idx in splits
    ]
    return np.concatenate(parts)


def _make_splits(groups: npt.NDArray[np.object_], outcomes: FloatArray, seed: int) -> Splits:
    """Return three folds; of many rows one fold of four, which is enough to choose by."""
    n_splits, n_used = (3, 3) if len(groups) <= _MANY_ROWS else (4, 1)
    folds = fold_by_group(groups, (outcomes > 0.5).astype(int), n_splits, seed=seed)
    return [split(folds, fold) for fold in range(n_used)]


def _choose_penalty(rows: _Rows, held_out: _Rows, splits: Splits) -> tuple[float, FloatArray]:
    """Return the best penalty and the held-out log odds with it."""
    found = {}
    for penalty in _PENALTIES:
        parts = [
            _fit_logistic(rows.take(train_idx), penalty).log_odds(
                _logistic_table(rows.features.rows(eval_idx), rows.is_odd)
            )
            for train_idx, eval_idx in splits
        ]
        log_odds = np.concatenate(parts)
        found[held_out.loss(log_odds), penalty] = log_odds
    best = min(found)
    return best[1], found[best]


def _choose_n_trees(
    rows: _Rows, held_out: _Rows, splits: Splits, seed: int
) -> tuple[int, FloatArray]:
    """Return the best number of trees and the held-out log odds with it."""
    parts = []
    for train_idx, eval_idx in splits:
        trees = _fit_trees(rows.take(train_idx), _MAX_TREES, seed)
        tables = _tree_tables(rows.features.rows(eval_idx), rows.is_odd)
        stages = [islice(trees.staged_log_odds(table), 0, None, _TREE_STEP) for table in tables]
        parts.append([_join_orders(orders) for orders in zip(*stages, strict=True)])
    log_odds = [np.concatenate(stage) for stage in zip(*parts, strict=False)]
    best = int(np.argmin([held_out.loss(stage) for stage in log_odds]))
    return best * _TREE_STEP, log_odds[best]


def _fit_blend(
    held_out: _Rows, logistic: FloatArray, trees: FloatArray, states: FloatArray | None
) -> tuple[tuple[float, float, float], float]:
    """Return the blend of the settings, and the factor on the log odds of the states."""
    limit = 0.0 if held_out.is_odd else 1.0
    n_factors = 3 if states is None else 4

    def loss(factors: FloatArray) -> float:
        log_odds = _blend(factors, logistic, trees)
        return held_out.loss(log_odds if states is None else log_odds + factors[3] * states)

    first, second, constant, *of_states = minimize(
        loss,
        np.array([0.3, 0.7, 0.0, 0.3][:n_factors]),
        bounds=[(0.0, 1.5), (0.0, 1.5), (-limit, limit), (0.0, 1.5)][:n_factors],
        method="L-BFGS-B",
    ).x.tolist()
    return (first, second, constant), of_states[0] if of_states else 0.0


def _blend(
    blend: Sequence[float] | FloatArray, logistic: FloatArray, trees: FloatArray
) -> FloatArray:
    return blend[0] * logistic + blend[1] * trees + blend[2]
