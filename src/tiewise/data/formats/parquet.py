"""Write pairs tables to parquet with a digest of all rows, and verify it when they are read.

Parquet's own checksums leave out the footer, where one flipped bit can hide rows. Arrow files, as
``datasets`` saves them, are read too.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from tiewise.config import UNIT_ROWS
from tiewise.data.formats.opening import ParsedRecord, mark_first
from tiewise.data.ids import ID_COLUMNS
from tiewise.data.labels import PROB_COLUMNS
from tiewise.data.pairs import TEXT_COLUMNS
from tiewise.errors import PairsError
from tiewise.files import atomic_path

_DIGEST_KEY = b"tiewise.digest"
_TEACHER_KEY = b"tiewise.teacher"
_BATCH_ROWS = 256
_TYPES = {
    **dict.fromkeys(TEXT_COLUMNS, pa.large_list(pa.large_string())),
    **dict.fromkeys((*PROB_COLUMNS, "weight"), pa.float64()),
    "label": pa.int8(),
}
_DAMAGE = (pa.ArrowException, OSError, ValueError, OverflowError)


def write_parquet(pairs: pd.DataFrame, path: Path, *, teacher: str | None = None) -> None:
    """Write a pairs table, and a text that describes the teacher of its soft labels."""
    starts = range(0, len(pairs), UNIT_ROWS)
    parts = (pairs.iloc[start : start + UNIT_ROWS] for start in starts)
    write_parquet_parts(pairs, parts, path, teacher=teacher)


def write_parquet_parts(
    pairs: pd.DataFrame, parts: Iterable[pd.DataFrame], path: Path, *, teacher: str | None = None
) -> None:
    """Write the parts of a pairs table, each as a row group.

    `pairs` has the columns and types of all; its texts are not read.
    """
    schema = pa.schema([(name, _type_of(pairs[name])) for name in pairs.columns])
    digest = _new_digest(schema.names, teacher)
    options: dict[str, Any] = {"compression": "zstd", "write_page_checksum": True}
    with atomic_path(path) as temporary, pq.ParquetWriter(temporary, schema, **options) as writer:
        for rows in filter(len, parts):
            arrays = [pa.array(rows[field.name], field.type, from_pandas=True) for field in schema]
            table = pa.Table.from_arrays(arrays, schema=schema)
            writer.write_table(table)
            _update(digest, table.to_pylist())
        facts = {} if teacher is None else {_TEACHER_KEY: teacher}
        writer.add_key_value_metadata({_DIGEST_KEY: digest.hexdigest(), **facts})


def regroup(tables: Iterable[pa.Table], size: int) -> Iterator[pa.Table]:
    """Yield the rows of tables `size` at a time; of no rows, one table."""
    rest: pa.Table | None = None
    is_first = True
    for table in tables:
        waiting = table if rest is None else pa.concat_tables([rest, table])
        n_whole = len(waiting) // size * size
        for start in range(0, n_whole, size):
            is_first = False
            yield waiting.slice(start, size).combine_chunks()
        rest = waiting.slice(n_whole)
    if rest is not None and (len(rest) or is_first):
        yield rest.combine_chunks()


def read_parquet(path: Path) -> tuple[list[str], Iterator[ParsedRecord]]:
    """Return the names and records of a parquet file; reading damaged rows is a PairsError."""
    file = _open(path)
    return file.schema_arrow.names, _read_records(path, file)


def read_row_group(
    file: BinaryIO, name: object, group: int, skip: int, n_rows: int
) -> tuple[list[str], Iterator[ParsedRecord]]:
    """Return the columns of an open parquet file, and `n_rows` records of one row group.

    `skip` rows before them are read and left out. `name` is for messages.
    """
    opened = _open(file, name)
    rows = islice(chain.from_iterable(_read_group(opened, name, group)), skip, skip + n_rows)
    return opened.schema_arrow.names, mark_first(map(ParsedRecord, rows))


def read_arrow(path: Path) -> tuple[list[str], Iterator[dict[str, Any]]]:
    """Return the names and rows of an Arrow file, such as a saved ``datasets.Dataset``."""
    with report_damage(f"{path} is no Arrow file, or"):
        with pa.OSFile(str(path)) as file:
            is_stream = file.read(6) != b"ARROW1"
        source = pa.memory_map(str(path))
        reader = pa.ipc.open_stream(source) if is_stream else pa.ipc.open_file(source)
    return reader.schema.names, _read_batches(path, reader, is_stream=is_stream)


@contextlib.contextmanager
def report_damage(what: object) -> Iterator[None]:
    """Raise a PairsError that says that `what` is damaged, in place of an error of its content.

    Errors of a disk, a network or a store, which may pass, are raised as they are: subclasses of
    OSError, and those with a number.
    """
    try:
        yield
    except _DAMAGE as error:
        is_of_system = isinstance(error, OSError) and (
            type(error) is not OSError or error.errno is not None
        )
        if is_of_system:
            raise
        raise PairsError(f"{what} is damaged: {error}") from None


def read_teacher(path: Path) -> str | None:
    """Return the `teacher` that :func:`write_parquet` wrote, or None."""
    with _open(path) as file:
        return _read_facts(file).get(_TEACHER_KEY)


def _read_batches(path: Path, reader: Any, *, is_stream: bool) -> Iterator[dict[str, Any]]:
    numbers = range(0 if is_stream else reader.num_record_batches)
    batches = reader if is_stream else map(reader.get_batch, numbers)
    with report_damage(path):
        for batch in batches:
            for start in range(0, len(batch), _BATCH_ROWS):
                yield from _to_rows(batch.slice(start, _BATCH_ROWS))


def _to_rows(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = batch.to_pylist()
    for name in {*ID_COLUMNS} & {*batch.schema.names}:
        # A Python float does not say that an id was rounded to float32.
        if batch.schema.field(name).type in (pa.float16(), pa.float32()):
            values = batch.column(name).to_numpy(zero_copy_only=False)
            rows = [row | {name: value} for row, value in zip(rows, values, strict=True)]
    return rows


def _open(file: Path | BinaryIO, name: object = None) -> pq.ParquetFile:
    with report_damage(f"{name or file} is no parquet file, or"):
        return pq.ParquetFile(file, page_checksum_verification=True)


def _read_facts(file: pq.ParquetFile) -> dict[bytes, str]:
    facts = file.metadata.metadata or {}
    return {key: value.decode(errors="replace") for key, value in facts.items()}


def _read_records(path: Path, file: pq.ParquetFile) -> Iterator[ParsedRecord]:
    facts = _read_facts(file)
    digest = _new_digest(file.schema_arrow.names, facts.get(_TEACHER_KEY))
    with file:
        for group in range(file.num_row_groups):
            is_first = True
            for rows in _read_group(file, path, group):
                if _DIGEST_KEY in facts:
                    _update(digest, rows)
                for row in rows:
                    yield ParsedRecord(row, is_first=is_first)
                    is_first = False
    if facts.get(_DIGEST_KEY, digest.hexdigest()) != digest.hexdigest():
        raise PairsError(f"{path} is damaged: its rows differ from those that were written")


def _read_group(file: pq.ParquetFile, name: object, group: int) -> Iterator[list[dict[str, Any]]]:
    with report_damage(name):
        for batch in file.iter_batches(batch_size=_BATCH_ROWS, row_groups=[group]):
            yield _to_rows(batch)


def _new_digest(names: Iterable[str], teacher: str | None) -> Any:
    content = json.dumps(list(names)) + (teacher or "")
    return hashlib.blake2b(content.encode(), digest_size=16)


def _update(digest: Any, rows: list[dict[str, Any]]) -> None:
    for row in rows:
        digest.update(json.dumps(list(row.values()), default=repr).encode())


def _type_of(column: pd.Series) -> Any:
    if column.name in _TYPES:
        return _TYPES[column.name]
    return pa.int64() if column.dtype == np.int64 else pa.large_string()
