"""Records out of files and tables, one at a time, each with what is wrong with it, if anything.

A csv file is read strictly: a quote that is never closed, or closed in the middle of a field, ends
the reading, because nothing after it can be trusted. A row with too few or too many fields, or
with bytes that are not UTF-8, is handed on with its problem and leaves the others alone. No value
is ever taken for missing because of how it is spelled: ``null`` and ``NA`` are text.
"""

from __future__ import annotations

import codecs
import csv
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from tiewise.data.formats.hub import fetch, is_hub_path
from tiewise.data.formats.parquet import read_parquet
from tiewise.errors import PairsError

_FIELD_LIMIT = 2**31 - 1
_MAX_DEPTH = 100
_ENCODINGS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


class ParsedRecord(NamedTuple):
    """A record, or why there is none."""

    values: dict[str, Any]
    problem: str | None = None


class Source(NamedTuple):
    """Where records come from."""

    name: str
    columns: tuple[str, ...]
    records: Iterator[ParsedRecord]


def open_source(path: object) -> Source:
    """Open a file by its suffix, an ``hf://`` path, a frame, or anything that has ``to_pandas``.

    Raises
    ------
    PairsError
        Where there is no such file, its suffix is unknown, or it is damaged.
    """
    if not isinstance(path, str | Path):
        return _open_table(path)
    if isinstance(path, str) and is_hub_path(path):
        return _join(path, [_open_file(file) for file in fetch_files(path)])
    return _open_file(Path(path))


def fetch_files(path: str | Path) -> list[Path]:
    """Return the files on this disk that a path names; from the hub where they were not here.

    Examples
    --------
    >>> [file.name for file in fetch_files("votes.csv")]
    ['votes.csv']
    """
    return fetch(str(path), tuple(_OPENERS)) if is_hub_path(path) else [Path(path)]


def _open_file(path: Path) -> Source:
    suffix = path.suffix.lower()
    if suffix not in _OPENERS:
        raise PairsError(f"{path}: expected a file that ends in {', '.join(_OPENERS)}")
    if not path.is_file():
        raise PairsError(f"{path}: there is no such file")
    columns, records = _OPENERS[suffix](path)
    return Source(path.name, columns, records)


def _join(name: str, shards: list[Source]) -> Source:
    strange = [shard.name for shard in shards if set(shard.columns) != set(shards[0].columns)]
    if strange:
        raise PairsError(f"{name}: {strange[0]} has other columns than {shards[0].name}; name one")
    records = chain.from_iterable(shard.records for shard in shards)
    return Source(name, shards[0].columns, records)


Opened = tuple[tuple[str, ...], Iterator[ParsedRecord]]


def _open_table(table: object) -> Source:
    if hasattr(table, "to_pandas"):
        table = table.to_pandas()
    if isinstance(table, dict):
        raise PairsError(f"expected one table, found the splits {', '.join(map(str, table))}")
    if not isinstance(table, pd.DataFrame):
        raise PairsError(f"expected a path or a table, found {type(table).__name__}")
    columns = _checked_columns("the table", [str(name) for name in table.columns])
    rows = zip(*(table[name].tolist() for name in table.columns), strict=True)
    return Source(
        "the table", columns, (ParsedRecord(dict(zip(columns, row, strict=True))) for row in rows)
    )


def _open_csv(path: Path) -> Opened:
    lines = _read_csv(path)
    header = next(lines, None)
    if header is None:
        raise PairsError(f"{path}: the file is empty")
    columns = _checked_columns(path, [name.strip() for name in header])
    return columns, (_as_record(columns, fields) for fields in lines if fields)


def _read_csv(path: Path) -> Iterator[list[str]]:
    # The limit is of the whole process; it is only ever raised.
    csv.field_size_limit(max(_FIELD_LIMIT, csv.field_size_limit()))
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    with path.open(encoding=_encoding(path), errors="surrogateescape", newline="") as file:
        reader = csv.reader(file, delimiter=delimiter, strict=True)
        try:
            yield from reader
        except csv.Error as error:
            raise PairsError(
                f"{path}, line {reader.line_num}: {error}. A quote is not closed, or not doubled "
                "inside a field; write the file again with every field quoted"
            ) from None
        except UnicodeError as error:
            raise PairsError(f"{path}, line {reader.line_num}: {error}") from None


