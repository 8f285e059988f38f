"""Files written whole or not at all, and known by digest.

A reader never sees half a file: bytes go to a temporary name in the same folder, are flushed to
the disk, and take their place by one rename. A process killed at any moment leaves either the old
file or the new one, and perhaps a temporary that :func:`remove_temporaries` clears away.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import platform
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tiewise.errors import FilesError

if TYPE_CHECKING:
    import pandas as pd

_TEMPORARY = ".tiewise-tmp-"


@contextlib.contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path whose file replaces `path` when the block ends without an error.

    Parameters
    ----------
    path
        Where the finished file shall stand. Its folder is created.

    Yields
    ------
    Path
        A fresh path in the same folder, with the same suffix, to be written by the caller.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> with atomic_path(folder / "a.txt") as temporary:
    ...     _ = temporary.write_text("whole")
    >>> [file.name for file in folder.iterdir()]
    ['a.txt']
    """
    path = Path(path)
    if not path.name:
        raise FilesError(f"{path} is a folder; name the file to write.")
    path.parent.mkdir(parents=True, exist_ok=True)
    name = f"{_TEMPORARY}{os.getpid()}-{uuid.uuid4().hex[:8]}{path.suffix}"
    temporary = path.with_name(name)
    try:
        yield temporary
        _flush(temporary)
        temporary.replace(path)
        _flush(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(path: Path | str) -> Iterator[Path]:
    """Yield a temporary folder that takes the place of `path` when the block ends without an error.

    What stood at `path` before is removed just before the rename: it is replaced, never mixed.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{_TEMPORARY}{os.getpid()}-{uuid.uuid4().hex[:8]}")
    temporary.mkdir()
    try:
        yield temporary
        for written in [*temporary.rglob("*"), temporary]:
            _flush(written)
        remove(path)
        temporary.replace(path)
        _flush(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def remove(path: Path) -> None:
    """Remove whatever stands at `path`, if anything: a folder, a file, or a link to either."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_bytes(path: Path | str, data: bytes) -> None:
    """Write `data` to `path`, whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_json(path: Path | str, value: Any) -> None:
    """Write `value` as :func:`json_bytes`, whole or not at all."""
    write_bytes(path, json_bytes(value))


def json_bytes(value: Any) -> bytes:
    """Return `value` as indented UTF-8 JSON that ends in a newline; NaN is refused."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    return (text + "\n").encode()


def read_json(path: Path | str) -> Any:
    """Read a JSON file.

    Raises
    ------
    OSError
        When it cannot be read.
    ValueError
        When it is not JSON in UTF-8, however it is not.
    """
    try:
        return json.loads(Path(path).read_bytes())
    except RecursionError as error:
        message = "it is nested too deeply"
        raise ValueError(message) from error


def write_parquet(path: Path | str, table: pd.DataFrame) -> None:
    """Write `table` as parquet, whole or not at all."""
    with atomic_path(path) as temporary:
        table.to_parquet(temporary, index=False)


def refuse_existing(path: Path | str, *, is_overwritten: bool) -> None:
    """Raise FilesError when something stands at `path` and may not be replaced."""
    if Path(path).exists() and not is_overwritten:
        raise FilesError(f"{path} exists. Name another file, or replace it with --overwrite.")


def digest_bytes(data: bytes) -> str:
    """Return the SHA-256 of `data`: 64 hex digits."""
    return hashlib.sha256(data).hexdigest()


def digest_file(path: Path | str) -> str:
    """Return the SHA-256 of a file's bytes: 64 hex digits."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_json(value: Any) -> str:
    """Return the SHA-256 of `value` as JSON with sorted keys; equal values, equal digests.

    Examples
    --------
    >>> digest_json({"a": 1, "b": 2}) == digest_json({"b": 2, "a": 1})
    True
    """
    return digest_bytes(json.dumps(value, sort_keys=True, allow_nan=False).encode())


@contextlib.contextmanager
def held(path: Path | str, *, wait: bool = False) -> Iterator[None]:
    """Hold the lock file `path` inside the block; it is let go when the process ends, however.

    Parameters
    ----------
    path
        A file that is made when it is not there, and stays.
    wait
        Wait until nobody holds it.

    Raises
    ------
    BlockingIOError
        When another process holds it and `wait` is false; the message says which.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError as error:
            file.seek(0)
            raise BlockingIOError(error.errno, f"held by {file.read().strip()}") from None
        except OSError:  # a file system without locks: better unguarded than unusable
            pass
        file.truncate(0)
        file.write(f"process {os.getpid()} on {platform.node()}\n")
        file.flush()
        yield


def remove_temporaries(folder: Path | str) -> int:
    """Remove what killed writers left below `folder`; return how many files or folders went.

    A temporary of a process that still lives on this machine is left alone.
    """
    stale = [path for path in Path(folder).rglob(f"{_TEMPORARY}*") if not _writer_lives(path)]
    for path in stale:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    return len(stale)


def _writer_lives(path: Path) -> bool:
    process_id = path.name.removeprefix(_TEMPORARY).split("-", 1)[0]
    if not process_id.isdigit():
        return False
    try:
        os.kill(int(process_id), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
