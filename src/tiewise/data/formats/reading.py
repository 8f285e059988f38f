"""Read pairs tables from sources of any known format.

Each record becomes one or more rows, is repaired and counted, or is refused with a message.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pandas as pd

from tiewise.data.folds import derive_groups, merge_groups
from tiewise.data.formats.cells import ONE_HOT_COLUMNS, Row, is_missing, read_labels
from tiewise.data.formats.layout import Layout, find_layout
from tiewise.data.formats.opening import ParsedRecord
from tiewise.data.formats.records import FORMATS, find_format, find_unread, read_record
from tiewise.data.formats.sources import Source, open_source
from tiewise.data.ids import ID_COLUMNS, as_integer, is_plain, read_id
from tiewise.data.labels import PROB_COLUMNS
from tiewise.data.pairs import (
    COLUMNS,
    FURTHER_COLUMNS,
    FURTHER_WORDS,
    as_ids,
    build_pairs,
    check_pairs,
)
from tiewise.data.parse import repair_text
from tiewise.errors import PairsError, TiewiseError

_log = logging.getLogger(__name__)
OnError = Literal["raise", "skip"]
_MAX_NAMED = 3
_HEAD_ROWS = 20
_LABEL_COLUMNS = (ONE_HOT_COLUMNS, ("winner",), tuple(PROB_COLUMNS))
_UNLABELLED = (
    "For a test file without winners: tiewise predict reads it as it is; give --unlabelled to "
    "other commands and labelled=False to read_pairs."
)
_SKIP = (
    "To leave such rows out: tiewise convert with --on-error skip writes a file of the others; fit "
    "takes this flag too, and read_pairs on_error='skip'."
)


def read_pairs(
    path: str | Path | pd.DataFrame | Any,
    *,
    format: str | None = None,  # noqa: A002
    labelled: bool | None = True,
    on_error: OnError = "raise",
) -> pd.DataFrame:
    """Read pairs of any known format.

    Parameters
    ----------
    path
        A file that ends in .csv, .tsv, .parquet, .arrow, .jsonl, .ndjson or .json; a folder of
        such files; a data set of the hub as ``hf://datasets/OWNER/NAME`` with an optional
        ``@REVISION`` and ``/FILE``; a data frame; or a table with a ``to_pandas`` method, such as
        a ``datasets.Dataset``.
    format
        A name in ``FORMATS``; found from the columns when None.
    labelled
        False reads files without winners, and ignores the winners of files that have them; None
        reads the winners of the rows that have one.
    on_error
        "raise" refuses the file when any row cannot be read; "skip" skips such rows.

    Returns
    -------
    DataFrame
        A pairs table, one row for each pair in the order of the file. Its ``attrs`` are ``format``,
        the format's name; ``rejected``, a list with one message for each skipped row;
        ``repaired``, the number of rows with lone surrogates in a text or an integer id that was
        written as a float; and ``unread``, a list of the columns that the format does not read.

    Raises
    ------
    PairsError
        When the file, a row of it or, with "skip", every row cannot be read. The message counts
        the rows and names the first.
    """
    opened = _open(path, format, labelled=labelled, on_error=on_error)
    pairs = _build(opened, enumerate(opened.records))
    if pairs.empty and pairs.attrs["rejected"]:
        raise PairsError(f"{opened.name}: no row can be read as {opened.format}")
    return pairs


def read_chunks(
    path: str | Path | pd.DataFrame | Any,
    *,
    size: int,
    format: str | None = None,  # noqa: A002
    labelled: bool = True,
    on_error: OnError = "raise",
) -> Iterator[Callable[[], pd.DataFrame]]:
    """Yield, for each `size` records of an input, a function that parses them to a pairs table.

    The other arguments and the errors are those of :func:`read_pairs`. For inputs larger than
    memory: a chunk is only parsed when its function is called.
    """
    opened = _open(path, format, labelled=labelled, on_error=on_error)
    numbered = enumerate(opened.records)
    # `1.0` is the integer 1 only if every id of the file is an integer.
    are_integral = functools.cache(lambda: all(map(_is_integer, _written_ids(path))))
    while chunk := list(islice(numbered, size)):
        yield functools.partial(_build, opened, chunk, are_integral)


def read_many(
    paths: Sequence[str | Path],
    *,
    format: str | None = None,  # noqa: A002
    labelled: bool | None = True,
    on_error: OnError = "raise",
) -> pd.DataFrame:
    """Read several files into one pairs table.

    Parameters
    ----------
    paths
        At least one file, each as for :func:`read_pairs`.
    format, labelled, on_error
        As for :func:`read_pairs`, for every file.

    Returns
    -------
    DataFrame
        The rows of all files in order. ``source`` names the file of each row that has no source of
        its own. Groups are united across the files. Where two files use the same id, all ids are
        ``file:id``. ``attrs`` sum up those of the files.
    """
    if not paths:
        raise PairsError("there is no file to read; name at least one")
    names, tables = name_files(paths), []
    for name, path in zip(names, paths, strict=True):
        table = read_pairs(path, format=format, labelled=labelled, on_error=on_error)
        tables.append(table.assign(source=table["source"].fillna(name)))
    joined = pd.concat(align_pairs(_with_unique_ids(names, tables)), ignore_index=True)
    joined["id"] = as_ids(joined["id"])
    groups = merge_groups(derive_groups(joined).tolist(), joined["group"])
    joined["group"] = pd.array(groups, dtype="string")
    joined.attrs = {
        "format": " ".join(dict.fromkeys(table.attrs["format"] for table in tables)),
        "rejected": [
            f"{name}, {why}"
            for name, table in zip(names, tables, strict=True)
            for why in table.attrs["rejected"]
        ],
        "repaired": sum(table.attrs["repaired"] for table in tables),
        "unread": list(dict.fromkeys(name for table in tables for name in table.attrs["unread"])),
    }
    check_pairs(joined)
    return joined


def name_files(paths: Sequence[str | Path]) -> list[str]:
    """Return the files' names, or their whole paths where two names are equal."""
    names = [Path(path).name for path in paths]
    return names if len(set(names)) == len(names) else [str(path) for path in paths]


