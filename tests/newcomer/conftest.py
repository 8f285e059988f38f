"""Run ``tiewise`` as a newcomer does: in another process, in an empty folder."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from typing import NamedTuple

import pytest


class Outcome(NamedTuple):
    """Exit status and texts of a command."""

    status: int
    out: str
    err: str


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return an empty folder, one for the tests of a module."""
    return tmp_path_factory.mktemp("newcomer")


@pytest.fixture(scope="module")
def type_command(folder):
    """Return a function that runs a line such as ``tiewise audit votes.csv`` in the folder."""

    def run(line, *, status=0, stdin=None):
        words = shlex.split(line)
        if words[0] in ("tiewise", "python"):
            words[:1] = [sys.executable, *(["-m", "tiewise"] if words[0] == "tiewise" else [])]
        hidden = ("TIEWISE_DATA", "TIEWISE_ARTIFACTS")
        environment = {key: value for key, value in os.environ.items() if key not in hidden}
        done = subprocess.run(
            words, cwd=folder, env=environment, input=stdin, capture_output=True, text=True,
            timeout=300, check=False,
        )  # fmt: skip
        assert done.returncode == status, f"{line}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr
        return Outcome(done.returncode, done.stdout, done.stderr)

    return run
