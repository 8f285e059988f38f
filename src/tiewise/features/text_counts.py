"""Counts of words, marks and phrases in one text.

Only both ends of a text longer than `MAX_CHARS` are read, so that the time per row is bounded; its
length is still that of the whole text. The word lists are English.
"""

from __future__ import annotations

import itertools
import re
import zlib
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

MAX_CHARS = 16_000
_WORD = re.compile(r"\w+")
_LIST_LINE = re.compile(r"^[ \t]*(?:([-*•])|(\d+[.)])|(#{1,6}))[ \t]", re.MULTILINE)
_SENTENCE_END = re.compile(r"[.!?\n]+\s*")
_TAG = re.compile(r"</?[a-zA-Z]+>")


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


WORD_LISTS = {
    "stops": _set(
        "a about all also an and any are as at be been but by can could did do does for from had "
        "has have he her here his how i if in into is it its just may might more most my no not of "
        "on one or other our out over she should so some than that the their then there these they "
        "this those to two up was we were what when where which who why will with would you your"
    ),
    "hedges": _set(
        "maybe perhaps might possibly unsure unclear could seems likely probably generally "
        "typically usually sometimes apparently depends"
    ),
    "connectives": _set(
        "additionally because conclusion example finally first furthermore however moreover "
        "overall second summary therefore third thus"
    ),
    "first": _set("i me my mine myself"),
    "second": _set("you your yours yourself"),
}
REFUSALS = (
    *("i'm sorry", "i am sorry", "i apologi", "as an ai", "language model", "i cannot", "i can't"),
    *("i am unable", "i'm unable", "not able to", "i do not have", "i don't have", "i won't"),
    *("i will not", "unfortunately", "inappropriate"),
)
OPENERS = ("sure", "certainly", "of course", "absolutely", "great", "here", "happy to")
DIALOGUE = ("###", "human:", "user:", "assistant:", "instruction:", "input:", "output:")
PROMPT_KINDS = {
    "code": _set("python java javascript html css sql code function program algorithm script c"),
    "numbers": _set("calculate solve equation probability sum percent average many much triangle"),
    "writing": _set("write compose draft create generate story poem essay email letter speech"),
    "listing": _set("list name give suggest ideas examples provide recommend tips"),
    "explaining": _set("explain why how describe what difference compare discuss"),
    "editing": _set(
        "rewrite edit correct translate summarize summarise paraphrase classify rephrase convert "
        "extract identify sentence text following"
    ),
    "acting": _set("pretend act imagine role suppose you"),
    "brevity": _set("short brief briefly concise one single only words limit exactly"),
}
"""Words of a prompt that show the kind of task."""


Counts = tuple[dict[str, float], npt.NDArray[np.int64]]


class Words(NamedTuple):
    """The words of a text: in order, distinct, without stop words, and as pairs of neighbours."""

    ordered: list[str]
    distinct: frozenset[str]
    content: frozenset[str]
    bigrams: frozenset[tuple[str, str]]


def shorten(text: str) -> str:
    """Return both ends of a text longer than `MAX_CHARS`, and any other text unchanged."""
    half = MAX_CHARS // 2
    return text if len(text) <= MAX_CHARS else text[:half] + text[-half:]


def split_words(text: str) -> Words:
    """Return the words of ``shorten(text)`` in lower case."""
    ordered = _WORD.findall(shorten(text).lower())
    distinct = frozenset(ordered)
    bigrams = frozenset(itertools.pairwise(ordered))
    return Words(ordered, distinct, distinct - WORD_LISTS["stops"], bigrams)


def count_text(text: str, words: Words, prompt: Words) -> Counts:
    """Count words, marks and phrases of one response, given its words and those of the prompt.

    The second result is how often each byte occurs in ``shorten(text)``: int64, shape (256,).
    """
    read = shorten(text)
    data = read.encode("utf-8", "replace")
    counts: dict[str, float] = {
        "chars": len(text),
        **_count_words(words),
        **_count_marks(read),
        **_count_phrases(read.lower()),
        **_describe_edges(read),
        "packed": len(zlib.compress(data, 1)) if data else 0,
        "read": len(data),
        "prompt_words": len(prompt.distinct),
        "prompt_content": len(prompt.content),
        "shared": len(words.distinct & prompt.distinct),
        "shared_content": len(words.content & prompt.content),
        "content": len(words.content),
        "echoed": len(words.bigrams & prompt.bigrams),
    }
    return counts, np.bincount(np.frombuffer(data, np.uint8), minlength=256)


def _count_words(words: Words) -> dict[str, float]:
    ordered = words.ordered
    fourgrams = set(zip(ordered, ordered[1:], ordered[2:], ordered[3:], strict=False))
    return {
        **{name: sum(map(kind.__contains__, ordered)) for name, kind in WORD_LISTS.items()},
        "words": len(ordered),
        "distinct_words": len(words.distinct),
        "word_chars": sum(map(len, ordered)),
        "bigrams": len(words.bigrams),
        "fourgrams": len(fourgrams),
    }


def _count_marks(text: str) -> dict[str, float]:
    lines = _LIST_LINE.findall(text)
    kinds = ("bullets", "numbers", "headings")
    marks = {"paragraphs": "\n\n", "fences": "```", "bolds": "**", "links": "http"}
    sentences = [part for part in _SENTENCE_END.split(text) if len(part) > 10]
    return {
        **{kind: sum(1 for line in lines if line[i]) for i, kind in enumerate(kinds)},
        **{name: text.count(mark) for name, mark in marks.items()},
        "tags": len(_TAG.findall(text)) if "<" in text else 0,
        "sentences": len(sentences),
        "distinct_sentences": len(set(sentences)),
    }


def _count_phrases(lower: str) -> dict[str, float]:
    beginning, start = lower[:2000], lower[:150]
    return {
        "refusals": sum(beginning.count(phrase) for phrase in REFUSALS),
        "early_refusal": any(phrase in start for phrase in REFUSALS),
        "opener": start.lstrip().startswith(OPENERS),
        "dialogue": sum(lower.count(mark) for mark in DIALOGUE),
    }


def _describe_edges(text: str) -> dict[str, float]:
    last = text.rstrip()[-1:]
    is_clean = bool(last) and (last in ".!?\"'`)}]*”’。！？" or ord(last) > 0x2000)
    return {
        "ends_clean": is_clean,
        "ends_asking": last == "?",
        "starts_upper": text[:1].isupper(),
        "starts_space": text[:1].isspace(),
    }
