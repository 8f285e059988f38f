"""Flat records with one prompt and two responses: the Kaggle competitions' and our own.

``kaggle`` (LMSYS, and arena-human-preference-55k) holds JSON lists of turns and one-hot winners,
``wsdm`` plain text and a winner's word, ``pairs`` is what :func:`tiewise.write_pairs` wrote.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from tiewise.data.formats.cells import (
    Record,
    Row,
    agreed_winner,
    as_word,
    is_missing,
    json_cell,
    plain_cell,
    shown,
    soft_labels,
    weight_of,
    winner_of,
)
from tiewise.data.labels import Winner, label_from_winner
from tiewise.data.parse import Cell
from tiewise.data.schema import TEXT_COLUMNS, WORD_COLUMNS
from tiewise.errors import LabelError

_WORDS = (*(name for name in WORD_COLUMNS if name != "winner"), "session", "teacher")


def read_kaggle(record: Record, *, position: int, labelled: bool) -> Iterator[Row]:
    """Yield the row of a record whose texts are JSON lists of turns."""
    yield _read_flat(record, json_cell) | (_read_labels(record, winner_of) if labelled else {})


def read_wsdm(record: Record, *, position: int, labelled: bool) -> Iterator[Row]:
    """Yield the row of a record whose texts are plain, one turn each."""
    yield _read_flat(record, plain_cell) | (_read_labels(record, winner_of) if labelled else {})


def read_own(record: Record, *, position: int, labelled: bool) -> Iterator[Row]:
    """Yield the row of a record that this package wrote."""
    yield _read_flat(record, json_cell) | (_read_labels(record, _own_winner) if labelled else {})


def _read_flat(record: Record, cell_of: Callable[[Record, str], Cell]) -> Row:
    cells = {name: cell_of(record, name) for name in TEXT_COLUMNS}
    row: Row = {name: cell.turns for name, cell in cells.items()}
    row["is_repaired"] = any(cell.is_repaired for cell in cells.values())
    row |= {"id": record["id"]} | weight_of(record)
    return row | {name: as_word(record[name]) for name in _WORDS if name in record}


def _read_labels(record: Record, winner: Callable[[Record], str | None]) -> Row:
    return soft_labels(record) | {"winner": winner(record)}


def _own_winner(record: Record) -> str | None:
    word, label = as_word(record["winner"]), record["label"]
    claims = [] if word is None else [label_from_winner(word)]
    if not is_missing(label):
        if label not in tuple(Winner):
            raise LabelError(f"label is {shown(label)}, which is none of 0, 1, 2")
        claims.append(Winner(label))
    return agreed_winner(record, word, claims)
