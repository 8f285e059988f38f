"""Arrays of unequal lengths keep their parts."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tiewise.ragged import offsets_of, ranges

spans = st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 9)), max_size=30)


@given(spans)
def test_ranges_equal_their_definition(spans):
    """All ranges end to end, empty ones included, in the given order."""
    starts = np.array([start for start, _ in spans], dtype=np.int64)
    lengths = np.array([length for _, length in spans], dtype=np.int64)
    expected = [index for start, length in spans for index in range(start, start + length)]
    assert ranges(starts, lengths).tolist() == expected
    assert offsets_of(lengths)[-1] == len(expected)
