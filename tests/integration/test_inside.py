"""The page `inside` lists the files that the two main commands enter, in order."""

from __future__ import annotations

import inspect
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import tiewise
from tiewise.cli import main
from tiewise.data.formats import write_pairs
from tiewise.data.simulation.simulate import simulate

PACKAGE = f"{Path(tiewise.__file__).parent}{os.sep}"
PAGE = (Path(__file__).parents[2] / "docs" / "inside.md").read_text("utf-8")
GROUND = {"config.py", "console.py", "errors.py", "files.py"}
SPINES = {
    "fit": {"cli.py", "api.py", "crossfit.py", "training/fit.py"},
    "predict": {"cli.py", "api.py", "judges/prediction.py"},
}


def file_of(frame: FrameType | None) -> str:
    """Return the path of a frame's file inside the package, or an empty string."""
    path = frame.f_code.co_filename if frame else ""
    return path.removeprefix(PACKAGE) if path.startswith(PACKAGE) else ""


def trace_files(run: Callable[[], Any], spine: set[str]) -> list[str]:
    """Return the files of a spine and of the functions that it calls, in order of first entry."""
    entered: dict[str, None] = {}

    def note(frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        if event != "call" or not code.co_filename.startswith(PACKAGE):
            return
        if not code.co_flags & inspect.CO_OPTIMIZED:  # a module or class body, run by an import
            return
        file = file_of(frame)
        is_function = code.co_qualname == code.co_name and code.co_name.isidentifier()
        if file in spine or (is_function and file not in GROUND and file_of(frame.f_back) in spine):
            entered.setdefault(file)

    sys.setprofile(note)
    try:
        run()
    finally:
        sys.setprofile(None)
    return list(entered)


def read_table(command: str) -> list[str]:
    """Return the files in the page's table of a command."""
    section = PAGE.split(f"## The files of `tiewise {command}`")[1].split("\n## ")[0]
    return re.findall(r"^\| `([\w/]+\.py)` \|", section, re.MULTILINE)


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """Return a folder with pairs to fit and to predict."""
    folder = tmp_path_factory.mktemp("inside")
    write_pairs(simulate(60, seed=0), folder / "pairs.csv")
    return folder


def test_tables_match_real_runs(here, monkeypatch):
    """A traced fit, and a traced prediction with its run, enter the listed files in this order."""
    monkeypatch.chdir(here)
    fit = ["fit", "--preset", "tiny", "--data", "pairs.csv", "--run", "first"]
    predict = ["predict", "--run", "first", "--data", "pairs.csv", "--out", "probs.csv"]
    for arguments in (fit, predict):
        status: list[int] = []
        found = trace_files(lambda: status.append(main(arguments)), SPINES[arguments[0]])  # noqa: B023
        assert status == [0]
        assert found == read_table(arguments[0])


def test_tables_are_short():
    """Each table has at most 15 files, and each file has one sentence."""
    for command in SPINES:
        assert 5 <= len(read_table(command)) <= 15
