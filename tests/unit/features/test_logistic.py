"""The logistic regression is scikit-learn's, odd where asked, and survives its JSON."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from sklearn.linear_model import LogisticRegression

from strategies import tables
from tiewise.errors import ModelError
from tiewise.features.logistic import Logistic, fit_logistic

GENERATOR = np.random.default_rng(0)
TABLE = GENERATOR.uniform(-1, 1, (200, 4)) * [1, 10, 0.1, 3]
OUTCOMES = (TABLE @ [1, 0.2, 5, 0] + GENERATOR.normal(size=200) > 0.3).astype(float)
WEIGHTS = GENERATOR.uniform(0.5, 2, 200)


@pytest.mark.parametrize("is_odd", [False, True])
def test_it_equals_scikit_learn(is_odd: bool) -> None:
    """Same minimum as LogisticRegression with C = 1 / (penalty x total weight)."""
    model = fit_logistic(TABLE, OUTCOMES, WEIGHTS, penalty=0.05, is_odd=is_odd)
    columns = (TABLE - model.centre) / model.scale
    oracle = LogisticRegression(
        C=1 / (0.05 * WEIGHTS.sum()), fit_intercept=not is_odd, tol=1e-10, max_iter=1000
    ).fit(columns, OUTCOMES, WEIGHTS)
    assert np.allclose(model.weights, oracle.coef_[0], atol=1e-4)
    assert np.allclose(model.intercept, oracle.intercept_, atol=1e-4)


def test_soft_outcomes_equal_weighted_rows() -> None:
    """An outcome of 0.25 is one row in four that happened."""
    soft = fit_logistic(TABLE, np.full(200, 0.25), WEIGHTS)
    hard = fit_logistic(
        np.concatenate([TABLE, TABLE]),
        np.repeat([1.0, 0.0], 200),
        np.concatenate([0.25 * WEIGHTS, 0.75 * WEIGHTS]),
    )
    assert np.allclose(soft.log_odds(TABLE), hard.log_odds(TABLE), atol=1e-4)


def test_a_row_of_weight_three_is_the_row_given_thrice() -> None:
    """Also in the scale of the columns."""
    weights = np.random.default_rng(3).integers(1, 5, 200)
    outcomes = (TABLE[:, 0] > 0.3).astype(float)
    weighted = fit_logistic(TABLE, outcomes, weights.astype(float))
    repeated = fit_logistic(
        np.repeat(TABLE, weights, axis=0), np.repeat(outcomes, weights), np.ones(weights.sum())
    )
    assert np.allclose(weighted.log_odds(TABLE), repeated.log_odds(TABLE), atol=1e-4)


@given(tables(4))
def test_an_odd_model_negates_bit_for_bit(table: np.ndarray) -> None:
    """Negating a row negates its log odds exactly."""
    model = fit_logistic(TABLE, OUTCOMES, WEIGHTS, is_odd=True)
    assert np.array_equal(model.log_odds(table), -model.log_odds(-table))


@given(tables(4))
def test_a_row_has_the_same_log_odds_beside_any_others(table: np.ndarray) -> None:
    """Bit for bit, whatever the batch."""
    model = fit_logistic(TABLE, OUTCOMES, WEIGHTS)
    assert model.log_odds(table)[-1] == model.log_odds(table[-1:])[0]


def test_no_rows_give_even_odds() -> None:
    """Nothing seen, nothing claimed."""
    model = fit_logistic(TABLE[:0], OUTCOMES[:0], WEIGHTS[:0])
    assert not model.log_odds(TABLE).any()


def test_a_constant_column_does_no_harm() -> None:
    """Its weight is 0 and every value is finite."""
    model = fit_logistic(np.column_stack([TABLE, np.ones(200)]), OUTCOMES, WEIGHTS)
    assert model.weights[-1] == 0
    assert np.isfinite(model.scale).all()


def test_json_loses_nothing() -> None:
    """Written and read, the model is the same to the last bit."""
    model = fit_logistic(TABLE, OUTCOMES, WEIGHTS)
    read = Logistic.from_json(json.loads(json.dumps(model.to_json())), 4)
    assert np.array_equal(read.log_odds(TABLE), model.log_odds(TABLE))


@pytest.mark.parametrize(
    "change",
    [{"weights": [1.0]}, {"scale": ["a"] * 4}, {"centre": None}, {"intercept": float("nan")}],
)
def test_damage_is_noticed(change: dict[str, object]) -> None:
    """Wrong sizes, words for numbers, a missing part and NaN are refused."""
    values = {**fit_logistic(TABLE, OUTCOMES, WEIGHTS).to_json(), **change}
    with pytest.raises(ModelError, match="damaged"):
        Logistic.from_json(values, 4)
