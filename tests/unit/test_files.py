"""Atomic files and folders, digests, JSON and locks."""

import errno
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import filelock
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiewise.files import (
    atomic_folder,
    atomic_path,
    digest_bytes,
    digest_file,
    digest_json,
    file_lock,
    read_json,
    remove_temporaries,
    write_bytes,
    write_json,
)


def test_error_leaves_old_file(tmp_path):
    """When the writer fails, the old file is unchanged, and no temporary is left."""
    write_bytes(tmp_path / "a", b"old")
    with pytest.raises(RuntimeError), atomic_path(tmp_path / "a") as temporary:
        temporary.write_bytes(b"half")
        raise RuntimeError
    assert (tmp_path / "a").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_folder_is_replaced_whole(tmp_path):
    """No file of the old folder is in the new one."""
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "old").touch()
    with atomic_folder(tmp_path / "f") as temporary:
        (temporary / "new").write_text("x")
    assert [path.name for path in (tmp_path / "f").iterdir()] == ["new"]


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="names of open files are unknown")
def test_content_reaches_the_disk_first(tmp_path, monkeypatch):
    """A file is flushed before it gets its name, and the folder after that."""
    events, fsync, replace = [], os.fsync, os.replace

    def record_flush(descriptor):
        events.append(("flush", Path(f"/proc/self/fd/{descriptor}").readlink().name))
        fsync(descriptor)

    def record_rename(source, target, **options):
        events.append(("rename", Path(source).name))
        replace(source, target, **options)

    monkeypatch.setattr(os, "fsync", record_flush)
    monkeypatch.setattr(os, "replace", record_rename)
    with atomic_path(tmp_path / "a") as temporary:
        temporary.write_bytes(b"new")
    assert events == [
        ("flush", temporary.name),
        ("rename", temporary.name),
        ("flush", tmp_path.name),
    ]


@pytest.mark.parametrize("old", ["nothing", "file", "link", "broken link", "folder"])
def test_folder_replaces_any_kind(tmp_path, old):
    """A file, link or folder of that name is replaced; the target of a link is kept."""
    path, target = tmp_path / "f", tmp_path / "target"
    target.mkdir()
    (target / "kept").touch()
    make = {
        "nothing": lambda: None,
        "file": path.touch,
        "link": lambda: path.symlink_to(target),
        "broken link": lambda: path.symlink_to("nowhere"),
        "folder": lambda: (path / "inner").mkdir(parents=True),
    }
    make[old]()
    with atomic_folder(path) as temporary:
        (temporary / "new").touch()
    assert [file.name for file in path.iterdir()] == ["new"]
    assert not path.is_symlink()
    assert (target / "kept").exists()


def test_error_leaves_old_folder(tmp_path):
    """When the writer fails, the old folder is untouched."""
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "old").touch()
    with pytest.raises(RuntimeError), atomic_folder(tmp_path / "f"):
        raise RuntimeError
    assert [path.name for path in tmp_path.rglob("*")] == ["f", "old"]


def test_killed_writer_leaves_temporary(tmp_path):
    """After SIGKILL during a write the file is absent, and the temporary can be removed."""
    code = f"""
        import os, signal
        from tiewise.files import atomic_path
        with atomic_path({str(tmp_path / "a")!r}) as temporary:
            temporary.write_bytes(b"half")
            os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert not (tmp_path / "a").exists()
    assert remove_temporaries(tmp_path) == 1
    assert list(tmp_path.iterdir()) == []


def test_running_writer_keeps_temporary(tmp_path):
    """The temporary file of a running process is not removed."""
    with atomic_path(tmp_path / "a") as temporary:
        temporary.write_bytes(b"whole")
        assert remove_temporaries(tmp_path) == 0
    assert (tmp_path / "a").read_bytes() == b"whole"


@given(st.binary())
def test_file_and_bytes_share_digest(tmp_path_factory, data):
    """The digest of a file is the digest of its bytes."""
    path = tmp_path_factory.mktemp("digest") / "a"
    write_bytes(path, data)
    assert digest_file(path) == digest_bytes(data)


@given(st.dictionaries(st.text(), st.integers()))
def test_json_digest_ignores_key_order(value):
    """Equal dictionaries have the same digest in any order of keys."""
    assert digest_json(value) == digest_json(dict(reversed(value.items())))


def test_json_refuses_nan(tmp_path):
    """NaN is not JSON: it is refused, and no file is written."""
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", {"loss": float("nan")})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[" * 100_000, b"{" * 100_000 + b"}"])
def test_invalid_json_is_value_error(tmp_path, content):
    """Every file that is not JSON raises the same type of error."""
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(ValueError):  # noqa: PT011 - the message comes from json
        read_json(tmp_path / "a.json")


def test_lock_ends_with_its_process(tmp_path):
    """After SIGKILL of its owner, the lock can be acquired again."""
    code = (
        "import sys; from tiewise.files import file_lock\n"
        "with file_lock(sys.argv[1]): print('locked', flush=True); input()"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"locked\n"
        with pytest.raises(BlockingIOError, match=f"locked by process {other.pid} "):
            enter(tmp_path / "lock")
        other.send_signal(signal.SIGKILL)
        other.wait()
    with file_lock(tmp_path / "lock", wait=True):
        pass


def enter(path):
    with file_lock(path):
        pass


def test_lock_is_optional(tmp_path, monkeypatch):
    """On a file system without locks, the block runs without one, and its errors pass."""

    def fail(*_, **__):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(filelock.FileLock, "acquire", fail)
    entered = []
    with file_lock(tmp_path / "lock"):
        entered.append("once")
    assert entered == ["once"]
    with pytest.raises(ValueError, match="of the block"), file_lock(tmp_path / "lock"):
        raise ValueError("of the block")
