"""Read pairs tables from sources of any known format.

Each record becomes one or more rows, is repaired and counted, or is refused with a message.
"""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any, TypedDict

import pandas as pd

from tiewise.data.folds import derive_groups, merge_groups
from tiewise.data.formats.cells import Row, is_missing
from tiewise.data.formats.detection import UNLABELLED, Columns, OnError, OpenedTable, open_table
from tiewise.data.formats.opening import ParsedRecord
from tiewise.data.formats.records import FORMATS, Format, read_record
from tiewise.data.formats.sources import Source
from tiewise.data.formats.winners import AmbiguousWinnerError, read_labels
from tiewise.data.ids import ID_COLUMNS, as_integer, id_key, is_plain, read_id
from tiewise.data.pairs import (
    COLUMNS,
    build_pairs,
)
from tiewise.data.parse import repair_text
from tiewise.errors import LabelError, PairsError, TiewiseError

_log = logging.getLogger(__name__)
Numbered = tuple[int, ParsedRecord]
_MAX_NAMED = 3
_WEIGHTS = ("weight", "margin")
_SKIP = (
    "Add --on-error skip to leave such rows out (in Python on_error='skip'). For predict: tiewise "
    "convert with --on-error skip writes a file of the other rows."
)


@contextlib.contextmanager
def without_notes() -> Iterator[None]:
    """Log nothing about rows and columns inside the block: they were read and described before."""
    notes = logging.getLogger(__package__)  # of all readers
    before = notes.level
    notes.setLevel(logging.ERROR)
    try:
        yield
    finally:
        notes.setLevel(before)


class ReadOptions(TypedDict, total=False):
    """Options of :func:`read_pairs`."""

    format: str | None
    columns: Columns
    labelled: bool | None
    on_error: OnError


