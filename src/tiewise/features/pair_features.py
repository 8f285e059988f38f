"""Features of pairs: signed ones, which favour A or B, and shared ones.

A *signed* feature is a difference, A minus B: exchanging the two responses changes exactly its
sign. A *shared* feature is a sum, a ratio of sets, or a property of the prompt: exchanging the
responses changes nothing. Names of models, languages and sources are never read.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tiewise.data.parse import join_turns
from tiewise.features import text_counts
from tiewise.features.text_counts import Counts, Words, count_text, shorten, split_words

FloatArray = npt.NDArray[np.float64]
Turns = Sequence[str | None]

FORMAT_VERSION = 1
_CHUNK_ROWS = 2000
_LAST_TURN = (
    *("log_chars", "log_sentences", "packed_share", "repeated_fours", "refusals", "early_refusal"),
    *("prompt_content_covered", "content_from_prompt", "has_list", "ends_clean", "log_digits"),
)
_SUM = re.compile(r"\d\s*[-+*/=^×]\s*\d")
_BYTES = {
    "lines": b"\n",
    "ticks": b"`",
    "pipes": b"|",
    "code_marks": b"{}[]();=<>_\\",
    "digits": b"0123456789",
    "asks": b"?",
    "exclaims": b"!",
    "commas": b",",
    "colons": b":",
    "brackets": b"(",
    "quotes": b'"',
    "capitals": b"ABCDEFGHIJKLMNOPQRSTUVWXYZ",
    "foreign": bytes(range(128, 256)),
}


@dataclass(frozen=True)
class PairFeatures:
    """Signed and shared features of n pairs, float64, and the names of their columns.

    `states` are hidden states of response A and of response B, float32, shape (n, 2, k, h), where a
    language model has read the pairs (:mod:`tiewise.models.states`).
    """

    signed: FloatArray
    shared: FloatArray
    signed_names: tuple[str, ...]
    shared_names: tuple[str, ...]
    states: npt.NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.signed)

    def rows(self, index: npt.ArrayLike) -> PairFeatures:
        """Return the features of some of the rows."""
        chosen = np.asarray(index)
        states = None if self.states is None else self.states[chosen]
        names = (self.signed_names, self.shared_names)
        return PairFeatures(self.signed[chosen], self.shared[chosen], *names, states)


class _Row(NamedTuple):
    """Counts of one pair; a response is counted twice: all of its turns, and the last turn."""

    shared: dict[str, float]
    novelty: float
    sides: list[tuple[Counts, Counts]]


def join_features(parts: Sequence[PairFeatures]) -> PairFeatures:
    """Return the features of at least one table of pairs as those of one table."""
    signed = np.concatenate([part.signed for part in parts])
    shared = np.concatenate([part.shared for part in parts])
    return PairFeatures(signed, shared, parts[0].signed_names, parts[0].shared_names)


def extract_features(
    prompts: Sequence[Turns], responses_a: Sequence[Turns], responses_b: Sequence[Turns]
) -> PairFeatures:
    """Return the features of at least one pair, from lists of turns; every feature is finite.

    >>> features = extract_features([["2+2?"]], [["4"]], [["It is four, I think."]])
    >>> swapped = extract_features([["2+2?"]], [["It is four, I think."]], [["4"]])
    >>> bool((features.signed == -swapped.signed).all())
    True
    """
    texts = list(zip(prompts, responses_a, responses_b, strict=True))
    chunks = []
    for start in range(0, len(texts), _CHUNK_ROWS):  # the counts take more memory than features
        rows = [_count_row(*row) for row in texts[start : start + _CHUNK_ROWS]]
        signed, shared = _assemble(rows)
        tables = [np.stack(list(part.values()), axis=1) for part in (signed, shared)]
        chunks.append(PairFeatures(tables[0], tables[1], tuple(signed), tuple(shared)))
    return join_features(chunks)


def _count_row(prompt: Turns, response_a: Turns, response_b: Turns) -> _Row:
    whole = join_turns(prompt)
    last = (prompt[-1] or "") if prompt else ""
    prompt_words = split_words(whole)
    last_words = prompt_words if len(prompt) < 2 else split_words(last)
    words, sides = [], []
    for turns in (response_a, response_b):
        text, final = join_turns(turns), (turns[-1] or "") if turns else ""
        words.append(split_words(text))
        counts = last_counts = count_text(text, words[-1], prompt_words)
        if len(turns) > 1:
            last_counts = count_text(final, split_words(final), last_words)
        sides.append((counts, last_counts))
    a, b = words
    novelty = np.log1p(len(a.content - b.content)) - np.log1p(len(b.content - a.content))
    shared = _describe_prompt(whole, last, last_words, len(prompt)) | _compare(a, b)
    return _Row(shared, novelty, sides)


def _describe_prompt(whole: str, last: str, words: Words, n_turns: int) -> dict[str, float]:
    read = shorten(last)
    kinds = text_counts.PROMPT_KINDS.items()
    return {
        **{f"asks_{kind}": not words.distinct.isdisjoint(listed) for kind, listed in kinds},
        "n_turns": min(n_turns, 6),
        "log_prompt_chars": np.log1p(len(whole)),
        "log_last_chars": np.log1p(len(last)),
        "log_prompt_lines": np.log1p(whole.count("\n")),
        "log_prompt_digits": np.log1p(sum(map(read.count, "0123456789"))),
        "has_question": "?" in read,
        "has_colon": ":" in read,
        "has_sum": _SUM.search(read) is not None,
        "has_fence": "```" in read,
        "foreign_prompt": sum(c > "\x7f" for c in read[:1000]) / (len(read[:1000]) + 20),
    }


def _compare(a: Words, b: Words) -> dict[str, float]:
    n_shared = len(a.distinct & b.distinct)
    contained = [n_shared / (len(words.distinct) + 1) for words in (a, b)]
    numbers = [{word for word in words.distinct if word[0].isdigit()} for words in (a, b)]
    return {
        "word_overlap": _overlap(a.distinct, b.distinct),
        "content_overlap": _overlap(a.content, b.content),
        "bigram_overlap": _overlap(a.bigrams, b.bigrams),
        "number_overlap": _overlap(*numbers),
        "contained_most": max(contained),
        "contained_least": min(contained),
        "same_beginning": a.ordered[:3] == b.ordered[:3],
        "is_same": a.ordered == b.ordered,
    }


def _overlap(a: frozenset[object] | set[str], b: frozenset[object] | set[str]) -> float:
    """Return the Jaccard index; 1 when both sets are empty."""
    n_shared = len(a & b)
    n_any = len(a) + len(b) - n_shared
    return n_shared / n_any if n_any else 1.0


def _assemble(rows: list[_Row]) -> tuple[dict[str, FloatArray], dict[str, FloatArray]]:
    """Return the signed and the shared features of some rows, by name."""
    a, b = (_describe_sides(sides) for sides in zip(*(row.sides for row in rows), strict=True))
    signed = {name: a[name] - b[name] for name in a}
    signed["novelty"] = np.array([row.novelty for row in rows])
    shared = {f"sum_{name}": a[name] + b[name] for name in a if not name.startswith("last_")}
    shared |= _to_columns([row.shared for row in rows])
    shared["least_log_chars"] = np.minimum(a["log_chars"], b["log_chars"])
    return signed, shared


def _describe_sides(sides: Sequence[tuple[Counts, Counts]]) -> dict[str, FloatArray]:
    """Return features of whole responses, and how their last turns differ from the whole."""
    whole, last = (describe_texts(counted) for counted in zip(*sides, strict=True))
    return whole | {f"last_{name}": last[name] - whole[name] for name in _LAST_TURN}


def _to_columns(rows: Sequence[dict[str, float]]) -> dict[str, FloatArray]:
    return {name: np.array([row[name] for row in rows], dtype=np.float64) for name in rows[0]}


def describe_texts(counted: Sequence[Counts]) -> dict[str, FloatArray]:
    """Turn counts of n texts into logarithms and shares, which have one range for any length."""
    c = _to_columns([counts for counts, _ in counted])
    byte_counts = np.stack([part for _, part in counted]).astype(np.float64)
    c |= {name: byte_counts[:, list(marks)].sum(axis=1) for name, marks in _BYTES.items()}
    return (
        _size_features(c)
        | _layout_features(c)
        | _style_features(c)
        | _repetition_features(c)
        | _overlap_features(c)
    )


def _size_features(c: dict[str, FloatArray]) -> dict[str, FloatArray]:
    return {
        "log_chars": np.log1p(c["chars"]),
        "root_chars": np.sqrt(np.minimum(c["chars"], 8000)) / 10,
        "kilo_chars": np.minimum(c["chars"], 8000) / 1000,
        "is_empty": (c["words"] == 0).astype(np.float64),
        **_logs(c, "words", "sentences"),
        "words_per_sentence": np.minimum(c["words"] / (c["sentences"] + 1), 60) / 10,
        "chars_per_word": np.minimum((c["word_chars"] + 22) / (c["words"] + 5), 12),
    }


def _layout_features(c: dict[str, FloatArray]) -> dict[str, FloatArray]:
    lists = c["bullets"] + c["numbers"]
    return {
        **_logs(c, "lines", "paragraphs", "bullets", "numbers", "headings"),
        "has_list": (lists > 0).astype(np.float64),
        "list_share": lists / (c["lines"] + 1),
        "fences": np.minimum(c["fences"], 6) / 2,
        "open_fence": c["fences"] % 2,
        "log_ticks": np.log1p(np.maximum(c["ticks"] - 3 * c["fences"], 0)),
        **_logs(c, "bolds", "pipes", "links", "tags"),
        "code_share": np.log1p(100 * c["code_marks"] / (c["read"] + 50)),
    }


def _style_features(c: dict[str, FloatArray]) -> dict[str, FloatArray]:
    rates = ("stops", "commas", "hedges", "first")
    logs = ("asks", "exclaims", "colons", "brackets", "quotes", "digits", "hedges", "first")
    flags = ("early_refusal", "opener", "ends_clean", "ends_asking", "starts_upper", "starts_space")
    shares = {"digit_share": "digits", "capital_share": "capitals", "foreign_share": "foreign"}
    return {
        **{f"{name}_rate": c[name] / (c["words"] + 10) for name in rates},
        **_logs(c, *logs, "second", "connectives"),
        **{name: c[name] for name in flags},
        "refusals": np.minimum(c["refusals"], 4),
        "dialogue": np.log1p(c["dialogue"]),
        **{share: c[name] / (c["read"] + 20) for share, name in shares.items()},
    }


def _logs(c: dict[str, FloatArray], *names: str) -> dict[str, FloatArray]:
    return {f"log_{name}": np.log1p(c[name]) for name in names}


def _repetition_features(c: dict[str, FloatArray]) -> dict[str, FloatArray]:
    n_pairs, n_fours = np.maximum(c["words"] - 1, 0), np.maximum(c["words"] - 3, 0)
    return {
        "distinct_share": c["distinct_words"] / (c["words"] + 1),
        "distinct_root": c["distinct_words"] / np.sqrt(c["words"] + 1),
        "repeated_pairs": (n_pairs - c["bigrams"]) / (n_pairs + 5),
        "repeated_fours": (n_fours - c["fourgrams"]) / (n_fours + 5),
        "repeated_sentences": (c["sentences"] - c["distinct_sentences"]) / (c["sentences"] + 1),
        "packed_share": c["packed"] / (c["read"] + 20),
    }


def _overlap_features(c: dict[str, FloatArray]) -> dict[str, FloatArray]:
    return {
        "prompt_covered": c["shared"] / (c["prompt_words"] + 1),
        "prompt_content_covered": c["shared_content"] / (c["prompt_content"] + 1),
        "from_prompt": c["shared"] / (c["distinct_words"] + 1),
        "content_from_prompt": c["shared_content"] / (c["content"] + 1),
        "echo": c["echoed"] / (c["bigrams"] + 3),
        "log_new_words": np.log1p(c["content"] - c["shared_content"]),
    }
