"""From any file or table of pairs to the pairs table."""

from __future__ import annotations

import functools
import logging
import re
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd

from tiewise.data.formats.arena import read_arena, read_mt_bench
from tiewise.data.formats.cells import ONE_HOT_COLUMNS, Record, Row, is_missing, shown
from tiewise.data.formats.kaggle import read_kaggle, read_own, read_wsdm
from tiewise.data.formats.preference import read_preference, read_rewardbench
from tiewise.data.formats.sources import ParsedRecord, Source, open_source
from tiewise.data.labels import PROB_COLUMNS
from tiewise.data.parse import repair_text
from tiewise.data.schema import COLUMNS, TEXT_COLUMNS, build_pairs
from tiewise.errors import PairsError, TiewiseError

_log = logging.getLogger(__name__)
OnError = Literal["raise", "skip"]
_SHOWN = 3
_PEEKED = 20
_TEST_FILE = (
    "Is this the test file? tiewise predict takes it as it is; audit, convert and label do with "
    "--unlabelled, and read_pairs with labelled=False."
)
_LEAVE_OUT = (
    "To leave such rows out, add --on-error skip (fit, convert) or read with on_error='skip'."
)
_is_integral = re.compile(r"-?(?:0|[1-9][0-9]{0,14})(?:\.0*)?").fullmatch


class Format(NamedTuple):
    """One spelling of a data set of pairs."""

    read: Callable[..., Iterator[Row]]
    needs: tuple[str, ...]
    """The columns without which a file is not of this format."""
    labels: tuple[tuple[str, ...], ...] = ()
    """Groups of columns, one of which must be there when labels are asked for."""
    never: tuple[str, ...] = ()
    """Columns that tell another format of the same columns apart."""


_LABELS = (ONE_HOT_COLUMNS, ("winner",), tuple(PROB_COLUMNS))
_JUDGED = ("question_id", "judge", "turn")
_CONVERSATIONS = ("conversation_a", "conversation_b")
FORMATS = {
    "pairs": Format(read_own, COLUMNS),
    "rewardbench": Format(read_rewardbench, ("id", "prompt", "chosen", "rejected", "subset")),
    "preference": Format(read_preference, ("chosen", "rejected")),
    "mt_bench": Format(
        read_mt_bench, (*_CONVERSATIONS, *_JUDGED), _LABELS, ("anony", "tstamp", "language")
    ),
    "arena": Format(read_arena, _CONVERSATIONS, _LABELS),
    "kaggle": Format(read_kaggle, COLUMNS[:4], _LABELS),
    "wsdm": Format(read_wsdm, COLUMNS[:4], _LABELS),
}
"""Every format by name, the more special before the more general."""


def read_pairs(
    path: str | Path | pd.DataFrame | Any,
    *,
    format: str | None = None,  # noqa: A002
    labelled: bool = True,
    on_error: OnError = "raise",
) -> pd.DataFrame:
    """Read pairs of any known format.

    Parameters
    ----------
    path
        A file that ends in .csv, .tsv, .parquet, .jsonl or .json; a data set of the hub as
        ``hf://datasets/OWNER/NAME``, with ``@REVISION`` or ``/FILE`` where they are meant; a pandas
        frame; or a table with a ``to_pandas`` method, such as a ``datasets.Dataset``.
    format
        A name in ``FORMATS``; told from the columns when None.
    labelled
        False reads files without winners, and leaves the label out of files that have them.
    on_error
        "raise" refuses the file when any row is wrong; "skip" leaves such rows out.

    Returns
    -------
    DataFrame
        A pairs table, one row for each comparison in the order of the file. ``attrs`` says what
        happened on the way: ``format`` the format's name; ``rejected`` a list with one message for
        each row left out; ``repaired`` the number of rows that had to be mended, because of lone
        surrogates in a text or integer ids spelled as floats.

    Raises
    ------
    PairsError
        Where the file or a row of it cannot be read; the message names the first rows, and how
        many there are.
    """
    opened = _open(path, format, labelled=labelled, on_error=on_error)
    return _build(opened, enumerate(opened.records))


