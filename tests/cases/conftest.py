"""Fixtures of the cases: inputs in `data`, and commands that run in this process."""

from pathlib import Path
from typing import NamedTuple

import pytest

from tiewise.cli import main

DATA = Path(__file__).parent / "data"
N_ROWS = 10
FIT = ("fit", "--preset", "baseline", "--n-splits", "2", "--folds", "all")


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


@pytest.fixture(scope="session")
def fitted(tmp_path_factory):
    """Fit the runs `told` and `other`, with seeds 0 and 5, to the same few rows.

    The runs are in `art`. Their data are `here/train.csv`, which is named as seen from `here`.
    """
    folder = tmp_path_factory.mktemp("fitted")
    (folder / "here").mkdir()
    lines = (DATA / "07-report-without-texts/train.csv").read_text().splitlines(keepends=True)
    (folder / "here" / "train.csv").write_text("".join(lines[: N_ROWS + 1]))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder / "here")
        patch.setenv("TIEWISE_ARTIFACTS", str(folder / "art"))
        for run, seed in (("told", "0"), ("other", "5")):
            assert main([*FIT, "--data", "train.csv", "--run", run, "--seed", seed]) == 0
    return folder


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
