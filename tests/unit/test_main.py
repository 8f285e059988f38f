"""Tests of the entry point: interruptions while modules are imported."""

import subprocess
import sys

import pytest

CODE = """
import os, signal, sys

class Interrupt:
    def find_spec(self, name, *rest):
        if name == {name!r}:
            sys.meta_path.remove(self)
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupt())
from tiewise.__main__ import run
sys.argv = ["tiewise", "doctor"]
run()
"""


@pytest.mark.parametrize("name", ["tiewise.cli", "tyro", "tiewise.config", "tiewise.doctor"])
def test_interrupted_import_has_no_traceback(name):
    """Ctrl-C during any import, early or late, ends with status 130 and one line."""
    command = [sys.executable, "-c", CODE.format(name=name)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr, ended.stdout) == (130, "Interrupted.\n", "")


def test_ignored_interrupt_stays_ignored():
    """In the background of a shell, where SIGINT is ignored, the command continues."""
    code = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)" + CODE.format(name="tyro")
    code = code.replace('"doctor"', '"--version"')
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0
    assert ended.stdout.startswith("tiewise ")
