"""Tests of checkpoints."""

import errno
import logging
import shutil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiewise.errors import RunError
from tiewise.runs.checkpoints import (
    keep_newest,
    list_checkpoints,
    new_checkpoint,
    newest_intact,
    require_room,
    step_of,
)
from tiewise.runs.manifest import MANIFEST, verify_manifest


def write_checkpoint(folder, step, content=b"weights", fit=""):
    with new_checkpoint(folder, step, fit=fit) as checkpoint:
        (checkpoint / "state.bin").write_bytes(content)
        (checkpoint / "inner").mkdir()
        (checkpoint / "inner" / "more.json").write_text("{}")
    return folder / f"checkpoint-{step}"


def test_new_checkpoint_is_intact(tmp_path):
    """A new checkpoint matches its manifest and is the newest."""
    checkpoint = write_checkpoint(tmp_path, 2)
    assert verify_manifest(checkpoint) is None
    assert newest_intact(tmp_path) == checkpoint


def test_renamed_checkpoint_is_skipped(tmp_path, caplog):
    """A folder copied to a later step is not a checkpoint of that step."""
    before = write_checkpoint(tmp_path, 2)
    shutil.copytree(before, tmp_path / "checkpoint-8")
    with caplog.at_level(logging.WARNING):
        assert newest_intact(tmp_path) == before
    assert "says step 2, not 8" in caplog.text


def test_checkpoint_of_other_fit_is_skipped(tmp_path, caplog):
    """An intact checkpoint of a fit with other inputs is not used."""
    own = write_checkpoint(tmp_path, 2, fit="own")
    write_checkpoint(tmp_path, 4, fit="other")
    with caplog.at_level(logging.WARNING):
        assert newest_intact(tmp_path, fit="own") == own
    assert "says fit other, not own" in caplog.text


DAMAGES = {
    "removed": lambda path: path.unlink(),
    "emptied": lambda path: path.write_bytes(b""),
    "halved": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "one bit": lambda path: path.write_bytes(
        path.read_bytes()[:-1] + bytes([path.read_bytes()[-1] ^ 1])
    ),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", ["state.bin", "inner/more.json", MANIFEST])
def test_damaged_checkpoint_is_skipped(tmp_path, caplog, name, damage):
    """A damaged newest checkpoint is named in the log, and the one before it is used."""
    before, newest = write_checkpoint(tmp_path, 2), write_checkpoint(tmp_path, 10)
    DAMAGES[damage](newest / name)
    with caplog.at_level(logging.WARNING):
        assert newest_intact(tmp_path) == before
    assert "checkpoint-10" in caplog.text


def test_failed_save_leaves_nothing(tmp_path):
    """When saving fails, no checkpoint of that step appears."""
    before = write_checkpoint(tmp_path, 2)
    with pytest.raises(RuntimeError), new_checkpoint(tmp_path, 4):
        raise RuntimeError
    assert list_checkpoints(tmp_path) == [before]
    assert list(tmp_path.iterdir()) == [before]


def test_full_disk_is_reported(tmp_path):
    """A full disk raises RunError, and earlier checkpoints stay intact."""
    before = write_checkpoint(tmp_path, 2)
    with pytest.raises(RunError, match="no room"), new_checkpoint(tmp_path, 4):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert newest_intact(tmp_path) == before


def test_room_is_checked_first(tmp_path):
    """A fit that needs more room than is free is refused; existing checkpoints count."""
    free = shutil.disk_usage(tmp_path).free
    folder = tmp_path / "checkpoints"
    require_room(folder, 4, size=free // 8)
    with pytest.raises(RunError, match=r"has \d+\.\d MB of free space; expected at least \d+"):
        require_room(folder, 4, size=free)
    for step in (2, 4, 6):
        write_checkpoint(folder, step)
    require_room(folder, 4, size=free // 2)
    require_room(folder, 0, size=2 * free)


def test_other_system_errors_pass(tmp_path):
    """Only a full disk is reported as a full disk."""
    with pytest.raises(PermissionError), new_checkpoint(tmp_path, 4):
        raise PermissionError(errno.EACCES, "no")


@given(st.lists(st.integers(0, 200), unique=True, min_size=1, max_size=6), st.integers(1, 3))
def test_only_newest_are_kept(tmp_path_factory, steps, n_kept):
    """The largest steps are kept, ordered as numbers and not as names."""
    folder = tmp_path_factory.mktemp("run")
    for step in steps:
        write_checkpoint(folder, step)
    keep_newest(folder, n_kept, step=max(steps))
    assert [step_of(path) for path in list_checkpoints(folder)] == sorted(steps)[-n_kept:]


def test_later_checkpoints_are_removed_first(tmp_path):
    """Checkpoints after the step that was just saved are removed, whatever their number."""
    for step in (2, 8, 10):
        write_checkpoint(tmp_path, step)
    keep_newest(tmp_path, 1, step=2)
    assert [step_of(path) for path in list_checkpoints(tmp_path)] == [2]


def test_second_save_replaces_first(tmp_path):
    """A step that is saved twice has the second content."""
    write_checkpoint(tmp_path, 2, b"first")
    checkpoint = write_checkpoint(tmp_path, 2, b"second")
    assert (checkpoint / "state.bin").read_bytes() == b"second"
    assert verify_manifest(checkpoint) is None
