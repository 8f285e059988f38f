"""What can be counted in one response, given the prompt it answers.

Texts longer than `MAX_CHARS` are read at both ends only, so that no row costs more than a fixed
time; their length still counts whole.
"""

from __future__ import annotations

import itertools
import re
import zlib
from collections.abc import Collection
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tiewise.features.word_lists import (
    CONNECTIVES,
    DIALOGUE,
    FIRST_PERSON,
    HEDGES,
    OPENERS,
    REFUSALS,
    SECOND_PERSON,
    STOP_WORDS,
)

FloatArray = npt.NDArray[np.float64]

MAX_CHARS = 16_000
_WORD = re.compile(r"\w+")
_LIST_LINE = re.compile(r"^[ \t]*(?:([-*•])|(\d+[.)])|(#{1,6}))[ \t]", re.MULTILINE)
_SENTENCE_END = re.compile(r"[.!?\n]+\s*")
_TAG = re.compile(r"</?[a-zA-Z]+>")

COUNT_NAMES = (
    *("chars", "words", "distinct_words", "word_chars", "stops", "hedges", "connectives", "first"),
    *("second", "bigrams", "fourgrams", "bullets", "numbers", "headings", "paragraphs", "fences"),
    *("bolds", "links", "tags", "sentences", "distinct_sentences", "refusals", "early_refusal"),
    *("opener", "dialogue", "ends_clean", "ends_asking", "starts_upper", "starts_space"),
    *("packed", "read", "shared", "shared_content", "content", "echoed"),
)


class Words(NamedTuple):
    """The words of a text: all in order, the distinct ones, those with content, word pairs."""

    ordered: list[str]
    distinct: frozenset[str]
    content: frozenset[str]
    bigrams: frozenset[tuple[str, str]]


def shorten(text: str) -> str:
    """Return both ends of a text longer than `MAX_CHARS`, any other text as it is."""
    half = MAX_CHARS // 2
    return text if len(text) <= MAX_CHARS else text[:half] + text[-half:]


def split_words(text: str) -> Words:
    """Return the words of a text in lower case.

    Examples
    --------
    >>> sorted(split_words("The cat, the dog.").content)
    ['cat', 'dog']
    """
    ordered = _WORD.findall(text.lower())
    distinct = frozenset(ordered)
    return Words(ordered, distinct, distinct - STOP_WORDS, frozenset(itertools.pairwise(ordered)))


def count_text(text: str, words: Words, prompt: Words) -> tuple[list[float], FloatArray]:
    """Count what stands in one response.

    Parameters
    ----------
    text
        The response, any length.
    words
        The words of ``shorten(text)``.
    prompt
        The words of the prompt.

    Returns
    -------
    counts
        One number for each of `COUNT_NAMES`.
    byte_counts
        Shape (256,): how often each byte occurs in the UTF-8 of ``shorten(text)``.
    """
    read = shorten(text)
    data = read.encode("utf-8", "replace")
    lower = read.lower()
    counts = [len(text), *_count_words(words), *_count_marks(read), *_count_sentences(read)]
    counts += _count_phrases(lower) + _edges(read)
    counts += [len(zlib.compress(data, 1)) if data else 0, len(data)]
    counts += _overlap(words, prompt)
    return counts, np.bincount(np.frombuffer(data, np.uint8), minlength=256).astype(np.float64)


def _count_words(words: Words) -> list[float]:
    ordered = words.ordered
    fourgrams = set(zip(ordered, ordered[1:], ordered[2:], ordered[3:], strict=False))
    n_kinds = [_members(ordered, kind) for kind in (STOP_WORDS, HEDGES, CONNECTIVES)]
    n_persons = [_members(ordered, kind) for kind in (FIRST_PERSON, SECOND_PERSON)]
    n_chars = sum(map(len, ordered))
    head = [len(ordered), len(words.distinct), n_chars, *n_kinds, *n_persons]
    return [*head, len(words.bigrams), len(fourgrams)]


def _members(ordered: list[str], kind: Collection[str]) -> int:
    return sum(map(kind.__contains__, ordered))


def _count_marks(text: str) -> list[float]:
    lines = _LIST_LINE.findall(text)
    kinds = [sum(1 for line in lines if line[position]) for position in range(3)]
    tags = len(_TAG.findall(text)) if "<" in text else 0
    marks = [text.count(mark) for mark in ("\n\n", "```", "**", "http")]
    return [*kinds, *marks, tags]


def _count_sentences(text: str) -> list[float]:
    sentences = [part for part in _SENTENCE_END.split(text) if len(part) > 10]
    return [len(sentences), len(set(sentences))]


def _count_phrases(lower: str) -> list[float]:
    beginning, start = lower[:2000], lower[:150]
    refusals = sum(beginning.count(phrase) for phrase in REFUSALS)
    is_early = any(phrase in start for phrase in REFUSALS)
    dialogue = sum(lower.count(mark) for mark in DIALOGUE)
    return [refusals, is_early, start.lstrip().startswith(OPENERS), dialogue]


def _edges(text: str) -> list[float]:
    last = text.rstrip()[-1:]
    is_clean = bool(last) and (last in ".!?\"'`)}]*”’。！？" or ord(last) > 0x2000)
    return [is_clean, last == "?", text[:1].isupper(), text[:1].isspace()]


def _overlap(words: Words, prompt: Words) -> list[float]:
    return [
        len(words.distinct & prompt.distinct),
        len(words.content & prompt.content),
        len(words.content),
        len(words.bigrams & prompt.bigrams),
    ]
