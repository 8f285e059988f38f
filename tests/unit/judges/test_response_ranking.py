"""Tests of rankings from pairwise probabilities."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import rankdata

from tiewise.data.labels import swap_probs
from tiewise.errors import PairsError
from tiewise.evaluation.davidson import Contests, fit_davidson
from tiewise.judges.response_ranking import _central_interval, _draw_places, rank_answers


def pairwise(strengths: np.ndarray, tie: float = 0.5) -> np.ndarray:
    """Return the probabilities (n, n, 3) of Newman's model with known strengths (n,)."""
    i, j = np.broadcast_arrays(strengths[:, None], strengths[None, :])
    weights = np.stack([i, j, 2 * tie * np.sqrt(i * j)], axis=-1)
    return weights / weights.sum(axis=-1, keepdims=True)


STRENGTHS = st.lists(st.floats(0.05, 20), min_size=2, max_size=6).map(np.array)


@given(STRENGTHS)
def test_known_strengths_are_recovered(strengths):
    """Probabilities of the model give its strengths."""
    ranking = rank_answers(pairwise(strengths), n_resamples=1)
    expected = np.log(strengths) - np.log(strengths).mean()
    np.testing.assert_allclose(ranking.strengths, expected, atol=1e-6)


@given(STRENGTHS, st.integers(0, 2**31))
def test_permuted_responses_permute_strengths(strengths, seed):
    """Strengths do not depend on the order in which the responses are given."""
    order = np.random.default_rng(seed).permutation(len(strengths))
    one = rank_answers(pairwise(strengths), n_resamples=1)
    other = rank_answers(pairwise(strengths)[np.ix_(order, order)], n_resamples=1)
    np.testing.assert_allclose(other.strengths, one.strengths[order], atol=1e-6)


@given(st.integers(2, 5), st.integers(0, 2**31))
def test_places_are_in_range(n, seed):
    """Intervals are ordered and within 1 to n; the probabilities of being best sum to one."""
    probs = np.random.default_rng(seed).dirichlet([1, 1, 1], (n, n))
    lower = np.tril_indices(n, -1)
    probs[lower] = swap_probs(probs.transpose(1, 0, 2)[lower])
    ranking = rank_answers(probs, n_resamples=20)
    assert (ranking.place_low >= 1).all()
    assert (ranking.place_low <= ranking.place_high).all()
    assert (ranking.place_high <= n).all()
    assert ranking.prob_best.sum() == pytest.approx(1)
    assert sorted(ranking.order.tolist()) == list(range(n))
    assert ranking.places[ranking.order[0]] == 1


def test_equal_responses_share_first_place():
    """Equal responses are all in first place, each with an equal probability of being best."""
    ranking = rank_answers(pairwise(np.ones(3)), n_resamples=200)
    assert ranking.places.tolist() == [1, 1, 1]
    np.testing.assert_allclose(ranking.prob_best, 1 / 3, atol=0.1)


def test_certain_votes_give_narrow_intervals():
    """Nearly certain probabilities give intervals of one place."""
    ranking = rank_answers(pairwise(np.array([1e-8, 1.0, 1e8]), tie=1e-9))
    assert ranking.order.tolist() == [2, 1, 0]
    assert ranking.place_low.tolist() == ranking.place_high.tolist() == [3, 2, 1]


@pytest.mark.parametrize("tie", [0.0, 0.001, 0.5])
def test_two_responses_by_hand(tie):
    """Their strengths are half the log odds, whatever the probability of a tie."""
    share = np.array([0.6993, 0.2997]) / 0.999 * (1 - tie)
    probs = np.full((2, 2, 3), np.nan)
    probs[0, 1] = [*share, tie]
    probs[1, 0] = [*share[::-1], tie]
    strengths = rank_answers(probs).strengths
    expected = np.log(0.6993 / 0.2997) / 2
    np.testing.assert_allclose(strengths, [expected, -expected], atol=2e-6 + tie * 1e-12)


@given(st.integers(0, 2**31))
def test_two_responses_are_ranked_as_fitted(seed):
    """The strengths of two responses are those of the general fit."""
    probs = np.full((2, 2, 3), np.nan)
    probs[0, 1] = np.random.default_rng(seed).dirichlet([1, 1, 1])
    probs[1, 0] = swap_probs(probs[0, 1])
    contests = Contests(np.array([0]), np.array([1]), probs[0, 1][None], np.zeros(1), 2)
    expected = fit_davidson(contests, is_controlled=False).strengths
    np.testing.assert_allclose(rank_answers(probs).strengths, expected, rtol=0, atol=1e-6)


