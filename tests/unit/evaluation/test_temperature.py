"""Calibration maps: found where the loss is least, and nothing else changed."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import log_softmax, softmax
from sklearn.linear_model import LogisticRegression

from tiewise.errors import ScoresError
from tiewise.evaluation.temperature import (
    METHODS,
    NO_CALIBRATION,
    Calibration,
    check_logits,
    fit_calibration,
    fit_temperature,
)
from tiewise.pairs.labels import swap_probs


def drawn_rows(n=2000, seed=0, *, temperature=1.0, bias=(0, 0, 0)):
    """Labels drawn from softmax(logits / temperature + bias), beside the logits."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(size=(n, 3)) * 2
    true = softmax(logits / temperature + np.array(bias), axis=1)
    return (generator.random(n)[:, None] > true.cumsum(1)[:, :2]).sum(1), logits


def log_loss(labels, probs):
    return -np.log(probs[np.arange(len(labels)), labels]).mean()


@given(st.floats(0.3, 4), st.integers(0, 5))
def test_the_temperature_labels_were_drawn_at_is_found(temperature, seed):
    """What was divided by T comes back as T."""
    rows = drawn_rows(seed=seed, temperature=temperature)
    assert fit_temperature(*rows) == pytest.approx(temperature, rel=0.15)


@given(st.floats(0.5, 2), st.integers(0, 5))
def test_scaling_the_logits_scales_the_temperature(factor, seed):
    """Temperature is in the unit of the logits; a constant added to a row has no effect."""
    labels, logits = drawn_rows(300, seed)
    shifted = logits * factor + np.arange(300)[:, None]
    expected = fit_temperature(labels, logits) * factor
    assert fit_temperature(labels, shifted) == pytest.approx(expected, rel=1e-4)


def test_no_temperature_on_a_grid_is_better():
    """The optimum is the optimum."""
    labels, logits = drawn_rows(300, temperature=1.7)
    best = log_loss(labels, softmax(logits / fit_temperature(labels, logits), axis=1))
    for temperature in np.geomspace(0.05, 20, 200):
        assert best <= log_loss(labels, softmax(logits / temperature, axis=1)) + 1e-10


def test_the_fitted_biases_are_scikit_learns():
    """Vector scaling with equal scales is multinomial regression on an offset: same frequencies.

    At the optimum the mean probability of each class equals its frequency; an unpenalised
    regression with an intercept has the same property.
    """
    labels, logits = drawn_rows(bias=(0.3, -0.2, 0.5))
    probs = fit_calibration(labels, logits, method="bias").apply(logits)
    np.testing.assert_allclose(probs.mean(0), np.bincount(labels) / len(labels), atol=1e-6)
    free = LogisticRegression(C=np.inf).fit(log_softmax(logits, axis=1), labels)
    fitted = fit_calibration(labels, logits, method="vector").apply(logits)
    matrix = free.predict_proba(log_softmax(logits, axis=1))
    assert log_loss(labels, matrix) <= log_loss(labels, fitted) + 1e-6
    assert log_loss(labels, fitted) == pytest.approx(log_loss(labels, matrix), abs=0.005)


@given(st.sampled_from(METHODS), st.booleans(), st.integers(0, 20))
def test_a_fit_never_loses_on_the_rows_it_was_fitted_on(method, symmetric, seed):
    """Doing nothing is in every family, so the fitted loss is at most that."""
    labels, logits = drawn_rows(40, seed)
    fitted = fit_calibration(labels, logits, method=method, symmetric=symmetric)
    before = log_loss(labels, softmax(logits, axis=1))
    assert log_loss(labels, fitted.apply(logits)) <= before + 1e-9


@given(st.sampled_from(METHODS), st.integers(0, 20))
def test_a_symmetric_fit_commutes_with_the_swap(method, seed):
    """Where A and B are treated alike, calibrating and swapping may change places."""
    labels, logits = drawn_rows(40, seed)
    fitted = fit_calibration(labels, logits, method=method, symmetric=True)
    swapped = fitted.apply(swap_probs(logits))
    np.testing.assert_allclose(swapped, swap_probs(fitted.apply(logits)), atol=1e-12)


def test_labels_no_model_could_foresee_end_at_the_bound():
    """All right is as sharp as allowed, all wrong as flat as allowed; both finite."""
    logits = np.eye(3)[[0, 1, 2, 0]]
    assert fit_temperature([0, 1, 2, 0], logits) == pytest.approx(0.05)
    assert fit_temperature([1, 2, 0, 1], logits) == pytest.approx(20)


def test_no_calibration_is_the_softmax():
    """And it says so."""
    logits = np.array([[1.0, 2.0, 3.0]])
    np.testing.assert_allclose(NO_CALIBRATION.apply(logits), softmax(logits, axis=1))
    assert NO_CALIBRATION.to_dict() == {"method": "none", "scale": [1.0] * 3, "bias": [0.0] * 3}
    assert Calibration("bias", bias=(0.0, 0.0, 50.0)).apply(logits)[0, 2] == pytest.approx(1)


def test_what_cannot_be_fitted_is_refused():
    """An unknown method, logits of another shape, the logarithm of zero."""
    with pytest.raises(ScoresError, match="expected one of temperature, bias, vector"):
        fit_calibration([0], [[0.0, 0, 0]], method="platt")
    with pytest.raises(ScoresError, match=r"shape \(1, 2\); expected \(1, 3\)"):
        fit_temperature([0], [[0.0, 0.0]])
    with pytest.raises(ScoresError, match="1 rows, the first at row 1"):
        check_logits([[0.0, 0, 0], [-np.inf, 0, 0]])
