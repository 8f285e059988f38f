"""Tests of calibration maps, their fit, and the decision whether to adopt one."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import log_softmax, softmax
from sklearn.linear_model import LogisticRegression

from tiewise.data.labels import swap_probs
from tiewise.errors import ScoresError
from tiewise.evaluation import calibration
from tiewise.evaluation.calibration import (
    METHODS,
    NO_CALIBRATION,
    Calibration,
    calibrate,
    fit_calibration,
    fit_temperature,
)
from tiewise.evaluation.scores import compare


def drawn_rows(n=2000, seed=0, *, temperature=1.0, bias=(0, 0, 0), spread=2.0):
    """Return labels drawn from softmax(logits / temperature + bias), and the logits."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(size=(n, 3)) * spread
    true = softmax(logits / temperature + np.array(bias), axis=1)
    return (generator.random(n)[:, None] > true.cumsum(1)[:, :2]).sum(1), logits


def grouped_rows(n, seed, *, sharpness=1.0, tie_bias=0.0):
    """Return labels, the logits of a model that is too sharp or predicts few ties, and groups."""
    labels, logits = drawn_rows(n, seed, spread=1.5)
    return labels, logits * sharpness + [0, 0, tie_bias], np.arange(n) // 4


def log_loss(labels, probs):
    return -np.log(probs[np.arange(len(labels)), labels]).mean()


@given(st.floats(0.3, 4), st.integers(0, 5))
def test_true_temperature_is_found(temperature, seed):
    """The fit recovers the temperature that the labels were drawn with."""
    rows = drawn_rows(seed=seed, temperature=temperature)
    assert fit_temperature(*rows) == pytest.approx(temperature, rel=0.15)


@given(st.floats(0.5, 2), st.integers(0, 5))
def test_temperature_scales_with_logits(factor, seed):
    """Temperature has the unit of the logits; a constant added to a row has no effect."""
    labels, logits = drawn_rows(300, seed)
    shifted = logits * factor + np.arange(300)[:, None]
    expected = fit_temperature(labels, logits) * factor
    assert fit_temperature(labels, shifted) == pytest.approx(expected, rel=1e-4)


def test_temperature_is_optimal():
    """No temperature on a grid has a lower log loss."""
    labels, logits = drawn_rows(300, temperature=1.7)
    best = log_loss(labels, softmax(logits / fit_temperature(labels, logits), axis=1))
    for temperature in np.geomspace(0.05, 20, 200):
        assert best <= log_loss(labels, softmax(logits / temperature, axis=1)) + 1e-10


