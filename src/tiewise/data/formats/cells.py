"""Values out of a record: turns, words, winners, each what it says or an error that says why."""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from tiewise.data.labels import PROB_COLUMNS, WORD_OF_WINNER, Winner, label_from_winner
from tiewise.data.parse import Cell, parse_cell, repair_text
from tiewise.errors import LabelError, PairsError, ParseError

Record = Mapping[str, Any]
Row = dict[str, Any]

ONE_HOT_COLUMNS = ("winner_model_a", "winner_model_b", "winner_tie")
_FLAGS = {"0": 0, "1": 1, "0.0": 0, "1.0": 1, "false": 0, "true": 1}
_SHOWN = 40


def is_missing(value: Any) -> bool:
    """Tell whether a cell holds nothing: None, NaN, <NA>, or the empty string."""
    if isinstance(value, str):
        return not value
    return value is None or (pd.api.types.is_scalar(value) and bool(pd.isna(value)))


def as_word(value: object) -> str | None:
    """Return a cell as text that encodes, or None where it is missing."""
    return None if is_missing(value) else repair_text(str(value))


def json_cell(record: Record, name: str) -> Cell:
    """Return the turns of a column whose cells are JSON lists, or lists already."""
    value = record[name]
    try:
        return parse_cell(value) if isinstance(value, str) else list_cell(value)
    except ParseError as error:
        raise PairsError(f"{name}: {error}") from None


def plain_cell(record: Record, name: str) -> Cell:
    """Return the one turn of a column whose cells are plain text."""
    value = record[name]
    if not isinstance(value, str):
        raise PairsError(f"{name}: expected text, found {shown(value)}")
    return list_cell([value])


def list_cell(value: object) -> Cell:
    """Return the turns of a cell that is a list of strings and nulls."""
    if not isinstance(value, list | tuple | np.ndarray):
        raise ParseError(f"expected a list of turns, found {shown(value)}")
    turns = [None if is_null(turn) else turn for turn in value]
    for turn in turns:
        if turn is not None and not isinstance(turn, str):
            raise ParseError(f"a turn is a string or null, found {shown(turn)}")
    repaired = [turn if turn is None else repair_text(turn) for turn in turns]
    return Cell(repaired, is_repaired=repaired != turns)


def is_null(value: object) -> bool:
    """Tell whether a turn is missing; the empty string is not."""
    return not isinstance(value, str) and is_missing(value)


def winner_of(record: Record) -> str | None:
    """Return the winner's word, from a word, from one-hot columns or from both, which must agree.

    A record without any of them has no winner when it holds soft labels instead.
    """
    word = as_word(record.get("winner"))
    claims = [] if word is None else [label_from_winner(word)]
    if any(name in record for name in ONE_HOT_COLUMNS):
        claims.append(one_hot_winner([record.get(name) for name in ONE_HOT_COLUMNS]))
    return agreed_winner(record, word, claims)


def agreed_winner(record: Record, word: str | None, claims: list[Winner]) -> str | None:
    """Return the word for the one winner that all claims name."""
    if len(set(claims)) > 1:
        listed = " and ".join(WORD_OF_WINNER[claim] for claim in claims)
        raise LabelError(f"the winner is said to be {listed}")
    if not claims and PROB_COLUMNS[0] not in record:
        raise LabelError("winner is missing")
    return word or (WORD_OF_WINNER[claims[0]] if claims else None)


def soft_labels(record: Record) -> Row:
    """Return the soft labels that a record holds."""
    names = [name for name in PROB_COLUMNS if name in record]
    probs = {name: as_number(record, name) for name in names}
    is_distribution = len(probs) == 3 and abs(sum(probs.values()) - 1) < 1e-6
    if probs and not (is_distribution and min(probs.values()) >= 0):
        raise LabelError(f"{', '.join(PROB_COLUMNS)} must be three probabilities with sum 1")
    return probs


def weight_of(record: Record) -> Row:
    """Return the weight that a record holds."""
    if "weight" not in record:
        return {}
    weight = as_number(record, "weight")
    if weight < 0:
        raise PairsError(f"weight: expected 0 or more, found {weight:g}")
    return {"weight": weight}


def as_number(record: Record, name: str) -> float:
    """Return a cell as a finite number."""
    try:
        number = float(record[name])
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise PairsError(f"{name}: expected a number, found {shown(record[name])}")
    return number


def one_hot_winner(cells: list[Any]) -> Winner:
    """Return which of three cells is 1, the other two being 0."""
    flags = [_as_flag(cell) for cell in cells]
    if sorted(flags, key=str) != [0, 0, 1]:
        listed = ", ".join(shown(cell) for cell in cells)
        raise LabelError(f"{', '.join(ONE_HOT_COLUMNS)} are {listed}; exactly one must be 1")
    return Winner(flags.index(1))


def _as_flag(cell: object) -> int | None:
    if isinstance(cell, str):
        return _FLAGS.get(cell.strip().lower())
    if isinstance(cell, numbers.Real | np.bool_) and cell in (0, 1):
        return int(bool(cell))
    return None


def shown(value: object) -> str:
    """Return a value as a message can bear it: short, on one line."""
    text = str(value) if isinstance(value, numbers.Number) else ascii(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
