"""Paths of data sets on the hub are split, checked and resolved to files."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiewise.config import DataConfig
from tiewise.data.formats import read_pairs
from tiewise.data.formats.hub import choose_files, is_hub_path, split_hub_path
from tiewise.errors import PairsError
from tiewise.runs.dataset import find_data

NAMES = st.text("aZ0._-", min_size=1, max_size=5)


@given(
    owner=NAMES,
    name=NAMES,
    revision=st.none() | NAMES,
    file=st.none() | st.lists(NAMES, min_size=1),
)
def test_hub_path_is_split(owner, name, revision, file):
    """Repository, revision and file of a path are found again."""
    path = f"hf://datasets/{owner}/{name}"
    path += f"@{revision}" if revision else ""
    path += f"/{'/'.join(file)}" if file else ""
    assert is_hub_path(path)
    expected = (f"{owner}/{name}", revision, "/".join(file) if file else None)
    assert split_hub_path(path) == expected


@pytest.mark.parametrize(
    "path", ["hf://", "hf://lmsys/x", "hf://datasets/x", "hf://models/a/b", "hf://datasets/a/b@"]
)
def test_malformed_hub_path_is_refused(path):
    """The message shows the right form."""
    with pytest.raises(PairsError, match="expected hf://datasets/OWNER/NAME"):
        split_hub_path(path)


def test_training_files_are_chosen():
    """Shards of one name are one table; several names or suffixes are refused, all named."""
    assert choose_files(["README.md", "b-1.csv", "b-0.csv"]) == ["b-0.csv", "b-1.csv"]
    assert choose_files(["README.md"]) == []
    for names in (["train.csv", "train.parquet"], ["a.csv", "b.csv"]):
        with pytest.raises(PairsError, match=f"name one file.*: {', '.join(names)}"):
            choose_files(names)


@pytest.mark.parametrize("path", ["hf://datasets/lmsys/x", "hf://datasets/lmsys/x/train.csv"])
def test_missing_hub_is_reported(path):
    """Without a network or a client there is a message, and no other file is read."""
    with pytest.raises(PairsError, match=r"hub did not provide.*name a file|needs huggingface_hub"):
        read_pairs(path)


def test_config_accepts_hub_path(monkeypatch):
    """A hub path is no missing file, also in the environment, where a colon separates paths."""
    path = "hf://datasets/lmsys/x/train.csv"
    with pytest.raises(PairsError, match="hub"):
        find_data(DataConfig(data=(path,)))
    monkeypatch.setenv("TIEWISE_DATA", f"nowhere.csv:{path}")
    with pytest.raises(PairsError, match=r"nowhere\.csv: there is no such file"):
        find_data(DataConfig())
