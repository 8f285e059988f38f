"""Hypothesis strategies for valid and hostile inputs, for every test.

The most general strategy comes first; a narrower one is used only where the property needs it.
"""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
from hypothesis import strategies as st

from tiewise.data.labels import WINNER_WORDS
from tiewise.data.pairs import build_pairs

SURROGATES = st.characters(min_codepoint=0xD800, max_codepoint=0xDFFF, categories=("Cs",))


def any_text(max_size: int = 40) -> st.SearchStrategy[str]:
    """Any Python string, lone surrogates included: more than any encoding accepts."""
    return st.text(st.one_of(st.characters(), SURROGATES), max_size=max_size)


def clean_text(max_size: int = 40) -> st.SearchStrategy[str]:
    """Any string that encodes to UTF-8."""
    return st.text(max_size=max_size)


def turns(max_size: int = 4) -> st.SearchStrategy[list[str | None]]:
    """Give a list of turns, missing ones included."""
    return st.lists(st.none() | clean_text(), max_size=max_size)


@st.composite
def json_cells(draw: st.DrawFn) -> tuple[str, list[str | None]]:
    """Draw a cell's text and its turns, in every way that JSON can spell the same list."""
    value = draw(turns())
    text = json.dumps(
        value,
        ensure_ascii=draw(st.booleans()),
        indent=draw(st.sampled_from([None, 0, 2, "\t"])),
        separators=draw(st.sampled_from([None, (",", ":"), (" ,\r\n", ":")])),
    )
    # A slash is legal in JSON with and without a backslash; no other character needs the choice.
    if draw(st.booleans()):
        text = text.replace("/", "\\/")
    return text, value


def json_values() -> st.SearchStrategy[object]:
    """Anything that JSON can say, and NaN and infinities, which Python's JSON says too."""
    leaves = st.none() | st.booleans() | st.integers() | st.floats() | clean_text(8)
    return st.recursive(
        leaves,
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(clean_text(3), inner, max_size=3)
        ),
        max_leaves=8,
    )


def hostile_cells() -> st.SearchStrategy[str]:
    """Cells that look like lists, and are broken, or are code, or are something else."""
    pieces = st.sampled_from(
        (
            *"[]{}\",:\\'\x00\ufeff\n aé😀\ud83d",
            *("null", "None", "NaN", "1e999", "\\ud83d", "\\ude00", "\\u12"),
            "__import__('os')",
        )
    )
    shuffled = st.lists(pieces, max_size=12).map("".join)
    wrapped = shuffled.map(lambda text: f'["{text}"]')
    return st.one_of(any_text(), shuffled, wrapped, json_values().map(json.dumps))


def labels(max_size: int = 30) -> st.SearchStrategy[np.ndarray]:
    """Labels: int8, 0 for A, 1 for B, 2 for a tie."""
    return st.lists(st.integers(0, 2), max_size=max_size).map(
        lambda value: np.array(value, np.int8)
    )


def probs(max_size: int = 30) -> st.SearchStrategy[np.ndarray]:
    """Probabilities: float64 (n, 3), rows that sum to 1, zeros and ones included."""
    weight = st.floats(0, 1) | st.sampled_from([0.0, 1.0])
    row = st.tuples(weight, weight, weight).filter(lambda weights: sum(weights) > 1e-3)
    rows = st.lists(row, max_size=max_size)
    return rows.map(lambda value: np.array(value).reshape(-1, 3)).map(
        lambda value: value / value.sum(axis=1, keepdims=True)
    )


@st.composite
def token_rows(draw: st.DrawFn, max_rows: int = 12):
    """Rows of tokens that often begin alike, repeat one another, or begin one another."""
    from tiewise.tokens.rows import TokenRows

    stems = draw(st.lists(st.lists(st.integers(0, 3), max_size=30), min_size=1, max_size=3))
    tails = st.lists(st.integers(0, 70_000), min_size=1, max_size=12)
    row = st.tuples(st.sampled_from(stems), tails).map(lambda parts: [*parts[0], *parts[1]])
    rows = draw(st.lists(row, min_size=1, max_size=max_rows))
    rows += draw(st.lists(st.sampled_from(rows), max_size=3))
    return TokenRows(
        values=np.array([token for row in rows for token in row], np.int32),
        offsets=np.cumsum([0, *map(len, rows)]).astype(np.int64),
        type_ids=None,
        n_truncated=np.zeros(len(rows), np.int64),
    )


def winner_words() -> st.SearchStrategy[str]:
    """Every word for a winner."""
    return st.sampled_from(list(WINNER_WORDS))


