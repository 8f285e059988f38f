"""Fixtures of the cases: inputs in `data`, and commands that run in this process."""

from pathlib import Path
from typing import NamedTuple

import pytest

from tiewise.cli import main

DATA = Path(__file__).parent / "data"


class Ended(NamedTuple):
    """Exit status of a command and what it printed."""

    status: int
    output: str
    errors: str

    @property
    def text(self):
        """Return both outputs."""
        return self.output + self.errors


@pytest.fixture
def case():
    """Return a function that gives the path of an input, such as ``01-question-column/a.jsonl``."""
    return lambda name: DATA / name


@pytest.fixture
def tiewise(tmp_path, monkeypatch, capsys):
    """Return a function that runs ``tiewise WORDS`` in the temporary folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TIEWISE_ARTIFACTS", raising=False)
    monkeypatch.delenv("TIEWISE_DATA", raising=False)

    def run(*words):
        capsys.readouterr()
        status = main([str(word) for word in words])
        return Ended(status, *capsys.readouterr())

    return run
