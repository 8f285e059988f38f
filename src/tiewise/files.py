"""Atomic files, file locks, JSON and digests.

A write goes to a temporary name in the same folder, is flushed to disk, and replaces the target by
one rename. A killed process leaves the old or the new file, and perhaps a temporary file.
"""

from __future__ import annotations

import contextlib
import errno
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
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP)
"""What a file system without hard links answers."""


@contextlib.contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path that replaces `path` when the block ends without an error.

    The caller writes a file or a folder there. The temporary path has the same suffix and is in the
    same folder, which is created.
    """
    path = Path(path)
    if not path.name:
        raise FilesError(f"output path is {path}, a folder; expected a file.")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_path(path)
    try:
        yield temporary
        if temporary.is_dir():
            for written in temporary.rglob("*"):
                _flush(written)
            remove(path)
        _flush(temporary)
        temporary.replace(path)
        with contextlib.suppress(OSError):  # a folder may not be readable; the file is whole
            _flush(path.parent)
    finally:
        remove(temporary)


def temporary_path(path: Path) -> Path:
    """Return an unused path in the folder of `path` with the same suffix."""
    return path.with_name(f"{_TEMPORARY}{os.getpid()}-{uuid.uuid4().hex[:8]}{path.suffix}")


@contextlib.contextmanager
def atomic_folder(path: Path | str) -> Iterator[Path]:
    """Yield a temporary folder that replaces `path` when the block ends without an error."""
    with atomic_path(path) as temporary:
        temporary.mkdir()
        yield temporary


def remove(path: Path) -> None:
    """Remove a folder, a file or a link; do nothing when `path` does not exist."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_bytes(path: Path | str, data: bytes) -> None:
    """Write `data` to `path` atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_new(path: Path | str, data: bytes) -> bool:
    """Write `data` to `path` unless it exists; return whether this call wrote it.

    Of several processes exactly one writes. Each sees the whole file or none.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_path(path)
    try:
        temporary.write_bytes(data)
        _flush(temporary)
        os.link(temporary, path)  # unlike a rename, refuses to replace
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        with file_lock(path.parent / ".lock", wait=True):
            if path.exists():
                return False
            temporary.replace(path)
    finally:
        remove(temporary)
    _flush(path.parent)
    return True


def write_json(path: Path | str, value: Any) -> None:
    """Write `value` to `path` as JSON, atomically."""
    write_bytes(path, json_bytes(value))


def json_bytes(value: Any) -> bytes:
    """Return `value` as indented UTF-8 JSON with a final newline; NaN raises ValueError."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    return f"{text}\n".encode()


def read_json(path: Path | str) -> Any:
    """Read a JSON file; raise ValueError when it is not JSON in UTF-8."""
    try:
        return json.loads(Path(path).read_bytes())
    except RecursionError as error:
        raise ValueError("JSON is nested too deeply") from error


def read_text(path: Path | str) -> str:
    """Read a text file; FilesError when it is not UTF-8."""
    try:
        return Path(path).read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise FilesError(f"{path}: not UTF-8: {error}. Convert the file.") from error


def write_parquet(path: Path | str, table: pd.DataFrame) -> None:
    """Write `table` as parquet, atomically."""
    with atomic_path(path) as temporary:
        table.to_parquet(temporary, index=False)


def refuse_existing(path: Path | str, *, overwrite: bool) -> None:
    """Raise FilesError when `path` exists and may not be replaced."""
    if Path(path).exists() and not overwrite:
        raise FilesError(f"{path} exists already. Name another file, or add --overwrite.")


def refuse_foreign(folder: Path | str, *, marked_by: str) -> None:
    """Raise FilesError for a path that is neither an empty folder nor has the file `marked_by`."""
    folder = Path(folder)
    is_own = not folder.exists() or (folder / marked_by).is_file()
    if not is_own and (not folder.is_dir() or any(folder.iterdir())):
        raise FilesError(
            f"{folder} has files but no {marked_by}, so it is not replaced. Name another folder."
        )


def digest_bytes(data: bytes) -> str:
    """Return the SHA-256 of `data`: 64 hex digits."""
    return hashlib.sha256(data).hexdigest()


def digest_file(path: Path | str) -> str:
    """Return the SHA-256 of a file's bytes: 64 hex digits."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_json(value: Any) -> str:
    """Return the SHA-256 of `value` as JSON with sorted keys: 64 hex digits."""
    return digest_bytes(json.dumps(value, sort_keys=True, allow_nan=False).encode())


@contextlib.contextmanager
def file_lock(path: Path | str, *, wait: bool = False) -> Iterator[None]:
    """Lock a file inside the block. The lock ends with the process, even after a crash.

    The file is created and remains. When another process has the lock, wait for it if `wait` is
    true, otherwise raise BlockingIOError, which names the process.
    """
    import filelock

    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(path, timeout=-1 if wait else 0)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise BlockingIOError(errno.EAGAIN, f"locked by {_owner_of(path)}") from None
    except (OSError, NotImplementedError):  # the file system has no locks: continue without one
        yield
        return
    try:
        with contextlib.suppress(OSError):  # Windows does not let others write to a locked file
            path.write_text(f"process {os.getpid()} on {platform.node()}\n", encoding="utf-8")
        yield
    finally:
        lock.release()


def is_locked(path: Path | str) -> bool:
    """Return whether a process has a lock; one that has never been used is free."""
    if not Path(path).is_file():
        return False
    try:
        with file_lock(path):
            return False
    except BlockingIOError:
        return True


def _owner_of(lock_path: Path) -> str:
    try:
        return lock_path.read_text(encoding="utf-8").strip() or "another process"
    except OSError:  # the owner has just removed it
        return "another process"


def remove_temporaries(folder: Path | str) -> int:
    """Remove the temporary files and folders of killed writers below `folder`; return the number.

    Those of processes that still run on this machine are kept.
    """
    stale = [path for path in Path(folder).rglob(f"{_TEMPORARY}*") if not _writer_is_running(path)]
    for path in stale:
        with contextlib.suppress(OSError):  # another process removes it at the same time
            remove(path)
    return len(stale)


def _writer_is_running(path: Path) -> bool:
    if os.name == "nt":  # os.kill(pid, 0) would end the process
        return True
    try:
        os.kill(int(path.name.removeprefix(_TEMPORARY).split("-")[0]), 0)
    except (ProcessLookupError, ValueError, OverflowError):
        return False
    except PermissionError:  # the process of another user
        pass
    return True


def _flush(path: Path) -> None:
    if os.name == "nt":  # fsync needs a writable handle, and folders have none
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