def test_biases_match_scikit_learn():
    """With fitted biases the mean probability of each class equals its frequency.

    An unpenalised multinomial regression has the same property, and more parameters than `vector`.
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
def test_fit_improves_its_own_rows(method, symmetric, seed):
    """Every method contains the identity, so the fitted loss is not above the original."""
    labels, logits = drawn_rows(40, seed)
    fitted = fit_calibration(labels, logits, method=method, symmetric=symmetric)
    before = log_loss(labels, softmax(logits, axis=1))
    assert log_loss(labels, fitted.apply(logits)) <= before + 1e-9


@given(st.sampled_from(METHODS), st.integers(0, 20))
def test_symmetric_fit_commutes_with_swap(method, seed):
    """Calibrating and swapping give the same result in either order."""
    labels, logits = drawn_rows(40, seed)
    fitted = fit_calibration(labels, logits, method=method, symmetric=True)
    swapped = fitted.apply(swap_probs(logits))
    np.testing.assert_allclose(swapped, swap_probs(fitted.apply(logits)), atol=1e-12)


def test_temperature_stays_within_bounds():
    """If all rows are right the result is the lower bound, if all are wrong the upper."""
    logits = np.eye(3)[[0, 1, 2, 0]]
    assert fit_temperature([0, 1, 2, 0], logits) == pytest.approx(0.05)
    assert fit_temperature([1, 2, 0, 1], logits) == pytest.approx(20)


def test_no_calibration_is_softmax():
    """NO_CALIBRATION is the plain softmax; a large bias makes its class certain."""
    logits = np.array([[1.0, 2.0, 3.0]])
    np.testing.assert_allclose(NO_CALIBRATION.apply(logits), softmax(logits, axis=1))
    assert NO_CALIBRATION.to_dict() == {"method": "none", "scale": [1.0] * 3, "bias": [0.0] * 3}
    assert Calibration("bias", bias=(0.0, 0.0, 50.0)).apply(logits)[0, 2] == pytest.approx(1)


def test_invalid_input_is_refused():
    """An unknown method, logits of another shape, the logarithm of zero."""
    with pytest.raises(ScoresError, match="expected one of temperature, bias, vector"):
        fit_calibration([0], [[0.0, 0, 0]], method="platt")
    with pytest.raises(ScoresError, match=r"shape \(1, 2\); expected \(1, 3\)"):
        fit_temperature([0], [[0.0, 0.0]])
    with pytest.raises(ScoresError, match="1 rows, the first at row 1"):
        NO_CALIBRATION.apply([[0.0, 0, 0], [-np.inf, 0, 0]])


def test_overconfidence_is_corrected():
    """For logits that are twice too large the adopted scales are about one half."""
    labels, logits, groups = grouped_rows(800, 0, sharpness=2)
    verdict = calibrate(labels, logits, groups=groups)
    assert verdict.is_worth_it
    np.testing.assert_allclose(verdict.adopted.scale, 0.5, rtol=0.2)
    assert verdict.differences["temperature"].high < 0
    better = {name: change.value for name, change in verdict.differences.items() if change.high < 0}
    assert len(better) > 1
    assert verdict.adopted.method == min(better, key=lambda name: better[name])
    assert f"{verdict.adopted.method} is adopted" in str(verdict)


def test_wrong_tie_rate_is_corrected():
    """A temperature cannot add ties, so a method with a bias is adopted."""
    labels, logits, groups = grouped_rows(800, 1, tie_bias=-1)
    verdict = calibrate(labels, logits, groups=groups)
    assert verdict.adopted.method in ("bias", "vector")
    assert verdict.adopted.bias[2] - verdict.adopted.bias[0] == pytest.approx(1, abs=0.4)


def test_calibrated_models_are_not_changed():
    """Of fifteen calibrated data sets at most two are changed; the others bit for bit not."""
    adopted = 0
    for seed in range(15):
        labels, logits, groups = grouped_rows(200, seed)
        verdict = calibrate(labels, logits, groups=groups, n_resamples=199)
        adopted += verdict.is_worth_it
        if not verdict.is_worth_it:
            np.testing.assert_array_equal(verdict.probs, softmax(logits, axis=1))
            assert "none is adopted" in str(verdict)
    assert adopted <= 2


def test_difference_is_paired_and_corrected():
    """It is that of the returned probabilities, at the Bonferroni level of three methods."""
    labels, logits, groups = grouped_rows(400, 3, sharpness=3)
    verdict = calibrate(labels, logits, groups=groups)
    expected = compare(
        labels,
        verdict.probs,
        softmax(logits, axis=1),
        groups=groups,
        confidence_level=1 - 0.05 / 3,
    )
    assert verdict.differences[verdict.adopted.method] == expected
    assert verdict.confidence_level == 1 - 0.05 / 3
    assert "98.3% intervals; negative is better" in str(verdict)


def test_three_candidates_are_rarely_adopted_by_chance(monkeypatch):
    """Of 200 data sets on which no candidate gains, at most 5 % adopt one of the three.

    Labels are drawn from (1/2, 1/4, 1/4). Uniform probabilities and (2/3, 1/6, 1/6) have the same
    expected log loss, so a candidate that moves from the former to the latter gains nothing. The
    candidates move different rows, so their gains are independent.
    """
    n = 90
    moved = {method: np.arange(n) % 3 == k for k, method in enumerate(METHODS)}
    candidates = {
        method: np.where(rows[:, None], [2 / 3, 1 / 6, 1 / 6], 1 / 3)
        for method, rows in moved.items()
    }
    monkeypatch.setattr(
        calibration, "_cross_fit", lambda labels, logits, folds, method, _: candidates[method]
    )
    adopted = 0
    for seed in range(200):
        labels = np.random.default_rng(seed).choice(3, n, p=[0.5, 0.25, 0.25])
        found = calibrate(labels, np.zeros((n, 3)), n_resamples=199, seed=seed)
        adopted += found.is_worth_it
    assert adopted <= 10


def test_own_labels_do_not_change_own_probabilities():
    """Cross-fitting: exchanged labels within a group leave the probabilities of that group."""
    labels, logits, groups = grouped_rows(400, 4, sharpness=3)
    changed = labels.copy()
    rows = np.flatnonzero(groups == groups[0])
    changed[rows] = np.roll(labels[rows], 1)  # the folds depend only on the counts of the classes
    before = calibrate(labels, logits, groups=groups).probs
    after = calibrate(changed, logits, groups=groups).probs
    np.testing.assert_array_equal(before[rows], after[rows])


def test_single_group_is_not_calibrated():
    """With one group there is nothing to test a calibration on."""
    labels, logits, _ = grouped_rows(100, 6, sharpness=4)
    verdict = calibrate(labels, logits, groups=["only"] * 100)
    assert not verdict.is_worth_it
    assert verdict.differences == {}


def test_verdict_converts_to_json():
    """The decision, the map, and the difference of each method with its level."""
    verdict = calibrate(*grouped_rows(100, 7)[:2])
    value = verdict.to_dict()
    assert json.loads(json.dumps(value, allow_nan=False)) == value
    assert value["differences"].keys() == {"temperature", "bias", "vector"}
