"""Lock folds to one process, check that a resumed fit has the same inputs, and remove runs.

A fold's fingerprint, written before the first step, states every input by its SHA-256 or value. Of
the processes of a distributed fit, only rank 0 locks, checks and writes.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from tiewise.config import first_difference
from tiewise.console import FoldClock
from tiewise.errors import RunError
from tiewise.files import file_lock, remove, temporary_path, write_json
from tiewise.runs.environment import is_first_process
from tiewise.runs.folder import FoldFolder, RunFolder, claim_run, read_object
from tiewise.runs.tables import save_scored


@dataclass(frozen=True)
class FoldTask:
    """One fold to be fitted.

    `cache_dir` is the folder of cached tokens and converted weights, and `init_from` the folder of
    a fold of another run, or of an adapter, to start from. `clock` logs the time left. `has_ties`
    is whether a tie is possible in the data; the fitted model states it.
    """

    folder: FoldFolder
    fold: int
    data_digest: str
    cache_dir: Path
    resume: bool = False
    init_from: Path | None = None
    clock: FoldClock = field(default_factory=FoldClock)
    has_ties: bool = True


@contextlib.contextmanager
def begin_fold(run: RunFolder, fold: int, save: Callable[[RunFolder], None]) -> Iterator[None]:
    """Lock a fold inside the block, after the run got its configuration and, by `save`, its rows.

    Other processes start no fold meanwhile: of two that start one new run with different
    configurations, the second is refused. A new run is removed again if the block fails before the
    first checkpoint.
    """
    if not is_first_process():
        yield
        return
    is_new = not run.config_path.is_file()
    try:
        with contextlib.ExitStack() as stack:
            with file_lock(run.lock_path, wait=True):
                claim_run(run)
                stack.enter_context(lock_fold(run.fold(fold)))
                save(run)
            yield
    except BaseException:
        if is_new:
            _discard_run(run)
        raise


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
        _enter_lock(stack, fold, "Wait until it ends, or choose another --run name.")
        try:
            yield
        except BaseException:
            release_fold(fold)
            raise


def remove_folders(runs: Sequence[RunFolder]) -> None:
    """Remove the folders of runs; RunError, and none is removed, while a fold of one is fitted.

    Links in the folders are removed, not followed. If the process is interrupted, the runs that
    remain can be removed again.
    """
    with contextlib.ExitStack() as stack:
        for run in sorted(runs, key=lambda run: run.path):  # no two processes wait for each other
            stack.enter_context(_lock_run(run))
        for run in runs:
            _remove_locked(run)


def clear_fold(run: RunFolder, fold: int) -> None:
    """Delete the files of a fold that this process has locked, and the scores of the run."""
    if not is_first_process():
        return
    with file_lock(run.lock_path, wait=True):
        for path in (run.scores_path, run.oof_path):  # they include this fold
            path.unlink(missing_ok=True)
        folder = run.fold(fold)
        # The fingerprint last: while it is the old one, a worker of a cluster overwrites again.
        for path in sorted(folder.path.iterdir(), key=lambda path: path == folder.fingerprint_path):
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
        state, way = ("started before", "Continue with --resume, start over with --overwrite")
        if fold.is_finished:
            state, way = ("fitted before", "Use it as it is, fit it again with --overwrite")
        raise RunError(f"{fold.path} was {state}. {way}, or choose another --run name.")


def release_fold(fold: FoldFolder) -> None:
    """Delete the fingerprint of a fold that failed before its first checkpoint."""
    if not fold.is_finished and not any(fold.checkpoints_dir.glob("*")):
        fold.fingerprint_path.unlink(missing_ok=True)
        fold.history_path.unlink(missing_ok=True)


def _enter_lock(stack: contextlib.ExitStack, fold: FoldFolder, hint: str) -> None:
    """Lock a fold until the stack ends; RunError while another process has the lock."""
    try:
        stack.enter_context(file_lock(fold.lock_path))
    except BlockingIOError as error:
        raise RunError(f"{fold.path} is being fitted now, {error.strerror}. {hint}") from error


@contextlib.contextmanager
def _lock_run(run: RunFolder) -> Iterator[None]:
    """Lock a run and all its folds inside the block; no process can start another fold."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(file_lock(run.lock_path, wait=True))
        for path in sorted(run.path.glob("fold*/.lock")):
            _enter_lock(stack, FoldFolder(path.parent), "Wait until it ends, or stop it.")
        yield


def _discard_run(run: RunFolder) -> None:
    """Remove a run that nothing can be continued from, unless another process fits it.

    With a file that no fit writes, the whole folder is kept.
    """
    with contextlib.suppress(RunError, OSError), _lock_run(run):
        if not run.is_started and not any(_foreign_files(run)):
            _remove_locked(run)


def _foreign_files(run: RunFolder) -> Iterator[Path]:
    """Yield what is in the folder of a run that is not started, but is not of such a run."""
    of_run = {run.lock_path, run.config_path, run.env_path, run.data_path}
    of_run |= {run.folds_path, run.rows_path, run.mixture_path}
    folds = {run.fold(fold) for fold in range(run.config.data.n_splits)}
    of_run |= {fold.path for fold in folds}
    yield from set(run.path.iterdir()) - of_run
    for fold in folds:
        of_fold = {fold.lock_path, fold.checkpoints_dir, fold.adapter_dir, fold.oof_path}
        if fold.path.is_dir():
            yield from set(fold.path.iterdir()) - of_fold


def _remove_locked(run: RunFolder) -> None:
    """Remove the folder of a run whose locks this process has."""
    kept = {run.config_path, run.lock_path}  # to the end: with these it is a run
    for path in run.path.iterdir():
        if path.is_dir() and not path.is_symlink():
            lock_path = FoldFolder(path).lock_path
            for inner in path.iterdir():
                if inner != lock_path:
                    remove(inner)
        elif path not in kept:
            remove(path)
    emptied = temporary_path(run.path)
    run.path.rename(emptied)  # in one step: another process that starts such a run makes a new one
    remove(emptied)
