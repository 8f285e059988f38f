"""A checkpoint is whole or does not count."""

import errno
import logging
import shutil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiewise.errors import RunError
from tiewise.runs.checkpoints import (
    MANIFEST,
    keep_newest,
    list_checkpoints,
    new_checkpoint,
    newest_intact,
    require_room,
    step_of,
    verify_manifest,
)


def _write(folder, step, content=b"weights", fit=""):
    with new_checkpoint(folder, step, fit=fit) as checkpoint:
        (checkpoint / "state.bin").write_bytes(content)
        (checkpoint / "inner").mkdir()
        (checkpoint / "inner" / "more.json").write_text("{}")
    return folder / f"checkpoint-{step}"


def test_a_sealed_checkpoint_is_intact(tmp_path):
    """What was just written has no damage, and is the newest."""
    checkpoint = _write(tmp_path, 2)
    assert verify_manifest(checkpoint) is None
    assert newest_intact(tmp_path) == checkpoint


def test_a_checkpoint_under_another_step_does_not_count(tmp_path, caplog):
    """A folder renamed or copied to a later step is not that step."""
    before = _write(tmp_path, 2)
    shutil.copytree(before, tmp_path / "checkpoint-8")
    with caplog.at_level(logging.WARNING):
        assert newest_intact(tmp_path) == before
    assert "says step 2, not 8" in caplog.text


def test_a_checkpoint_of_another_fit_does_not_count(tmp_path, caplog):
    """What other inputs led to is skipped, whole as it is."""
    own = _write(tmp_path, 2, fit="own")
    _write(tmp_path, 4, fit="other")
    with caplog.at_level(logging.WARNING):
        assert newest_intact(tmp_path, fit="own") == own
    assert "says fit other, not own" in caplog.text


def test_a_file_that_was_not_sealed_is_damage(tmp_path):
    """What somebody put into a checkpoint later is not read, and nothing beside it."""
    checkpoint = _write(tmp_path, 2)
    (checkpoint / "optimizer.pt").write_bytes(b"")
    assert verify_manifest(checkpoint) == "optimizer.pt is not in the manifest"
    assert verify_manifest(checkpoint, is_closed=False) is None


@pytest.mark.parametrize("manifest", [b"", b"[]", b"{}", b"1", b'{"sha256": 1}', b"[" * 100_000])
def test_a_manifest_that_is_none_is_damage(tmp_path, manifest):
    """Whatever stands where the manifest was, it is said and not raised."""
    checkpoint = _write(tmp_path, 2)
    (checkpoint / MANIFEST).write_bytes(manifest)
    assert verify_manifest(checkpoint) is not None


def _damages():
    return {
        "removed": lambda path: path.unlink(),
        "emptied": lambda path: path.write_bytes(b""),
        "halved": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
        "one bit": lambda path: path.write_bytes(
            path.read_bytes()[:-1] + bytes([path.read_bytes()[-1] ^ 1])
        ),
        "a folder": lambda path: (path.unlink(), path.mkdir()),
    }


@pytest.mark.parametrize("damage", _damages())
@pytest.mark.parametrize("name", ["state.bin", "inner/more.json", MANIFEST])
def test_every_damage_is_seen_and_the_one_before_is_taken(tmp_path, caplog, name, damage):
    """A damaged newest checkpoint is named in the log, and the one before is used."""
    before, newest = _write(tmp_path, 2), _write(tmp_path, 10)
    _damages()[damage](newest / name)
    with caplog.at_level(logging.WARNING):
        assert newest_intact(tmp_path) == before
    assert "checkpoint-10" in caplog.text


@given(data=st.data())
def test_no_flipped_bit_passes(tmp_path_factory, data):
    """Whichever bit of whichever file is flipped, the manifest does not hold."""
    checkpoint = _write(tmp_path_factory.mktemp("run"), 1)
    paths = sorted(path for path in checkpoint.rglob("*") if path.is_file())
    path = data.draw(st.sampled_from(paths))
    content = bytearray(path.read_bytes())
    position = data.draw(st.integers(0, len(content) - 1))
    content[position] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(content)
    assert verify_manifest(checkpoint) is not None


def test_an_interrupted_save_leaves_the_checkpoint_before(tmp_path):
    """When saving fails, no checkpoint of that step appears."""
    before = _write(tmp_path, 2)
    with pytest.raises(RuntimeError), new_checkpoint(tmp_path, 4):
        raise RuntimeError
    assert list_checkpoints(tmp_path) == [before]


def test_a_full_disk_is_a_message(tmp_path):
    """A full disk is said in words, with what to do, and the checkpoints before stay."""
    before = _write(tmp_path, 2)
    with pytest.raises(RunError, match="no room"), new_checkpoint(tmp_path, 4):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert newest_intact(tmp_path) == before


def test_a_full_disk_is_foreseen(tmp_path):
    """More than is free is refused with both numbers; what stands already need not be found."""
    free = shutil.disk_usage(tmp_path).free
    folder = tmp_path / "checkpoints"
    require_room(folder, 4, size=free // 8)
    with pytest.raises(RunError, match=r"at least \d+\.\d MB, and \d+\.\d MB are free"):
        require_room(folder, 4, size=free)
    for step in (2, 4, 6):
        _write(folder, step)
    require_room(folder, 4, size=free // 2)
    require_room(folder, 0, size=2 * free)


def test_other_errors_of_the_system_pass_through(tmp_path):
    """Only a full disk is called a full disk."""
    with pytest.raises(PermissionError), new_checkpoint(tmp_path, 4):
        raise PermissionError(errno.EACCES, "no")


@given(st.lists(st.integers(0, 200), unique=True, min_size=1, max_size=6), st.integers(1, 3))
def test_only_the_newest_are_kept(tmp_path_factory, steps, n_kept):
    """The steps kept are the largest, by number and not by name."""
    folder = tmp_path_factory.mktemp("run")
    for step in steps:
        _write(folder, step)
    keep_newest(folder, n_kept, step=max(steps))
    assert [step_of(path) for path in list_checkpoints(folder)] == sorted(steps)[-n_kept:]


def test_damaged_checkpoints_ahead_do_not_push_out_what_was_just_saved(tmp_path):
    """After going on from before them, later checkpoints are leftovers and go first."""
    for step in (2, 8, 10):
        _write(tmp_path, step)
    keep_newest(tmp_path, 1, step=2)
    assert [step_of(path) for path in list_checkpoints(tmp_path)] == [2]


def test_a_step_written_again_replaces_the_old(tmp_path):
    """The same step saved twice is the second one, whole."""
    _write(tmp_path, 2, b"first")
    checkpoint = _write(tmp_path, 2, b"second")
    assert (checkpoint / "state.bin").read_bytes() == b"second"
    assert verify_manifest(checkpoint) is None
