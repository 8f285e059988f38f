"""Tests of the entry point: interruptions while modules are imported."""

import subprocess
import sys

import pytest

CODE = """
import os, signal, sys

signal.signal(signal.SIGINT, {handler})  # whatever the process that runs the tests has set

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
    command = [sys.executable, "-c", CODE.format(name=name, handler="signal.default_int_handler")]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr, ended.stdout) == (130, "Interrupted.\n", "")


def test_ignored_interrupt_stays_ignored():
    """In the background of a shell, where SIGINT is ignored, the command continues."""
    code = CODE.format(name="tyro", handler="signal.SIG_IGN")
    code = code.replace('"doctor"', '"--version"')
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0
    assert ended.stdout.startswith("tiewise ")
