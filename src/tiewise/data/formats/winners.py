"""Read the winner of a record: words, numbers, one-hot columns, soft labels.

Words have one reading. Numbers other than 1 and 2 have several: 0, 1, 2 is A, B, tie in one file
and tie, A, B in another. Such a file is refused until its reader says what its values mean.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from tiewise.data.formats.cells import (
    Record,
    Row,
    as_number,
    as_word,
    is_missing,
    parse_number,
    shown,
)
from tiewise.data.formats.columns import WINNER_NAMES, parse_assignments
from tiewise.data.labels import (
    ONE_HOT_COLUMNS,
    PROB_COLUMNS,
    WINNER_WORDS,
    WORD_OF_WINNER,
    Winner,
    standard_word,
)
from tiewise.errors import LabelError, PairsError

_SHOWN = {"a": "A", "b": "B", "tie": "a tie"}
_FLAGS = {"false": 0, "true": 1}
_READINGS = tuple(
    dict(item.split("=") for item in reading.split(","))
    for reading in (
        *("a=1,b=2", "a=0,b=1", "b=0,a=1", "a=0,b=1,tie=2", "tie=0,a=1,b=2"),
        *("a=-1,tie=0,b=1", "b=-1,tie=0,a=1"),
    )
)


class AmbiguousWinnerError(PairsError):
    """Numbers of a source have several readings as winners; no row of it can be read."""


class WinnerColumn(NamedTuple):
    """The column that holds words or numbers for a winner."""

    name: str = "winner"
    values: Mapping[str, Winner] = {}
    """Label of each value that is not a word, by its key."""
    is_declared: bool = False
    """Whether the caller of the reader gives `values`: then no other number is read."""
    find_values: Callable[[], Mapping[str, Winner]] = dict
    """Label of each number by its key, from all records; AmbiguousWinnerError if it is unclear."""

    def read(self, record: Record) -> str | None:
        """Return the word for the winner in a record, or None if the cell is missing."""
        cell = record.get(self.name)
        word = as_word(cell)
        if word is None:
            return None
        is_number = not self.is_declared and _is_number(cell)
        values = self.find_values() if is_number else self.values
        if (key := _key_of(cell)) in values:
            return WORD_OF_WINNER[values[key]]
        try:
            return standard_word(word)
        except LabelError:
            if not self.is_declared:
                raise
        known = ", ".join(self.values)
        raise LabelError(
            f"{self.name} is {word!r:.40}; expected one of {known}, "
            "or a known word such as A, B, tie"
        )


def choose_winner_column(
    columns: Sequence[str],
    given: Mapping[str, Any] | Sequence[str],
    head: Sequence[Record],
    read_all: Callable[[], Iterable[Record]],
    tell: Callable[[str], None],
) -> WinnerColumn:
    """Return the column of the winners of a source and the meaning of its numbers.

    `given` may have values of the source for ``a``, ``b`` and ``tie``. Otherwise the numbers of all
    records are looked at, once one is met; AmbiguousWinnerError is raised if they have several
    readings, and else `tell` is called with what is decided. The first records are read now.
    """
    name = _find_column(columns)
    if declared := _parse_declared(given):
        if name is None:
            raise PairsError(
                "columns gives values of the winner, and there is no column winner or label. Name "
                "it too, as in --columns winner=NAME"
            )
        return WinnerColumn(name, declared, is_declared=True)
    if name is None:
        return WORDS_ALONE

    @functools.cache
    def find_values() -> Mapping[str, Winner]:
        cells = (record.get(name) for record in read_all())
        keys = {_key_of(cell) for cell in cells if _is_number(cell)}
        if keys != {"1", "2"}:
            raise AmbiguousWinnerError(_describe_readings(name, sorted(keys, key=float)))
        tell(f"{name} 1 is read as A and 2 as B")
        return {"1": Winner.A, "2": Winner.B}

    if any(_is_number(record.get(name)) for record in head):
        find_values()
    return WinnerColumn(name, find_values=find_values)


WORDS_ALONE = WinnerColumn()
"""The column `winner` where it holds words alone."""


def read_labels(
    record: Record,
    column: WinnerColumn = WORDS_ALONE,
    *,
    has_label: bool = False,
    is_required: bool = True,
) -> Row:
    """Return a record's soft labels, and its winner as a word.

    The columns that name the winner (also our own `label` if `has_label`) must agree; a record with
    soft labels needs none.
    """
    row: Row = _read_soft_labels(record, is_required=is_required)
    word = column.read(record)
    named = [] if word is None else [WINNER_WORDS[word]]
    cells = [record.get(name) for name in ONE_HOT_COLUMNS]
    is_blank = all(is_missing(cell) or _as_flag(cell) == 0 for cell in cells)
    if any(name in record for name in ONE_HOT_COLUMNS) and (is_required or not is_blank):
        named.append(_one_hot_winner(record))
    if has_label and not is_missing(record["label"]):
        label = parse_number(record["label"])
        if label not in tuple(Winner):
            raise LabelError(f"label is {shown(record['label'])}; expected 0, 1 or 2")
        named.append(Winner(int(label)))
    if len(set(named)) > 1:
        listed = " and ".join(WORD_OF_WINNER[winner] for winner in named)
        raise LabelError(f"the columns name {listed} as winners; expected one")
    if not named and not row and is_required:
        raise LabelError("winner is missing")
    return row | {"winner": word or (WORD_OF_WINNER[named[0]] if named else None)}


def _find_column(columns: Sequence[str]) -> str | None:
    """Return `winner` or `label`; None for a label next to other columns of winners."""
    if "winner" in columns:
        return "winner"
    is_named = any(set(group) <= set(columns) for group in (ONE_HOT_COLUMNS, PROB_COLUMNS))
    return "label" if "label" in columns and not is_named else None


def _parse_declared(given: Mapping[str, Any] | Sequence[str]) -> dict[str, Winner]:
    values: dict[str, Winner] = {}
    for name, value in parse_assignments(given):
        if name not in WINNER_NAMES:
            continue
        key, winner = _key_of(value), WINNER_NAMES[name]
        if values.setdefault(key, winner) != winner:
            raise PairsError(f"columns gives {value} as the value of two winners; expected one")
    return values


def _describe_readings(name: str, keys: Sequence[str]) -> str:
    fitting = [reading for reading in _READINGS if set(keys) <= set(reading.values())]
    n_fewest = min(map(len, fitting), default=0)
    ways = [
        f"{', '.join(f'{v} is {_SHOWN[k]}' for k, v in reading.items())}: --columns "
        + ",".join(f"{k}={v}" for k, v in reading.items())
        for reading in fitting
        if len(reading) == n_fewest or len(keys) == 1
    ] or ["two or three values: --columns a=VALUE,b=VALUE,tie=VALUE"]
    listed = ", ".join(keys[:-1]) + (" and " if keys[1:] else "") + keys[-1]
    return (
        f"{name} is {listed}, which does not say who won. It may mean\n  "
        + "\n  ".join(ways)
        + "\nGive the one that is meant (in Python columns={'a': …, 'b': …, 'tie': …})."
    )


def _key_of(cell: Any) -> str:
    """Return the text by which equal values are known: true is 1, and so are 1.0 and "1"."""
    number = parse_number(cell)
    if number is None:
        word = str(cell).strip().lower()
        return str(_FLAGS.get(word, word))
    return str(int(number)) if number.is_integer() else repr(number)


def _is_number(cell: Any) -> bool:
    return not is_missing(cell) and parse_number(_key_of(cell)) is not None


def _read_soft_labels(record: Record, *, is_required: bool) -> Row:
    if not is_required and all(is_missing(record.get(name)) for name in PROB_COLUMNS):
        return {}
    probs = {name: as_number(record, name) for name in PROB_COLUMNS if name in record}
    is_distribution = len(probs) == 3 and abs(sum(probs.values()) - 1) < 1e-6
    if probs and not (is_distribution and min(probs.values()) >= 0):
        raise LabelError(f"{', '.join(PROB_COLUMNS)} must be three probabilities with sum 1")
    return probs


def _one_hot_winner(record: Record) -> Winner:
    cells = [record.get(name) for name in ONE_HOT_COLUMNS]
    flags = [_as_flag(cell) for cell in cells]
    if sorted(flags, key=str) != [0, 0, 1]:
        listed = ", ".join(map(shown, cells))
        raise LabelError(f"{', '.join(ONE_HOT_COLUMNS)} are {listed}; exactly one must be 1")
    return Winner(flags.index(1))


def _as_flag(cell: object) -> int | None:
    if isinstance(cell, str) and cell.strip().lower() in _FLAGS:
        return _FLAGS[cell.strip().lower()]
    number = parse_number(cell)
    return int(number) if number in (0, 1) else None
