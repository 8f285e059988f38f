"""Files are read in chunks."""

import tracemalloc

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiewise.data.formats import read_chunks, read_pairs, write_pairs
from tiewise.data.pairs import TEXT_COLUMNS, build_pairs
from tiewise.data.simulation.simulate import simulate, write_simulation
from tiewise.errors import PairsError


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("chunks") / "train.csv"
    write_simulation(simulate(23), path)
    return path


@given(size=st.integers(1, 30))
def test_joined_chunks_are_the_file(path, size):
    """Chunks of any size hold the rows of the file, in order."""
    tables = [load() for load in read_chunks(path, size=size)]
    assert all(len(table) == size for table in tables[:-1])
    pd.testing.assert_frame_equal(pd.concat(tables, ignore_index=True), read_pairs(path))


def test_wrong_row_has_file_position(path, tmp_path):
    """Rows are counted over all chunks."""
    table = pd.read_csv(path, dtype=str)
    table.loc[17, "winner_tie"] = "7"
    broken = tmp_path / "broken.csv"
    table.to_csv(broken, index=False)
    good, bad = list(read_chunks(broken, size=12))
    assert len(good()) == 12
    with pytest.raises(PairsError, match=r"row 17 \(id=17\)"):
        bad()


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".jsonl"])
def test_memory_holds_one_chunk(tmp_path, suffix):
    """Reading three times as many rows takes no more memory."""
    peaks = []
    for n in (600, 1800):
        texts = {name: [["word"]] * n for name in TEXT_COLUMNS}
        pairs = build_pairs({"id": range(n), **texts, "winner": ["tie"] * n})
        path = tmp_path / f"pairs{suffix}"
        if suffix == ".jsonl":
            pairs[["id", *TEXT_COLUMNS]].to_json(path, orient="records", lines=True)
        else:
            write_pairs(pairs, path)
        tracemalloc.start()
        n_read = sum(len(load()) for load in read_chunks(path, size=100, labelled=False))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert n_read == n
    assert peaks[1] < 1.5 * peaks[0]
