"""Checkpoints that are whole or do not count.

A checkpoint is a folder ``checkpoint-STEP``. It is written under a temporary name, its last file is
a manifest with the size and SHA-256 of every other file (and of itself), and one rename puts it in
place. Nothing is read from a checkpoint before its manifest is found to hold, so a process killed
at any moment, a removed file or a flipped bit leads to the checkpoint before, with a message, and
never to a run that continues as something else.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tiewise.errors import RunError
from tiewise.files import atomic_folder, digest_file, digest_json, remove_temporaries, write_json

MANIFEST = "manifest.json"
_PREFIX = "checkpoint-"
_log = logging.getLogger(__name__)


@contextlib.contextmanager
def new_checkpoint(folder: Path, step: int) -> Iterator[Path]:
    """Yield an empty folder that becomes ``folder/checkpoint-STEP``, sealed, when the block ends.

    Raises
    ------
    RunError
        When the disk is full; earlier checkpoints are left as they were.
    """
    try:
        with atomic_folder(folder / f"{_PREFIX}{step}") as temporary:
            yield temporary
            seal(temporary)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise RunError(
            f"{folder}: no room to write the checkpoint of step {step}: {error}. The checkpoints "
            "before it are intact: free some space and run again with --resume."
        ) from error


def seal(folder: Path) -> None:
    """Write the manifest of every file in `folder`."""
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    files = {name: _describe(folder / name) for name in names if name != MANIFEST}
    write_json(folder / MANIFEST, {"files": files, "sha256": digest_json(files)})


def find_damage(checkpoint: Path) -> str | None:
    """Return what is wrong with a checkpoint, or None when its manifest holds."""
    try:
        manifest = json.loads((checkpoint / MANIFEST).read_bytes())
        files: dict[str, Any] = manifest["files"]
        if manifest != {"files": files, "sha256": digest_json(files)}:
            return f"{MANIFEST} does not match its own digest"
    except FileNotFoundError:
        return f"{MANIFEST} is missing"
    except (ValueError, KeyError, TypeError):
        return f"{MANIFEST} is not readable"
    for name, described in files.items():
        if not (checkpoint / name).is_file():
            return f"{name} is missing"
        if _describe(checkpoint / name) != described:
            return f"{name} does not match the manifest"
    return None


def newest_intact(folder: Path) -> Path | None:
    """Return the newest checkpoint whose manifest holds; each damaged one is named in the log."""
    for checkpoint in reversed(list_checkpoints(folder)):
        damage = find_damage(checkpoint)
        if damage is None:
            return checkpoint
        _log.warning("%s is skipped: %s.", checkpoint, damage)
    return None


def list_checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints in `folder`, oldest first, intact or not."""
    found = [path for path in folder.glob(f"{_PREFIX}*") if step_of(path) is not None]
    return sorted(found, key=lambda path: step_of(path) or 0)


def step_of(checkpoint: Path) -> int | None:
    """Return the step a checkpoint's name tells, or None for any other name.

    Examples
    --------
    >>> step_of(Path("checkpoints/checkpoint-40"))
    40
    """
    number = checkpoint.name.removeprefix(_PREFIX)
    return int(number) if number.isdecimal() else None


def keep_newest(folder: Path, n_kept: int) -> None:
    """Remove all but the newest `n_kept` checkpoints, and what killed writers left."""
    for checkpoint in list_checkpoints(folder)[:-n_kept]:
        shutil.rmtree(checkpoint)
    remove_temporaries(folder)


def _describe(path: Path) -> dict[str, Any]:
    return {"size": path.stat().st_size, "sha256": digest_file(path)}