def _as_record(columns: Sequence[str], fields: list[str]) -> ParsedRecord:
    values = dict(zip(columns, fields, strict=False))
    if len(fields) != len(columns):
        return ParsedRecord(values, f"has {len(fields)} fields where the header has {len(columns)}")
    if not all(field.isascii() or _encodes(field) for field in fields):
        return ParsedRecord(values, "is not UTF-8; convert the file, or find out what it is")
    return ParsedRecord(values)


def _encodes(field: str) -> bool:
    try:
        field.encode()
    except UnicodeEncodeError:
        return False
    return True


def _encoding(path: Path) -> str:
    with path.open("rb") as file:
        start = file.read(4)
    return next((name for mark, name in _ENCODINGS if start.startswith(mark)), "utf-8-sig")


def _open_parquet(path: Path) -> Opened:
    names, rows = read_parquet(path)
    return _checked_columns(path, names), map(ParsedRecord, rows)


def _open_json(path: Path) -> Opened:
    records = list(_read_json(path))
    return _fill(records, records)


def _open_json_lines(path: Path) -> Opened:
    # Read twice: a key may first appear in the last line, and memory need not hold them all.
    return _fill(_read_json_lines(path), _read_json_lines(path))


def _fill(seen: Iterable[ParsedRecord], records: Iterable[ParsedRecord]) -> Opened:
    """Give each record every key that any of them has."""
    columns = dict.fromkeys(name for record in seen for name in record.values)
    blank = dict.fromkeys(columns)
    return tuple(columns), (record._replace(values=blank | record.values) for record in records)


def _read_json(path: Path) -> Iterator[ParsedRecord]:
    with path.open(encoding=_encoding(path), errors="surrogateescape") as file:
        yield from _parse_array(path, file.read())


def _read_json_lines(path: Path) -> Iterator[ParsedRecord]:
    with path.open(encoding=_encoding(path), errors="surrogateescape") as file:
        yield from (_parse_object(line) for line in file if line.strip())


def _parse_object(line: str) -> ParsedRecord:
    try:
        value = parse_json(line)
    except ValueError as error:
        return ParsedRecord({}, str(error))
    if not isinstance(value, dict):
        return ParsedRecord({}, "is not a JSON object")
    return ParsedRecord(value)


def _parse_array(path: Path, text: str) -> Iterator[ParsedRecord]:
    try:
        values = parse_json(text)
    except ValueError as error:
        raise PairsError(f"{path}: {error}") from None
    if not isinstance(values, list):
        raise PairsError(f"{path}: expected a JSON list of objects")
    for value in values:
        is_object = isinstance(value, dict)
        yield ParsedRecord(value) if is_object else ParsedRecord({}, "is not a JSON object")


def parse_json(text: str) -> Any:
    """Parse JSON, refusing what would recurse too deep, be no UTF-8, or name a key twice."""
    if not _encodes(text):
        raise PairsError("is not UTF-8; convert the file, or find out what it is")
    if text.count("[") + text.count("{") > _MAX_DEPTH and _depth(text) > _MAX_DEPTH:
        raise PairsError(f"is nested more than {_MAX_DEPTH} deep")
    return json.loads(text, object_pairs_hook=_object_of)


def _object_of(items: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(items)
    if len(value) < len(items):
        raise PairsError("names a key twice")
    return value


def _depth(text: str) -> int:
    deepest = depth = 0
    for match in re.finditer(r'"(?:[^"\\]|\\.)*+"?|[\[{]|[\]}]', text, re.DOTALL):
        depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(match[0], 0)
        deepest = max(deepest, depth)
    return deepest


def _checked_columns(where: object, columns: Sequence[str]) -> tuple[str, ...]:
    if any("\x00" in name for name in columns):
        raise PairsError(f"{where}: this looks like UTF-16 without a byte order mark; write UTF-8")
    repeated = {name for name in columns if columns.count(name) > 1}
    if repeated:
        raise PairsError(f"{where}: the columns {', '.join(sorted(repeated))} occur twice")
    return tuple(columns)


_OPENERS = {
    ".csv": _open_csv,
    ".tsv": _open_csv,
    ".parquet": _open_parquet,
    ".jsonl": _open_json_lines,
    ".json": _open_json,
}
