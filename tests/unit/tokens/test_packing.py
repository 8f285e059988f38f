"""Rows are dealt out once each, within the budget or into the number of parts asked for."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tiewise.tokens.packing import divide, fill, spread

layouts = st.sampled_from(["padded", "sorted", "packed"])
row_lengths = st.lists(st.integers(1, 100), max_size=40).map(np.array)


@given(row_lengths, st.integers(1, 6))
def test_spreading_keeps_each_parts_order(lengths, n_parts):
    """Every row is in one part, parts are ascending, loads differ by one longest row at most."""
    lengths = lengths.astype(np.int64)
    parts = spread(lengths, n_parts)
    assert sorted(row for part in parts for row in part) == list(range(len(lengths)))
    assert all((np.diff(part) > 0).all() for part in parts)
    loads = [lengths[part].sum() for part in parts]
    assert max(loads) - min(loads) <= lengths.max(initial=0)


@given(row_lengths, layouts, st.data())
def test_a_share_of_the_rows_is_dealt_out_whole(lengths, layout, data):
    """Only the rows that were given come back, each once, in parts that are not empty."""
    lengths = lengths.astype(np.int64)
    rows = np.flatnonzero(data.draw(st.lists(st.booleans(), min_size=len(lengths), max_size=50)))
    rows = rows[rows < len(lengths)]
    for parts in (fill(lengths, rows, 120, layout), divide(lengths, rows, 3, layout)):
        assert sorted(row for part in parts for row in part) == rows.tolist()
        assert all(len(part) for part in parts)