@st.composite
def pairs_columns(draw: st.DrawFn, max_size: int = 6) -> dict[str, list[object]]:
    """Draw columns for ``build_pairs``: some labelled, some with models, sessions, soft labels."""
    n = draw(st.integers(0, max_size))

    def column(values: st.SearchStrategy[object]) -> list[object]:
        return draw(st.lists(values, min_size=n, max_size=n))

    columns = {
        "id": column(
            draw(st.sampled_from([st.integers(-(10**9), 10**9), st.text("ab0", min_size=1)]))
        )
    }
    columns |= {name: column(turns(3)) for name in ("prompt", "response_a", "response_b")}
    further = {
        "winner": winner_words() | st.none(),
        "model_a": clean_text(5) | st.none(),
        "model_b": clean_text(5) | st.none(),
        "language": st.sampled_from(["English", "NA", "null", ""]) | st.none(),
        "source": clean_text(5) | st.none(),
        "session": st.sampled_from(["s", "t"]) | st.none(),
        "weight": st.floats(0, 10),
        "teacher": st.sampled_from(["t", "u"]) | st.none(),
    }
    columns |= {name: column(values) for name, values in further.items() if draw(st.booleans())}
    if draw(st.booleans()):
        columns["system"] = column(st.none() | clean_text(8))
        columns["prompt"] = [*map(with_system, columns["prompt"], columns["system"])]
    if draw(st.booleans()):
        rows = [draw(probs(1).filter(len))[0] for _ in range(n)]
        columns |= {
            name: [float(row[place]) for row in rows]
            for place, name in enumerate(("prob_a", "prob_b", "prob_tie"))
        }
    return columns


def with_system(prompt: list[str | None], system: str | None) -> list[str | None]:
    """Put a system text before a prompt, as messages of a conversation are joined."""
    if not system:
        return prompt
    first = [text for text in [system, *prompt[:1]] if text is not None]
    return ["\n\n".join(first), *prompt[1:]]


def pairs_tables(max_size: int = 6) -> st.SearchStrategy[pd.DataFrame]:
    """Pairs tables of every shape that the schema allows."""
    return pairs_columns(max_size).map(build_pairs)


@st.composite
def scored_rows(
    draw: st.DrawFn, *, min_size: int = 1, max_size: int = 30
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, probabilities (zeros and equal ones included) and group names of the same rows."""
    n = draw(st.integers(min_size, max_size))
    weights = draw(
        st.lists(
            st.tuples(*[st.sampled_from([0, 0, 1, 2, 5]) | st.integers(0, 1000)] * 3),
            min_size=n,
            max_size=n,
        )
    )
    mass = np.array(weights, dtype=np.float64)
    mass[mass.sum(1) == 0] = 1
    labels = draw(st.lists(st.integers(0, 2), min_size=n, max_size=n))
    groups = draw(st.lists(st.sampled_from("abcdefgh"), min_size=n, max_size=n))
    return np.array(labels), mass / mass.sum(1, keepdims=True), np.array(groups)


def conversations(max_turns: int = 3) -> st.SearchStrategy[tuple[list[str], list[str]]]:
    """Two sides of a conversation, equally long, no turn missing."""
    exchange = st.tuples(clean_text(), clean_text())
    exchanges = st.lists(exchange, min_size=1, max_size=max_turns)
    return exchanges.map(lambda pairs: tuple(map(list, zip(*pairs, strict=True))))


@st.composite
def text_fields(
    draw: st.DrawFn, max_rows: int = 4
) -> tuple[list[list[str | None]], list[list[str | None]], list[list[str | None]]]:
    """Prompts, responses A and responses B of the same number of pairs, at least one."""
    n = draw(st.integers(1, max_rows))
    wordy = st.lists(
        st.sampled_from(
            ["the", "cat", "sat", "12", "I'm sorry", "**b**", "- x\n", "```", "é😀", ""]
        ),
        max_size=12,
    ).map(" ".join)
    cell = st.lists(st.none() | clean_text(20) | wordy, max_size=3)
    prompts, first, second = (draw(st.lists(cell, min_size=n, max_size=n)) for _ in range(3))
    return prompts, first, second


def tables(n_columns: int = 3, max_rows: int = 12) -> st.SearchStrategy[np.ndarray]:
    """Give finite float tables of at least one row."""
    number = st.floats(-1e6, 1e6).map(float)
    row = st.lists(number, min_size=n_columns, max_size=n_columns)
    return st.lists(row, min_size=1, max_size=max_rows).map(np.array)
