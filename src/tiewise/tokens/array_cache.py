"""Disk cache for named arrays: safe under concurrent writers, crashes and corruption.

`joblib.Memory` decides what is cached; this module is its store, because joblib's own unpickles
files and returns corrupted bytes as data. An entry is one file: a SHA-256, a line of JSON (key,
names, types, shapes), then the bytes of each array. An entry with a wrong digest or key is computed
again; if the disk cannot be written, results are computed without the cache.
"""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import math
import mmap
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import numpy.typing as npt

# joblib 1.4 to 1.6: `register_store_backend` is public, but the base classes of a store are not.
from joblib._store_backends import StoreBackendBase, StoreBackendMixin
from joblib.func_inspect import get_func_code

from tiewise.files import atomic_path, remove_temporaries

Arrays = dict[str, npt.NDArray[Any]]

_BACKEND = "tiewise-arrays"
_SUFFIX = ".arrays"
_DIGEST_SIZE = 32
_ALIGNMENT = 64
_LOG = logging.getLogger(__name__)


def load_or_compute(
    cache_dir: Path | str | None, key: str, compute: Callable[[], Arrays]
) -> Arrays:
    """Return ``compute()``, or a read-only, memory-mapped copy of it from the cache.

    `key` is a digest of everything that the result depends on, versions of code and libraries
    included. The arrays contain numbers or booleans, not objects.
    """
    if cache_dir is None:
        return compute()
    try:
        memory = _memory(str(Path(cache_dir).absolute()))
    except OSError as error:
        _LOG.warning("Cannot use the cache %s (%s); continuing without it.", cache_dir, error)
        return compute()
    arrays: Arrays = memory(key, compute)
    return arrays


def read_arrays(path: Path, key: str) -> Arrays:
    """Read an entry, memory-mapped, after checking its digest and its key.

    A damaged file or another key is a ValueError, KeyError or TypeError.
    """
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    data = memoryview(mapped)
    if hashlib.sha256(data[_DIGEST_SIZE:]).digest() != data[:_DIGEST_SIZE]:
        raise ValueError("its checksum is wrong")
    offset = mapped.find(b"\n", _DIGEST_SIZE) + 1
    header = json.loads(bytes(data[_DIGEST_SIZE:offset]))
    if header["key"] != key:
        raise ValueError("it belongs to another key")
    arrays = {}
    for name, (dtype, shape) in header["arrays"].items():
        array = np.frombuffer(data, dtype, math.prod(shape), offset)
        arrays[name] = array.reshape(shape)
        offset += array.nbytes + _padding(array.nbytes)
    return arrays


def write_arrays(path: Path, key: str, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    """Write an entry atomically."""
    parts = list(_serialize(key, arrays))
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.writelines([digest.digest(), *parts])


class ArrayStore(StoreBackendBase, StoreBackendMixin):  # type: ignore[misc]
    """Store of `joblib.Memory`: one file for each cached call."""

    def configure(
        self, location: str, verbose: int = 0, backend_options: dict[str, Any] | None = None
    ) -> None:
        """Create the folder, and remove the temporary files of killed writers."""
        del verbose, backend_options
        self.location = location
        self._verified: dict[tuple[str, ...], Arrays] = {}
        Path(location).mkdir(parents=True, exist_ok=True)
        remove_temporaries(location)

    def contains_item(self, call_id: tuple[str, ...]) -> bool:
        """Return whether an intact entry exists; `load_item` returns it without a second check."""
        path = self._path(call_id)
        if not path.exists():
            return False
        try:
            self._verified[call_id] = read_arrays(path, call_id[-1])
        except (OSError, ValueError, KeyError, TypeError) as error:
            _LOG.warning("Cache entry %s is damaged (%s); computing it again.", path, error)
            return False
        return True

    def load_item(self, call_id: tuple[str, ...], **_: Any) -> Arrays:
        """Return the entry that `contains_item` has verified."""
        verified = self._verified.pop(call_id, None)
        return read_arrays(self._path(call_id), call_id[-1]) if verified is None else verified

    def dump_item(self, call_id: tuple[str, ...], item: Arrays, **_: Any) -> None:
        """Write an entry, or log why it could not be written."""
        try:
            write_arrays(self._path(call_id), call_id[-1], item)
        except OSError as error:
            _LOG.warning(
                "Result not cached in %s: %s. It is used, and computed again next time.",
                self.location,
                error,
            )

    def get_cached_func_code(self, call_id: tuple[str, ...]) -> str:
        """Return the current code: versions are part of the key, so joblib need not compare."""
        del call_id
        code: str = get_func_code(_call)[0]
        return code

    def _path(self, call_id: tuple[str, ...]) -> Path:
        return Path(self.location, *call_id).with_suffix(_SUFFIX)

    def _ignore(self, *_: Any, **__: Any) -> dict[str, Any]:
        return {}

    def _refuse(self, *_: Any) -> Any:
        raise NotImplementedError(
            "The array store is neither listed nor cleared; delete its folder instead."
        )

    get_metadata = store_metadata = store_cached_func_code = create_location = _ignore
    clear_location = get_items = _open_item = _item_exists = _move_item = _refuse


def _call(key: str, compute: Callable[[], Arrays]) -> Arrays:
    del key  # joblib hashes it; `compute` is ignored
    return compute()


@functools.lru_cache(maxsize=8)
def _memory(cache_dir: str) -> Callable[[str, Callable[[], Arrays]], Arrays]:
    joblib.register_store_backend(_BACKEND, ArrayStore)
    memory = joblib.Memory(cache_dir, backend=_BACKEND, verbose=0)
    cached: Callable[[str, Callable[[], Arrays]], Arrays] = memory.cache(_call, ignore=["compute"])
    return cached


def _serialize(key: str, arrays: Mapping[str, npt.NDArray[Any]]) -> Iterator[bytes | memoryview]:
    """Yield the header, padded so that the first array is aligned, and each array, padded too."""
    described = {name: [array.dtype.str, array.shape] for name, array in arrays.items()}
    header = json.dumps({"key": key, "arrays": described}).encode()
    yield header + b" " * _padding(_DIGEST_SIZE + len(header) + 1) + b"\n"
    for array in arrays.values():
        yield np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
        yield bytes(_padding(array.nbytes))


def _padding(n_bytes: int) -> int:
    return -n_bytes % _ALIGNMENT
