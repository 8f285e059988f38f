"""Files of a local folder or an object store by their address, through fsspec."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from tiewise.errors import FilesError
from tiewise.files import write_new

_FINGERPRINTS = ("ETag", "etag", "blob_id", "md5Hash")
_TIMES = ("mtime", "LastModified", "last_modified", "last_commit")
_N_DIGITS = 16
N_THREADS = 16
"""Requests to a file system at a time."""


def is_remote(address: object) -> bool:
    """Return whether an address names a file system other than this machine's.

    >>> is_remote("s3://bucket/in"), is_remote("folder/file.csv")
    (True, False)
    """
    return "://" in str(address) and not str(address).startswith("file://")


def open_storage(address: str | Path) -> tuple[Any, str]:
    """Return the file system of an address and the path in it; FilesError if there is none."""
    try:
        fs, path = fsspec.url_to_fs(str(address))
    except (ImportError, ValueError) as error:
        raise FilesError(
            f"{address} cannot be opened: {error}. s3:// needs pip install s3fs, gs:// gcsfs, "
            "hf:// huggingface_hub."
        ) from error
    return fs, path.rstrip("/") or "/"


def is_folder(fs: Any, path: str) -> bool:
    """Return whether a path is a folder; FilesError if the store cannot be accessed."""
    try:
        return bool(fs.isdir(path))
    except OSError:
        raise
    except Exception as error:  # each store has errors of its own
        raise FilesError(
            f"{fs.unstrip_protocol(path)} cannot be accessed: {error}. Check the address and the "
            "credentials of this machine."
        ) from error


def address_of(fs: Any, path: str) -> str:
    """Return the address by which another process finds a path of a file system."""
    return path if is_local(fs) else str(fs.unstrip_protocol(path))


def is_local(fs: Any) -> bool:
    """Return whether a file system is this machine's."""
    return isinstance(fs, LocalFileSystem)


def tag_file(info: Mapping[str, Any]) -> str:
    """Return 16 hex digits that change when a file is replaced: of its path and fingerprint.

    `info` is what fsspec knows about the file. The fingerprint is the ETag of an object store, or
    size and modification time.

    >>> tag_file({"name": "b/x", "ETag": "1"}) == tag_file({"name": "b/x", "ETag": "2"})
    False
    """
    known = [info[name] for name in _FINGERPRINTS if info.get(name)]
    times = [info[name] for name in _TIMES if info.get(name)]
    content = repr(
        (info["name"], info["size"], *times[:1]) if not known else (info["name"], *known)
    )
    return hashlib.sha256(content.encode()).hexdigest()[:_N_DIGITS]


def put_new(fs: Any, path: str, data: bytes) -> bool:
    """Write a file unless it exists; return whether this call wrote it.

    Of several processes exactly one writes, and each sees a whole file or none. Object stores get
    a conditional request.
    """
    if is_local(fs):
        return write_new(path, data)
    try:
        fs.pipe_file(path, data, mode="create")
    except FileExistsError:
        return False
    return True
