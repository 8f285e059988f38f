"""Lock a fold to one process, and check that a resumed fit has the same configuration and data.

A fold's fingerprint, written before the first step, states every input by its SHA-256 or value. Of
the processes of a distributed fit, only rank 0 locks, checks and writes.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from tiewise.config import first_difference
from tiewise.errors import RunError
from tiewise.files import file_lock, remove, write_json
from tiewise.runs.environment import is_first_process
from tiewise.runs.folder import FoldFolder, RunFolder, claim_run, read_object
from tiewise.runs.tables import save_scored


@dataclass(frozen=True)
class FoldTask:
    """One fold to be fitted.

    `cache_dir` is the folder of cached tokens and converted weights, and `init_from` the folder of
    a fold of another run, or of an adapter, to start from.
    """

    folder: FoldFolder
    fold: int
    data_digest: str
    cache_dir: Path
    resume: bool = False
    init_from: Path | None = None


@contextlib.contextmanager
def begin_fold(run: RunFolder, fold: int, save: Callable[[RunFolder], None]) -> Iterator[None]:
    """Lock a fold inside the block, after the run got its configuration and, by `save`, its rows.

    Other processes start no fold meanwhile: of two that start one new run with different
    configurations, the second is refused.
    """
    with contextlib.ExitStack() as stack:
        if is_first_process():
            with file_lock(run.lock_path, wait=True):
                claim_run(run)
                stack.enter_context(lock_fold(run.fold(fold)))
                save(run)
        yield


@contextlib.contextmanager
def lock_fold(fold: FoldFolder) -> Iterator[None]:
    """Keep other processes from fitting the same fold inside the block (RunError for the others).

    If the block fails before the first checkpoint, the fingerprint is deleted, so the fold can be
    fitted with other inputs.
    """
    if not is_first_process():
        yield
        return
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(file_lock(fold.lock_path))
        except BlockingIOError as error:
            raise RunError(
                f"{fold.path} is being fitted now, {error.strerror}. Wait until it ends, or choose "
                "another --run name."
            ) from error
        try:
            yield
        except BaseException:
            release_fold(fold)
            raise


def clear_fold(run: RunFolder, fold: int) -> None:
    """Delete the files of a fold that this process has locked, and the scores of the run."""
    if not is_first_process():
        return
    with file_lock(run.lock_path, wait=True):
        for path in (run.scores_path, run.oof_path):  # they include this fold
            path.unlink(missing_ok=True)
        folder = run.fold(fold)
        for path in folder.path.iterdir():
            if path != folder.lock_path:
                remove(path)


def finish_fold(fold: FoldFolder, oof: pd.DataFrame, scores: dict[str, Any]) -> None:
    """Write a fold's predictions and, last, its scores; delete its checkpoints."""
    save_scored(fold, oof, scores)
    shutil.rmtree(fold.checkpoints_dir, ignore_errors=True)


def check_fingerprint(fold: FoldFolder, fingerprint: dict[str, Any], *, resume: bool) -> None:
    """Write a fold's fingerprint, or check that the one in its folder is the same.

    A fold that was started before and is not being resumed is a RunError, too.
    """
    if not is_first_process():
        return
    if not fold.fingerprint_path.is_file():
        write_json(fold.fingerprint_path, fingerprint)
        return
    values = json.loads(json.dumps(fingerprint))  # tuples become lists, as in the file
    difference = first_difference(read_object(fold.fingerprint_path), values)
    if difference is not None:
        name, before, now = difference
        raise RunError(
            f"{fold.path} belongs to another run: {name} was {before} and is now {now}. Choose "
            "another --run name, or give the inputs that the run was started with."
        )
    if not resume:
        raise RunError(
            f"{fold.path} was started before. Continue with --resume, start over with "
            "--overwrite, or choose another --run name."
        )


def release_fold(fold: FoldFolder) -> None:
    """Delete the fingerprint of a fold that failed before its first checkpoint."""
    if not fold.is_finished and not any(fold.checkpoints_dir.glob("*")):
        fold.fingerprint_path.unlink(missing_ok=True)
        fold.history_path.unlink(missing_ok=True)
