"""A cache of named arrays that may be damaged, raced and killed, and is never wrong.

`joblib.Memory` decides what is remembered; this module is the store behind it (joblib's own loads
flipped bytes as data, and unpickles). An entry is a folder of plain ``.npy`` files and a
``manifest.json`` with the entry's key and each file's xxh3-128. What is promised, and why it holds:

* An entry is read only if its manifest names this very key and every byte has its checksum, taken
  from the mapping that is then handed out. Anything else counts as absent, with a warning, and is
  computed anew.
* Files take their place by rename, the manifest last: a reader sees a whole entry or none.
* Nothing is pickled or unpickled. joblib's metadata and function code are neither written nor
  read: what the result depends on, versions included, belongs into the key.
* A disk that cannot be written costs the cache and not the result.
"""

from __future__ import annotations

import functools
import io
import json
import logging
import mmap
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import numpy.typing as npt
import xxhash
from joblib._store_backends import StoreBackendBase, StoreBackendMixin
from joblib.func_inspect import get_func_code
from joblib.memory import FIRST_LINE_TEXT

from tiewise.files import atomic_path, remove_temporaries, write_json

Arrays = dict[str, npt.NDArray[Any]]

_BACKEND = "tiewise-arrays"
_MANIFEST = "manifest.json"
_NAME = re.compile(r"[a-z][a-z0-9_.]*")
_LOG = logging.getLogger(__name__)


def remember_arrays(
    cache_dir: Path | str | None, key: str, compute: Callable[[], Arrays]
) -> Arrays:
    """Return ``compute()``, from the cache where it holds an intact copy.

    Parameters
    ----------
    cache_dir
        Folder of the cache; it may be deleted at any time. None computes without a cache.
    key
        A digest of everything that the result depends on, code and library versions included.
    compute
        Makes the arrays: names of lower-case letters, digits, dots and underscores; no objects.

    Returns
    -------
    dict of str to array
        As computed, or read-only and memory-mapped on a hit.
    """
    if cache_dir is None:
        return compute()
    try:
        memory = _memory(str(Path(cache_dir).absolute()))
    except OSError as error:
        _LOG.warning("Cannot use %s as a cache (%s); working without.", cache_dir, error)
        return compute()
    arrays: Arrays = memory(key, compute)
    return arrays


def read_arrays(folder: Path, key: str) -> Arrays:
    """Read the entry `key` from `folder`, memory-mapped, after every byte was checked.

    Raises
    ------
    OSError
        When a file of it is missing or cannot be read.
    ValueError, KeyError, TypeError
        When any part of it is damaged or belongs to another key.
    """
    manifest = json.loads((folder / _MANIFEST).read_bytes())
    body = manifest["body"]
    if manifest["checksum"] != _checksum_json(body) or body["key"] != key:
        message = "the manifest is damaged or belongs to another entry"
        raise ValueError(message)
    return {
        name: _read_array(folder / f"{name}.npy", checksum)
        for name, checksum in body["checksums"].items()
    }


