"""Read a part of a table whose format was found at the beginning of the table."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from tiewise.data.formats.cells import is_missing
from tiewise.data.formats.columns import rename_columns
from tiewise.data.formats.detection import Columns, OpenedTable, examine
from tiewise.data.formats.layout import Layout
from tiewise.data.formats.reading import Numbered, build_table, cut_records
from tiewise.data.formats.records import FORMATS
from tiewise.data.formats.sources import Source
from tiewise.errors import PairsError


@dataclass(frozen=True)
class TableFormat:
    """The format of a table without winners, as its first records show it.

    `columns` are the renamed columns (see :func:`tiewise.read_pairs`). Where `has_ids` is false,
    ids are numbers of rows.
    """

    name: str
    layout: Layout
    has_ids: bool
    columns: Columns = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the format for JSON."""
        return vars(self) | {"layout": self.layout._asdict()}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> TableFormat:
        """Return the format that :meth:`to_dict` wrote."""
        fields: dict[str, Any] = {
            name: tuple(cell) if isinstance(cell, list) else cell
            for name, cell in value["layout"].items()
        }
        return cls(**{**value, "layout": Layout(**fields)})


def find_table_format(source: Source, format_name: str | None, columns: Columns) -> TableFormat:
    """Return the format of a table from its first records, of which 20 are read at most.

    PairsError when no format fits.
    """
    found = examine(
        source,
        format_name,
        columns,
        labelled=False,
        on_error="raise",
        reopen=lambda: source,
    )
    renamed = rename_columns(source, columns)[0]
    has_ids = bool(FORMATS[found.format].id_columns(renamed.columns))
    return TableFormat(found.format, found.layout, has_ids, columns)


def read_part(
    source: Source, known: TableFormat, *, first: int, size: int
) -> Iterator[Callable[[], pd.DataFrame]]:
    """Yield, for each `size` records of a part, a function that parses them to a pairs table.

    The chunks are those of :func:`tiewise.data.formats.read_chunks` for the whole table, if the
    part begins with a chunk. Records are numbered from `first`. Ids keep their spelling, such as
    ``7.0``, because one part does not tell whether all ids of the table are integers. PairsError is
    raised for a row without an id in a table with ids: one part does not tell its row number.
    """
    renamed = rename_columns(source, known.columns)[0]
    opened = OpenedTable(
        source.name, known.name, known.layout, None, [], [],
        renamed.records, lambda: source, labelled=False, on_error="raise",
    )  # fmt: skip
    id_columns = FORMATS[known.name].id_columns(renamed.columns)
    for chunk in cut_records(renamed.records, size, first):
        yield functools.partial(_build_part, opened, chunk, id_columns)


def _build_part(
    opened: OpenedTable, chunk: Sequence[Numbered], id_columns: Sequence[str]
) -> pd.DataFrame:
    for number, entry in chunk:
        if id_columns and all(is_missing(entry.values.get(name)) for name in id_columns):
            raise PairsError(
                f"{opened.name}: row {number} has no id, and its row number in the whole table is "
                "not known here. Give every row an id, or remove the column of the ids."
            )
    return build_table(opened, chunk, lambda: False)
