"""Files are written whole or not at all."""

import signal
import subprocess
import sys
import textwrap

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


def test_an_error_leaves_the_old_file(tmp_path):
    """When the writer fails, the old file is unchanged, and no temporary is left."""
    write_bytes(tmp_path / "a", b"old")
    with pytest.raises(RuntimeError), atomic_path(tmp_path / "a") as temporary:
        temporary.write_bytes(b"half")
        raise RuntimeError
    assert (tmp_path / "a").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_folder_is_replaced_never_mixed(tmp_path):
    """Nothing of the old folder survives in the new one."""
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "old").touch()
    with atomic_folder(tmp_path / "f") as temporary:
        (temporary / "new").write_text("x")
    assert [path.name for path in (tmp_path / "f").iterdir()] == ["new"]


@pytest.mark.parametrize("old", ["nothing", "file", "link", "broken link", "folder"])
def test_a_folder_takes_the_place_of_whatever_has_its_name(tmp_path, old):
    """What a link leads to stays."""
    path, aim = tmp_path / "f", tmp_path / "aim"
    aim.mkdir()
    (aim / "kept").touch()
    make = {
        "nothing": lambda: None,
        "file": path.touch,
        "link": lambda: path.symlink_to(aim),
        "broken link": lambda: path.symlink_to("nowhere"),
        "folder": lambda: (path / "inner").mkdir(parents=True),
    }
    make[old]()
    with atomic_folder(path) as temporary:
        (temporary / "new").touch()
    assert [file.name for file in path.iterdir()] == ["new"]
    assert not path.is_symlink()
    assert (aim / "kept").exists()


def test_an_error_leaves_the_old_folder(tmp_path):
    """When the writer fails, the old folder is untouched."""
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "old").touch()
    with pytest.raises(RuntimeError), atomic_folder(tmp_path / "f"):
        raise RuntimeError
    assert [path.name for path in tmp_path.rglob("*")] == ["f", "old"]


def test_a_killed_writer_leaves_only_a_temporary(tmp_path):
    """After SIGKILL in the middle the file is absent, and the temporary can be cleared away."""
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


def test_a_living_writer_keeps_its_temporary(tmp_path):
    """Clearing away takes nothing from a process that still writes."""
    with atomic_path(tmp_path / "a") as temporary:
        temporary.write_bytes(b"whole")
        assert remove_temporaries(tmp_path) == 0
    assert (tmp_path / "a").read_bytes() == b"whole"


@given(st.binary())
def test_digest_of_a_file_is_the_digest_of_its_bytes(tmp_path_factory, data):
    """A file and its bytes have one digest."""
    path = tmp_path_factory.mktemp("digest") / "a"
    write_bytes(path, data)
    assert digest_file(path) == digest_bytes(data)


@given(st.dictionaries(st.text(), st.integers()))
def test_digest_of_json_ignores_the_order_of_keys(value):
    """Two equal dictionaries have one digest, whatever their order."""
    assert digest_json(value) == digest_json(dict(reversed(value.items())))


def test_json_refuses_nan(tmp_path):
    """NaN is not JSON: it is refused, and nothing is written."""
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", {"loss": float("nan")})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[" * 100_000, b"{" * 100_000 + b"}"])
def test_what_is_no_json_is_a_value_error(tmp_path, content):
    """However a file fails to be JSON, it is one kind of error."""
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(ValueError):  # noqa: PT011 - the text is json's own
        read_json(tmp_path / "a.json")


def test_lock_ends_with_its_process(tmp_path):
    """Even after SIGKILL of its owner, the lock can be taken again."""
    code = (
        "import sys; from tiewise.files import file_lock\n"
        "with file_lock(sys.argv[1]): print('held', flush=True); input()"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(BlockingIOError, match=f"locked by process {other.pid} "):
            enter(tmp_path / "lock")
        other.send_signal(signal.SIGKILL)
        other.wait()
    with file_lock(tmp_path / "lock", wait=True):
        pass


def enter(path):
    with file_lock(path):
        pass
