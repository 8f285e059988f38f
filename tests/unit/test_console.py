"""Messages and exit statuses reach a person, and nothing else does."""

import errno
import io
import logging
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiewise.console import describe_os_error, printable, run_command, show
from tiewise.errors import Interrupted, PairsError


def raising(error):
    def command():
        raise error

    return command


class OutOfMemoryError(RuntimeError):
    """What torch calls it."""


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (PairsError("row 3 is wrong"), 2, "PairsError: row 3 is wrong\n"),
        (Interrupted(15), 143, "Stopped after a checkpoint; go on with --resume.\n"),
        (Interrupted(2), 130, "Stopped after a checkpoint; go on with --resume.\n"),
        (KeyboardInterrupt(), 130, "Interrupted.\n"),
        (OSError(errno.ENOSPC, "No space left on device", "a"), 2, "No space left on device: a."),
        (IsADirectoryError(errno.EISDIR, "Is a directory", "a"), 2, "IsADirectoryError: Is a dir"),
        (OSError("strange"), 2, "OSError: strange."),
        (OutOfMemoryError("no room"), 2, "OutOfMemoryError: no room A fit needs less with"),
    ],
)
def test_what_a_person_can_mend_is_a_message(capsys, error, status, message):
    """The status says what kind of end it was, standard error why; no traceback."""
    assert run_command(raising(error)) == status
    captured = capsys.readouterr()
    assert message in captured.err
    assert "Traceback" not in captured.err
    assert captured.out == ""


def test_our_own_bug_keeps_its_traceback():
    """What nobody foresaw is not hidden."""
    for error in (ZeroDivisionError(), RuntimeError("strange")):
        with pytest.raises(type(error)):
            run_command(raising(error))


def test_a_result_is_written_and_the_status_is_0(capsys):
    """Results go to standard output and nothing else does."""
    assert run_command(lambda: show("0.5")) == 0
    assert capsys.readouterr().out == "0.5\n"


def test_only_the_first_of_several_processes_informs(capsys, monkeypatch):
    """Warnings come from each; what is only informative comes once, or not at all when quiet."""
    log = logging.getLogger("tiewise.anything")

    def command():
        log.info("informed")
        log.warning("warned")

    run_command(command)
    assert capsys.readouterr().err == "informed\nwarned\n"
    run_command(command, is_quiet=True)
    assert capsys.readouterr().err == "warned\n"
    monkeypatch.setenv("RANK", "1")
    run_command(command)
    assert capsys.readouterr().err == "warned\n"


def test_a_full_disk_says_how_to_go_on():
    """Room is what is missing, not another path."""
    message = describe_os_error(OSError(errno.ENOSPC, "No space left on device", "runs/a"))
    assert message.startswith("No space left on device: runs/a.")
    assert "--resume" in message


@given(st.text(alphabet=st.characters(), max_size=40))
def test_nothing_commands_the_terminal(text):
    """No control character passes but tab and line feed, and what is printable is untouched."""
    shown = printable(text)
    commanding = {char for char in shown if ord(char) < 32 or 127 <= ord(char) < 160}
    assert commanding <= {"\n", "\t"}
    shown.encode()
    if text.isprintable():
        assert shown == text


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_every_character_can_be_written_in_every_locale(monkeypatch, encoding):
    """What an encoding cannot hold is spelled out."""
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", stream)
    assert run_command(lambda: show("caf\u00e9 \u4e2d \ud83d")) == 0
    assert stream.buffer.getvalue().startswith(b"caf")


@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_a_closed_stream_is_no_error(monkeypatch, name):
    """A process started without one of its streams does its work."""
    monkeypatch.setattr(sys, name, None)
    try:
        assert run_command(lambda: show("0.5")) == 0
    finally:
        getattr(sys, name).close()
