"""Predict inputs larger than memory: write each chunk as a shard, then join the shards.

Chunk number k belongs to process ``k % n_processes``. Its predictions are written to
``OUT.shards/shard-00000k-DIGEST.parquet``, named by the digest of its bytes. An intact shard is not
computed again, so a killed job resumes at the first missing shard. The process that writes the last
missing shard joins all of them in the order of the input; no process waits for another.
``fingerprint.json`` in the folder has the digests of input and models, and the options; shards of
another job are refused.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from tiewise.errors import PairsError, RunError
from tiewise.files import atomic_path, digest_bytes, digest_file, file_lock, write_bytes, write_json

SUFFIXES = (".csv", ".parquet", ".jsonl")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StreamReport:
    """Result of a streamed prediction.

    `n_shards` are those of all processes; this process wrote `n_written` and found `n_found`.
    `n_rows` is 0 when other processes still have shards to write.
    """

    n_shards: int
    n_written: int
    n_found: int
    n_rows: int
    is_joined: bool


def predict_stream(
    chunks: Iterable[Callable[[], pd.DataFrame]],
    output_path: Path | str,
    predict: Callable[[pd.DataFrame], pd.DataFrame],
    *,
    fingerprint: dict[str, Any],
    process_index: int | None = None,
    n_processes: int | None = None,
    prepare: Callable[[pd.DataFrame], pd.DataFrame] | None = None,
) -> StreamReport:
    """Predict chunk by chunk and join the shards into one file in the order of the input.

    Each chunk is a function that returns its pairs, so that a chunk with an existing shard, or of
    another process, is not parsed. `fingerprint` is JSON: digests and options that the predictions
    depend on; RunError is raised when the existing shards have another one. The process is given by
    ``RANK`` and ``WORLD_SIZE`` unless it is named. `prepare` is applied to each shard when it is
    joined, for example to choose columns.
    """
    output_path = Path(output_path)
    _check_suffix(output_path)
    folder = output_path.with_name(output_path.name + ".shards")
    index = int(os.environ.get("RANK", "0")) if process_index is None else process_index
    n = int(os.environ.get("WORLD_SIZE", "1")) if n_processes is None else n_processes
    n_shards = n_written = n_found = 0
    existing: dict[int, Path] = {}
    for number, load in enumerate(chunks):
        n_shards += 1
        if number % n != index:
            continue
        if n_written + n_found == 0:
            _check_fingerprint(folder, fingerprint)
            existing = _find_shards(folder)
        if number in existing:
            n_found += 1
            continue
        _write_shard(folder, number, predict(load()))
        n_written += 1
    if n_shards == 0:
        raise PairsError("The input has no rows: there is nothing to predict.")
    if n_written + n_found == 0:  # more processes than chunks: the others may be done already
        return StreamReport(n_shards, 0, 0, 0, is_joined=False)
    n_rows = _join_if_complete(folder, n_shards, output_path, prepare or (lambda table: table))
    return StreamReport(n_shards, n_written, n_found, n_rows or 0, is_joined=n_rows is not None)


def write_table(table_parts: Iterable[pd.DataFrame], path: Path | str) -> int:
    """Write tables one after the other into a csv, parquet or jsonl file; return the row count.

    Floats read back equal to the last bit; NaN is written as an empty cell or null. PairsError is
    raised for another suffix and for tables with different columns.
    """
    path = Path(path)
    _check_suffix(path)
    write = {".csv": _write_csv, ".parquet": _write_parquet, ".jsonl": _write_json_lines}
    with atomic_path(path) as temporary:
        return write[path.suffix](_check_columns(table_parts), temporary)


def _check_columns(tables: Iterable[pd.DataFrame]) -> Iterator[pd.DataFrame]:
    """Yield tables that all have the columns of the first."""
    first: list[str] = []
    for table in tables:
        first = first or list(map(str, table))
        if list(table) != first:
            raise PairsError(
                f"columns of a chunk are {', '.join(map(str, table))}; expected "
                f"{', '.join(first)}, as in the first chunk."
            )
        yield table


def _check_suffix(path: Path) -> None:
    if path.suffix not in SUFFIXES:
        raise PairsError(
            f"suffix of {path} is {path.suffix!r}; expected one of {', '.join(SUFFIXES)}."
        )


def _check_fingerprint(folder: Path, fingerprint: dict[str, Any]) -> None:
    fingerprint_path = folder / "fingerprint.json"
    fingerprint = json.loads(json.dumps(fingerprint))
    with contextlib.suppress(FileNotFoundError):
        before = json.loads(fingerprint_path.read_bytes())
        if before == fingerprint:
            return
        names = [
            name for name in {**before, **fingerprint} if before.get(name) != fingerprint.get(name)
        ]
        raise RunError(
            f"{folder} has unfinished predictions of another job ({', '.join(names)} differs). "
            "Finish that job, remove the folder, or name another output."
        )
    if any(folder.glob("shard-*.parquet")):
        raise RunError(
            f"{fingerprint_path} is missing, so nothing is known about the shards next to it. "
            "Remove the folder, or name another output."
        )
    write_json(fingerprint_path, fingerprint)


def _write_shard(folder: Path, number: int, table: pd.DataFrame) -> None:
    data = table.to_parquet(index=False)
    write_bytes(folder / f"shard-{number:06d}-{digest_bytes(data)}.parquet", data)


def _find_shards(folder: Path) -> dict[int, Path]:
    """Return the intact shards by number; damaged ones are removed, with a message."""
    shards = {}
    for path in folder.glob("shard-*-*.parquet"):
        _, number, digest = path.stem.split("-")
        with contextlib.suppress(FileNotFoundError):  # another process has removed it just now
            if digest_file(path) == digest:
                shards[int(number)] = path
            else:
                _log.warning("%s is damaged; its rows are predicted again.", path)
                path.unlink()
    return shards


def _join_if_complete(
    folder: Path,
    n_shards: int,
    output_path: Path,
    prepare: Callable[[pd.DataFrame], pd.DataFrame],
) -> int | None:
    """Join the shards if all exist and return the number of rows; None if some are missing."""
    with file_lock(folder / "lock", wait=True):
        if not (folder / "fingerprint.json").is_file():  # another process has joined the shards
            shutil.rmtree(folder, ignore_errors=True)
            return _count_rows(output_path)
        shards = _find_shards(folder)
        if len(shards) < n_shards:
            _log.info("%d of %d shards are missing.", n_shards - len(shards), n_shards)
            return None
        paths = [shards[number] for number in range(n_shards)]
        n_rows = write_table((prepare(table) for table in _read_shards(paths)), output_path)
        shutil.rmtree(folder)
        return n_rows


def _read_shards(paths: list[Path]) -> Iterator[pd.DataFrame]:
    # Ids of one chunk can be numbers and those of the next one text: use one type for all.
    kinds = {str(pq.read_schema(path).field("id").type) for path in paths}
    for path in paths:
        table = pd.read_parquet(path)
        yield table if len(kinds) == 1 else table.assign(id=table["id"].astype(str))


def _count_rows(path: Path) -> int:
    if path.suffix == ".parquet":
        return int(pq.read_metadata(path).num_rows)
    if path.suffix == ".csv":
        return sum(len(chunk) for chunk in pd.read_csv(path, usecols=[0], chunksize=100_000))
    with path.open("rb") as file:
        return sum(1 for _ in file)


def _write_csv(tables: Iterable[pd.DataFrame], path: Path) -> int:
    n_rows = 0
    for table in tables:
        table.to_csv(path, mode="a", header=n_rows == 0, index=False, lineterminator="\n")
        n_rows += len(table)
    return n_rows


def _write_json_lines(tables: Iterable[pd.DataFrame], path: Path) -> int:
    n_rows = 0
    with path.open("w", encoding="utf-8") as file:
        for table in tables:
            plain = table.astype(object).where(table.notna(), None)
            for record in plain.to_dict("records"):
                file.write(json.dumps(record, ensure_ascii=False, default=_to_plain) + "\n")
            n_rows += len(table)
    return n_rows


def _write_parquet(tables: Iterable[pd.DataFrame], path: Path) -> int:
    writer, n_rows = None, 0
    with contextlib.ExitStack() as stack:
        for table in tables:
            schema = writer.schema if writer else None
            batch = pa.Table.from_pandas(table, schema=schema, preserve_index=False)
            writer = writer or stack.enter_context(pq.ParquetWriter(path, batch.schema))
            writer.write_table(batch)
            n_rows += len(table)
    return n_rows


def _to_plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else str(value)