def read_chunks(
    path: str | Path | pd.DataFrame | Any,
    *,
    size: int,
    format: str | None = None,  # noqa: A002
    labelled: bool = True,
    on_error: OnError = "raise",
) -> Iterator[Callable[[], pd.DataFrame]]:
    """Read pairs a few at a time, for inputs that memory does not hold.

    Parameters
    ----------
    path, format, labelled, on_error
        As for :func:`read_pairs`.
    size
        Records of a chunk, at least 1.

    Yields
    ------
    Callable
        For each chunk, in the order of the file, a function that parses it to a pairs table. What
        need not be parsed is not.

    Raises
    ------
    PairsError
        As :func:`read_pairs`, when the chunk that is wrong is reached.
    """
    opened = _open(path, format, labelled=labelled, on_error=on_error)
    numbered = enumerate(opened.records)
    # Whether `1.0` is the integer 1 is a question to the whole file, asked where one is met.
    are_integral = functools.cache(lambda: all(map(_is_integral, _spelled_ids(path))))
    while chunk := list(islice(numbered, size)):
        yield functools.partial(_build, opened, chunk, are_integral)


class _Opened(NamedTuple):
    """A source whose format is known, and how its records shall be read."""

    name: str
    format: str
    records: Iterator[ParsedRecord]
    labelled: bool
    on_error: OnError


def _open(path: Any, wanted: str | None, *, labelled: bool, on_error: OnError) -> _Opened:
    if on_error not in ("raise", "skip"):
        raise PairsError(f"on_error must be 'raise' or 'skip', found {on_error!r}")
    source = open_source(path)
    head = list(islice(source.records, _PEEKED))
    name = wanted or _sniff(source, head)
    _check_format(source, name, labelled=labelled)
    return _Opened(source.name, name, chain(head, source.records), labelled, on_error)


def _build(
    opened: _Opened,
    numbered: Iterable[tuple[int, ParsedRecord]],
    are_others_integral: Callable[[], bool] = lambda: True,
) -> pd.DataFrame:
    rows, rejected = _read_rows(numbered, FORMATS[opened.format], labelled=opened.labelled)
    if rejected and opened.on_error == "raise":
        raise _rejection(opened.name, rejected)
    if rejected:
        told = (opened.name, _count(rejected), _listed(rejected))
        _log.warning("%s: left out %s, which cannot be read:\n  %s", *told)
    n_repaired = _mend_ids(rows, are_others_integral)
    pairs = build_pairs(_as_columns(rows))
    pairs.attrs = {"format": opened.format, "rejected": rejected, "repaired": n_repaired}
    return pairs


def _sniff(source: Source, head: list[ParsedRecord]) -> str:
    columns = set(source.columns)
    if not columns:
        problem = head[0].problem if head else "there is no row"
        raise PairsError(f"{source.name}: row 0: {problem}")
    fitting = [
        name
        for name, known in FORMATS.items()
        if columns.issuperset(known.needs) and columns.isdisjoint(known.never)
    ]
    if not fitting:
        needs = "\n".join(f"  {name}: {', '.join(known.needs)}" for name, known in FORMATS.items())
        raise PairsError(
            f"{source.name}: no known format has the columns {', '.join(source.columns)}. "
            f"Each format needs at least:\n{needs}"
        )
    if fitting[0] == "kaggle" and not columns.issuperset(ONE_HOT_COLUMNS):
        # Without one-hot winners only the texts tell lists of turns from plain text.
        return "kaggle" if any(_looks_like_lists(record.values) for record in head) else "wsdm"
    return fitting[0]