def write_arrays(folder: Path, key: str, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    """Write the entry `key` into `folder`; it exists once its manifest does."""
    for name in arrays:
        if not _NAME.fullmatch(name):
            message = f"{name!r} cannot name an array of the cache."
            raise ValueError(message)
    checksums = {
        name: _write_array(folder / f"{name}.npy", array) for name, array in arrays.items()
    }
    body = {"key": key, "checksums": checksums}
    write_json(folder / _MANIFEST, {"checksum": _checksum_json(body), "body": body})


class ArrayStore(StoreBackendBase, StoreBackendMixin):  # type: ignore[misc]
    """The store that `joblib.Memory` writes to; one folder for each remembered call."""

    def configure(
        self, location: str, verbose: int = 0, backend_options: dict[str, Any] | None = None
    ) -> None:
        """Make the folder, and clear away what killed writers left in it."""
        del verbose, backend_options
        self.location = location
        self.verbose = 0
        self.mmap_mode = None
        self._verified: dict[tuple[str, ...], Arrays] = {}
        Path(location).mkdir(parents=True, exist_ok=True)
        remove_temporaries(location)

    def contains_item(self, call_id: tuple[str, ...]) -> bool:
        """Say whether an intact entry is there; it stays mapped for `load_item`."""
        folder = self._folder(call_id)
        if not (folder / _MANIFEST).exists():
            return False
        try:
            self._verified[call_id] = read_arrays(folder, call_id[-1])
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            _LOG.warning("Cache entry %s is damaged (%s); computing it anew.", folder, error)
            return False
        return True

    def load_item(self, call_id: tuple[str, ...], **_: Any) -> Arrays:
        """Hand out what `contains_item` has just checked."""
        held = self._verified.pop(call_id, None)
        return read_arrays(self._folder(call_id), call_id[-1]) if held is None else held

    def dump_item(self, call_id: tuple[str, ...], item: Arrays, **_: Any) -> None:
        """Write an entry, or say why it was not written."""
        try:
            write_arrays(self._folder(call_id), call_id[-1], item)
        except OSError as error:
            _LOG.warning(
                "Result not cached in %s: %s. It is right, and will be computed again.",
                self.location,
                error,
            )

    def get_cached_func_code(self, call_id: tuple[str, ...]) -> str:
        """Answer that the code is unchanged: versions are part of the key, not of the folder."""
        del call_id
        code, _, first_line = get_func_code(_call)
        return f"{FIRST_LINE_TEXT} {first_line}\n{code}"

    def store_cached_func_code(
        self, call_id: tuple[str, ...], func_code: str | None = None
    ) -> None:
        """Write nothing, see `get_cached_func_code`."""

    def get_metadata(self, call_id: tuple[str, ...]) -> dict[str, Any]:
        """Read nothing: nobody needs a record of the arguments."""
        del call_id
        return {}

    def store_metadata(self, call_id: tuple[str, ...], metadata: dict[str, Any]) -> None:
        """Write nothing, see `get_metadata`."""

    def create_location(self, location: str) -> None:
        """Make a folder."""
        Path(location).mkdir(parents=True, exist_ok=True)

    def _folder(self, call_id: tuple[str, ...]) -> Path:
        return Path(self.location, *call_id)

    def _refuse(self, *_: Any) -> Any:
        message = "The array store is neither listed nor cleared; delete its folder instead."
        raise NotImplementedError(message)

    clear_location = get_items = _open_item = _item_exists = _move_item = _refuse


def _call(key: str, compute: Callable[[], Arrays]) -> Arrays:
    del key  # it is the argument that joblib hashes; `compute` is the one that it ignores
    return compute()


@functools.lru_cache(maxsize=8)
def _memory(cache_dir: str) -> Callable[[str, Callable[[], Arrays]], Arrays]:
    joblib.register_store_backend(_BACKEND, ArrayStore)
    memory = joblib.Memory(cache_dir, backend=_BACKEND, verbose=0)
    remembered: Callable[[str, Callable[[], Arrays]], Arrays] = memory.cache(
        _call, ignore=["compute"]
    )
    return remembered


def _checksum_json(value: Any) -> str:
    return xxhash.xxh3_128_hexdigest(json.dumps(value, sort_keys=True).encode())


def _write_array(path: Path, array: npt.NDArray[Any]) -> str:
    array = np.ascontiguousarray(array)
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, np.lib.format.header_data_from_array_1_0(array))
    parts = header.getvalue(), array.reshape(-1).view(np.uint8).data
    checksum = xxhash.xxh3_128()
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        for part in parts:
            checksum.update(part)
            file.write(part)
    return checksum.hexdigest()


def _read_array(path: Path, checksum: str) -> npt.NDArray[Any]:
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    if xxhash.xxh3_128_hexdigest(mapped) != checksum:
        message = f"{path.name} does not have its checksum"
        raise ValueError(message)
    np.lib.format.read_magic(mapped)
    shape, _, dtype = np.lib.format.read_array_header_1_0(mapped)
    count = int(np.prod(shape))
    if not count:
        return np.empty(shape, dtype)
    return np.frombuffer(mapped, dtype, count, mapped.tell()).reshape(shape)
