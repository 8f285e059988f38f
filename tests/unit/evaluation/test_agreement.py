"""Human agreement: each vote against the others on the same pair, whichever answer stood first."""

import itertools
import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiewise.errors import ScoresError
from tiewise.evaluation.agreement import measure_agreement

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


@given(votes_by_pair)
def test_agreement_is_the_share_of_equal_votes_among_the_others(pairs):
    """By the definition, vote by vote."""
    shares, decisive = [], []
    for votes in pairs:
        for own, others in ((votes[k], votes[:k] + votes[k + 1 :]) for k in range(len(votes))):
            if others:
                shares.append(np.mean([own == other for other in others]))
            either = [other for other in others if other < 2]
            if own < 2 and either:
                decisive.append(np.mean([own == other for other in either]))
    found = measure_agreement(table_of(pairs), n_resamples=19)
    assert found.n == len(shares)
    assert found.agreement.value == pytest.approx(np.mean(shares))
    expected = np.mean(decisive) if decisive else np.nan
    assert found.decisive_agreement.value == pytest.approx(expected, nan_ok=True)


@given(votes_by_pair, st.randoms())
def test_votes_on_the_exchanged_pair_are_turned_back(pairs, random):
    """Some people saw the answers the other way round: nothing changes."""
    table = table_of(pairs)
    flip = np.array([random.random() < 0.5 for _ in range(len(table))])
    swapped = table.copy()
    swapped["response_a"] = table["response_a"].where(~flip, table["response_b"])
    swapped["response_b"] = table["response_b"].where(~flip, table["response_a"])
    swapped["label"] = np.where(flip, np.array([1, 0, 2])[table["label"]], table["label"])
    first = measure_agreement(table, n_resamples=19)
    assert first.to_dict() == measure_agreement(swapped, n_resamples=19).to_dict()


def test_the_majority_of_the_others_is_shared_where_they_tie():
    """Votes A, A, B: an A sees one A and one B, half each; the B sees two A."""
    found = measure_agreement(table_of([[0, 0, 1]]))
    assert found.majority_agreement.value == pytest.approx((0.5 + 0.5 + 0) / 3)


def test_independent_votes_agree_as_often_as_chance():
    """With probabilities p the agreement is the sum of p squared, inside the interval."""
    generator = np.random.default_rng(0)
    pairs = generator.choice(3, p=[0.5, 0.3, 0.2], size=(300, 3)).tolist()
    found = measure_agreement(table_of(pairs))
    assert found.agreement.low < 0.38 < found.agreement.high


def test_unanimous_people_agree():
    """One, in every sense."""
    found = measure_agreement(table_of([[0, 0], [1, 1, 1], [0, 0]]))
    values = [found.agreement.value, found.decisive_agreement.value, found.majority_agreement.value]
    assert values == [1, 1, 1]
    assert (found.n, found.n_pairs, found.n_groups) == (7, 3, 3)


def test_it_prints_and_goes_to_json_without_nan():
    """Only ties: no decisive agreement, null."""
    found = measure_agreement(table_of([[2, 2]]))
    value = found.to_dict()
    assert json.loads(json.dumps(value, allow_nan=False)) == value
    assert value["decisive_agreement"]["value"] is None
    assert "2 votes on 1 pairs" in str(found)


def test_single_votes_cannot_agree():
    """Nothing to hold a vote against is an error, not a zero."""
    singles = table_of([[label] for label in itertools.islice(itertools.cycle(range(3)), 9)])
    with pytest.raises(ScoresError, match="no pair has two votes"):
        measure_agreement(singles)
