"""A fold belongs to one process at a time, and to the inputs it was begun with."""

import subprocess
import sys

import pytest

from tiewise.config import defining_fields, load_preset
from tiewise.errors import RunError
from tiewise.files import write_json
from tiewise.runs.fold_lock import check_fingerprint, clear_fold, lock_fold, release_fold
from tiewise.runs.folder import start_run

TINY = load_preset("tiny")


def test_a_fold_refuses_other_inputs(tmp_path):
    """The first difference between what was and what is now is named."""
    fold = start_run(tmp_path, TINY, name="r").fold(0)
    check_fingerprint(fold, {"data": "d1", "config": {"train": {"seed": 0}}}, resume=False)
    check_fingerprint(fold, {"data": "d1", "config": {"train": {"seed": 0}}}, resume=True)
    with pytest.raises(RunError, match=r"config\.train\.seed was 0 and is now 1"):
        check_fingerprint(fold, {"data": "d1", "config": {"train": {"seed": 1}}}, resume=True)
    with pytest.raises(RunError, match="data was d1 and is now d2"):
        check_fingerprint(fold, {"data": "d2", "config": {"train": {"seed": 0}}}, resume=True)


def test_a_fold_begun_before_is_not_begun_again_by_accident(tmp_path):
    """Without --resume or --overwrite a begun fold is left alone."""
    fold = start_run(tmp_path, TINY, name="r").fold(0)
    check_fingerprint(fold, {"data": "d"}, resume=False)
    with pytest.raises(RunError, match="--resume"):
        check_fingerprint(fold, {"data": "d"}, resume=False)


def test_tuples_and_lists_are_the_same_identity(tmp_path):
    """JSON has no tuples: an identity written and read is the same identity."""
    fold = start_run(tmp_path, TINY, name="r").fold(0)
    check_fingerprint(fold, defining_fields(TINY), resume=False)
    check_fingerprint(fold, defining_fields(TINY), resume=True)


def test_a_fold_is_fitted_by_one_process_at_a_time(tmp_path):
    """A second process is refused while the first lives, and told who holds the fold."""
    fold = start_run(tmp_path, TINY, name="r").fold(0)
    code = (
        "import sys; from pathlib import Path; from tiewise.runs.folder import FoldFolder\n"
        "from tiewise.runs.fold_lock import lock_fold\n"
        "with lock_fold(FoldFolder(Path(sys.argv[1]))): print('held', flush=True); input()"
    )
    command = [sys.executable, "-c", code, str(fold.path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(RunError, match=f"locked by process {other.pid} "), lock_fold(fold):
            pass
        other.kill()
        other.wait()
    with lock_fold(fold):
        assert fold.lock_path.is_file()


def test_an_emptied_fold_keeps_its_lock_and_nothing_else(tmp_path):
    """Beginning anew removes what was there, but not the lock that guards the removal."""
    run = start_run(tmp_path, TINY, name="r")
    fold = run.fold(0)
    with lock_fold(fold):
        write_json(fold.identity_path, {})
        write_json(fold.checkpoints_dir / "checkpoint-2" / "a.json", {})
        clear_fold(run, 0)
        assert list(fold.path.iterdir()) == [fold.lock_path]


def test_a_fold_that_failed_before_its_first_checkpoint_is_free_again(tmp_path):
    """Nothing was computed, so nothing binds; after a checkpoint something does."""
    fold = start_run(tmp_path, TINY, name="r").fold(0)
    check_fingerprint(fold, {"fold": 0}, resume=False)
    release_fold(fold)
    check_fingerprint(fold, {"fold": "another"}, resume=False)
    write_json(fold.checkpoints_dir / "checkpoint-2" / "a.json", {})
    release_fold(fold)
    with pytest.raises(RunError, match="started before"):
        check_fingerprint(fold, {"fold": "another"}, resume=False)
