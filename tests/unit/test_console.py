"""Exit statuses, messages and progress bars of the command line."""

import errno
import io
import logging
import math
import os
import pty
import sys
import termios

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tiewise.console import (
    FoldClock,
    describe_os_error,
    printable,
    progress_bar,
    run_command,
    show,
)
from tiewise.errors import Interrupted, PairsError


def raising(error):
    def command():
        raise error

    return command


class OutOfMemoryError(RuntimeError):
    """Has the name of torch's error."""


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (PairsError("row 3 is wrong"), 2, "error: row 3 is wrong\n"),
        (Interrupted(15), 143, "Stopped after a checkpoint; continue with --resume.\n"),
        (Interrupted(2), 130, "Stopped after a checkpoint; continue with --resume.\n"),
        (KeyboardInterrupt(), 130, "Interrupted.\n"),
        (OSError(errno.ENOSPC, "No space left on device", "a"), 2, "No space left on device: a."),
        (IsADirectoryError(errno.EISDIR, "Is a directory", "a"), 2, "error: Is a directory: a."),
        (OSError("strange"), 2, "error: strange."),
        (OutOfMemoryError("no room"), 2, "error: out of memory: no room A fit needs less with"),
    ],
)
def test_expected_errors_are_messages(capsys, error, status, message):
    """The exit status gives the kind of end, standard error the reason, without traceback."""
    assert run_command(raising(error)) == status
    captured = capsys.readouterr()
    assert message in captured.err
    assert "Traceback" not in captured.err
    assert captured.out == ""


def test_interrupted_command_has_a_hint(capsys):
    """The line says how the command continues, where it can."""
    assert run_command(raising(KeyboardInterrupt()), hint=" Add --resume.") == 130
    assert capsys.readouterr().err == "Interrupted. Add --resume.\n"


def test_bugs_keep_their_traceback():
    """An unexpected error is not caught."""
    for error in (ZeroDivisionError(), RuntimeError("strange")):
        with pytest.raises(type(error)):
            run_command(raising(error))


def test_results_go_to_standard_output(capsys):
    """A command that ends well writes its result only, with status 0."""
    assert run_command(lambda: show("0.5")) == 0
    assert capsys.readouterr().out == "0.5\n"


def test_first_process_informs(capsys, monkeypatch):
    """Every process warns; only the first informs, and not with --quiet."""
    log = logging.getLogger("tiewise.anything")

    def command():
        log.info("informed")
        log.warning("warned")

    run_command(command)
    assert capsys.readouterr().err == "informed\nwarned\n"
    run_command(command, level=logging.WARNING)
    assert capsys.readouterr().err == "warned\n"
    monkeypatch.setenv("RANK", "1")
    run_command(command)
    assert capsys.readouterr().err == "warned\n"


def test_full_disk_message():
    """The message asks for space, not for another path."""
    message = describe_os_error(OSError(errno.ENOSPC, "No space left on device", "runs/a"))
    assert message.startswith("No space left on device: runs/a.")
    assert "--resume" in message


@pytest.mark.parametrize("error", [ConnectionResetError(104, "reset"), TimeoutError("late")])
def test_network_message(error):
    """The message asks for a look at the connection, not at a path."""
    message = describe_os_error(error)
    assert message.startswith(("reset. Check the connection", "late. Check the connection"))
    assert "permissions" not in message


@given(st.text(alphabet=st.characters(), max_size=40))
def test_text_cannot_control_the_terminal(text):
    """Only tab and line feed pass of the control characters; printable text is unchanged."""
    shown = printable(text)
    commanding = {char for char in shown if ord(char) < 32 or 127 <= ord(char) < 160}
    assert commanding <= {"\n", "\t"}
    shown.encode()
    if text.isprintable():
        assert shown == text


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_any_locale_can_be_written(monkeypatch, encoding):
    """A character that the encoding lacks is escaped."""
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", stream)
    assert run_command(lambda: show("caf\u00e9 \u4e2d \ud83d")) == 0
    assert stream.buffer.getvalue().startswith(b"caf")