@given(st.integers(0, 2**31), st.sampled_from([0.5, 0.9, 0.95]))
def test_two_responses_have_the_limit_of_many_tournaments(seed, level):
    """Intervals and probabilities of two responses are those of very many drawn tournaments."""
    share = np.random.default_rng(seed).dirichlet([0.5, 0.5, 0.5])
    probs = np.full((2, 2, 3), np.nan)
    probs[0, 1], probs[1, 0] = share, share[[1, 0, 2]]
    ranking = rank_answers(probs, confidence_level=level)
    drawn = _draw_places(share[None], 2, 100_000, np.random.default_rng(seed))
    winners = drawn == 1
    expected = (winners / winners.sum(axis=1, keepdims=True)).mean(axis=0)
    np.testing.assert_allclose(ranking.prob_best, expected, atol=0.01)
    ends = np.concatenate([share[:2], 1 - share[:2]])
    if (np.abs(ends - (1 - level) / 2) > 0.005).all():  # the draws could fall on either side
        low, high = _central_interval(drawn, level)
        np.testing.assert_array_equal([ranking.place_low, ranking.place_high], [low, high])


@pytest.mark.parametrize("outcome", [[1, 0, 0], [0, 1, 0], [0, 0, 1]])
@pytest.mark.parametrize("n", [2, 3, 5])
def test_certain_probabilities_give_finite_strengths(n, outcome):
    """Probabilities of exactly 0 and 1 rank without infinity or NaN."""
    probs = np.tile(np.array(outcome, dtype=float), (n, n, 1))
    lower = np.tril_indices(n, -1)
    probs[lower] = swap_probs(probs.transpose(1, 0, 2)[lower])
    ranking = rank_answers(probs)
    assert np.isfinite(ranking.strengths).all()
    places = {0: list(range(1, n + 1)), 1: list(range(n, 0, -1)), 2: [1] * n}
    expected = places[outcome.index(1)]
    assert ranking.places.tolist() == expected
    assert ranking.place_low.tolist() == ranking.place_high.tolist() == expected


@given(st.integers(2, 6), st.integers(0, 2**31))
def test_tournaments_are_ranked_as_fitted(n, seed):
    """Places by wins minus losses are those of the model fitted to the drawn votes."""
    generator = np.random.default_rng(seed)
    first, second = np.triu_indices(n, 1)
    shares = generator.dirichlet([1, 1, 1], len(first))
    places = _draw_places(shares, n, 3, np.random.default_rng(seed))
    votes = np.random.default_rng(seed).multinomial(1, shares, (3, len(shares)))
    for drawn, found in zip(votes + 0.1 / 3, places, strict=True):
        contests = Contests(first, second, drawn, np.zeros(len(first)), n)
        strengths = fit_davidson(contests, is_controlled=False).strengths
        assert found.tolist() == rankdata(-strengths.round(6), method="min").tolist()


def test_ranking_prints_and_serializes():
    """The text has one line per response, best first, numbered from 0; the JSON has no NaN."""
    ranking = rank_answers(pairwise(np.array([1.0, 3.0])), n_resamples=20, confidence_level=0.9)
    header, best, worst = str(ranking).splitlines()
    assert header.split()[:2] == ["place", "90%"]
    assert [best.split()[0], best.split()[-1]] == ["1", "1"]
    assert worst.split()[-1] == "0"
    assert str(ranking) in ranking._repr_html_()
    again = json.loads(json.dumps(ranking.to_dict(), allow_nan=False))
    assert again["order"] == [1, 0]
    assert again["probs"][0][0] is None


def test_single_response_is_refused():
    """The message names the number of responses."""
    with pytest.raises(PairsError, match="at least two responses, not 1"):
        rank_answers(np.zeros((1, 1, 3)))


def test_equal_seeds_give_equal_rankings():
    """Two calls with one seed agree bit for bit."""
    probs = pairwise(np.array([1.0, 2.0, 3.0]))
    one, two = rank_answers(probs, seed=3), rank_answers(probs, seed=3)
    np.testing.assert_array_equal(one.prob_best, two.prob_best)


@pytest.mark.parametrize("level", [0.5, 0.8, 0.95, 0.99])
def test_intervals_contain_their_share(level):
    """The interval of a place contains the given share of the drawn tournaments, and no more."""
    drawn = np.random.default_rng(0).permuted(np.tile(np.arange(1000), (2, 1)), axis=1).T
    low, high = _central_interval(drawn, level)
    share = ((drawn >= low) & (drawn <= high)).mean(axis=0)
    assert (share >= level).all()
    assert (share <= level + 0.003).all()
    assert (low + high == 999).all()


def test_names_are_shown_in_order():
    """The table ends with names of responses, or else with their positions as in `order`."""
    ranking = rank_answers(pairwise(np.array([1.0, 2.0, 0.5])), n_resamples=20)
    assert [line.split()[-1] for line in str(ranking).splitlines()[1:]] == ["1", "0", "2"]
    named = dataclasses.replace(ranking, names=("a.txt", "b.txt", "my c.txt"))
    lines = str(named).splitlines()
    assert [line.split("  ")[-1] for line in lines[1:]] == ["b.txt", "a.txt", "my c.txt"]
    assert named.to_dict()["names"] == ["a.txt", "b.txt", "my c.txt"]
