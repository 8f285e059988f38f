"""Tests of Davidson's model: independent maxima, recovery of known strengths, influences."""

import dataclasses
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.special import softmax

from tiewise.errors import ScoresError
from tiewise.evaluation import davidson
from tiewise.evaluation.davidson import Contests, fit_davidson, influence

fit_plain = partial(fit_davidson, is_controlled=False)
fit_controlled = partial(fit_davidson, is_controlled=True)

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


DESIGNS = {
    "dense": [(0, 1), (0, 2), (0, 3), (0, 4), (1, 2), (1, 3), (1, 4), (2, 3), (2, 4), (3, 4)],
    "star": [(0, 1), (0, 2), (0, 3), (0, 4)],
    "chain": [(0, 1), (1, 2), (2, 3), (3, 4)],
    "two models": [(0, 1)],
}
DESIGN_STRENGTHS = np.array([1.0, 0.5, 0.0, -0.5, -1.0])


def drawn_design(design, *, tie, n=500, seed=0):
    """Return n votes between each two models of a design; `tie` None means no tie is possible."""
    generator = np.random.default_rng(seed)
    first, second = (np.repeat(side, n) for side in np.transpose(DESIGNS[design]))
    lead = (DESIGN_STRENGTHS[first] - DESIGN_STRENGTHS[second]) / 2
    odds = np.exp(
        np.column_stack([lead, -lead, np.full(len(lead), -np.inf if tie is None else tie)])
    )
    probs = odds / odds.sum(1, keepdims=True)
    labels = (generator.random(len(lead))[:, None] > probs.cumsum(1)[:, :2]).sum(1)
    return Contests(first, second, np.eye(3)[labels], np.zeros(len(lead)), 1 + second.max())


def independent_strengths(contests, prior=davidson.PRIOR_VOTES):
    """Maximise the likelihood, written out with loops over pairs, by SLSQP without derivatives.

    The sum of the strengths is a constraint, and an undecided vote counts as much as the prior.
    """
    pairs = list(zip(contests.first.tolist(), contests.second.tolist(), strict=True))
    votes = {tuple(sorted(pair)): np.full(3, prior / 3) for pair in pairs}
    for (a, b), outcome in zip(pairs, contests.outcomes, strict=True):
        votes[min(a, b), max(a, b)] += outcome if a < b else outcome[[1, 0, 2]]

    def minus_log_likelihood(x):
        total = 0.0
        for (a, b), (wins, losses, ties) in votes.items():
            weights = np.exp([x[a], x[b], x[-1] + (x[a] + x[b]) / 2])
            total -= np.dot([wins, losses, ties], np.log(weights / weights.sum()))
        return total / len(contests.first)

    x = np.zeros(contests.n_models + 1)
    for _ in range(4):  # from the optimum found, to shake off an early stop
        x = minimize(
            minus_log_likelihood,
            x,
            method="SLSQP",
            jac="3-point",
            constraints={"type": "eq", "fun": lambda x: x[:-1].sum()},
            options={"ftol": 1e-16, "maxiter": 1000},
        ).x
    return x[:-1]


@pytest.mark.parametrize("tie", [None, -6.0, 0.0], ids=["no ties", "rare ties", "ties"])
@pytest.mark.parametrize("design", DESIGNS)
def test_strengths_equal_independent_maximum(design, tie):
    """Dense and sparse designs, with and without ties, agree to 1e-6 with another optimiser."""
    contests = drawn_design(design, tie=tie)
    found = fit_plain(contests.with_prior()).strengths
    np.testing.assert_allclose(found, independent_strengths(contests), atol=1e-6)


def test_star_ranks_best_model_first():
    """Strengths in a star are near the true ones, also where no vote is a tie."""
    found = fit_plain(drawn_design("star", tie=None).with_prior()).strengths
    assert np.argsort(-found).tolist() == [0, 1, 2, 3, 4]
    np.testing.assert_allclose(found, DESIGN_STRENGTHS, atol=0.25)


@pytest.mark.parametrize("n_ties", [0, 1, 500])
@pytest.mark.parametrize("fit", [fit_plain, fit_controlled])
def test_two_models_by_hand(fit, n_ties):
    """600 to 400 votes are strengths of half of log 1.5, however many are ties."""
    outcomes = np.eye(3)[[0] * 600 + [1] * 400 + [2] * n_ties]
    n = len(outcomes)
    contests = Contests(np.zeros(n, int), np.ones(n, int), outcomes, np.zeros(n), 2)
    assert fit(contests.with_prior()).strengths[0] == pytest.approx(np.log(1.5) / 2, abs=1e-4)
    exact = np.log((600 + davidson.PRIOR_VOTES / 3) / (400 + davidson.PRIOR_VOTES / 3)) / 2
    assert fit(contests.with_prior()).strengths[0] == pytest.approx(exact, abs=1e-9)


