"""Tests of the demo page, compared with the public functions."""

from __future__ import annotations

import pytest

import tiewise as tw
from tiewise.errors import PairsError
from tiewise.serving.demo.page import judge_responses

RESPONSES = ["2 + 2 = 4.", "I'm sorry, but I can't help with that.", "Four, I think."]


def test_two_responses_are_a_pair():
    """Two responses get the average of `tw.score`, and no ranking."""
    found = judge_responses("2 + 2?", RESPONSES[:2])
    probs = tw.score("2 + 2?", *RESPONSES[:2])
    assert found.orders["order"].tolist() == ["A, B", "B, A", "average"]
    assert found.orders.iloc[2, 2:].tolist() == [f"{prob:.3f}" for prob in probs]
    assert found.ranking.empty
    assert "Nothing was truncated" in found.truncation


def test_ranking_matches_library():
    """The order is that of `tw.rank`; blank responses are skipped and keep their letters."""
    found = judge_responses("2 + 2?", [RESPONSES[0], " ", *RESPONSES[1:]])
    expected = tw.rank("2 + 2?", RESPONSES)
    assert found.ranking["response"].tolist() == ["ACD"[k] for k in expected.order]
    pairs = ["A or C", "A or D", "C or D"]
    assert found.orders["responses"].tolist() == [pair for pair in pairs for _ in range(3)]


@pytest.mark.parametrize("responses", [[], ["x"], ["x", " ", "\n"]])
def test_single_response_is_refused(responses):
    """At least two responses must have text."""
    with pytest.raises(PairsError, match="at least two"):
        judge_responses("p", responses)
