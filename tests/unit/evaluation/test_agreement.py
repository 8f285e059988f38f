"""Tests of human agreement on the same pairs."""

import itertools
import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from tiewise.errors import ScoresError
from tiewise.evaluation.agreement import agreement_of_votes, name_votes

votes_by_pair = st.lists(
    st.lists(st.integers(0, 2), min_size=1, max_size=6), min_size=1, max_size=5
).filter(lambda pairs: any(len(votes) > 1 for votes in pairs))


def table_of(pairs):
    rows = [
        {"prompt": [f"Q{k}"], "response_a": ["yes"], "response_b": ["no"], "label": label}
        for k, votes in enumerate(pairs)
        for label in votes
    ]
    return pd.DataFrame(rows).assign(group=lambda t: t["prompt"].str[0])


def measure(table, **options):
    return agreement_of_votes(name_votes(table).assign(group=table["group"]), **options)


@given(votes_by_pair)
def test_agreement_follows_its_definition(pairs):
    """The mean share of equal labels among the others, label by label."""
    shares, decisive = [], []
    for votes in pairs:
        for own, others in ((votes[k], votes[:k] + votes[k + 1 :]) for k in range(len(votes))):
            if others:
                shares.append(np.mean([own == other for other in others]))
            either = [other for other in others if other < 2]
            if own < 2 and either:
                decisive.append(np.mean([own == other for other in either]))
    found = measure(table_of(pairs), n_resamples=19)
    assert found.n == len(shares)
    assert found.agreement.value == pytest.approx(np.mean(shares))
    expected = np.mean(decisive) if decisive else np.nan
    assert found.decisive_agreement.value == pytest.approx(expected, nan_ok=True)


@given(votes_by_pair, st.randoms())
def test_swapped_pairs_are_the_same_pair(pairs, random):
    """Where some people saw the responses in the other order, nothing changes."""
    table = table_of(pairs)
    flip = np.array([random.random() < 0.5 for _ in range(len(table))])
    swapped = table.copy()
    swapped["response_a"] = table["response_a"].where(~flip, table["response_b"])
    swapped["response_b"] = table["response_b"].where(~flip, table["response_a"])
    swapped["label"] = np.where(flip, np.array([1, 0, 2])[table["label"]], table["label"])
    first = measure(table, n_resamples=19)
    assert first.to_dict() == measure(swapped, n_resamples=19).to_dict()


def test_tied_majority_counts_in_parts():
    """Labels A, A, B: each A sees one A and one B, which counts half; the B sees two A."""
    found = measure(table_of([[0, 0, 1]]))
    assert found.majority_agreement.value == pytest.approx((0.5 + 0.5 + 0) / 3)


def test_independent_labels_agree_by_chance():
    """With probabilities p the agreement is the sum of p squared."""
    generator = np.random.default_rng(0)
    pairs = generator.choice(3, p=[0.5, 0.3, 0.2], size=(300, 3)).tolist()
    found = measure(table_of(pairs))
    assert found.agreement.low < 0.38 < found.agreement.high


def test_unanimous_labels_agree_fully():
    """All three rates are one."""
    found = measure(table_of([[0, 0], [1, 1, 1], [0, 0]]))
    values = [found.agreement.value, found.decisive_agreement.value, found.majority_agreement.value]
    assert values == [1, 1, 1]
    assert (found.n, found.n_pairs, found.n_groups) == (7, 3, 3)


def test_rare_disagreement_has_a_width():
    """Agreement of all of 40 pairs is open below; the decisive rate counts its own groups."""
    found = measure(table_of([[0, 0]] * 30 + [[2, 2]] * 10))
    for rate, n in ((found.agreement, 40), (found.decisive_agreement, 30)):
        assert rate.value == rate.high == 1
        assert rate.low == pytest.approx(n / (n + stats.t.ppf(0.975, n - 1) ** 2))


def test_agreement_prints_and_converts_to_json():
    """With ties alone the decisive agreement is null."""
    found = measure(table_of([[2, 2]]))
    value = found.to_dict()
    assert json.loads(json.dumps(value, allow_nan=False)) == value
    assert value["decisive_agreement"]["value"] is None
    assert "2 labels of 1 pairs" in str(found)


def test_single_labels_are_refused():
    """Without a pair that has two labels there is no agreement."""
    singles = table_of([[label] for label in itertools.islice(itertools.cycle(range(3)), 9)])
    with pytest.raises(ScoresError, match="pairs with at least two labels; there are none"):
        measure(singles)
