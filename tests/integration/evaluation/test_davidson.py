"""Tests of Davidson's model: two fitters, recovery of known strengths, influences."""

import dataclasses
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import softmax

from tiewise.errors import TiewiseError
from tiewise.evaluation.leaderboard import Contests, fit_controlled, fit_plain, influence

STRENGTHS = np.array([0.9, 0.3, -0.2, -1.0])


def drawn_contests(n=4000, seed=0, *, length_weight=0.0, tie_slope=0.0):
    """Return labels between four models of known strength; longer responses may win by length."""
    generator = np.random.default_rng(seed)
    first = generator.integers(0, 4, n)
    second = (first + generator.integers(1, 4, n)) % 4
    gap = generator.normal(0, 0.7, n) + 0.4 * (first - second)
    lead = (STRENGTHS[first] - STRENGTHS[second] + length_weight * gap) / 2
    odds = np.column_stack([lead, -lead, -0.3 + tie_slope * np.abs(gap)])
    probs = softmax(odds, axis=1)
    labels = (generator.random(n)[:, None] > probs.cumsum(1)[:, :2]).sum(1)
    return Contests(first, second, np.eye(3)[labels], gap, 4), probs


@given(st.integers(0, 1000), st.integers(150, 300))
def test_evalica_matches_scikit_learn(seed, n):
    """With equal lengths Newman's model and the regression are the same model."""
    contests, _ = drawn_contests(n, seed)
    level = dataclasses.replace(contests, length_gap=np.zeros(n))
    one, other = fit_plain(level), fit_controlled(level)
    np.testing.assert_allclose(one.strengths, other.strengths, atol=0.02)
    assert one.tie[0] == pytest.approx(other.tie[0], abs=0.02)


def test_true_strengths_are_found():
    """Both fits recover the strengths that the labels were drawn from."""
    contests, _ = drawn_contests(20_000)
    for fit in (fit_plain(contests), fit_controlled(contests)):
        np.testing.assert_allclose(fit.strengths, STRENGTHS, atol=0.08)
        assert fit.tie[0] == pytest.approx(-0.3, abs=0.08)


def test_length_weight_is_found():
    """Where longer responses win by length, only the controlled fit recovers the strengths."""
    contests, _ = drawn_contests(20_000, length_weight=0.8, tie_slope=-0.5)
    controlled, plain = fit_controlled(contests), fit_plain(contests)
    assert controlled.length_weight == pytest.approx(0.8, abs=0.06)
    assert controlled.tie[1] == pytest.approx(-0.5, abs=0.1)
    np.testing.assert_allclose(controlled.strengths, STRENGTHS, atol=0.1)
    assert np.abs(plain.strengths - STRENGTHS).max() > 0.3


def test_probabilities_are_shares_of_votes():
    """Fitting the true probabilities gives the strengths with little noise."""
    contests, probs = drawn_contests(3000, length_weight=0.5)
    expected = dataclasses.replace(contests, outcomes=probs)
    fit = fit_controlled(expected)
    np.testing.assert_allclose(fit.strengths, STRENGTHS, atol=0.02)
    assert fit.length_weight == pytest.approx(0.5, abs=0.02)


@given(st.integers(0, 1000), st.booleans())
def test_swapping_responses_keeps_strengths(seed, is_controlled):
    """Swapped contests with swapped outcomes give the same strengths."""
    contests, _ = drawn_contests(60, seed)
    swapped = Contests(
        contests.second,
        contests.first,
        contests.outcomes[:, [1, 0, 2]],
        -contests.length_gap,
        contests.n_models,
    )
    fit = fit_controlled if is_controlled else fit_plain
    np.testing.assert_allclose(fit(contests).strengths, fit(swapped).strengths, atol=0.01)


def test_unbeaten_model_has_finite_strength():
    """The prior votes bound its strength."""
    outcomes = np.tile([1.0, 0, 0], (50, 1))
    contests = Contests(np.zeros(50, int), np.ones(50, int), outcomes, np.zeros(50), 2)
    strengths = fit_plain(contests).strengths
    assert 1 < strengths[0] - strengths[1] < 20


@pytest.mark.parametrize("fit", [fit_plain, fit_controlled])
def test_influence_matches_refitting(fit):
    """Copies of some rows move the refitted parameters by the sum of their influences."""
    contests, _ = drawn_contests(3000, length_weight=0.5)
    before = fit(contests)
    rows = np.arange(30)
    more = Contests(
        *(
            np.concatenate([getattr(contests, name), getattr(contests, name)[rows]])
            for name in ("first", "second", "outcomes", "length_gap")
        ),
        contests.n_models,
    )
    moved = fit(more).parameters - before.parameters
    expected = influence(contests, before)[rows].sum(0)
    np.testing.assert_allclose(moved, expected, atol=0.003)


def test_influences_sum_to_zero():
    """At the optimum they cancel, up to the prior."""
    contests, _ = drawn_contests(5000)
    for fit in (fit_plain(contests), fit_controlled(contests)):
        assert np.abs(influence(contests, fit).sum(0)).max() < 0.01


def test_missing_evalica_is_explained(monkeypatch):
    """The message says what to install."""
    monkeypatch.setitem(sys.modules, "evalica", None)
    with pytest.raises(TiewiseError, match=r"pip install 'tiewise\[rank\]'"):
        fit_plain(drawn_contests(10)[0])
