"""Predict inputs larger than memory: write each chunk as a shard, then join the shards.

Chunk number k belongs to process ``k % n_processes``. Its predictions are written to
``OUT.shards/shard-00000k-JOB-DIGEST.parquet``, named by the digest of the job's fingerprint and by
that of its own bytes. An intact shard is not computed again, so a killed job resumes at the first
missing shard. The process that writes the last missing shard joins all of them in the order of the
input; no process waits for another.

``fingerprint.json`` in the folder has the digests of input and models, and the options. The shards
of another job are refused, and shards without a valid fingerprint are removed. Each process locks
its part, so that a second command with the same output is refused.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from tiewise.config import UNIT_ROWS
from tiewise.data.formats.parquet import regroup
from tiewise.data.formats.writing import append_csv
from tiewise.errors import PairsError, RunError
from tiewise.files import (
    atomic_path,
    digest_bytes,
    digest_file,
    digest_json,
    file_lock,
    read_json,
    refuse_existing,
    remove_temporaries,
    write_bytes,
    write_json,
)
from tiewise.runs.environment import read_launch

SUFFIXES = (".csv", ".parquet", ".jsonl")
_FINGERPRINT = "fingerprint.json"
_LOCK = "lock"
_OWN_FILES = re.compile(rf"shard-\d{{6,}}-[-0-9a-f]+\.parquet|{_FINGERPRINT}|{_LOCK}(-\d+)?")
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
    overwrite: bool = True,
) -> StreamReport:
    """Predict chunk by chunk and join the shards into one file in the order of the input.

    Each chunk is a function that returns its pairs, so that a chunk with an existing shard, or of
    another process, is not parsed. `fingerprint` is JSON: digests and options that the predictions
    depend on; RunError is raised when the existing shards have another one, or another command is
    writing the same output. The process is given by ``RANK`` and ``WORLD_SIZE`` unless it is named.
    `prepare` is applied to each shard when it is joined, for example to choose columns. Unless
    `overwrite`, an existing output is a FilesError.
    """
    output_path = Path(output_path)
    check_suffix(output_path)
    launch = read_launch()
    index = launch.rank if process_index is None else process_index
    n = launch.n_processes if n_processes is None else n_processes
    job = _Job(output_path, json.loads(json.dumps(fingerprint)), index, n, overwrite)
    job.refuse_existing()
    n_shards = n_written = n_found = 0
    existing: dict[int, Path] = {}
    is_done = False  # whether other processes of the launch have joined the shards
    with contextlib.ExitStack() as stack:
        for number, load in enumerate(chunks):
            n_shards += 1
            if number % n != index or is_done:
                continue
            if n_written + n_found == 0:
                is_done = stack.enter_context(job.lock())
                if is_done:
                    continue
                existing = job.claim()
            if number in existing:
                n_found += 1
            else:
                job.write_shard(number, predict(load()))
                n_written += 1
        if n_shards == 0:
            raise PairsError("The input has no rows: there is nothing to predict.")
        if n_written + n_found == 0:  # the others have the chunks, or have joined them already
            return StreamReport(n_shards, 0, 0, 0, is_joined=False)
        n_rows = job.join(n_shards, prepare or (lambda table: table))
    return StreamReport(n_shards, n_written, n_found, n_rows or 0, is_joined=n_rows is not None)


class _Job:
    """The part of one process in a prediction, and the folder of shards that all parts share."""

    def __init__(
        self, output_path: Path, fingerprint: Any, index: int, n: int, overwrite: bool
    ) -> None:
        self.output_path, self.fingerprint = output_path, fingerprint
        self.folder = output_path.with_name(output_path.name + ".shards")
        self.name = digest_json(fingerprint)[:16]
        self.index, self.n, self.overwrite = index, n, overwrite
        self._output_before = _stamp(output_path)

    def refuse_existing(self) -> None:
        if self.index == 0:  # the others may find what the first has finished
            refuse_existing(self.output_path, overwrite=self.overwrite)

    @contextlib.contextmanager
    def lock(self) -> Iterator[bool]:
        """Keep other commands from predicting the same part; leave no folder without shards.

        The value is whether other processes of the launch have joined the shards.
        """
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(file_lock(self.folder / f"{_LOCK}-{self.index}"))
            except BlockingIOError as error:
                raise RunError(
                    f"{self.output_path} is being written now, {error.strerror}. Wait until it "
                    "ends, or name another output."
                ) from error
            is_done = self.n > 1 and _stamp(self.output_path) != self._output_before
            try:
                if not is_done:
                    self.refuse_existing()  # another command may have ended since the start
                yield is_done
            finally:
                is_mine = _read_fingerprint(self.folder) in (None, self.fingerprint)
                if is_mine and (is_done or (self.n == 1 and not self._has_shards())):
                    _remove_job(self.folder)

    def claim(self) -> dict[int, Path]:
        """Write the fingerprint, or refuse that of another job; return the intact shards."""
        with file_lock(self.folder / _LOCK, wait=True):
            before = _read_fingerprint(self.folder)
            if before is None or (self.n == 1 and not self._has_shards()):
                _remove_unknown_shards(self.folder)
                write_json(self.folder / _FINGERPRINT, self.fingerprint)
            elif before != self.fingerprint:
                names = {**before, **self.fingerprint}
                named = [name for name in names if before.get(name) != self.fingerprint.get(name)]
                raise RunError(
                    f"{self.folder} has unfinished predictions of another job ({', '.join(named)} "
                    "differs). Finish that job, remove the folder, or name another output."
                )
            return self._find_shards()

    def write_shard(self, number: int, table: pd.DataFrame) -> None:
        data = table.to_parquet(index=False)
        name = f"shard-{number:06d}-{self.name}-{digest_bytes(data)}.parquet"
        write_bytes(self.folder / name, data)

    def join(self, n_shards: int, prepare: Callable[[pd.DataFrame], pd.DataFrame]) -> int | None:
        """Join the shards if all exist and return the number of rows; None if some are missing."""
        with file_lock(self.folder / _LOCK, wait=True):
            before = _read_fingerprint(self.folder)
            if before != self.fingerprint:  # another process has joined the shards
                if _stamp(self.output_path) == self._output_before:
                    raise RunError(
                        f"{self.folder} was removed or used by another command while this one was "
                        "writing into it. Run this command again."
                    )
                if before is None:
                    _remove_job(self.folder)
                return _count_rows(self.output_path)
            shards = self._find_shards()
            if len(shards) < n_shards:
                _log.info("%d of %d shards are missing.", n_shards - len(shards), n_shards)
                return None
            paths = [shards[number] for number in range(n_shards)]
            tables = (prepare(table) for table in _read_shards(paths))
            n_rows = write_table(tables, self.output_path)
            _remove_job(self.folder)
            return n_rows

    def _has_shards(self) -> bool:
        return any(self.folder.glob("shard-*.parquet"))

    def _find_shards(self) -> dict[int, Path]:
        """Return the intact shards by number; damaged ones are removed, with a message."""
        shards = {}
        for path in self.folder.glob(f"shard-*-{self.name}-*.parquet"):
            _, number, _, digest = path.stem.split("-")
            with contextlib.suppress(FileNotFoundError):  # another process has just removed it
                if digest_file(path) == digest:
                    shards[int(number)] = path
                else:
                    _log.warning("%s is damaged; its rows are predicted again.", path)
                    path.unlink()
        return shards


def write_table(table_parts: Iterable[pd.DataFrame], path: Path | str) -> int:
    """Write tables one after the other into a csv, parquet or jsonl file; return the row count.

    Floats read back equal to the last bit; NaN is written as an empty cell or null. PairsError is
    raised for another suffix and for tables with different columns.
    """
    path = Path(path)
    check_suffix(path)
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


def check_suffix(path: Path) -> None:
    """Raise PairsError unless a path ends in .csv, .parquet or .jsonl."""
    if path.suffix not in SUFFIXES:
        raise PairsError(
            f"suffix of {path} is {path.suffix!r}; expected one of {', '.join(SUFFIXES)}. The name "
            "of a folder ends in a slash."
        )


def _read_fingerprint(folder: Path) -> dict[str, Any] | None:
    """Return the fingerprint of the shards in a folder; None if it is missing or damaged."""
    try:
        fingerprint = read_json(folder / _FINGERPRINT)
    except (OSError, ValueError):
        return None
    return fingerprint if isinstance(fingerprint, dict) else None


def _remove_unknown_shards(folder: Path) -> None:
    """Remove shards whose fingerprint is missing: no job can use them."""
    unknown = list(folder.glob("shard-*.parquet"))
    if unknown:
        _log.warning(
            "%s has %d shards without a valid %s; they are removed and predicted again.",
            folder,
            len(unknown),
            _FINGERPRINT,
        )
    for path in unknown:
        path.unlink(missing_ok=True)


def _remove_job(folder: Path) -> None:
    """Remove the files of a job, and their folder unless it holds other files."""
    remove_temporaries(folder)
    with contextlib.suppress(OSError):  # another process removes it too
        # Locks last: until then no other command can begin here.
        for path in sorted(folder.iterdir(), key=lambda path: (path.name.startswith(_LOCK), path)):
            if _OWN_FILES.fullmatch(path.name):
                path.unlink(missing_ok=True)
        folder.rmdir()


def _stamp(path: Path) -> tuple[int, int] | None:
    """Return what changes when a file is replaced; None if there is no file."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns


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
    for place, table in enumerate(tables):
        append_csv(table, path, has_header=place == 0)
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
    """Write row groups of `UNIT_ROWS` rows, however the rows are divided into tables."""
    n_rows, writer = 0, None
    with contextlib.ExitStack() as stack:
        for group in regroup(_as_arrow(tables), UNIT_ROWS):
            writer = writer or stack.enter_context(pq.ParquetWriter(path, group.schema))
            writer.write_table(group)
            n_rows += len(group)
    return n_rows


def _as_arrow(tables: Iterable[pd.DataFrame]) -> Iterator[pa.Table]:
    """Yield tables with the types of the first."""
    schema: pa.Schema | None = None
    for table in tables:
        batch = pa.Table.from_pandas(table, schema=schema, preserve_index=False)
        schema = schema or batch.schema
        yield batch


def _to_plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else str(value)
