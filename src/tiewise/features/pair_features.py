"""What can be counted in a pair: signed features, which say A or B, and shared ones.

A *signed* feature is a difference, A minus B: exchanging the two responses changes its sign and
nothing else, bit for bit. A *shared* feature is a sum, a ratio of sets, or a property of the
prompt: exchanging changes nothing. A model built of these two kinds can be symmetric by
construction. Names of models, languages and sources are never looked at.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tiewise.data.parse import join_turns
from tiewise.features.text_counts import (
    COUNT_NAMES,
    Words,
    count_text,
    shorten,
    split_words,
)
from tiewise.features.text_features import describe_texts
from tiewise.features.word_lists import PROMPT_KINDS

FloatArray = npt.NDArray[np.float64]
Turns = Sequence[str | None]

FORMAT_VERSION = 1
_CHUNK_ROWS = 2000
_LAST_TURN = (
    *("log_chars", "log_sentences", "packed_share", "repeated_fours", "refusals", "early_refusal"),
    *("prompt_content_covered", "content_from_prompt", "has_list", "ends_clean", "log_digits"),
)
_SUM = re.compile(r"\d\s*[-+*/=^×]\s*\d")
_PROMPT_NAMES = (
    *(f"asks_{kind}" for kind in PROMPT_KINDS),
    *("n_turns", "log_prompt_chars", "log_last_chars", "log_prompt_lines", "log_prompt_digits"),
    *("has_question", "has_colon", "has_sum", "has_fence", "foreign_prompt"),
)
_BETWEEN_NAMES = (
    *("word_overlap", "content_overlap", "bigram_overlap", "number_overlap", "contained_most"),
    *("contained_least", "same_beginning", "is_same"),
)


@dataclass(frozen=True)
class PairFeatures:
    """The features of n pairs.

    Attributes
    ----------
    signed
        float64, shape (n, n_signed): change their sign when A and B are exchanged.
    shared
        float64, shape (n, n_shared): do not change.
    signed_names, shared_names
        One name for each column.
    """

    signed: FloatArray
    shared: FloatArray
    signed_names: tuple[str, ...]
    shared_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.signed)

    def rows(self, index: npt.ArrayLike) -> PairFeatures:
        """Return the features of some of the rows."""
        chosen = np.asarray(index)
        names = (self.signed_names, self.shared_names)
        return PairFeatures(self.signed[chosen], self.shared[chosen], *names)


class _Side(NamedTuple):
    """Counts of one response, whole and in its last turn."""

    words: Words
    whole: list[float]
    whole_bytes: FloatArray
    last: list[float]
    last_bytes: FloatArray


class _Row(NamedTuple):
    """Everything counted in one pair."""

    sizes: tuple[int, int, int, int]
    prompt: list[float]
    between: list[float]
    novelty: float
    a: _Side
    b: _Side


def join_features(parts: Sequence[PairFeatures]) -> PairFeatures:
    """Return the features of several tables of pairs, at least one, as of one table."""
    names = (parts[0].signed_names, parts[0].shared_names)
    signed, shared = ([getattr(part, kind) for part in parts] for kind in ("signed", "shared"))
    return PairFeatures(np.concatenate(signed), np.concatenate(shared), *names)


def extract_features(
    prompts: Sequence[Turns], responses_a: Sequence[Turns], responses_b: Sequence[Turns]
) -> PairFeatures:
    """Return the features of pairs.

    Parameters
    ----------
    prompts, responses_a, responses_b
        Length n, at least 1; each a list of turns, a turn being a string or None.

    Returns
    -------
    PairFeatures
        Every value is finite.

    Examples
    --------
    >>> features = extract_features([["2+2?"]], [["4"]], [["It is four, I think."]])
    >>> swapped = extract_features([["2+2?"]], [["It is four, I think."]], [["4"]])
    >>> bool((features.signed == -swapped.signed).all())
    True
    >>> bool((features.shared == swapped.shared).all())
    True
    """
    chunks = []
    for start in range(0, len(prompts), _CHUNK_ROWS):
        stop = start + _CHUNK_ROWS
        texts = zip(
            prompts[start:stop], responses_a[start:stop], responses_b[start:stop], strict=True
        )
        chunks.append(_assemble([_count_row(*row) for row in texts]))
    signed = {name: np.concatenate([chunk[0][name] for chunk in chunks]) for name in chunks[0][0]}
    shared = {name: np.concatenate([chunk[1][name] for chunk in chunks]) for name in chunks[0][1]}
    return PairFeatures(
        np.stack(list(signed.values()), axis=1),
        np.stack(list(shared.values()), axis=1),
        tuple(signed),
        tuple(shared),
    )


def _count_row(prompt: Turns, response_a: Turns, response_b: Turns) -> _Row:
    whole = join_turns(prompt)
    last = (prompt[-1] or "") if prompt else ""
    prompt_words = split_words(shorten(whole))
    last_words = prompt_words if len(prompt) < 2 else split_words(shorten(last))
    sides = [_count_side(turns, prompt_words, last_words) for turns in (response_a, response_b)]
    new_a, new_b = (
        len(one.words.content - other.words.content) for one, other in (sides, sides[::-1])
    )
    return _Row(
        sizes=(
            *(len(prompt_words.distinct), len(prompt_words.content)),
            *(len(last_words.distinct), len(last_words.content)),
        ),
        prompt=_describe_prompt(whole, last, last_words, len(prompt)),
        between=_compare(sides[0].words, sides[1].words),
        novelty=np.log1p(new_a) - np.log1p(new_b),
        a=sides[0],
        b=sides[1],
    )


def _count_side(turns: Turns, prompt: Words, last_prompt: Words) -> _Side:
    text = join_turns(turns)
    words = split_words(shorten(text))
    whole = count_text(text, words, prompt)
    if len(turns) < 2:
        return _Side(words, *whole, *whole)
    last = turns[-1] or ""
    return _Side(words, *whole, *count_text(last, split_words(shorten(last)), last_prompt))


def _describe_prompt(whole: str, last: str, words: Words, n_turns: int) -> list[float]:
    read = shorten(last)
    n_digits = sum(map(read.count, "0123456789"))
    return [
        *(float(not words.distinct.isdisjoint(kind)) for kind in PROMPT_KINDS.values()),
        min(n_turns, 6),
        *np.log1p([len(whole), len(last), whole.count("\n"), n_digits]),
        "?" in read,
        ":" in read,
        _SUM.search(read) is not None,
        "```" in read,
        sum(character > "\x7f" for character in read[:1000]) / (len(read[:1000]) + 20),
    ]


def _compare(a: Words, b: Words) -> list[float]:
    n_shared = len(a.distinct & b.distinct)
    contained = [n_shared / (len(words.distinct) + 1) for words in (a, b)]
    numbers = [{word for word in words.distinct if word[0].isdigit()} for words in (a, b)]
    return [
        _overlap(a.distinct, b.distinct),
        _overlap(a.content, b.content),
        _overlap(a.bigrams, b.bigrams),
        _overlap(*numbers),
        max(contained),
        min(contained),
        a.ordered[:3] == b.ordered[:3],
        a.ordered == b.ordered,
    ]


def _overlap(a: frozenset[object] | set[str], b: frozenset[object] | set[str]) -> float:
    """Jaccard's index; 1 when both are empty."""
    n_shared = len(a & b)
    n_any = len(a) + len(b) - n_shared
    return n_shared / n_any if n_any else 1.0


