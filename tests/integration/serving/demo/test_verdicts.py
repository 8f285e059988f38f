"""What the page says of answers is what the model says of pairs."""

from __future__ import annotations

import pytest

import tiewise as tw
from tiewise.errors import PairsError
from tiewise.serving.demo.verdicts import judge_answers

ANSWERS = ["2 + 2 = 4.", "I'm sorry, but I can't help with that.", "Four, I think."]


def test_two_answers_are_a_pair():
    """The average is `tw.score`, and there is nothing to rank."""
    found = judge_answers("2 + 2?", ANSWERS[:2])
    probs = tw.score("2 + 2?", *ANSWERS[:2])
    assert found.orders["read as"].tolist() == ["A, B", "B, A", "average"]
    assert found.orders.iloc[2, 2:].tolist() == [f"{share:.3f}" for share in probs]
    assert found.ranking is None
    assert len(found.rank_table()) == 0
    assert "Nothing was cut" in found.cut


def test_several_answers_are_ranked_as_the_library_ranks_them():
    """The same order and the same probabilities; blank answers keep their letters."""
    found = judge_answers("2 + 2?", [ANSWERS[0], " ", *ANSWERS[1:]])
    expected = tw.rank("2 + 2?", ANSWERS)
    assert found.names == ("A", "C", "D")
    assert found.ranking.order.tolist() == expected.order.tolist()
    order = ["ACD"[k] for k in expected.order]
    assert found.rank_table()["answer"].tolist() == order


@pytest.mark.parametrize("answers", [[], ["x"], ["x", " ", "\n"]])
def test_fewer_than_two_answers_are_refused(answers):
    """Blank ones do not count."""
    with pytest.raises(PairsError, match="at least two"):
        judge_answers("p", answers)
