"""Groups that say nearly the same are found, and others are left alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strategies import clean_text
from tiewise.data.duplicates import unite_near_duplicates
from tiewise.data.schema import build_pairs

ESSAY = "Write an essay about the history of bridges in mountain valleys, with three examples."


def pairs_of(prompts):
    """Give a pairs table of these first turns."""
    texts = [[prompt] for prompt in prompts]
    return build_pairs(
        {"id": range(len(texts)), "prompt": texts, "response_a": texts, "response_b": texts}
    )


def test_a_changed_word_is_nearly_the_same_and_another_question_is_not():
    """Small edits are found; common words at the beginning are not enough."""
    prompts = [
        ESSAY,
        ESSAY.replace("three", "four"),
        ESSAY + " Please!",
        "Write an essay about the history of tea, and be brief.",
        "What is 2+2?",
    ]
    near = unite_near_duplicates(pairs_of(prompts))
    assert len(set(near[:3])) == 1
    assert len(set(near)) == 3


@given(prompts=st.lists(clean_text(), max_size=6), data=st.data())
def test_groups_are_only_ever_joined_and_order_does_not_matter(prompts, data):
    """Rows of one group stay together, under the name of a group, in any order of the rows."""
    pairs = pairs_of(prompts)
    near = unite_near_duplicates(pairs)
    joined = dict(zip(pairs["group"], near, strict=True))
    assert [joined[group] for group in pairs["group"]] == near.tolist()
    assert set(near) <= set(pairs["group"])
    order = data.draw(st.permutations(range(len(prompts))))
    shuffled = unite_near_duplicates(pairs.iloc[list(order)].reset_index(drop=True))
    assert shuffled.tolist() == [near[row] for row in order]


@given(prompts=st.lists(clean_text(), max_size=6))
def test_the_threshold_one_joins_only_what_has_the_same_pieces(prompts):
    """At 1 different pieces are different groups; the check is exact, not by sketch."""
    pairs = pairs_of(prompts)
    strict = unite_near_duplicates(pairs, threshold=1.0)
    loose = unite_near_duplicates(pairs, threshold=0.5)
    assert len(set(loose)) <= len(set(strict)) <= pairs["group"].nunique()


def test_without_the_library_it_says_so(monkeypatch):
    """The optional library is asked for when it is needed, and not before."""
    monkeypatch.setitem(__import__("sys").modules, "rensa", None)
    with pytest.raises(ImportError, match="rensa"):
        unite_near_duplicates(pairs_of(["a"]))
