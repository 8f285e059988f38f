"""Chunks are the file, a few rows at a time."""

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiewise.errors import PairsError
from tiewise.formats import read_chunks, read_pairs
from tiewise.simulate import simulate, write_simulation


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("chunks") / "train.csv"
    write_simulation(simulate(23), path)
    return path


@given(size=st.integers(1, 30))
def test_the_chunks_joined_are_the_file(path, size):
    """Whatever their size, the chunks hold the rows of the file, in order."""
    tables = [load() for load in read_chunks(path, size=size)]
    assert all(len(table) == size for table in tables[:-1])
    pd.testing.assert_frame_equal(pd.concat(tables, ignore_index=True), read_pairs(path))


def test_a_wrong_row_is_named_by_its_place_in_the_file(path, tmp_path):
    """The count goes on from chunk to chunk."""
    table = pd.read_csv(path, dtype=str)
    table.loc[17, "winner_tie"] = "7"
    broken = tmp_path / "broken.csv"
    table.to_csv(broken, index=False)
    good, bad = list(read_chunks(broken, size=12))
    assert len(good()) == 12
    with pytest.raises(PairsError, match=r"row 17 \(id=17\)"):
        bad()