def read_pairs(
    path: str | Path | pd.DataFrame | Any,
    *,
    format: str | None = None,  # noqa: A002
    columns: Columns = (),
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
    columns
        Our names of columns, and those in the file: ``{"prompt": "question"}`` or, as on the
        command line, ``["prompt=question,response_a=answer_1"]``. Where the winner is given by
        numbers that do not say who won, also its values: ``{"a": 0, "b": 1, "tie": 2}``. They are
        those of the column ``winner``, or else ``label``; a list is several values. Known words,
        such as ``A`` and ``tie``, are read too; all other values are errors then.
    labelled
        False reads files without winners, and ignores the winners of files that have them; None
        reads the winners of the rows that have one.
    on_error
        "raise" refuses the file when any row cannot be read; "skip" skips such rows.

    Returns
    -------
    DataFrame
        A pairs table, one row for each pair in the order of the file. Rows share a group if they
        share the prompt, the session, or a group of the file. Its ``attrs`` are ``format``,
        the format's name; ``rejected``, a list with one message for each skipped row;
        ``repaired``, the number of rows with lone surrogates in a text or an integer id that was
        written as a float; ``unread``, a list of the columns that the format does not read; and
        ``notes``, a list of what was decided about ids, winners and weights, which is logged too.

    Raises
    ------
    PairsError
        When the file, a row of it or, with "skip", every row cannot be read. The message counts
        the rows and names the first.
    """
    opened = open_table(path, format, columns, labelled, on_error)
    pairs = build_table(opened, enumerate(opened.records))
    pairs.attrs.pop("float_ids")  # for tables that are read in chunks
    check_any_read(opened, pairs)
    return pairs


def check_any_read(opened: OpenedTable, pairs: pd.DataFrame) -> None:
    """Raise PairsError if every row of a table was rejected."""
    if pairs.empty and pairs.attrs["rejected"]:
        raise PairsError(f"{opened.name}: no row can be read as {opened.format}")


def read_chunks(
    path: str | Path | pd.DataFrame | Any,
    *,
    size: int,
    format: str | None = None,  # noqa: A002
    columns: Columns = (),
    labelled: bool | None = True,
    on_error: OnError = "raise",
) -> Iterator[Callable[[], pd.DataFrame]]:
    """Yield, for each `size` records of an input, a function that parses them to a pairs table.

    A chunk also ends with a file or a row group of parquet. The other arguments and the errors are
    those of :func:`read_pairs`. For inputs larger than memory: a chunk is only parsed when its
    function is called.
    """
    opened = open_table(path, format, columns, labelled, on_error)
    are_integral = are_ids_integral(opened)
    for chunk in cut_records(opened.records, size):
        yield functools.partial(build_table, opened, chunk, are_integral)


def are_ids_integral(opened: OpenedTable) -> Callable[[], bool]:
    """Return a function that reads all ids of a table, once, and says if each is an integer.

    ``1.0`` is the integer 1 only in such a table.
    """
    return functools.cache(lambda: all(map(_is_integer, _written_ids(opened.reopen()))))


def cut_records(
    records: Iterable[ParsedRecord], size: int, first: int = 0
) -> Iterator[list[Numbered]]:
    """Yield chunks of `size` records, numbered from `first`.

    A chunk also ends with a file or a row group, so that a row is in the same chunk, with the same
    rows, wherever the reading begins.
    """
    chunk: list[Numbered] = []
    for number, entry in enumerate(records, first):
        if chunk and (entry.is_first or len(chunk) == size):
            yield chunk
            chunk = []
        chunk.append((number, entry))
    if chunk:
        yield chunk


def build_table(
    opened: OpenedTable,
    numbered: Iterable[tuple[int, ParsedRecord]],
    are_others_integral: Callable[[], bool] = lambda: True,
    report: Callable[[OpenedTable, list[str]], None] | None = None,
) -> pd.DataFrame:
    """Return the pairs table of numbered records.

    Rows that cannot be read are passed to `report`, by default :func:`report_rejected`. Ids such
    as ``7.0`` become integers if those of the table and the others are all integers.
    """
    rows: list[Row] = []
    rejected: list[str] = []
    for position, entry in numbered:
        try:
            rows += _read_rows(entry, opened, position)
        except AmbiguousWinnerError as error:
            raise PairsError(f"{opened.name}: {error}") from None
        except TiewiseError as error:
            rejected.append(f"{_name_row(entry, position)}: {error}")
    if rejected:
        (report or report_rejected)(opened, rejected)
    n_repaired, n_floats = _repair_ids(rows, are_others_integral)
    unread = [*opened.unread, *chain.from_iterable(row.pop("unread", ()) for row in rows)]
    names = dict.fromkeys(chain(COLUMNS[:4], *rows))
    # A weight that comes from the winner is lacking where the winner is.
    absent = {"weight": 1.0}
    pairs = build_pairs({name: [row.get(name, absent.get(name)) for row in rows] for name in names})
    if "group" in names:  # given names are kept; rows with equal prompts share one of them
        groups = merge_groups(pairs["group"].tolist(), derive_groups(pairs))
        pairs["group"] = pd.array(groups, dtype="string")
    pairs.attrs = {"format": opened.format, "rejected": rejected, "repaired": n_repaired}
    pairs.attrs["float_ids"] = n_floats
    pairs.attrs |= {"unread": list(dict.fromkeys(unread)), "notes": opened.notes}
    return pairs


def _read_rows(entry: ParsedRecord, opened: OpenedTable, position: int) -> list[Row]:
    if entry.problem is not None:
        raise PairsError(entry.problem)
    known, labelled = FORMATS[opened.format], opened.labelled
    values = entry.values
    if not labelled:  # a prediction needs no weight
        values = {k: v for k, v in values.items() if k not in _WEIGHTS or not is_missing(v)}
    rows: list[Row] = [
        {"id": position} | row for row in read_record(opened.format, values, opened.layout)
    ]
    labels: Row = {"winner": None} if labelled is False else {}
    if labelled is not False and not known.is_choice:
        labels = _read_winner(entry.values, known, opened)
    for row in rows:
        row.update(labels)
        if is_missing(row["id"]):
            raise PairsError("id is missing")
        name, part = read_id(row["id"]), row.pop("part", None)
        row["id"] = name if part is None else f"{id_key(name)}/{part}"
    return rows


def _read_winner(record: Row, known: Format, opened: OpenedTable) -> Row:
    if opened.winner is not None:
        is_required = bool(opened.labelled)
        has_label = "label" in known.needs
        return read_labels(record, opened.winner, has_label=has_label, is_required=is_required)
    if known.read_winner and known.winner and not is_missing(record[known.winner]):
        return known.read_winner(record)
    if opened.labelled:
        raise LabelError("winner is missing")
    return {"winner": None}


def _name_row(entry: ParsedRecord, position: int) -> str:
    name = entry.values.get("id")
    return f"row {position}" + ("" if is_missing(name) else f" (id={repair_text(str(name))})")


def report_rejected(opened: OpenedTable, rejected: list[str]) -> None:
    """Log the skipped rows, or raise an error for them."""
    count = "1 row" if len(rejected) == 1 else f"{len(rejected)} rows"
    more = len(rejected) - _MAX_NAMED
    lines = [*rejected[:_MAX_NAMED], *([f"and {more} more"] if more > 0 else [])]
    listed = "\n  ".join(lines)
    if opened.on_error == "skip":
        _log.warning("%s: skipped %s that cannot be read:\n  %s", opened.name, count, listed)
        return
    hint = f"\n{UNLABELLED}" if all(map(_has_no_winner, rejected)) else ""
    raise PairsError(f"{opened.name}: {count} cannot be read:\n  {listed}\n{_SKIP}{hint}")


def _has_no_winner(why: str) -> bool:
    return "winner is missing" in why or "winner_tie are 0, 0, 0;" in why.replace("'", "")


def _written_ids(source: Source) -> Iterator[str]:
    name = next((name for name in ID_COLUMNS if name in source.columns), "id")
    written = (entry.values.get(name) for entry in source.records if entry.problem is None)
    return (str(value) for value in written if not is_missing(value))


def _is_integer(word: str) -> bool:
    return as_integer(word) is not None


def _repair_ids(rows: list[Row], are_others_integral: Callable[[], bool]) -> tuple[int, int]:
    """Make integers of integer ids written as floats.

    Return how many rows were repaired, and how many more would be if the other ids were integers.
    """
    has_floats = not all(is_plain(row["id"]) for row in rows)
    integers = [as_integer(row["id"]) for row in rows]
    if has_floats and None not in integers and are_others_integral():
        for row, integer in zip(rows, integers, strict=True):
            row["is_repaired"] |= not is_plain(row["id"])
            row["id"] = integer
    n_floats = sum(not row["is_repaired"] and not is_plain(str(row["id"])) for row in rows)
    return sum(row.pop("is_repaired") for row in rows), n_floats
