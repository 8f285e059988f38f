"""Both estimators handle soft outcomes, weights and rows without contrast."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression

from strategies import tables
from tiewise.features.estimators import Trees, fit_logistic, fit_trees

GENERATOR = np.random.default_rng(0)
TABLE = GENERATOR.uniform(-1, 1, (200, 4)) * [1, 10, 0.1, 3]
OUTCOMES = (TABLE @ [1, 0.2, 5, 0] + GENERATOR.normal(size=200) > 0.3).astype(float)
WEIGHTS = GENERATOR.uniform(0.5, 2, 200)
ROWS = GENERATOR.normal(size=(400, 5))
CROSSED = (ROWS[:, 0] * ROWS[:, 1] + 0.3 * GENERATOR.normal(size=400) > 0).astype(float)
ONES = np.ones(400)


# ---- logistic regression --------------------------------------------------------------------


@pytest.mark.parametrize("is_odd", [False, True])
def test_logistic_equals_scikit_learn(is_odd: bool) -> None:
    """The minimum is that of LogisticRegression with C = 1 / (penalty x total weight)."""
    model = fit_logistic(TABLE, OUTCOMES, WEIGHTS, penalty=0.05, is_odd=is_odd)
    columns = (TABLE - model.centre) / model.scale
    oracle = LogisticRegression(
        C=1 / (0.05 * WEIGHTS.sum()), fit_intercept=not is_odd, tol=1e-10, max_iter=1000
    ).fit(columns, OUTCOMES, WEIGHTS)
    assert np.allclose(model.weights, oracle.coef_[0], atol=1e-4)
    assert np.allclose(model.intercept, oracle.intercept_, atol=1e-4)


def test_soft_outcomes_equal_weighted_rows() -> None:
    """An outcome of 0.25 equals the row with outcome 1 and weight 0.25, and with 0 and 0.75."""
    soft = fit_logistic(TABLE, np.full(200, 0.25), WEIGHTS)
    hard = fit_logistic(
        np.concatenate([TABLE, TABLE]),
        np.repeat([1.0, 0.0], 200),
        np.concatenate([0.25 * WEIGHTS, 0.75 * WEIGHTS]),
    )
    assert np.allclose(soft.log_odds(TABLE), hard.log_odds(TABLE), atol=1e-4)


def test_logistic_weights_repeat_rows() -> None:
    """A row of weight 3 equals three such rows, also in the scale of the columns."""
    weights = np.random.default_rng(3).integers(1, 5, 200)
    outcomes = (TABLE[:, 0] > 0.3).astype(float)
    weighted = fit_logistic(TABLE, outcomes, weights.astype(float))
    repeated = fit_logistic(
        np.repeat(TABLE, weights, axis=0), np.repeat(outcomes, weights), np.ones(weights.sum())
    )
    assert np.allclose(weighted.log_odds(TABLE), repeated.log_odds(TABLE), atol=1e-4)


@given(tables(4))
def test_odd_logistic_negates_exactly(table: np.ndarray) -> None:
    """Negating a row negates its log odds, bit for bit."""
    model = fit_logistic(TABLE, OUTCOMES, WEIGHTS, is_odd=True)
    assert np.array_equal(model.log_odds(table), -model.log_odds(-table))


@given(tables(4))
def test_logistic_ignores_other_rows(table: np.ndarray) -> None:
    """The log odds of a row are the same bits in any table."""
    model = fit_logistic(TABLE, OUTCOMES, WEIGHTS)
    assert model.log_odds(table)[-1] == model.log_odds(table[-1:])[0]


def test_outliers_are_clipped() -> None:
    """A value beyond four deviations counts as one at four."""
    model = fit_logistic(TABLE, OUTCOMES, WEIGHTS)
    edge = model.centre + 4 * model.scale
    far = model.centre + np.array([[5], [1e6]]) * model.scale
    assert np.allclose(model.log_odds(far), model.log_odds(edge[None]), rtol=0, atol=1e-9)


def test_logistic_without_rows() -> None:
    """Without rows all log odds are 0."""
    model = fit_logistic(TABLE[:0], OUTCOMES[:0], WEIGHTS[:0])
    assert not model.log_odds(TABLE).any()


def test_constant_column_has_no_weight() -> None:
    """The weight of a constant column is 0, and every scale is finite."""
    model = fit_logistic(np.column_stack([TABLE, np.ones(200)]), OUTCOMES, WEIGHTS)
    assert model.weights[-1] == 0
    assert np.isfinite(model.scale).all()


# ---- trees ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trees() -> Trees:
    """Grow a few trees once."""
    return fit_trees(ROWS, CROSSED, ONES, n_trees=20)


def test_trees_learn_an_interaction() -> None:
    """Trees separate what no linear model can."""
    many = fit_trees(ROWS, CROSSED, ONES, n_trees=150)
    assert ((many.log_odds(ROWS) > 0) == CROSSED).mean() > 0.8


def test_stages_run_from_constant_to_all_trees(trees: Trees) -> None:
    """There is one stage more than trees; the first is scikit-learn's own start."""
    stages = list(trees.staged_log_odds(ROWS))
    assert len(stages) == 21
    assert (stages[0] == trees.constant).all()
    assert np.array_equal(stages[-1], trees.log_odds(ROWS))
    assert np.isclose(trees.constant, np.log(CROSSED.mean() / (1 - CROSSED.mean())), rtol=1e-12)
    steps = [np.abs(after - before).max() for before, after in itertools.pairwise(stages)]
    assert max(steps) < 0.2  # a tree moves the log odds by its learning rate at most