def _looks_like_lists(record: Record) -> bool:
    # Broken lists count: they are to be refused as such, not read as plain text.
    cells = (record.get(name) for name in TEXT_COLUMNS)
    return all(
        cell.strip().startswith("[") and cell.strip().endswith("]")
        if isinstance(cell, str)
        else isinstance(cell, list | tuple | np.ndarray)
        for cell in cells
    )


def _check_format(source: Source, name: str, *, labelled: bool) -> None:
    if name not in FORMATS:
        raise PairsError(f"unknown format {name!r}; the known ones are {', '.join(FORMATS)}")
    missing = [column for column in FORMATS[name].needs if column not in source.columns]
    if missing:
        raise PairsError(
            f"{source.name}: the columns {', '.join(missing)} are missing for the format {name}; "
            f"found {', '.join(source.columns)}"
        )
    labels = FORMATS[name].labels
    if labelled and labels and not any(set(group) <= set(source.columns) for group in labels):
        needed = ", or ".join(", ".join(group) for group in labels)
        raise PairsError(
            f"{source.name}: there is no winner among the columns {', '.join(source.columns)}; "
            f"expected {needed}.\n{_TEST_FILE}"
        )


def _read_rows(
    numbered: Iterable[tuple[int, ParsedRecord]], known: Format, *, labelled: bool
) -> tuple[list[Row], list[str]]:
    rows: list[Row] = []
    rejected: list[str] = []
    for position, record in numbered:
        try:
            rows.extend(_rows_of(record, known, position, labelled=labelled))
        except TiewiseError as error:
            has_id = not is_missing(record.values.get("id"))
            named = f" (id={repair_text(str(record.values['id']))})" if has_id else ""
            rejected.append(f"row {position}{named}: {error}")
    return rows, rejected


def _rows_of(record: ParsedRecord, known: Format, position: int, *, labelled: bool) -> list[Row]:
    if record.problem is not None:
        raise PairsError(record.problem)
    rows = list(known.read(record.values, position=position, labelled=labelled))
    for row in rows:
        if isinstance(row["id"], list | tuple | dict | np.ndarray):
            raise PairsError(f"id is {shown(row['id'])}; expected a number or text")
        if is_missing(row["id"]):
            raise PairsError("id is missing")
        if isinstance(row["id"], str):
            row["id"] = repair_text(row["id"])
    return rows


def _rejection(name: str, rejected: list[str]) -> PairsError:
    hint = f"\n{_TEST_FILE}" if all(map(_has_no_winner, rejected)) else ""
    return PairsError(
        f"{name}: {_count(rejected)} cannot be read:\n  {_listed(rejected)}\n{_LEAVE_OUT}{hint}"
    )


def _count(rejected: list[str]) -> str:
    return "1 row" if len(rejected) == 1 else f"{len(rejected)} rows"


def _listed(rejected: list[str]) -> str:
    more = len(rejected) - _SHOWN
    return "\n  ".join([*rejected[:_SHOWN], *([f"and {more} more"] if more > 0 else [])])


def _has_no_winner(why: str) -> bool:
    return "winner is missing" in why or "winner_tie are 0, 0, 0;" in why.replace("'", "")


def _spelled_ids(path: Any) -> Iterator[str]:
    return (str(record.values.get("id")) for record in open_source(path).records)


def _mend_ids(rows: list[Row], are_others_integral: Callable[[], bool]) -> int:
    """Turn integer ids spelled as floats into integers; count the rows mended here or before."""
    words = [str(row["id"]) for row in rows]
    is_mended = any("." in word for word in words)
    if all(map(_is_integral, words)) and (not is_mended or are_others_integral()):
        for row, word in zip(rows, words, strict=True):
            row["is_repaired"] |= "." in word
            row["id"] = int(word.partition(".")[0])
    return sum(row.pop("is_repaired") for row in rows)


def _as_columns(rows: list[Row]) -> dict[str, list[Any]]:
    names = dict.fromkeys(chain(COLUMNS[:4], *rows))
    return {name: [row.get(name) for row in rows] for name in names}
