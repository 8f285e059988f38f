"""Read records from files, tables and hub data sets, one at a time.

A csv file is read strictly: a quote that is not closed, or that ends inside a field, is an error,
because no row after it can be trusted. A row with too few or too many fields, or with bytes that
are not UTF-8, is passed on with its problem. Text never counts as missing, not even ``NA``.
"""

from __future__ import annotations

import codecs
import csv
import json
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import pandas as pd

from tiewise.data.formats.parquet import read_parquet
from tiewise.data.parse import repair_text
from tiewise.errors import PairsError

_SCHEME = "hf://"
_match_address = re.compile(
    r"hf://datasets/(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>[^/]+))?(/(?P<file>.+))?", re.ASCII
).fullmatch
_FIELD_LIMIT = 2**31 - 1
_MAX_DEPTH = 100
_ENCODINGS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_NOT_UTF8 = "is not UTF-8; convert the file to UTF-8"


class ParsedRecord(NamedTuple):
    """A record, and the reason why it cannot be read, if there is one."""

    values: dict[str, Any]
    problem: str | None = None


class Source(NamedTuple):
    """A name for messages, the columns, and records with exactly these columns."""

    name: str
    columns: tuple[str, ...]
    records: Iterator[ParsedRecord]


_Opened = tuple[tuple[str, ...], Iterator[ParsedRecord]]


def open_source(path: object) -> Source:
    """Open a file by its suffix, a hub path, a data frame, or an object with ``to_pandas``."""
    if not isinstance(path, str | Path):
        return _open_table(path)
    if not is_hub_path(path):
        return _open_file(Path(path))
    shards = [_open_file(file) for file in fetch_files(path)]
    columns = shards[0].columns
    for shard in shards:
        if set(shard.columns) != set(columns):
            raise PairsError(
                f"{path}: {shard.name} and {shards[0].name} have different columns; name one file"
            )
    return Source(str(path), columns, chain.from_iterable(shard.records for shard in shards))


def is_hub_path(path: object) -> bool:
    """Return whether a path names a data set on the hub."""
    return isinstance(path, str) and path.startswith(_SCHEME)


def fetch_files(path: str | Path) -> list[Path]:
    """Return the local files that a path names, after downloading those of a hub path.

    A path of a data set without a file means its files with ``train`` in the name, else all files.
    """
    if not is_hub_path(path):
        return [Path(path)]
    repo, revision, file = split_hub_path(str(path))
    try:
        found = _download(repo, revision, file)
    except ImportError as error:
        raise PairsError(
            f"{path}: the hub needs huggingface_hub. Run pip install 'tiewise[train]'."
        ) from error
    except (OSError, ValueError) as error:
        reason = (str(error).strip().splitlines() or [repr(error)])[0]
        raise PairsError(
            f"{path}: the hub did not provide it: {reason} Check the name and the network. A gated "
            "data set needs `hf auth login` first. Without a network, name a file."
        ) from error
    if file is not None:
        return [found]
    names = [str(each.relative_to(found)) for each in found.rglob("*") if each.is_file()]
    chosen = choose_files(names)
    if not chosen:
        raise PairsError(f"{path} holds no file that ends in {', '.join(_OPENERS)}")
    return [found / name for name in chosen]


def split_hub_path(path: str) -> tuple[str, str | None, str | None]:
    """Return the repository, revision and file of ``hf://datasets/OWNER/NAME[@REVISION][/FILE]``."""
    found = _match_address(path)
    if found is None:
        raise PairsError(
            f"{path} is no hub path; expected hf://datasets/OWNER/NAME with an optional @REVISION "
            "and /FILE"
        )
    return found["repo"], found["revision"], found["file"]


def choose_files(names: Sequence[str]) -> list[str]:
    """Return the files of a data set that make up its table: training files where there are any.

    >>> choose_files(["train-1.parquet", "train-0.parquet", "test.parquet", "a.csv"])
    ['train-0.parquet', 'train-1.parquet']
    """
    known = sorted(name for name in names if Path(name).suffix in _OPENERS)
    training = [name for name in known if "train" in Path(name).name] or known
    if len({Path(name).suffix for name in training}) > 1:
        raise PairsError(f"the data set has several tables; name one file: {', '.join(training)}")
    return training


def parse_json(text: str) -> Any:
    """Parse JSON; refuse text that is nested too deeply, is not UTF-8, or repeats a key."""
    if repair_text(text) != text:
        raise PairsError(_NOT_UTF8)
    if text.count("[") + text.count("{") > _MAX_DEPTH and _depth(text) > _MAX_DEPTH:
        raise PairsError(f"is nested more than {_MAX_DEPTH} deep")
    return json.loads(text, object_pairs_hook=_object_of)


def _download(repo: str, revision: str | None, file: str | None) -> Path:
    """Return the local path of one file, or of the folder of all files that can be read."""
    import huggingface_hub

    options: dict[str, Any] = {"repo_type": "dataset", "revision": revision}
    if file is not None:
        return Path(huggingface_hub.hf_hub_download(repo, file, **options))
    patterns = [f"*{suffix}" for suffix in _OPENERS]
    return Path(huggingface_hub.snapshot_download(repo, allow_patterns=patterns, **options))


