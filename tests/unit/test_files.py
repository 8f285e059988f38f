"""Atomic files and folders, digests, JSON and locks."""

import errno
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import filelock
import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiewise import files
from tiewise.errors import FilesError
from tiewise.files import (
    atomic_folder,
    atomic_path,
    digest_bytes,
    digest_file,
    digest_json,
    file_lock,
    is_locked,
    read_json,
    refuse_existing,
    remove,
    remove_temporaries,
    write_bytes,
    write_json,
    write_new,
    write_parquet,
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


def test_files_of_a_folder_reach_the_disk(tmp_path, monkeypatch):
    """Each file of a folder is flushed, at any depth, before the folder gets its name."""
    flushed, replaced = [], []
    monkeypatch.setattr(files, "_flush", lambda path: flushed.append(path.name))
    replace = Path.replace

    def record(self, target):
        replaced.append(len(flushed))
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", record)
    with atomic_folder(tmp_path / "f") as temporary:
        (temporary / "inner").mkdir()
        (temporary / "inner" / "a").touch()
        (temporary / "b").touch()
    assert sorted(flushed[:3]) == ["a", "b", "inner"]
    assert flushed[3:] == [temporary.name, tmp_path.name]
    assert replaced == [4]


def test_temporary_path_is_in_place(tmp_path):
    """It has the suffix of the file and is in its folder, which is created."""
    path = tmp_path / "new" / "deep" / "a.parquet"
    with atomic_path(path) as temporary:
        assert (temporary.parent, temporary.suffix) == (path.parent, ".parquet")
        assert temporary.name.startswith(f".tiewise-tmp-{os.getpid()}-")
        temporary.touch()
    for folder in (".", "/"):
        with pytest.raises(FilesError, match="a folder; expected a file"), atomic_path(folder):
            pass


def test_two_temporaries_differ(tmp_path):
    """Two writers of one file in one process do not share a temporary file."""
    with atomic_path(tmp_path / "a") as one, atomic_path(tmp_path / "a") as other:
        assert one != other
        one.write_text("1")
        other.write_text("2")
    assert (tmp_path / "a").read_text() == "1"


def test_existing_output_is_refused(tmp_path):
    """A file or folder that exists is replaced with `overwrite` only."""
    refuse_existing(tmp_path / "new", overwrite=False)
    refuse_existing(tmp_path, overwrite=True)
    with pytest.raises(FilesError, match=r"exists already\. Name another file, or add --overwrite"):
        refuse_existing(tmp_path, overwrite=False)


def test_remove_keeps_the_target_of_a_link(tmp_path):
    """A link to a folder is removed alone; a path that does not exist is left out."""
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / "kept").touch()
    (tmp_path / "link").symlink_to(tmp_path / "target")
    remove(tmp_path / "link")
    remove(tmp_path / "gone")
    assert [path.name for path in tmp_path.rglob("*")] == ["target", "kept"]
    remove(tmp_path / "target")
    assert list(tmp_path.iterdir()) == []


def test_json_is_readable_utf8(tmp_path):
    """JSON files are indented, keep letters of all scripts, and end with a line break."""
    write_json(tmp_path / "a.json", {"b": ["é"], "a": None})
    assert (
        tmp_path / "a.json"
    ).read_bytes() == '{\n  "b": [\n    "é"\n  ],\n  "a": null\n}\n'.encode()
    assert read_json(tmp_path / "a.json") == {"b": ["é"], "a": None}


def test_digests_are_sha256():
    """Digests are those of sha256sum, in 64 hex digits; NaN has none."""
    assert digest_bytes(b"").startswith("e3b0c44298fc1c14")
    assert digest_json({"b": 1, "a": 2}) == digest_bytes(b'{"a": 2, "b": 1}')
    with pytest.raises(ValueError, match="JSON"):
        digest_json([float("nan")])


def test_tables_have_no_index(tmp_path):
    """A parquet file has the columns of the table, and not its index."""
    write_parquet(tmp_path / "t.parquet", pd.DataFrame({"a": [1, 2]}, index=[7, 9]))
    assert pq.read_schema(tmp_path / "t.parquet").names == ["a"]


@pytest.mark.parametrize("code", [errno.EPERM, errno.EOPNOTSUPP])
def test_new_file_without_hard_links(tmp_path, monkeypatch, code):
    """A file system without hard links holds the first of two new files, whole."""

    def refuse(*_):
        raise OSError(code, "no hard links")

    monkeypatch.setattr(os, "link", refuse)
    assert write_new(tmp_path / "x", b"first")
    assert not write_new(tmp_path / "x", b"second")
    assert (tmp_path / "x").read_bytes() == b"first"
    assert not list(tmp_path.glob(".tiewise-tmp*"))


def test_free_locks(tmp_path):
    """A lock that was never used, or was released, is free; looking at it creates no file."""
    path = tmp_path / "lock"
    assert not is_locked(path)
    assert not path.exists()
    with file_lock(path):
        assert is_locked(path)
        assert path.read_text().startswith(f"process {os.getpid()} on ")
    assert not is_locked(path)
    assert path.exists()


def test_unknown_owner_of_a_lock(tmp_path):
    """A lock whose file does not name its owner is of another process."""
    with file_lock(tmp_path / "lock"):
        (tmp_path / "lock").write_text("")
        with pytest.raises(BlockingIOError, match="locked by another process"):
            enter(tmp_path / "lock")


@pytest.mark.parametrize(
    ("name", "error", "is_kept"),
    [
        (".tiewise-tmp-1-aaaaaaaa", None, True),
        (".tiewise-tmp-1-aaaaaaaa", PermissionError, True),
        (".tiewise-tmp-1-aaaaaaaa", ProcessLookupError, False),
        (".tiewise-tmp-x-aaaaaaaa", None, False),
        (f".tiewise-tmp-{2**80}-aaaaaaaa", OverflowError, False),
        ("tiewise-tmp-1-aaaaaaaa", ProcessLookupError, True),
    ],
)
def test_temporaries_of_dead_writers_are_removed(tmp_path, monkeypatch, name, error, is_kept):
    """Files of processes that run, also another user's, and of other names are kept."""

    def kill(pid, sent):
        assert sent == 0
        if error:
            raise error

    monkeypatch.setattr(os, "kill", kill)
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / name).touch()
    assert remove_temporaries(tmp_path) == (not is_kept)
    assert (tmp_path / "inner" / name).exists() == is_kept
