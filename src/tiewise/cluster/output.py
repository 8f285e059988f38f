"""The folder of a prediction in units: identity, run, parts and manifest.

::

    OUT/
      identity.json               what all parts depend on; the first writer's is kept
      run-SHA256.tar              the run; each node of a cluster fetches it once
      parts-IDENTITY/
        FILETAG-GROUP-SKIP-SHA256.parquet    the predictions of one unit
      manifest.json               the parts in the order of the input; written last

A part has the digest of its own bytes in its name, so writing it twice is harmless and a damaged
one is found. The fingerprint of the input file is in the name as well: a file that is replaced or
added costs its own units only. A folder without ``manifest.json`` is unfinished.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import logging
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from tiewise.cluster.archive import fetch_run, pack_run
from tiewise.cluster.storage import (
    N_THREADS,
    address_of,
    is_folder,
    is_local,
    open_storage,
    put_new,
)
from tiewise.cluster.units import Unit
from tiewise.config import first_difference
from tiewise.data.ids import as_integer
from tiewise.data.pairs import as_ids
from tiewise.errors import RunError
from tiewise.files import (
    digest_bytes,
    digest_file,
    digest_json,
    json_bytes,
    remove,
    remove_temporaries,
    write_bytes,
)
from tiewise.judges.prediction import Tally
from tiewise.runs.folder import RunFolder

_IDENTITY, _MANIFEST, _ARCHIVE = "identity.json", "manifest.json", "archive"
_OWN_FILES = re.compile(
    r"(?:identity|manifest)\.json|run-[0-9a-f]{64}\.tar|parts-[0-9a-f]{16}|\.lock"
)
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Record:
    """A finished unit.

    `part` is the name of its file and `size` its bytes; `n_rows` counts the predicted rows.
    `has_integer_ids` says whether each id spells an integer. `tally` has the sums of
    :class:`tiewise.judges.prediction.Tally`. `seconds` and `device` are None for a part whose
    process ended before the manifest was written.
    """

    unit: Unit
    part: str
    size: int
    n_rows: int
    has_integer_ids: bool
    tally: Mapping[str, float]
    seconds: float | None = None
    device: str | None = None


class Output:
    """An output folder, local or in an object store."""

    def __init__(self, address: str | Path) -> None:
        self.fs, self.root = open_storage(address)
        self.address = address_of(self.fs, self.root)

    def begin(self, identity: Mapping[str, Any], run: RunFolder) -> None:
        """Write the identity and the run, or check them: RunError names a field that differs."""
        if not is_folder(self.fs, self.root) or self._read_json(_IDENTITY) is None:
            with tempfile.TemporaryDirectory() as folder:
                archive = Path(folder) / "run.tar"
                pack_run(run, archive)
                sha256 = digest_file(archive)
                self._put_file(archive, f"run-{sha256}.tar")
            put_new(self.fs, self._path(_IDENTITY), json_bytes({**identity, _ARCHIVE: sha256}))
        found = first_difference(_without_archive(self.identity), _as_json(identity))
        if found is not None:
            name, before, now = found
            raise RunError(
                f"{self.address} has predictions with {name} {json.dumps(before)}; now it is "
                f"{json.dumps(now)}. Give the same, or name another folder."
            )

    @functools.cached_property
    def identity(self) -> dict[str, Any]:
        """Return the identity; RunError when the folder has none."""
        found = self._read_json(_IDENTITY)
        if not isinstance(found, dict):
            raise RunError(f"{self.address} has no {_IDENTITY}; expected a folder of predictions.")
        return found

    def fetch_run(self, cache_dir: Path) -> RunFolder:
        """Return the run that the predictions are made with, as a local folder."""
        sha256 = self.identity[_ARCHIVE]
        path = self._path(f"run-{sha256}.tar")
        return fetch_run(self.fs, path, sha256, self.identity["run"], cache_dir)

    def write_part(self, unit: Unit, table: pd.DataFrame) -> Record:
        """Write the predictions of a unit; ids are text, as the input spells them."""
        data = table.assign(id=table["id"].astype(str)).to_parquet(index=False)
        part = f"{unit.key}-{digest_bytes(data)}.parquet"
        put_new(self.fs, self.part_path(part), data)
        return _describe(unit, part, data)

    def find_records(self, units: Sequence[Unit]) -> dict[Unit, Record]:
        """Return the records of units that have an intact part; damaged parts are removed.

        Parts of the manifest are compared by their size, all others by their digest.
        """
        sizes = self._list_parts()
        parts: dict[str, list[str]] = {}
        for part in sorted(sizes):
            parts.setdefault(part.rpartition("-")[0], []).append(part)
        found = {
            record.unit.key: record
            for record in self.read_manifest()
            if sizes.get(record.part) == record.size
        }
        others = [unit for unit in units if unit.key not in found and unit.key in parts]

        def check(unit: Unit) -> Record | None:
            return next(
                filter(None, (self._check_part(unit, each) for each in parts[unit.key])), None
            )

        with ThreadPoolExecutor(N_THREADS) as pool:
            found |= {each.unit.key: each for each in pool.map(check, others) if each is not None}
        return {unit: found[unit.key] for unit in units if unit.key in found}

    def drop_manifest(self, units: Sequence[Unit]) -> None:
        """Remove a manifest that does not name exactly these units: it is of files before."""
        if [record.unit for record in self.read_manifest()] != list(units):
            with contextlib.suppress(FileNotFoundError):
                self.fs.rm_file(self._path(_MANIFEST))

    def commit(self, records: Sequence[Record]) -> None:
        """Write the manifest of all units, in the order of the input."""
        lines = ",\n".join(json.dumps(asdict(record)) for record in records)
        text = f'{{"identity": {json.dumps(self._identity_digest)}, "units": [\n{lines}\n]}}\n'
        if is_local(self.fs):
            write_bytes(self._path(_MANIFEST), text.encode())
            remove_temporaries(self.root)
        else:
            self.fs.pipe_file(self._path(_MANIFEST), text.encode())

    def remove(self) -> None:
        """Remove a local folder of predictions, unless it has other files, which are kept."""
        for path in Path(self.root).iterdir():
            if _OWN_FILES.fullmatch(path.name):
                remove(path)
        with contextlib.suppress(OSError):
            Path(self.root).rmdir()

    def read_manifest(self) -> list[Record]:
        """Return the records of the manifest; none without a manifest of this identity."""
        found = self._read_json(_MANIFEST)
        if not isinstance(found, dict) or found.get("identity") != self._identity_digest:
            return []
        return [Record(**{**each, "unit": Unit(**each["unit"])}) for each in found["units"]]

    def read(self) -> Iterator[pd.DataFrame]:
        """Yield the predictions a unit at a time, in the order of the input.

        RunError is raised when the folder is unfinished or a part is missing or damaged.
        """
        has_ids = self.identity["format"]["has_ids"]
        records = self.read_manifest()
        if not records:
            raise RunError(
                f"{self.address} has no {_MANIFEST}: the predictions are not finished. Run tiewise "
                "predict again with the same arguments."
            )
        are_integers = all(record.has_integer_ids for record in records)
        n_before = 0
        for record in records:
            table = _read_table(self._read_part(record))
            if not has_ids:  # numbers of rows in the row group: continue them
                first = n_before - record.unit.skip
                table["id"] = [_add_to_id(name, first) for name in table["id"]]
            if are_integers:  # of all units, so that ids have one type
                table["id"] = as_ids(map(as_integer, table["id"])).to_numpy()
            n_before += record.unit.n_rows
            yield table

    def _read_part(self, record: Record) -> bytes:
        path = self.part_path(record.part)
        try:
            data: bytes = self.fs.cat_file(path)
        except FileNotFoundError:
            data = b""
        if digest_bytes(data) != _digest_of(record.part):
            raise RunError(
                f"{path} is missing or damaged. Remove it and run tiewise predict again with the "
                "same arguments; only its rows are predicted."
            )
        return data

    def _check_part(self, unit: Unit, part: str) -> Record | None:
        path = self.part_path(part)
        try:
            data = self.fs.cat_file(path)
            if digest_bytes(data) == _digest_of(part):
                return _describe(unit, part, data)
            _log.warning("%s is damaged; its rows are predicted again.", path)
            self.fs.rm_file(path)
        except FileNotFoundError:  # another process has just removed it
            pass
        return None

    def _list_parts(self) -> dict[str, int]:
        """Return the sizes of all parts by name."""
        self.fs.invalidate_cache()  # others write here too
        found = self.fs.find(self._parts_dir(), detail=True)
        return {path.rpartition("/")[2]: int(info["size"]) for path, info in found.items()}

    def _put_file(self, local: Path, name: str) -> None:
        if is_local(self.fs):
            write_bytes(self._path(name), local.read_bytes())
        else:
            self.fs.put_file(str(local), self._path(name))

    def _read_json(self, name: str) -> Any:
        try:
            return json.loads(self.fs.cat_file(self._path(name)))
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise RunError(
                f"{self._path(name)} is damaged: {error}. Remove it and run again."
            ) from error

    @functools.cached_property
    def _identity_digest(self) -> str:
        return digest_json(_without_archive(self.identity))[:16]

    def _parts_dir(self) -> str:
        return self._path(f"parts-{self._identity_digest}")

    def part_path(self, part: str) -> str:
        """Return the path of a part in the file system."""
        return f"{self._parts_dir()}/{part}"

    def _path(self, name: str) -> str:
        return f"{self.root}/{name}"


def sum_tallies(records: Iterable[Record]) -> Tally:
    """Return the sums over all units."""
    total = Tally()
    for record in records:
        for name, value in record.tally.items():
            setattr(total, name, getattr(total, name) + value)
    return total


def _describe(unit: Unit, part: str, data: bytes) -> Record:
    table = _read_table(data)
    tally = Tally()
    tally.add(table)
    are_integers = all(as_integer(name) is not None for name in table["id"])
    return Record(unit, part, len(data), len(table), are_integers, asdict(tally))


def _read_table(data: bytes) -> pd.DataFrame:
    return pd.read_parquet(io.BytesIO(data))


def _add_to_id(name: str, first: int) -> str:
    """Continue a number of a row, which may be followed by the number of a pair in it."""
    number, slash, part = name.partition("/")
    return f"{int(number) + first}{slash}{part}"


def _digest_of(part: str) -> str:
    return part.removesuffix(".parquet").rpartition("-")[2]


def _without_archive(identity: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in identity.items() if name != _ARCHIVE}


def _as_json(value: Any) -> Any:
    return json.loads(json.dumps(value))
