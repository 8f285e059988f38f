"""The pairs table: one comparison a row, the same columns wherever it came from.

Three text columns hold lists of turns, each a string or None (a missing turn). ``label`` is 0, 1, 2
for A, B, tie, or <NA>; ``winner`` is the word it came from, so that «both bad» stays told apart
from other ties. ``group`` names the conversation's origin (see :mod:`tiewise.data.folds`). Further
columns may follow: soft labels ``prob_a, prob_b, prob_tie``, ``weight``, ``session``, and
``teacher``, which tells whose the soft labels are where no people gave them
(:mod:`tiewise.runs.teachers`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from tiewise.data.folds import derive_groups
from tiewise.data.labels import PROB_COLUMNS, WINNER_WORDS, WORD_OF_WINNER
from tiewise.errors import PairsError

TEXT_COLUMNS = ("prompt", "response_a", "response_b")
WORD_COLUMNS = ("winner", "model_a", "model_b", "language", "group", "source")
COLUMNS = ("id", *TEXT_COLUMNS, "label", *WORD_COLUMNS)
FURTHER_COLUMNS = (*PROB_COLUMNS, "weight", "session", "teacher")

_SHOWN = 3


def build_pairs(columns: Mapping[str, Any]) -> pd.DataFrame:
    """Make a pairs table of columns, filling in what follows from the others.

    Parameters
    ----------
    columns
        Columns of n values each, by name. ``id`` and the three text columns are required. Of
        ``label`` and ``winner`` one is enough for both; ``group`` is derived where it is missing;
        any other missing column is <NA>. An empty word says nothing and is <NA> too.

    Returns
    -------
    DataFrame
        n rows: the columns in their fixed order and type, then the further ones that were given.

    Raises
    ------
    PairsError
        As :func:`check_pairs` does.

    Examples
    --------
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
    for name in FURTHER_COLUMNS:
        if name in columns:
            table[name] = _as_further(name, columns[name])
    pairs = pd.DataFrame(table)
    pairs["winner"] = pairs["winner"].fillna(_words_of(pairs["label"]))
    _check_texts(pairs)
    pairs["group"] = pairs["group"].fillna(pd.Series(derive_groups(pairs), dtype="string"))
    _check_values(pairs)
    return pairs


def check_pairs(pairs: pd.DataFrame) -> None:
    """Refuse a table that is not a pairs table.

    Parameters
    ----------
    pairs
        Any DataFrame.

    Raises
    ------
    PairsError
        Where a column is missing or out of order, a text is not a list of strings and None or does
        not encode to UTF-8, an id or a group is missing, a label is none of 0, 1, 2, a winner is
        unknown or contradicts its label, or soft labels and weights are no probabilities and no
        weights. The message names the first rows.

    Examples
    --------
    >>> check_pairs(pd.DataFrame({"id": [1]}))
    Traceback (most recent call last):
    tiewise.errors.PairsError: a pairs table starts with the columns id, prompt, response_a, \
response_b, label, winner, model_a, model_b, language, group, source; found id
    """
    found = tuple(pairs.columns)
    if found[: len(COLUMNS)] != COLUMNS:
        raise PairsError(
            f"a pairs table starts with the columns {', '.join(COLUMNS)}; "
            f"found {', '.join(map(str, found))}"
        )
    _check_texts(pairs)
    _check_values(pairs)


def as_ids(values: Iterable[Any]) -> pd.Series:
    """Make a column of ids: int64 where every id is an integer, text otherwise.

    Parameters
    ----------
    values
        Length n. Text that spells an integer the usual way counts as one.

    Returns
    -------
    Series
        Shape (n,), dtype int64 or string; missing ids are <NA>.

    Examples
    --------
    >>> as_ids(["7", "30192"]).tolist(), as_ids(["7", "a3f"]).tolist(), as_ids(["07"]).tolist()
    ([7, 30192], ['7', 'a3f'], ['07'])
    """
    words = [None if pd.isna(value) else str(value) for value in values]
    if all(_is_integer(word) for word in words):
        return pd.Series(words, dtype=object).astype(np.int64)
    return pd.Series(words, dtype="string")


