"""Whose a fold is: one process fits it at a time, and only what it was begun with goes on.

A fold's ``identity.json`` names every input by digest before the first step, and nothing is resumed
whose identity differs.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tiewise.config.identity import first_difference
from tiewise.errors import RunError
from tiewise.files import file_lock, write_json
from tiewise.runs.folder import FoldFolder, read_object


@dataclass(frozen=True)
class FoldTask:
    """One fold to be fitted.

    folder
        Where its files go.
    fold, data_digest
        Its number and the digest of the data: parts of its identity.
    cache_dir
        Where tokens and converted weights are cached.
    resume
        Go on from the newest intact checkpoint.
    init_from
        Folder of another fit's adapter to start from.
    """

    folder: FoldFolder
    fold: int
    data_digest: str
    cache_dir: Path
    resume: bool = False
    init_from: Path | None = None


@contextlib.contextmanager
def lock_fold(fold: FoldFolder) -> Iterator[None]:
    """Keep other processes from fitting the same fold at the same time.

    Raises
    ------
    RunError
        When another process is fitting it.
    """
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(file_lock(fold.lock_path))
        except BlockingIOError as error:
            raise RunError(
                f"{fold.path} is being fitted just now, {error.strerror}. Wait for its end, or "
                "take another --run name."
            ) from error
        yield


def empty_fold(fold: FoldFolder) -> None:
    """Remove everything an earlier fit left in a fold that this process holds."""
    for path in fold.path.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path != fold.lock_path:
            path.unlink()


def check_fingerprint(fold: FoldFolder, identity: dict[str, Any], *, resume: bool) -> None:
    """Write a fold's identity, or check that the one written before is the same.

    Raises
    ------
    RunError
        When the fold was begun with other inputs (the first difference is named), or was begun
        before and is not being resumed.
    """
    if not fold.identity_path.is_file():
        write_json(fold.identity_path, identity)
        return
    difference = first_difference(read_object(fold.identity_path), json.loads(json.dumps(identity)))
    if difference is not None:
        name, before, now = difference
        raise RunError(
            f"{fold.path} belongs to another run: {name} was {before} and is now {now}. Take "
            "another --run name, or give what the run was begun with."
        )
    if not resume:
        raise RunError(
            f"{fold.path} was begun before. Go on with --resume, begin anew with --overwrite, or "
            "take another --run name."
        )


def release_fold(fold: FoldFolder) -> None:
    """Give a fold up that failed before its first checkpoint: nothing was computed there."""
    if not fold.is_finished and not any(fold.checkpoints_dir.glob("*")):
        fold.identity_path.unlink(missing_ok=True)
        fold.history_path.unlink(missing_ok=True)
