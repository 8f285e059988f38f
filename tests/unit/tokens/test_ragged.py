"""Arrays of unequal lengths are taken apart and joined correctly."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiewise.tokens import ragged
from tiewise.tokens.ragged import Ragged, gather, offsets_of, ranges

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


def test_taken_texts_keep_their_original_lengths():
    """The tokens before the bound follow their text, also when it is repeated."""
    texts = Ragged(np.arange(6, dtype=np.int32), np.array([0, 1, 3, 6]), np.array([10, 20, 30]))
    taken = texts.take(np.array([2, 0, 2]))
    assert taken.n_original.tolist() == [30, 10, 30]
    assert taken.values.tolist() == [3, 4, 5, 0, 3, 4, 5]
    assert taken.offsets.tolist() == [0, 3, 4, 7]
