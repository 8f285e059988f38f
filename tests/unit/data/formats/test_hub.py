"""An address on the hub is read as it is spelled, and refused by name where it cannot be had."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiewise.config.run_config import DataConfig
from tiewise.data.formats import read_pairs
from tiewise.data.formats.hub import Address, choose_files, is_hub_path, parse_address
from tiewise.errors import PairsError
from tiewise.runs.dataset import find_data

NAMES = st.text("aZ0._-", min_size=1, max_size=5)


@given(
    owner=NAMES,
    name=NAMES,
    revision=st.none() | NAMES,
    file=st.none() | st.lists(NAMES, min_size=1),
)
def test_parsing_undoes_spelling(owner, name, revision, file):
    """Repository, revision and file come back as they were put together."""
    path = f"hf://datasets/{owner}/{name}"
    path += f"@{revision}" if revision else ""
    path += f"/{'/'.join(file)}" if file else ""
    assert is_hub_path(path)
    expected = Address(f"{owner}/{name}", revision, "/".join(file) if file else None)
    assert parse_address(path) == expected


@pytest.mark.parametrize(
    "path", ["hf://", "hf://lmsys/x", "hf://datasets/x", "hf://models/a/b", "hf://datasets/a/b@"]
)
def test_other_spellings_are_refused(path):
    """The message shows how it is spelled."""
    with pytest.raises(PairsError, match="expected hf://datasets/OWNER/NAME"):
        parse_address(path)


def test_training_files_are_meant_where_there_are_any():
    """Shards of one suffix are one table; what is ambiguous is to be named."""
    suffixes = [".parquet", ".csv"]
    assert choose_files(["README.md", "b.csv", "a.csv"], suffixes) == ["a.csv", "b.csv"]
    assert choose_files(["README.md"], suffixes) == []
    with pytest.raises(PairsError, match=r"name one of its files: train\.csv, train\.parquet"):
        choose_files(["train.csv", "train.parquet"], suffixes)


@pytest.mark.parametrize("path", ["hf://datasets/lmsys/x", "hf://datasets/lmsys/x/train.csv"])
def test_without_a_hub_it_is_said_what_to_do(path):
    """No network, or no client: a message, not another file."""
    with pytest.raises(PairsError, match=r"hub did not give it.*name a file|needs huggingface_hub"):
        read_pairs(path)


def test_a_configuration_may_name_the_hub(monkeypatch):
    """Such a path is no missing file, also in the environment, where a colon parts paths."""
    path = "hf://datasets/lmsys/x/train.csv"
    with pytest.raises(PairsError, match="hub"):
        find_data(DataConfig(data=(path,)))
    monkeypatch.setenv("TIEWISE_DATA", f"nowhere.csv:{path}")
    with pytest.raises(PairsError, match=r"nowhere\.csv: there is no such file"):
        find_data(DataConfig())