@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_closed_streams_are_replaced(monkeypatch, name):
    """A process started without one of its streams still works."""
    monkeypatch.setattr(sys, name, None)
    try:
        assert run_command(lambda: show("0.5")) == 0
    finally:
        getattr(sys, name).close()


def draw_bar(monkeypatch, *, level=logging.INFO, is_ci=False, is_terminal=True):
    """Return the text that a finished bar writes to a terminal or a pipe."""
    reader, writer = pty.openpty() if is_terminal else os.pipe()
    if is_terminal:
        termios.tcsetwinsize(writer, (24, 80))
    monkeypatch.delenv("CI", raising=False)
    if is_ci:
        monkeypatch.setenv("CI", "true")
    logger = logging.getLogger("tiewise")
    monkeypatch.setattr(logger, "level", level)
    logger.manager._clear_cache()
    with os.fdopen(writer, "w") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        with progress_bar(4, name="work", unit="step", mininterval=0, miniters=1) as bar:
            for _ in range(4):
                bar.update()
        stream.write("END")
        stream.flush()
        text = b""
        while not text.endswith(b"END"):  # a terminal passes its text on in parts
            text += os.read(reader, 10_000)
        return text.decode()


def test_bar_on_a_terminal(monkeypatch):
    """The bar shows its name, the share done, and the time passed and left."""
    text = draw_bar(monkeypatch)
    assert "work:" in text
    assert "4/4" in text
    assert "<" in text  # time passed < time left


@pytest.mark.parametrize(
    "silent", [{"level": logging.WARNING}, {"is_ci": True}, {"is_terminal": False}]
)
def test_bar_is_silent_elsewhere(monkeypatch, silent):
    """Nothing is written with --quiet, in continuous integration, or to pipes and files."""
    assert draw_bar(monkeypatch, **silent) == "END"


@pytest.fixture
def clock(monkeypatch):
    """Return a list whose item is the time that the clock reads."""
    now = [100.0]
    monkeypatch.setattr("tiewise.console.time.monotonic", lambda: now[0])
    return now


@given(
    st.floats(0, 600), st.floats(0.1, 30), st.integers(20, 5_000), st.integers(0, 9),
    st.floats(0.3, 1),
)  # fmt: skip
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_time_left_is_true_at_constant_speed(clock, caplog, setup, step, n_steps, n_later, share):
    """At constant speed every line has the true times, and their number is moderate."""
    caplog.clear()
    caplog.set_level("INFO", logger="tiewise")
    fold, start = FoldClock(2, n_later), clock[0]
    total = setup + n_steps * step / share
    clock[0] += setup
    for k in range(1, n_steps + 1):
        clock[0] = start + setup + k * step
        if k == 1:
            fold.begin(share / n_steps)
            continue
        fold.update(share * k / n_steps)
        per_fold, left = fold.estimate(share * k / n_steps)
        assert left == pytest.approx(start + total - clock[0] + n_later * per_fold, abs=1e-3)
        # The first step is counted as setup and as a step, because it can be slower.
        assert per_fold == pytest.approx(total + step, abs=1e-3)
    lines = [record.getMessage() for record in caplog.records]
    seconds = setup + n_steps * step
    assert len(lines) <= 1 + max(0, math.log2(max(seconds, 20) / 20)) + seconds / 1800
    if setup == 0 and step <= 20 and seconds >= 60:
        assert lines
    assert all(line.startswith("fold 2: ") and " per fold, " in line for line in lines)
    assert all((f" for {n_later + 1} folds" in line) == (n_later > 0) for line in lines)


def test_end_of_fold_states_time_left(clock, caplog):
    """After a fold its time is logged, with that of the later folds."""
    caplog.set_level("INFO", logger="tiewise")
    for n_later in (4, 1, 0):
        fold = FoldClock(0, n_later)
        clock[0] += 30
        fold.end()
    lines = [record.getMessage() for record in caplog.records]
    assert lines == [
        "fold 0 took 30 s; about 2 min left for 4 folds",
        "fold 0 took 30 s; about 30 s left for 1 fold",
        "fold 0 took 30 s",
    ]