def _assemble(rows: list[_Row]) -> tuple[dict[str, FloatArray], dict[str, FloatArray]]:
    sizes = np.array([row.sizes for row in rows], dtype=np.float64)
    a, b = (
        _describe_sides(sides, sizes)
        for sides in ([row.a for row in rows], [row.b for row in rows])
    )
    signed = {name: a[name] - b[name] for name in a}
    signed["novelty"] = np.array([row.novelty for row in rows])
    shared = {f"sum_{name}": a[name] + b[name] for name in a if not name.startswith("last_")}
    for names, part in ((_PROMPT_NAMES, "prompt"), (_BETWEEN_NAMES, "between")):
        columns = np.array([getattr(row, part) for row in rows], dtype=np.float64).T
        shared |= dict(zip(names, columns, strict=True))
    shared["least_log_chars"] = np.minimum(a["log_chars"], b["log_chars"])
    return signed, shared


def _describe_sides(sides: list[_Side], sizes: FloatArray) -> dict[str, FloatArray]:
    """Features of the whole responses, and how their last turns differ from the whole."""
    whole = describe_texts(*_stack(side[1:3] for side in sides), sizes[:, 0], sizes[:, 1])
    last = describe_texts(*_stack(side[3:5] for side in sides), sizes[:, 2], sizes[:, 3])
    return whole | {f"last_{name}": last[name] - whole[name] for name in _LAST_TURN}


def _stack(counted: Iterator[tuple[list[float], FloatArray]]) -> tuple[FloatArray, FloatArray]:
    counts, byte_counts = zip(*counted, strict=True)
    shape = (-1, len(COUNT_NAMES))
    return np.array(counts, dtype=np.float64).reshape(shape), np.stack(byte_counts)
