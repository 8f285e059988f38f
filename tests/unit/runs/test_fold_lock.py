"""Tests of the lock and the fingerprint of a fold."""

import subprocess
import sys

import pandas as pd
import pytest

from tiewise.config import defining_fields, load_preset
from tiewise.errors import RunError
from tiewise.files import write_json
from tiewise.runs.fold_lock import (
    begin_fold,
    check_fingerprint,
    clear_fold,
    finish_fold,
    lock_fold,
    release_fold,
)
from tiewise.runs.folder import RunFolder, start_run
from tiewise.runs.tables import read_fold_oof, save_scored

TINY = load_preset("tiny")
OOF = pd.DataFrame({"id": [1, 2], "fold": 0})


@pytest.fixture
def run(tmp_path):
    return start_run(tmp_path, TINY, name="r")


def test_other_inputs_are_refused(run):
    """The message names the first difference between the old and the new fingerprint."""
    fold = run.fold(0)
    check_fingerprint(fold, {"data": "d1", "config": {"train": {"seed": 0}}}, resume=False)
    check_fingerprint(fold, {"data": "d1", "config": {"train": {"seed": 0}}}, resume=True)
    with pytest.raises(RunError, match=r"config\.train\.seed was 0 and is now 1"):
        check_fingerprint(fold, {"data": "d1", "config": {"train": {"seed": 1}}}, resume=True)
    with pytest.raises(RunError, match="data was d1 and is now d2"):
        check_fingerprint(fold, {"data": "d2", "config": {"train": {"seed": 0}}}, resume=True)


def test_second_start_is_refused(run):
    """Without --resume or --overwrite, a started fold is not fitted again."""
    check_fingerprint(run.fold(0), {"data": "d"}, resume=False)
    with pytest.raises(RunError, match="--resume"):
        check_fingerprint(run.fold(0), {"data": "d"}, resume=False)


def test_tuples_equal_lists(run):
    """JSON has no tuples: a fingerprint equals itself after writing and reading."""
    check_fingerprint(run.fold(0), defining_fields(TINY), resume=False)
    check_fingerprint(run.fold(0), defining_fields(TINY), resume=True)
    check_fingerprint(run.fold(1), {"folds": (0, 1)}, resume=False)
    check_fingerprint(run.fold(1), {"folds": (0, 1)}, resume=True)


def test_damaged_fingerprint_is_reported(run):
    """A fingerprint that is no JSON object is a RunError with the path."""
    fold = run.fold(0)
    fold.path.mkdir()
    fold.fingerprint_path.write_text("[]")
    with pytest.raises(RunError, match=r"fingerprint\.json is damaged"):
        check_fingerprint(fold, {"data": "d"}, resume=True)


def test_one_process_fits_a_fold(run):
    """While another process has the lock, the fold is refused, and the process is named."""
    fold = run.fold(0)
    code = (
        "import sys; from pathlib import Path; from tiewise.runs.folder import FoldFolder\n"
        "from tiewise.runs.fold_lock import lock_fold\n"
        "with lock_fold(FoldFolder(Path(sys.argv[1]))): print('locked', flush=True); input()"
    )
    command = [sys.executable, "-c", code, str(fold.path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"locked\n"
        with pytest.raises(RunError, match=f"locked by process {other.pid} "), lock_fold(fold):
            pass
        other.kill()
        other.wait()
    with lock_fold(fold):
        assert fold.lock_path.is_file()


def test_other_processes_leave_fold_alone(run, monkeypatch):
    """Processes of a launch other than the first do not lock, check or clear."""
    fold = run.fold(0)
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with lock_fold(fold):
        check_fingerprint(fold, {"data": "d"}, resume=False)
        clear_fold(run, 0)
    assert not fold.path.exists()


def test_cleared_fold_keeps_lock_only(run):
    """Clearing removes the fold's files and the run's scores, but not the lock."""
    fold = run.fold(0)
    save_scored(run, OOF, {})
    with lock_fold(fold):
        write_json(fold.fingerprint_path, {})
        write_json(fold.checkpoints_dir / "checkpoint-2" / "a.json", {})
        clear_fold(run, 0)
        assert list(fold.path.iterdir()) == [fold.lock_path]
    assert not run.scores_path.exists()
    assert not run.oof_path.exists()


def test_finished_fold_has_no_checkpoints(run):
    """A finished fold has predictions and scores; its checkpoints are gone."""
    fold = run.fold(0)
    write_json(fold.checkpoints_dir / "checkpoint-2" / "a.json", {})
    finish_fold(fold, OOF, {"n": 2})
    assert fold.is_finished
    check_fingerprint(fold, {"fold": 0}, resume=False)
    with pytest.raises(RunError, match=r"was fitted before\. Use it as it is, .* --overwrite"):
        check_fingerprint(fold, {"fold": 0}, resume=False)
    assert read_fold_oof(fold).equals(OOF)
    assert not fold.checkpoints_dir.exists()


def test_failed_start_frees_fold(run):
    """A fold without checkpoints can get other inputs; a fold with one cannot."""
    fold = run.fold(0)
    check_fingerprint(fold, {"fold": 0}, resume=False)
    release_fold(fold)
    check_fingerprint(fold, {"fold": "another"}, resume=False)
    write_json(fold.checkpoints_dir / "checkpoint-2" / "a.json", {})
    release_fold(fold)
    with pytest.raises(RunError, match="started before"):
        check_fingerprint(fold, {"fold": "another"}, resume=False)


def test_error_in_block_frees_fold(run):
    """The lock releases a fold when the fit fails before its first checkpoint."""
    with pytest.raises(ValueError, match="no step"), lock_fold(run.fold(0)):
        check_fingerprint(run.fold(0), {"fold": 0}, resume=False)
        raise ValueError("no step")
    assert not run.fold(0).fingerprint_path.exists()


@pytest.mark.parametrize("name", [None, "notes.txt", "fold0/notes.txt", "mine/notes.txt"])
def test_failed_start_keeps_foreign_files(tmp_path, name):
    """A start that fails removes its own run, but no folder with a file that it did not write."""
    run = RunFolder(tmp_path / "r", TINY)

    def fail() -> None:
        check_fingerprint(run.fold(0), {"fold": 0}, resume=False)
        run.fold(0).checkpoints_dir.mkdir()
        if name is not None:
            (run.path / name).parent.mkdir(exist_ok=True)
            (run.path / name).write_text("kept")
        raise ValueError("no step")

    with (
        pytest.raises(ValueError, match="no step"),
        begin_fold(run, 0, lambda run: write_json(run.data_path, {})),
    ):
        fail()
    assert run.path.exists() == (name is not None)
    if name is not None:
        assert (run.path / name).read_text() == "kept"