def _open_file(path: Path) -> Source:
    suffix = path.suffix.lower()
    if suffix not in _OPENERS:
        raise PairsError(f"{path}: expected a file that ends in {', '.join(_OPENERS)}")
    if not path.is_file():
        raise PairsError(f"{path}: there is no such file")
    columns, records = _OPENERS[suffix](path)
    return Source(path.name, columns, records)


def _open_table(table: Any) -> Source:
    if hasattr(table, "to_pandas"):
        table = table.to_pandas()
    if isinstance(table, dict):
        raise PairsError(f"found the splits {', '.join(map(str, table))}; expected one table")
    if not isinstance(table, pd.DataFrame):
        raise PairsError(f"found {type(table).__name__}; expected a path or a table")
    columns = _check_columns("the table", [str(name) for name in table.columns])
    rows = zip(*(table[name].tolist() for name in table.columns), strict=True)
    records = (ParsedRecord(dict(zip(columns, row, strict=True))) for row in rows)
    return Source("the table", columns, records)


def _open_csv(path: Path) -> _Opened:
    lines = _read_csv(path)
    header = next(lines, None)
    if header is None:
        raise PairsError(f"{path}: the file is empty")
    columns = _check_columns(path, [name.strip() for name in header])
    return columns, (_as_record(columns, fields) for fields in lines if fields)


def _read_csv(path: Path) -> Iterator[list[str]]:
    # The limit is global to the process, so it is only ever raised.
    csv.field_size_limit(max(_FIELD_LIMIT, csv.field_size_limit()))
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    with _open_text(path, newline="") as file:
        reader = csv.reader(file, delimiter=delimiter, strict=True)
        try:
            yield from reader
        except csv.Error as error:
            raise PairsError(
                f"{path}, line {reader.line_num}: {error}. A quote is not closed, or not doubled "
                "inside a field. Write the file again with every field quoted."
            ) from None
        except UnicodeError as error:
            raise PairsError(f"{path}, line {reader.line_num}: {error}") from None


def _as_record(columns: Sequence[str], fields: list[str]) -> ParsedRecord:
    values = dict(zip(columns, fields, strict=False))
    if len(fields) != len(columns):
        return ParsedRecord(values, f"has {len(fields)} fields where the header has {len(columns)}")
    is_utf8 = [*map(repair_text, fields)] == fields
    return ParsedRecord(values, None if is_utf8 else _NOT_UTF8)


def _open_json(path: Path) -> _Opened:
    with _open_text(path) as file:
        text = file.read()
    try:
        values = parse_json(text)
    except ValueError as error:
        raise PairsError(f"{path}: {error}") from None
    if not isinstance(values, list):
        raise PairsError(f"{path}: expected a JSON list of objects")
    return _with_all_keys(lambda: map(_as_object, values))


def _open_json_lines(path: Path) -> _Opened:
    return _with_all_keys(lambda: _read_json_lines(path))


def _read_json_lines(path: Path) -> Iterator[ParsedRecord]:
    with _open_text(path) as file:
        for line in filter(str.strip, file):
            try:
                yield _as_object(parse_json(line))
            except ValueError as error:
                yield ParsedRecord({}, str(error))


def _as_object(value: Any) -> ParsedRecord:
    if isinstance(value, dict):
        return ParsedRecord(value)
    return ParsedRecord({}, "is not a JSON object")


def _with_all_keys(read: Callable[[], Iterator[ParsedRecord]]) -> _Opened:
    """Give every record the keys of all; read twice, so that memory need not hold all records."""
    columns = dict.fromkeys(name for entry in read() for name in entry.values)
    blank = dict.fromkeys(columns)
    return tuple(columns), (entry._replace(values=blank | entry.values) for entry in read())


def _open_parquet(path: Path) -> _Opened:
    names, rows = read_parquet(path)
    return _check_columns(path, names), map(ParsedRecord, rows)


def _open_text(path: Path, newline: str | None = None) -> TextIO:
    with path.open("rb") as file:
        start = file.read(4)
    encoding = next((name for mark, name in _ENCODINGS if start.startswith(mark)), "utf-8-sig")
    return path.open(encoding=encoding, errors="surrogateescape", newline=newline)


def _check_columns(where: object, columns: Sequence[str]) -> tuple[str, ...]:
    if any("\x00" in name for name in columns):
        raise PairsError(f"{where} looks like UTF-16 without a byte order mark; write UTF-8")
    repeated = {name for name in columns if columns.count(name) > 1}
    if repeated:
        raise PairsError(f"{where}: the columns {', '.join(sorted(repeated))} occur twice")
    return tuple(columns)


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


_OPENERS = {
    ".csv": _open_csv,
    ".tsv": _open_csv,
    ".parquet": _open_parquet,
    ".jsonl": _open_json_lines,
    ".json": _open_json,
}
