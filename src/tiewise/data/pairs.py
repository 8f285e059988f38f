"""The pairs table: one pair per row, with the same columns for every source.

`prompt`, `response_a` and `response_b` hold lists of turns, each a string or None (missing).
`label` is 0, 1, 2 for A, B, tie, or <NA>; `winner` is the word it was read from, so that "both bad"
differs from other ties. `group` is the prompt group (:mod:`tiewise.data.folds`). `system` is the
text at the beginning of the first turn of the prompt, before an empty line, that a system or
developer message held. `teacher` is the model that gave soft labels
(:mod:`tiewise.runs.teachers`).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from tiewise.data.first_text import SYSTEM_COLUMN, begins_with_system, compose
from tiewise.data.folds import derive_groups
from tiewise.data.labels import PROB_COLUMNS, WINNER_WORDS, WORD_OF_WINNER
from tiewise.data.parse import count_characters
from tiewise.errors import PairsError

TEXT_COLUMNS = ("prompt", "response_a", "response_b")
WORD_COLUMNS = ("winner", "model_a", "model_b", "language", "group", "source")
COLUMNS = ("id", *TEXT_COLUMNS, "label", *WORD_COLUMNS)
FURTHER_WORDS = ("session", "teacher", SYSTEM_COLUMN)
FURTHER_COLUMNS = (*PROB_COLUMNS, "weight", *FURTHER_WORDS)

_SWAPPED_COLUMNS = {
    f"{name}_{side}": f"{name}_{other}"
    for name in ("response", "model", "prob", "bayes")
    for side, other in ("ab", "ba")
}
_MAX_NAMED = 3
_is_integer = re.compile(r"0|-?[1-9][0-9]{0,17}").fullmatch


def build_pairs(columns: Mapping[str, Any]) -> pd.DataFrame:
    """Build a pairs table from columns of equal length, and derive missing columns from the others.

    `id` and the three text columns are required. `label` is derived from `winner` and the reverse,
    and `group` from prompts and sessions; any other missing column is <NA>, and so is an empty
    word.

    >>> texts = {"prompt": [["2+2?"]], "response_a": [["4"]], "response_b": [["5"]]}
    >>> build_pairs({"id": [7], **texts, "winner": ["model_a"]})[["id", "label", "winner"]]
       id  label   winner
    0   7      0  model_a
    """
    _check_required(columns)
    n = len(columns["id"])
    table: dict[str, Any] = {"id": as_ids(columns["id"])}
    for name in TEXT_COLUMNS:
        table[name] = pd.Series(list(columns[name]), dtype=object)
    table["label"] = _as_labels(columns, n)
    for name in WORD_COLUMNS:
        table[name] = _as_words(columns.get(name, [pd.NA] * n))
    for name in [name for name in FURTHER_COLUMNS if name in columns]:
        is_word, values = name in FURTHER_WORDS, columns[name]
        table[name] = _as_words(values) if is_word else np.asarray(values, np.float64)
    pairs = pd.DataFrame(table)
    pairs["winner"] = pairs["winner"].fillna(pairs["label"].map(WORD_OF_WINNER).astype("string"))
    _check_texts(pairs)
    if pairs["group"].isna().any():
        pairs["group"] = pairs["group"].fillna(pd.Series(derive_groups(pairs), dtype="string"))
    _check_values(pairs)
    return pairs


def check_pairs(pairs: pd.DataFrame) -> None:
    """Raise PairsError, with the first wrong rows, for a table that is no pairs table.

    Columns are in order, texts are lists of strings (that encode as UTF-8) and None, no id or group
    is missing, winners agree with labels, soft labels are probabilities (or missing in a row
    without a winner), weights are finite and >= 0, prompts begin with their system text.
    """
    found = tuple(pairs.columns)
    if found[: len(COLUMNS)] != COLUMNS:
        raise PairsError(
            f"the columns are {', '.join(map(str, found))}; "
            f"expected {', '.join(COLUMNS)}, in this order"
        )
    _check_texts(pairs)
    _check_values(pairs)


def as_ids(values: Iterable[Any]) -> pd.Series:
    """Convert ids to int64 if every one is an integer, otherwise to strings; missing ones are <NA>.

    >>> as_ids(["7", "30192"]).tolist(), as_ids(["7", "a3f"]).tolist(), as_ids(["07"]).tolist()
    ([7, 30192], ['7', 'a3f'], ['07'])
    """
    words = [None if pd.isna(value) else str(value) for value in values]
    if all(word is not None and _is_integer(word) for word in words):
        return pd.Series(words, dtype=object).astype(np.int64)
    return pd.Series(words, dtype="string")


def swap_pairs(pairs: pd.DataFrame) -> pd.DataFrame:
    """Swap A and B in every row.

    Parameters
    ----------
    pairs
        A pairs table.

    Returns
    -------
    DataFrame
        The same rows with A and B exchanged in responses, models, labels, winners, soft labels and
        the true probabilities of simulated rows. Swapping twice restores the table.

    Examples
    --------
    >>> texts = {"prompt": [["2+2?"]], "response_a": [["4"]], "response_b": [["5"]]}
    >>> pairs = build_pairs({"id": [7], **texts, "winner": ["model_a"]})
    >>> swap_pairs(pairs)[["response_a", "response_b", "label", "winner"]]
      response_a response_b  label   winner
    0        [5]        [4]      1  model_b
    """
    swapped = pairs.rename(columns=_SWAPPED_COLUMNS)[list(pairs.columns)]
    swapped["label"] = pairs["label"].replace({0: 1, 1: 0})
    swapped["winner"] = pairs["winner"].replace({"model_a": "model_b", "model_b": "model_a"})
    return swapped


def is_degenerate(pairs: pd.DataFrame) -> npt.NDArray[np.bool_]:
    """Return, shape (n,), whether both responses are blank or missing, or both are equal.

    >>> texts = {"response_a": [["4"], ["4"], [None]], "response_b": [["5"], ["4"], [" "]]}
    >>> is_degenerate(pd.DataFrame(texts)).tolist()
    [False, True, True]
    """
    responses = zip(pairs["response_a"], pairs["response_b"], strict=True)
    return np.array([_same_or_blank(a, b) for a, b in responses], dtype=bool)


def row_digests(pairs: pd.DataFrame, *, composed: bool = False) -> npt.NDArray[np.str_]:
    """Return a digest (32 hexadecimal digits) of each row's three texts, shape (n,).

    A missing turn differs from an empty one. If `composed`, texts that differ only in invisible
    characters or in the code points of accents have one digest.
    """
    columns = [pairs[name].map(compose_turns) if composed else pairs[name] for name in TEXT_COLUMNS]
    texts = zip(*columns, strict=True)
    digests = [hashlib.blake2b(json.dumps(row).encode(), digest_size=16) for row in texts]
    return np.array([digest.hexdigest() for digest in digests], dtype="U32")


def pair_digests(pairs: pd.DataFrame) -> npt.NDArray[np.str_]:
    """Return the smaller of each row's digest and its swap's: the same when A and B are swapped.

    Texts are compared composed, as in :func:`row_digests`.
    """
    swapped = pairs[list(TEXT_COLUMNS)].rename(columns=_SWAPPED_COLUMNS)
    digests, swapped_digests = (row_digests(rows, composed=True) for rows in (pairs, swapped))
    return np.where(digests < swapped_digests, digests, swapped_digests)


def compose_turns(turns: Iterable[str | None]) -> list[str | None]:
    """Return turns without invisible characters and with composed accents."""
    return [turn if turn is None else compose(turn) for turn in turns]


def text_lengths(pairs: pd.DataFrame) -> pd.DataFrame:
    """Count the characters (code points of all turns) of each text.

    The columns are ``n_chars_prompt``, ``n_chars_a`` and ``n_chars_b``, int64.
    """
    lengths = {
        f"n_chars_{name.removeprefix('response_')}": [*map(count_characters, pairs[name])]
        for name in TEXT_COLUMNS
    }
    return pd.DataFrame(lengths, index=pairs.index, dtype=np.int64)


def _same_or_blank(response_a: list[str | None], response_b: list[str | None]) -> bool:
    texts_a, texts_b = ([turn or "" for turn in turns] for turns in (response_a, response_b))
    return texts_a == texts_b or not any(turn.strip() for turn in texts_a + texts_b)


def _as_labels(columns: Mapping[str, Any], n: int) -> Any:
    words = columns.get("winner", [pd.NA] * n)
    found = [pd.NA if pd.isna(word) else WINNER_WORDS.get(word, pd.NA) for word in words]
    return pd.array(list(columns.get("label", found)), dtype="Int8")


def _as_words(values: Iterable[Any]) -> Any:
    words = [pd.NA if isinstance(value, str) and not value else value for value in values]
    return pd.array(words, dtype="string")


def _check_required(columns: Mapping[str, Any]) -> None:
    missing = [name for name in ("id", *TEXT_COLUMNS) if name not in columns]
    if missing:
        raise PairsError(f"the columns are {', '.join(columns)}; missing: {', '.join(missing)}")
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise PairsError(f"the lengths of the columns are {listed}; expected equal lengths")


def _check_texts(pairs: pd.DataFrame) -> None:
    for name in TEXT_COLUMNS:
        is_wrong = np.array([not _is_turns(cell) for cell in pairs[name]], dtype=bool)
        _refuse(pairs, is_wrong, f"{name} must be a list of strings and None that encode as UTF-8")


def _is_turns(cell: object) -> bool:
    if type(cell) is not list:
        return False
    try:
        "".join(turn for turn in cell if turn is not None).encode()
    except (TypeError, UnicodeEncodeError):
        return False
    return True


def _check_values(pairs: pd.DataFrame) -> None:
    for name in ("id", "group"):
        _refuse(pairs, pairs[name].isna(), f"{name} is missing")
    labels, winners = pairs["label"], pairs["winner"]
    _refuse(pairs, labels.notna() & ~labels.isin(list(WORD_OF_WINNER)), "label must be 0, 1 or 2")
    is_unknown = winners.notna() & ~winners.isin(list(WINNER_WORDS))
    _refuse(pairs, is_unknown, f"winner must be one of {', '.join(WINNER_WORDS)}")
    expected = winners.map(WINNER_WORDS)
    is_contradicted = labels.notna() & expected.notna() & (labels != expected)
    _refuse(pairs, is_contradicted, "winner and label contradict each other")
    _check_soft_labels(pairs)
    if "weight" in pairs.columns:
        weights = pairs["weight"].to_numpy(dtype=np.float64)
        is_wrong = ~((weights >= 0) & np.isfinite(weights))
        _refuse(pairs, is_wrong, "weight must be finite and at least 0")
    if SYSTEM_COLUMN in pairs.columns:
        cells = zip(pairs["prompt"], pairs[SYSTEM_COLUMN], strict=True)
        is_wrong = [not _has_system(prompt, system) for prompt, system in cells]
        _refuse(pairs, is_wrong, "system must begin the prompt, followed by an empty line")


def _has_system(prompt: list[str | None], system: Any) -> bool:
    return bool(pd.isna(system)) or (bool(prompt) and begins_with_system(prompt[0], system))


def _check_soft_labels(pairs: pd.DataFrame) -> None:
    found = [name for name in PROB_COLUMNS if name in pairs.columns]
    if found and len(found) < len(PROB_COLUMNS):
        raise PairsError(
            f"the soft labels are {', '.join(found)}; expected {', '.join(PROB_COLUMNS)}"
        )
    if found:
        probs = pairs[found].to_numpy(dtype=np.float64)  # (n, 3)
        is_wrong = ~((probs >= 0).all(axis=1) & (np.abs(probs.sum(axis=1) - 1) < 1e-6))
        is_wrong &= ~(np.isnan(probs).all(axis=1) & pairs["label"].isna().to_numpy())
        _refuse(pairs, is_wrong, "prob_a, prob_b, prob_tie must be probabilities with sum 1")


def _refuse(pairs: pd.DataFrame, is_wrong: Any, why: str) -> None:
    """Raise PairsError with the first rows that are wrong, if any is."""
    rows = np.flatnonzero(np.asarray(is_wrong, dtype=bool))
    if len(rows):
        ids = pairs["id"].to_numpy()
        named = [f"row {row} (id={ids[row]})" for row in rows[:_MAX_NAMED]]
        named += [f"and {len(rows) - _MAX_NAMED} more rows"] * (len(rows) > _MAX_NAMED)
        raise PairsError(f"{', '.join(named)}: {why}")
