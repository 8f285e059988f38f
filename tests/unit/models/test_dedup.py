"""Equal rows are found, and their order depends only on their contents."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from strategies import token_rows
from tiewise.models.dedup import find_distinct, take_rows


@given(token_rows())
def test_representatives_have_equal_contents(rows):
    """Representatives are distinct, and each row has the tokens of its representative."""
    representatives, inverse = find_distinct(rows)
    contents = [rows.row(int(row)).tolist() for row in representatives]
    assert len({tuple(content) for content in contents}) == len(contents)
    for row, place in enumerate(inverse.tolist()):
        assert rows.row(row).tolist() == contents[place]


@given(token_rows(), st.integers(0, 2**31))
def test_order_depends_on_contents(rows, seed):
    """Shuffled rows give equal representatives in the same order."""
    order = np.random.default_rng(seed).permutation(len(rows.lengths))
    shuffled = take_rows(rows, order)
    one, other = find_distinct(rows)[0], find_distinct(shuffled)[0]
    assert [rows.row(int(row)).tolist() for row in one] == [
        shuffled.row(int(row)).tolist() for row in other
    ]


@given(token_rows(), st.data())
def test_taken_rows_keep_order(rows, data):
    """Rows are returned in the order of the indices, with repetitions."""
    indices = np.array(data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=9)), dtype=int)
    taken = take_rows(rows, indices)
    assert len(taken) == len(indices)
    for place, row in enumerate(indices.tolist()):
        np.testing.assert_array_equal(taken.row(place), rows.row(row))
        assert taken.n_truncated[place] == rows.n_truncated[row]