def align_pairs(tables: Sequence[pd.DataFrame]) -> list[pd.DataFrame]:
    """Add the optional columns that any table has to all: weight 1, one-hot soft labels."""
    names = [name for name in FURTHER_COLUMNS if any(name in table for table in tables)]
    return [
        table.assign(**{name: _default(table, name) for name in names if name not in table})
        for table in tables
    ]


class _Opened(NamedTuple):
    """A source with a known format, and how to read its records."""

    name: str
    format: str
    layout: Layout
    unread: list[str]
    records: Iterator[ParsedRecord]
    labelled: bool | None
    on_error: OnError


def _open(
    path: Any, format_name: str | None, *, labelled: bool | None, on_error: OnError
) -> _Opened:
    if on_error not in ("raise", "skip"):
        raise PairsError(f"on_error is {on_error!r}; expected 'raise' or 'skip'")
    source = open_source(path)
    head = list(islice(source.records, _HEAD_ROWS))
    first = [entry.values for entry in head if entry.problem is None]
    if format_name is None:
        if not source.columns:
            problem = head[0].problem if head else "there is no row"
            raise PairsError(f"{source.name}: row 0: {problem}")
        format_name = find_format(source.name, source.columns, first)
    _check_format(source, format_name, labelled=labelled)
    known = FORMATS[format_name]
    layout = find_layout(known.plain, source.columns, first, is_choice=known.is_choice)
    records = chain(head, source.records)
    unread = find_unread(format_name, source.columns)
    return _Opened(source.name, format_name, layout, unread, records, labelled, on_error)


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
    has_labels = any(set(group) <= set(source.columns) for group in _LABEL_COLUMNS)
    if labelled and not (known.is_choice or has_labels):
        expected = ", or ".join(", ".join(group) for group in _LABEL_COLUMNS)
        raise PairsError(
            f"{source.name}: no column names the winner; expected {expected}; {found}\n"
            f"{_UNLABELLED}"
        )


