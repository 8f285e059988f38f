"""Checkpoints: folders ``checkpoint-STEP`` that are read only when they are complete.

A checkpoint is written under a temporary name; its manifest comes last, with the step and the
fingerprint of the fit, and one rename puts it in place. A damaged or foreign checkpoint is skipped.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tiewise.errors import RunError
from tiewise.files import atomic_folder, remove, remove_temporaries
from tiewise.runs.manifest import verify_manifest, write_manifest

_PREFIX = "checkpoint-"
_log = logging.getLogger(__name__)


@contextlib.contextmanager
def new_checkpoint(folder: Path, step: int, *, fit: str = "") -> Iterator[Path]:
    """Yield an empty folder that becomes ``folder/checkpoint-STEP`` when the block ends.

    Only the fit with the fingerprint `fit` resumes from it. A full disk is a RunError.
    """
    try:
        with atomic_folder(folder / f"{_PREFIX}{step}") as temporary:
            yield temporary
            write_manifest(temporary, step=step, fit=fit)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise RunError(
            f"{folder}: no room to write the checkpoint of step {step}: {error}. Earlier "
            "checkpoints are intact. Free some space and run again with --resume."
        ) from error


def require_room(folder: Path, n_checkpoints: int, *, size: int) -> None:
    """Raise RunError when the disk has no room for `n_checkpoints` of at least `size` bytes each.

    Checkpoints that are already in the folder count as part of them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    needed = max(0, n_checkpoints - len(list_checkpoints(folder))) * size
    disk = shutil.disk_usage(folder)
    if disk.free < needed and disk.total:  # some file systems report sizes of 0
        raise RunError(
            f"{folder} has {disk.free / 1e6:.1f} MB of free space; expected at least "
            f"{needed / 1e6:.1f} MB for the checkpoints. Free some space, or choose another disk "
            "with --artifacts."
        )


def newest_intact(folder: Path, *, fit: str | None = None) -> Path | None:
    """Return the newest intact checkpoint, of one fit where `fit` names it; log the others."""
    about: dict[str, Any] = {} if fit is None else {"fit": fit}
    for checkpoint in reversed(list_checkpoints(folder)):
        damage = verify_manifest(checkpoint, step=step_of(checkpoint), **about)
        if damage is None:
            return checkpoint
        _log.warning("%s is skipped: %s.", checkpoint, damage)
    return None


def list_checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints in `folder`, oldest first, intact or not."""
    found = [path for path in folder.glob(f"{_PREFIX}*") if step_of(path) is not None]
    return sorted(found, key=lambda path: step_of(path) or 0)


def step_of(checkpoint: Path) -> int | None:
    """Return the step in a checkpoint's name: 40 for ``checkpoint-40``, None for other names."""
    number = checkpoint.name.removeprefix(_PREFIX)
    return int(number) if number.isdecimal() else None


def keep_newest(folder: Path, n_kept: int, *, step: int) -> None:
    """Remove all but the newest `n_kept` checkpoints up to `step`, and files of killed writers.

    Checkpoints of later steps were skipped when the fit resumed.
    """
    found = list_checkpoints(folder)
    kept = [path for path in found if (step_of(path) or 0) <= step][-n_kept:]
    for checkpoint in found:
        if checkpoint not in kept:
            remove(checkpoint)
    remove_temporaries(folder)
