"""A bar is drawn where a person looks, and nowhere else."""

from __future__ import annotations

import logging
import os
import pty
import sys
import termios

import pytest

from tiewise.progress import progress_bar


def drawn(monkeypatch, *, level=logging.INFO, is_ci=False, is_terminal=True):
    """Return what a finished bar writes to a terminal or a pipe."""
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
        stream.write(".")
        stream.flush()
        return os.read(reader, 10_000).decode()


def test_on_a_terminal_it_says_how_long_it_will_take(monkeypatch):
    """Name, share done, and time passed and left."""
    text = drawn(monkeypatch)
    assert "work:" in text
    assert "4/4" in text
    assert "<" in text  # time passed < time left


@pytest.mark.parametrize(
    "silent", [{"level": logging.WARNING}, {"is_ci": True}, {"is_terminal": False}]
)
def test_elsewhere_it_is_silent(monkeypatch, silent):
    """When quiet, in continuous integration, in pipes and files: not a byte."""
    assert drawn(monkeypatch, **silent) == "."
