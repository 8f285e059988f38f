"""Find the format of a source, and open its records."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import Any, Literal, NamedTuple

from tiewise.data.formats.cells import Row
from tiewise.data.formats.columns import (
    WINNER_NAMES,
    find_format,
    find_unread,
    has_winner,
    parse_assignments,
    rename_columns,
    show_columns_flag,
    suggest_columns,
)
from tiewise.data.formats.layout import Layout, find_layout
from tiewise.data.formats.opening import ParsedRecord
from tiewise.data.formats.records import FORMATS, LABEL_COLUMNS, Format
from tiewise.data.formats.sources import Source, open_source
from tiewise.data.formats.winners import WinnerColumn, choose_winner_column
from tiewise.errors import PairsError

_log = logging.getLogger(__name__)
OnError = Literal["raise", "skip"]
Columns = Mapping[str, Any] | Sequence[str]
UNLABELLED = (
    "For a test file without winners: tiewise predict reads it as it is; give --unlabelled to "
    "other commands and labelled=False to read_pairs."
)
_HEAD_ROWS = 20


class OpenedTable(NamedTuple):
    """A source with a known format, and how to read its records."""

    name: str
    format: str
    layout: Layout
    winner: WinnerColumn | None
    unread: list[str]
    notes: list[str]
    records: Iterator[ParsedRecord]
    reopen: Callable[[], Source]
    labelled: bool | None
    on_error: OnError


def open_table(
    path: Any,
    format_name: str | None,
    columns: Columns,
    labelled: bool | None,
    on_error: OnError,
) -> OpenedTable:
    """Open anything that :func:`read_pairs` reads, and find its format."""
    if on_error not in ("raise", "skip"):
        raise PairsError(f"on_error is {on_error!r}; expected 'raise' or 'skip'")

    def reopen() -> Source:
        return rename_columns(open_source(path), columns)[0]

    return examine(
        open_source(path),
        format_name,
        columns,
        labelled=labelled,
        on_error=on_error,
        reopen=reopen,
    )


def examine(
    source: Source,
    format_name: str | None,
    columns: Columns,
    *,
    labelled: bool | None,
    on_error: OnError,
    reopen: Callable[[], Source],
) -> OpenedTable:
    """Find the format of a source from its columns and first records.

    `reopen` opens it again, with our names of columns.
    """
    source, replaced = rename_columns(source, columns)
    head = list(islice(source.records, _HEAD_ROWS))
    first = [entry.values for entry in head if entry.problem is None]
    if format_name is None:
        if not source.columns:
            problem = head[0].problem if head else "there is no row"
            raise PairsError(f"{source.name}: row 0: {problem}")
        format_name = find_format(source.name, source.columns, first)
    _check_format(source, format_name, labelled=labelled)
    known = FORMATS[format_name]
    winner, notes = None, []

    def tell(note: str) -> None:
        if note not in notes:
            notes.append(note)
            _log.info("%s: %s", source.name, note)

    _tell_choices(known, source.columns, tell)
    if labelled is not False:
        _check_declared(source, format_name, columns)
        if not (known.is_choice or known.winner in source.columns):
            winner = _choose_winner(source, columns, first, reopen, tell)
    unread = find_unread(format_name, source.columns)
    unread = [name for name in unread if winner is None or name != winner.name]
    return OpenedTable(
        source.name,
        format_name,
        find_layout(known.plain, source.columns, first, is_choice=known.is_choice),
        winner,
        [*unread, *replaced],
        notes,
        chain(head, source.records),
        reopen,
        labelled,
        on_error,
    )


def _check_format(source: Source, format_name: str, *, labelled: bool | None) -> None:
    if format_name not in FORMATS:
        raise PairsError(f"format is {format_name!r}; expected one of {', '.join(FORMATS)}")
    known, found = FORMATS[format_name], f"found {', '.join(source.columns)}"
    missing = [column for column in known.needs if column not in source.columns]
    if missing:
        raise PairsError(
            f"{source.name}: the columns {', '.join(missing)} are missing for the format "
            f"{format_name}; {found}"
        )
    if labelled and not has_winner(known, source.columns):
        groups = [*LABEL_COLUMNS, *([(known.winner,)] if known.winner else [])]
        expected = ", or ".join(", ".join(group) for group in groups)
        unread = find_unread(format_name, source.columns)
        name = suggest_columns(["winner"], unread)
        hint = f"\nDid you mean {show_columns_flag(name)}?" if name else ""
        raise PairsError(
            f"{source.name}: no column names the winner; expected {expected}; {found}{hint}\n"
            f"{UNLABELLED}"
        )


def _check_declared(source: Source, format_name: str, columns: Columns) -> None:
    """Refuse a winner that the caller gives where the format takes it from a column of its own."""
    known = FORMATS[format_name]
    if not (known.is_choice or known.winner in source.columns):
        return
    for name, value in parse_assignments(columns):
        if name not in ("winner", *WINNER_NAMES):
            continue
        way = "Leave it out."
        if known.winner is not None:
            other = "" if name == "winner" else f" Or name its column too: winner={known.winner}."
            way = f"Leave it out to read {known.winner} as {format_name} means it.{other}"
            way += "" if other else f" Or remove {known.winner} from the file."
        own = known.winner or "the order of the responses"
        raise PairsError(
            f"{source.name}: columns gives {name}={value}, but the format {format_name} takes the "
            f"winner from {own}. {way}"
        )


def _choose_winner(
    source: Source,
    columns: Columns,
    first: Sequence[Row],
    reopen: Callable[[], Source],
    tell: Callable[[str], None],
) -> WinnerColumn:
    def read_all() -> Iterator[Any]:
        return (entry.values for entry in reopen().records)

    try:
        return choose_winner_column(source.columns, columns, first, read_all, tell)
    except PairsError as error:
        raise PairsError(f"{source.name}: {error}") from None


def _tell_choices(known: Format, columns: Sequence[str], tell: Callable[[str], None]) -> None:
    """Say what the ids and the weights of a source are, where it does not say so."""
    if not known.id_columns(columns):
        tell("there is no column id; ids are the row numbers, from 0")
    if "margin" in known.reads and "margin" in columns and "weight" not in columns:
        tell("margin is read as the weight of a row; 0 trains nothing")