def _is_integer(word: str | None) -> bool:
    if word is None:
        return False
    digits = word.removeprefix("-")
    is_plain = digits.isascii() and digits.isdecimal() and len(digits) < 19
    return is_plain and str(int(word)) == word


def _check_required(columns: Mapping[str, Any]) -> None:
    missing = [name for name in ("id", *TEXT_COLUMNS) if name not in columns]
    if missing:
        raise PairsError(f"pairs need the columns {', '.join(missing)}; found {', '.join(columns)}")
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise PairsError(f"the columns must be equally long; found {listed}")


def _as_labels(columns: Mapping[str, Any], n: int) -> Any:
    if "label" in columns:
        return pd.array(list(columns["label"]), dtype="Int8")
    words = columns.get("winner", [pd.NA] * n)
    labels = [pd.NA if pd.isna(word) else WINNER_WORDS.get(word, pd.NA) for word in words]
    return pd.array(labels, dtype="Int8")


def _words_of(labels: pd.Series) -> pd.Series:
    words = [WORD_OF_WINNER.get(label, pd.NA) for label in labels]
    return pd.Series(words, index=labels.index, dtype="string")


def _as_words(values: Iterable[Any]) -> Any:
    words = [pd.NA if isinstance(value, str) and not value else value for value in values]
    return pd.array(words, dtype="string")


def _as_further(name: str, values: Any) -> Any:
    if name in ("session", "teacher"):
        return _as_words(values)
    return np.asarray(values, dtype=np.float64)


def _check_texts(pairs: pd.DataFrame) -> None:
    for name in TEXT_COLUMNS:
        is_wrong = np.array([not _is_turns(cell) for cell in pairs[name]], dtype=bool)
        _refuse(pairs, is_wrong, f"{name} must be a list of strings and None that encode to UTF-8")


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
    _check_labels(pairs)
    _check_further(pairs)


def _check_labels(pairs: pd.DataFrame) -> None:
    labels, winners = pairs["label"], pairs["winner"]
    _refuse(pairs, labels.notna() & ~labels.isin(list(WORD_OF_WINNER)), "label is none of 0, 1, 2")
    is_unknown = winners.notna() & ~winners.isin(list(WINNER_WORDS))
    _refuse(pairs, is_unknown, f"winner is none of {', '.join(WINNER_WORDS)}")
    expected = winners.map(WINNER_WORDS)
    is_contradicted = labels.notna() & expected.notna() & (labels != expected)
    _refuse(pairs, is_contradicted, "winner and label contradict one another")


def _check_further(pairs: pd.DataFrame) -> None:
    given = [name for name in PROB_COLUMNS if name in pairs.columns]
    if given and len(given) < len(PROB_COLUMNS):
        raise PairsError(f"soft labels need {', '.join(PROB_COLUMNS)}; found {', '.join(given)}")
    if given:
        probs = pairs[given].to_numpy(dtype=np.float64)  # (n, 3)
        is_wrong = ~((probs >= 0).all(axis=1) & (np.abs(probs.sum(axis=1) - 1) < 1e-6))
        _refuse(pairs, is_wrong, "prob_a, prob_b, prob_tie are not three probabilities with sum 1")
    if "weight" in pairs.columns:
        weights = pairs["weight"].to_numpy(dtype=np.float64)
        _refuse(pairs, ~((weights >= 0) & np.isfinite(weights)), "weight is negative or not finite")


def _refuse(pairs: pd.DataFrame, is_wrong: Any, why: str) -> None:
    mask = np.asarray(is_wrong, dtype=bool)
    if mask.any():
        raise PairsError(f"{', '.join(_named(pairs, mask))}: {why}")


def _named(pairs: pd.DataFrame, mask: npt.NDArray[np.bool_]) -> Iterator[str]:
    ids = pairs["id"].to_numpy()[mask]
    for position, name in zip(np.flatnonzero(mask)[:_SHOWN].tolist(), ids, strict=False):
        yield f"row {position} (id={name})"
    if mask.sum() > _SHOWN:
        yield f"and {mask.sum() - _SHOWN} more rows"
