"""Counts of any text: bounded in length, and correct for words, marks and phrases."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from strategies import any_text, turns
from tiewise.data.parse import join_turns
from tiewise.features.text_counts import (
    MAX_CHARS,
    count_text,
    shorten,
    split_words,
)


def counted(text: str, prompt: str = "") -> dict[str, float]:
    """Return the counts of a text, by name."""
    return count_text(text, split_words(shorten(text)), split_words(prompt))[0]


@given(any_text(200), any_text(60))
def test_any_text_has_valid_counts(text: str, prompt: str) -> None:
    """Each text, also one with lone surrogates, has the same names and finite counts from 0."""
    counts, byte_counts = count_text(text, split_words(text), split_words(prompt))
    assert list(counts) == list(counted("other"))
    assert np.isfinite(list(counts.values())).all()
    assert min(counts.values()) >= 0
    assert byte_counts.sum() == len(text.encode("utf-8", "replace"))


@given(turns())
def test_missing_turn_is_empty(cell: list[str | None]) -> None:
    """A missing turn and an empty one give the same text."""
    assert join_turns(cell) == join_turns([turn or "" for turn in cell])


@given(st.integers(MAX_CHARS + 1, MAX_CHARS * 3))
def test_long_texts_read_at_both_ends(length: int) -> None:
    """The text that is read has a bounded length; `chars` counts the whole text."""
    text = "a" + "m" * (length - 2) + "z"
    read = shorten(text)
    assert len(read) == MAX_CHARS
    assert (read[0], read[-1]) == ("a", "z")
    assert counted(text)["chars"] == length


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("- a\n* b\n  • c", "bullets", 3),
        ("1. a\n2) b", "numbers", 2),
        ("# T\n### U\n#hash", "headings", 2),
        ("```py\nx\n```", "fences", 2),
        ("I'm sorry, but as an AI I cannot.", "refusals", 3),
        ("Sure, here it is", "opener", True),
        ("It ends", "ends_clean", False),
        ("It ends.", "ends_clean", True),
        ("Which one?", "ends_asking", True),
        ("One sentence here. Another sentence here. One sentence here.", "distinct_sentences", 2),
        ("a b a b", "bigrams", 2),
        ("<b>bold</b> 1 < 2", "tags", 2),
        ("Maybe it could be.", "hedges", 2),
    ],
)
def test_marks_are_counted(text: str, name: str, value: float) -> None:
    """Each kind of mark or phrase is counted."""
    assert counted(text)[name] == value


def test_overlap_counts_shared_words() -> None:
    """Distinct words in common with the prompt, in any case; stop words are no content."""
    counts = counted("The cat, THE CAT and the dog", "the cat?")
    assert (counts["shared"], counts["shared_content"], counts["content"]) == (2, 1, 2)