@settings(max_examples=25)
@given(st.integers(0, 1000), st.integers(2, 6), st.integers(1, 40), st.booleans())
def test_fits_are_stationary(seed, n_models, n, is_controlled):
    """No small move of any parameter raises the penalised likelihood, also of separated votes."""
    generator = np.random.default_rng(seed)
    first = np.r_[: n_models - 1, generator.integers(0, n_models, n)]
    second = np.r_[1:n_models, (first[n_models - 1 :] + generator.integers(1, n_models, n))]
    outcomes = np.eye(3)[generator.choice(3, len(first), p=[0.8, 0.1, 0.1])]
    gap = generator.normal(size=len(first))
    votes = Contests(first, second % n_models, outcomes, gap, n_models).with_prior()
    fit = fit_davidson(votes, is_controlled=is_controlled)
    assert np.isfinite(fit.parameters).all()
    likelihood = davidson._Likelihood(votes, is_controlled)
    best = fit.parameters[likelihood.is_fitted]
    least = likelihood.loss(best)[0]
    for k in range(len(best)):
        for move in (-1e-3, 1e-3):
            assert likelihood.loss(best + move * np.eye(len(best))[k])[0] >= least - 1e-12


def test_unfinished_fit_is_refused(monkeypatch):
    """Strengths that still move are an error, never a result."""
    monkeypatch.setattr(davidson, "_N_STEPS", 1)
    monkeypatch.setattr(davidson, "minimize", lambda _, start, **named: SimpleNamespace(x=start))
    with pytest.raises(ScoresError, match="did not converge"):
        fit_plain(drawn_design("star", tie=None).with_prior())


@given(st.integers(0, 1000), st.integers(150, 300))
def test_equal_lengths_change_nothing(seed, n):
    """With equal lengths the controlled fit has the strengths of the plain one."""
    contests, _ = drawn_contests(n, seed)
    level = dataclasses.replace(contests, length_gap=np.zeros(n)).with_prior()
    one, other = fit_plain(level), fit_controlled(level)
    np.testing.assert_allclose(one.strengths, other.strengths, atol=1e-9)
    assert one.tie[0] == pytest.approx(other.tie[0], abs=1e-9)
    assert other.length_weight == 0


def test_true_strengths_are_found():
    """Both fits recover the strengths that the labels were drawn from."""
    contests, _ = drawn_contests(20_000)
    for fit in (fit_plain(contests.with_prior()), fit_controlled(contests.with_prior())):
        np.testing.assert_allclose(fit.strengths, STRENGTHS, atol=0.08)
        assert fit.tie[0] == pytest.approx(-0.3, abs=0.08)


def test_length_weight_is_found():
    """Where longer responses win by length, only the controlled fit recovers the strengths."""
    contests, _ = drawn_contests(20_000, length_weight=0.8, tie_slope=-0.5)
    votes = contests.with_prior()
    controlled, plain = fit_controlled(votes), fit_plain(votes)
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
    np.testing.assert_allclose(
        fit(contests.with_prior()).strengths, fit(swapped.with_prior()).strengths, atol=1e-6
    )


def test_unbeaten_model_has_finite_strength():
    """The prior votes bound its strength."""
    outcomes = np.tile([1.0, 0, 0], (50, 1))
    contests = Contests(np.zeros(50, int), np.ones(50, int), outcomes, np.zeros(50), 2)
    strengths = fit_plain(contests.with_prior()).strengths
    assert 1 < strengths[0] - strengths[1] < 20


@pytest.mark.parametrize("fit", [fit_plain, fit_controlled])
def test_influence_matches_refitting(fit):
    """Copies of some rows move the refitted parameters by the sum of their influences."""
    contests, _ = drawn_contests(3000, length_weight=0.5)
    before = fit(contests.with_prior())
    rows = np.arange(30)
    more = Contests(
        *(
            np.concatenate([getattr(contests, name), getattr(contests, name)[rows]])
            for name in ("first", "second", "outcomes", "length_gap")
        ),
        contests.n_models,
    )
    moved = fit(more.with_prior()).parameters - before.parameters
    expected = influence(contests, before)[rows].sum(0)
    np.testing.assert_allclose(moved, expected, atol=0.003)


@settings(max_examples=20)
@given(st.integers(0, 1000), st.integers(2, 12), st.booleans())
def test_influences_sum_to_zero(seed, n_models, is_controlled):
    """Over models, exactly: strengths have a mean of zero. Over rows, up to the prior."""
    generator = np.random.default_rng(seed)
    first = generator.integers(0, n_models, 2000)
    second = (first + generator.integers(1, n_models, 2000)) % n_models
    outcomes = np.eye(3)[generator.integers(0, 3, 2000)]
    contests = Contests(first, second, outcomes, generator.normal(size=2000), n_models)
    found = influence(contests, fit_davidson(contests.with_prior(), is_controlled=is_controlled))
    np.testing.assert_allclose(found[:, :n_models].sum(1), 0, atol=1e-12)
    np.testing.assert_allclose(found.sum(0), 0, atol=0.02)


@pytest.mark.parametrize("is_controlled", [False, True])
def test_length_enters_only_when_controlled(is_controlled):
    """Without control both constants of length are zero, also where ties depend on it."""
    contests, _ = drawn_contests(length_weight=0.8, tie_slope=-1.5)
    fit = fit_davidson(contests.with_prior(), is_controlled=is_controlled)
    assert (fit.length_weight != 0) == is_controlled
    assert (fit.tie[1] != 0) == is_controlled