def test_same_seed_same_trees(trees: Trees) -> None:
    """Fitting is deterministic, and another seed gives other trees."""
    again, other = (fit_trees(ROWS, CROSSED, ONES, n_trees=20, seed=seed) for seed in (0, 1))
    assert np.array_equal(again.log_odds(ROWS), trees.log_odds(ROWS))
    assert not np.array_equal(other.log_odds(ROWS), trees.log_odds(ROWS))


def test_soft_outcomes_are_parts_of_rows() -> None:
    """With all outcomes at one half there is nothing to learn."""
    even = fit_trees(ROWS, np.full(400, 0.5), ONES, n_trees=5)
    assert np.allclose(even.log_odds(ROWS), 0, atol=1e-9)


def test_trees_follow_the_weights() -> None:
    """Each row occurs with both outcomes, so the weights alone decide."""
    is_high = ROWS[:, 0] > 0
    table, outcomes = np.concatenate([ROWS, ROWS]), np.repeat([1.0, 0.0], 400)
    weights = np.concatenate([np.where(is_high, 3.0, 1.0), np.where(is_high, 1.0, 3.0)])
    log_odds = fit_trees(table, outcomes, weights, n_trees=100).log_odds(ROWS)
    assert (log_odds[is_high & (ROWS[:, 0] > 0.1)] > 0.3).all()
    assert (log_odds[~is_high & (ROWS[:, 0] < -0.1)] < -0.3).all()
    scaled = fit_trees(table, outcomes, 2 * weights, n_trees=100).log_odds(ROWS)
    assert np.array_equal(scaled, log_odds)


def test_weight_two_is_the_row_twice() -> None:
    """Without splits to choose, weighted and repeated rows give the same log odds."""
    weights = np.where(CROSSED > 0, 2.0, 1.0)
    flat = np.zeros((400, 1))
    weighted = fit_trees(flat, CROSSED, weights, n_trees=10)
    repeats = weights.astype(int)
    repeated = fit_trees(
        np.repeat(flat, repeats, axis=0),
        np.repeat(CROSSED, repeats),
        np.ones(repeats.sum()),
        n_trees=10,
    )
    assert np.allclose(weighted.log_odds(flat), repeated.log_odds(flat), atol=1e-9)


@pytest.mark.parametrize(("outcomes", "low", "high"), [([], 0, 0), ([1.0, 1.0], 1, 2)])
def test_no_contrast_no_trees(outcomes: list[float], low: float, high: float) -> None:
    """No rows, or one outcome only, give constant log odds that are not certain."""
    n = len(outcomes)
    constant = fit_trees(ROWS[:n], np.array(outcomes), ONES[:n], n_trees=200)
    log_odds = constant.log_odds(ROWS)
    assert low <= log_odds.min() == log_odds.max() <= high


def test_zero_trees_are_a_constant() -> None:
    """With 0 trees each row has the log odds of the mean outcome."""
    constant = fit_trees(ROWS, CROSSED, ONES, n_trees=0).log_odds(ROWS)
    assert np.allclose(1 / (1 + np.exp(-constant)), CROSSED.mean(), atol=0.01)
    assert fit_trees(ROWS, CROSSED, ONES, n_trees=5).log_odds(ROWS[:0]).shape == (0,)


def test_trees_have_their_settings(trees: Trees) -> None:
    """They are scikit-learn's own trees with these settings, so shallow and slow learners."""
    settings = {
        "learning_rate": 0.05,
        "max_iter": 20,
        "max_leaf_nodes": 12,
        "min_samples_leaf": 40,
        "l2_regularization": 20.0,
        "max_features": 0.1,
        "early_stopping": False,
        "random_state": 0,
    }
    assert trees.model is not None
    assert trees.model.get_params() == HistGradientBoostingClassifier(**settings).get_params()


def test_penalty_of_logistic_regression() -> None:
    """Without a penalty it is 0.1, and each weight is pulled to zero by its part of it."""
    default = fit_logistic(TABLE, OUTCOMES, WEIGHTS)
    assert np.array_equal(
        default.weights, fit_logistic(TABLE, OUTCOMES, WEIGHTS, penalty=0.1).weights
    )
    clipped = np.clip((TABLE - default.centre) / default.scale, -4, 4)
    shares = WEIGHTS / WEIGHTS.sum()
    probs = 1 / (1 + np.exp(-default.log_odds(TABLE)))
    assert np.allclose(clipped.T @ (shares * (OUTCOMES - probs)), 0.1 * default.weights, atol=1e-5)
    assert np.isclose(shares @ probs, shares @ OUTCOMES, atol=1e-5)


def test_nearly_constant_column_keeps_its_scale() -> None:
    """A column whose deviation is below 1e-9 is not divided by it."""
    table = np.column_stack([TABLE[:, 0], np.r_[np.zeros(199), 1e-9], np.r_[np.zeros(199), 1e-4]])
    scale = fit_logistic(table, OUTCOMES, np.ones(200)).scale
    assert scale[1] == 1
    assert scale[2] < 1e-4


def test_one_outcome_gives_its_smoothed_odds() -> None:
    """Half a row of each outcome is added: three rows that won have the odds 3.5 to 0.5."""
    constant = fit_trees(ROWS[:3], ONES[:3], ONES[:3], n_trees=5)
    assert constant.model is None
    assert np.isclose(constant.constant, np.log(3.5 / 0.5))
    weighted = fit_trees(ROWS[:3], np.zeros(3), 2 * ONES[:3], n_trees=5)
    assert np.isclose(weighted.constant, np.log(0.5 / 6.5))
    assert next(iter(weighted.staged_log_odds(ROWS[:2]))).tolist() == [weighted.constant] * 2
