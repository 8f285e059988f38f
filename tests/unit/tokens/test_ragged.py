"""Arrays of unequal lengths are taken apart and joined correctly."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiewise.tokens import ragged
from tiewise.tokens.ragged import gather, offsets_of, ranges

spans = st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 9)), max_size=30)


@given(spans)
def test_ranges_equal_their_definition(spans):
    """All ranges are listed end to end, empty ones included, in the given order."""
    starts = np.array([start for start, _ in spans], dtype=np.int64)
    lengths = np.array([length for _, length in spans], dtype=np.int64)
    expected = [index for start, length in spans for index in range(start, start + length)]
    assert ranges(starts, lengths).tolist() == expected
    assert offsets_of(lengths)[-1] == len(expected)


@given(spans, st.integers(1, 5))
def test_gather_equals_indexing(spans, chunk):
    """The chunk size changes nothing, and the parts keep their order."""
    starts = np.array([start for start, _ in spans], dtype=np.int64)
    lengths = np.array([length for _, length in spans], dtype=np.int64)
    values = np.arange(1010, dtype=np.int32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ragged, "_CHUNK", chunk)
        found = gather(values, starts, lengths)
    assert found.tolist() == ranges(starts, lengths).tolist()
    assert found.dtype == np.int32
