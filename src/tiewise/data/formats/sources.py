"""Read records from files, tables and hub data sets, one at a time.

A record that cannot be read is passed on with its problem, so that its row can be named.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from tiewise.data.formats.delimited import open_csv
from tiewise.data.formats.hub import COMPRESSIONS, SUFFIXES, data_suffix, fetch_files
from tiewise.data.formats.opening import (
    DAMAGE,
    NOT_UTF8,
    Opened,
    ParsedRecord,
    check_columns,
    check_content,
    damaged,
    mark_first,
    open_text,
)
from tiewise.data.formats.parquet import read_arrow, read_parquet
from tiewise.data.formats.stdin import STDIN
from tiewise.data.parse import repair_text
from tiewise.errors import PairsError, did_you_mean

_MAX_DEPTH = 100
_COLUMN_WISE = (
    "holds one JSON object of columns; expected a list of objects, or one object a line. In "
    "pandas, write it with orient='records'."
)


class Source(NamedTuple):
    """A name for messages, the columns, and records with exactly these columns."""

    name: str
    columns: tuple[str, ...]
    records: Iterator[ParsedRecord]


def open_source(path: object) -> Source:
    """Open a file by its suffix, a folder, a hub path, a data frame, or another table.

    Shards are read as one table. Another table is an object with ``to_pandas``.
    """
    if not isinstance(path, str | Path):
        return _open_table(path)
    files = fetch_files(path)
    shards = [_open_file(file) for file in files]
    if files == [Path(path)] or str(path) == STDIN:
        return shards[0]
    columns = shards[0].columns
    for shard in shards:
        if set(shard.columns) != set(columns):
            raise PairsError(
                f"{path}: {shard.name} and {shards[0].name} have different columns; name one file"
            )
    records = chain.from_iterable(mark_first(shard.records) for shard in shards)
    return Source(str(path), columns, records)


def similar_file(path: str | Path) -> str:
    """Return a sentence that suggests a data file of the same folder; empty if none is similar."""
    folder = Path(path).parent
    names = [each.name for each in folder.glob("*") if data_suffix(each) in _OPENERS]
    hint = did_you_mean(Path(path).name, names)
    return hint.replace("mean ", f"mean {folder}/") if hint and folder != Path() else hint


def parse_json(text: str) -> Any:
    """Parse JSON; refuse text that is nested too deeply, is not UTF-8, or repeats a key."""
    if repair_text(text) != text:
        raise PairsError(NOT_UTF8)
    if text.count("[") + text.count("{") > _MAX_DEPTH and _depth(text) > _MAX_DEPTH:
        raise PairsError(f"is nested more than {_MAX_DEPTH} deep")
    return json.loads(text, object_pairs_hook=_object_of)


def _open_file(path: Path) -> Source:
    suffix = data_suffix(path)
    if not path.is_file():
        expected = "" if suffix in _OPENERS else _EXPECTED
        hint = similar_file(path)
        hint = f".{hint}" if hint else ""
        raise PairsError(f"{path}: there is no such file{expected}{hint}")
    check_content(path, suffix[1:])
    if suffix not in _OPENERS:
        raise PairsError(f"{path}{_EXPECTED}")
    columns, records = _OPENERS[suffix](path)
    return Source(path.name, columns, records)


def _open_table(table: Any) -> Source:
    if hasattr(table, "to_pandas"):
        table = table.to_pandas()
    if isinstance(table, dict):
        raise PairsError(f"found the splits {', '.join(map(str, table))}; expected one table")
    if not isinstance(table, pd.DataFrame):
        raise PairsError(f"found {type(table).__name__}; expected a path or a table")
    columns = check_columns("the table", [str(name) for name in table.columns])
    rows = zip(*(_list_cells(table[name]) for name in table.columns), strict=True)
    records = (ParsedRecord(dict(zip(columns, row, strict=True))) for row in rows)
    return Source("the table", columns, records)


def _list_cells(column: pd.Series) -> list[Any]:
    # Elements of their own type: a Python float does not say that it was rounded to float32.
    is_narrow = column.dtype in (np.float16, np.float32)
    return list(column.to_numpy()) if is_narrow else column.tolist()


def _open_json(path: Path) -> Opened:
    """Open a JSON list of objects, or one object a line, whatever the suffix says."""
    try:
        with open_text(path) as file:
            line = next(filter(str.strip, file), "")
            if line.lstrip().startswith("["):
                values = parse_json(line + file.read())
                return _with_all_keys(lambda: map(_as_object, values))
            first = _parse_line(line)
            is_one_object = first.problem is not None and isinstance(
                _parse_or_none(line + file.read()), dict
            )
    except (ValueError, *DAMAGE) as error:
        raise PairsError(f"{path}: {error}") from None
    if is_one_object or (first.values and all(isinstance(v, dict) for v in first.values.values())):
        raise PairsError(f"{path} {_COLUMN_WISE}")
    return _with_all_keys(lambda: _read_json_lines(path))


def _read_json_lines(path: Path) -> Iterator[ParsedRecord]:
    try:
        with open_text(path) as file:
            yield from map(_parse_line, filter(str.strip, file))
    except (UnicodeError, *DAMAGE) as error:
        raise damaged(path, error) from None


def _parse_line(line: str) -> ParsedRecord:
    try:
        return _as_object(parse_json(line))
    except ValueError as error:
        return ParsedRecord({}, str(error))


def _parse_or_none(text: str) -> Any:
    try:
        return parse_json(text)
    except ValueError:
        return None


def _as_object(value: Any) -> ParsedRecord:
    if isinstance(value, dict):
        return ParsedRecord(value)
    return ParsedRecord({}, "is not a JSON object")


def _with_all_keys(read: Callable[[], Iterator[ParsedRecord]]) -> Opened:
    """Give every record the keys of all; read twice, so that memory need not hold all records."""
    columns = dict.fromkeys(name for entry in read() for name in entry.values)
    blank = dict.fromkeys(columns)
    return tuple(columns), (entry._replace(values=blank | entry.values) for entry in read())


def _open_parquet(path: Path) -> Opened:
    names, records = read_parquet(path)
    return check_columns(path, names), records


def _open_arrow(path: Path) -> Opened:
    names, rows = read_arrow(path)
    return check_columns(path, names), map(ParsedRecord, rows)


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


_EXPECTED = (
    f": expected a file that ends in {', '.join(SUFFIXES)}; text also compressed, with "
    f"{', '.join(COMPRESSIONS)}"
)
_OPENERS: dict[str, Callable[[Path], Opened]] = {
    ".csv": open_csv,
    ".tsv": open_csv,
    ".parquet": _open_parquet,
    ".arrow": _open_arrow,
    ".jsonl": _open_json,
    ".ndjson": _open_json,
    ".json": _open_json,
}