def _build(
    opened: _Opened,
    numbered: Iterable[tuple[int, ParsedRecord]],
    are_others_integral: Callable[[], bool] = lambda: True,
) -> pd.DataFrame:
    rows: list[Row] = []
    rejected: list[str] = []
    for position, entry in numbered:
        try:
            rows += _read_rows(entry, opened, position)
        except TiewiseError as error:
            rejected.append(f"{_name_row(entry, position)}: {error}")
    if rejected:
        _report(opened, rejected)
    n_repaired = _repair_ids(rows, are_others_integral)
    unread = [*opened.unread, *chain.from_iterable(row.pop("unread", ()) for row in rows)]
    names = dict.fromkeys(chain(COLUMNS[:4], *rows))
    pairs = build_pairs({name: [row.get(name) for row in rows] for name in names})
    pairs.attrs = {"format": opened.format, "rejected": rejected, "repaired": n_repaired}
    pairs.attrs["unread"] = list(dict.fromkeys(unread))
    return pairs


def _read_rows(entry: ParsedRecord, opened: _Opened, position: int) -> list[Row]:
    if entry.problem is not None:
        raise PairsError(entry.problem)
    known, labelled = FORMATS[opened.format], opened.labelled
    rows: list[Row] = [
        {"id": position} | row for row in read_record(opened.format, entry.values, opened.layout)
    ]
    labels: Row = {"winner": None} if labelled is False else {}
    if labelled is not False and not known.is_choice:
        has_label = "label" in known.needs
        labels = read_labels(entry.values, has_label=has_label, is_required=bool(labelled))
    for row in rows:
        row.update(labels)
        if is_missing(row["id"]):
            raise PairsError("id is missing")
        row["id"] = read_id(row["id"])
    return rows


def _name_row(entry: ParsedRecord, position: int) -> str:
    name = entry.values.get("id")
    return f"row {position}" + ("" if is_missing(name) else f" (id={repair_text(str(name))})")


def _report(opened: _Opened, rejected: list[str]) -> None:
    """Log the skipped rows, or raise an error for them."""
    count = "1 row" if len(rejected) == 1 else f"{len(rejected)} rows"
    more = len(rejected) - _MAX_NAMED
    lines = [*rejected[:_MAX_NAMED], *([f"and {more} more"] if more > 0 else [])]
    listed = "\n  ".join(lines)
    if opened.on_error == "skip":
        _log.warning("%s: skipped %s that cannot be read:\n  %s", opened.name, count, listed)
        return
    hint = f"\n{_UNLABELLED}" if all(map(_has_no_winner, rejected)) else ""
    raise PairsError(f"{opened.name}: {count} cannot be read:\n  {listed}\n{_SKIP}{hint}")


def _has_no_winner(why: str) -> bool:
    return "winner is missing" in why or "winner_tie are 0, 0, 0;" in why.replace("'", "")


def _written_ids(path: Any) -> Iterator[str]:
    source = open_source(path)
    name = next((name for name in ID_COLUMNS if name in source.columns), "id")
    return (str(entry.values.get(name)) for entry in source.records)


def _is_integer(word: str) -> bool:
    return as_integer(word) is not None


def _repair_ids(rows: list[Row], are_others_integral: Callable[[], bool]) -> int:
    """Make integers of integer ids written as floats; return how many rows were repaired."""
    has_floats = not all(is_plain(row["id"]) for row in rows)
    integers = [as_integer(row["id"]) for row in rows]
    if has_floats and None not in integers and are_others_integral():
        for row, integer in zip(rows, integers, strict=True):
            row["is_repaired"] |= not is_plain(row["id"])
            row["id"] = integer
    return sum(row.pop("is_repaired") for row in rows)


def _with_unique_ids(names: list[str], tables: list[pd.DataFrame]) -> list[pd.DataFrame]:
    ids = pd.concat([pd.Series(table["id"].astype(str).unique()) for table in tables])
    if ids.is_unique:
        return [table.astype({"id": object}) for table in tables]
    return [
        table.assign(id=f"{name}:" + table["id"].astype(str))
        for name, table in zip(names, tables, strict=True)
    ]


def _default(table: pd.DataFrame, name: str) -> Any:
    if name in PROB_COLUMNS:
        return (table["label"] == PROB_COLUMNS.index(name)).astype("Float64").astype(float)
    if name in FURTHER_WORDS:
        return pd.Series(pd.NA, index=table.index, dtype="string")
    return pd.Series(1.0, index=table.index)
