"""The report names the packages it needs, and skips rows without a label."""

import sys

import pandas as pd
import pytest

from run_folders import simulated_tables, write_run
from tiewise.errors import RunError
from tiewise.report.figures import to_svg
from tiewise.report.page import gather, make_environment


def test_missing_jinja2_is_named(monkeypatch):
    """The message says what to install."""
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(RunError, match=r"need jinja2: run pip install 'tiewise\[plot\]'"):
        make_environment()


def test_missing_matplotlib_is_named(monkeypatch):
    """The message says what to install."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(RunError, match=r"need matplotlib: run pip install 'tiewise\[plot\]'"):
        to_svg(lambda: None)


def test_unlabelled_rows_are_skipped(tmp_path):
    """A row without a vote cannot be scored."""
    _, folds, oof = simulated_tables(60)
    oof["label"] = oof["label"].astype("Int8")
    oof.loc[3, "label"] = pd.NA
    assert len(gather(write_run(tmp_path, folds, oof, is_scored=False), None).oof) == 59
