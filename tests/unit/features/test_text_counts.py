"""Counting goes through any text in bounded time and counts what a reader would."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from strategies import any_text, turns
from tiewise.data.parse import join_turns
from tiewise.features.text_counts import (
    COUNT_NAMES,
    MAX_CHARS,
    count_text,
    shorten,
    split_words,
)


def counted(text: str, prompt: str = "") -> dict[str, float]:
    """Count a text, by name."""
    counts, _ = count_text(text, split_words(shorten(text)), split_words(prompt))
    return dict(zip(COUNT_NAMES, counts, strict=True))


@given(any_text(200), any_text(60))
def test_any_text_gives_a_number_for_every_name(text: str, prompt: str) -> None:
    """No text is refused, lone surrogates included, and nothing is negative or infinite."""
    counts, byte_counts = count_text(text, split_words(text), split_words(prompt))
    assert len(counts) == len(COUNT_NAMES)
    assert np.isfinite(counts).all()
    assert min(counts) >= 0
    assert byte_counts.sum() == len(text.encode("utf-8", "replace"))


@given(turns())
def test_missing_turns_are_empty(cell: list[str | None]) -> None:
    """A missing turn and an empty one give the same text."""
    assert join_turns(cell) == join_turns([turn or "" for turn in cell])


@given(st.integers(MAX_CHARS + 1, MAX_CHARS * 3))
def test_long_texts_are_read_at_both_ends(length: int) -> None:
    """What is read is bounded; the length counts whole."""
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
    """Each mark of form is found where a reader sees it."""
    assert counted(text)[name] == value


def test_overlap_counts_distinct_words_shared_with_the_prompt() -> None:
    """Case does not matter, and stop words have no content."""
    counts = counted("The cat, THE CAT and the dog", "the cat?")
    assert (counts["shared"], counts["shared_content"], counts["content"]) == (2, 1, 2)
