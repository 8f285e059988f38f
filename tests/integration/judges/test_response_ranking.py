"""Tests of rankings from pairwise probabilities."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiewise.data.labels import swap_probs
from tiewise.errors import PairsError
from tiewise.judges.response_ranking import rank_answers


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
    np.testing.assert_allclose(ranking.strengths, expected, atol=1e-3)


@given(STRENGTHS, st.integers(0, 2**31))
def test_permuted_responses_permute_strengths(strengths, seed):
    """Strengths do not depend on the order in which the responses are given."""
    order = np.random.default_rng(seed).permutation(len(strengths))
    one = rank_answers(pairwise(strengths), n_resamples=1)
    other = rank_answers(pairwise(strengths)[np.ix_(order, order)], n_resamples=1)
    np.testing.assert_allclose(other.strengths, one.strengths[order], atol=1e-4)


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


def test_ranking_prints_and_serializes():
    """The text has one line per response, best first, numbered from 1; the JSON has no NaN."""
    ranking = rank_answers(pairwise(np.array([1.0, 3.0])), n_resamples=20, confidence_level=0.9)
    header, best, worst = str(ranking).splitlines()
    assert header.split()[:2] == ["place", "90%"]
    assert [best.split()[0], best.split()[2]] == ["1", "2"]
    assert worst.split()[2] == "1"
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
