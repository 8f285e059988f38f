"""A flattened column keeps its turns, and its digest tells any two columns apart."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strategies import turns
from tiewise.errors import PairsError
from tiewise.tokens import columns
from tiewise.tokens.columns import Column

tables = st.lists(turns(), max_size=5)


def canonical(cells):
    return [cell or [None] for cell in cells]


@given(tables)
def test_turns_are_kept_in_order(cells):
    """Texts, nulls and rows together are the column, and an empty cell is a missing turn."""
    column = Column.of(cells)
    flat = [turn for cell in canonical(cells) for turn in cell]
    assert column.texts == [turn or "" for turn in flat]
    assert column.missing.tolist() == [turn is None for turn in flat]
    assert list(column.cells()) == [[turn or "" for turn in cell] for cell in canonical(cells)]


@given(tables, tables)
def test_equal_digests_mean_equal_columns(one, other):
    """Moving a boundary between turns or rows, or a null for an empty text, is a difference."""
    is_equal = canonical(one) == canonical(other)
    assert (Column.of(one).digest() == Column.of(other).digest()) == is_equal


@pytest.mark.parametrize(
    "other",
    [
        [["ab", "c"]],
        [["a", "bc"]],
        [["a"], ["b"], ["c"]],
        [["a", "b"], ["c"]],
        [["a", "b", "c", ""]],
    ],
)
def test_boundaries_count(other):
    """The same letters in other turns or rows are another column."""
    assert Column.of(other).digest() != Column.of([["a", "b", "c"]]).digest()


@given(tables, st.integers(1, 3))
def test_batches_do_not_show_in_the_digest(cells, batch):
    """Texts are digested some at a time; how many changes nothing."""
    whole = Column.of(cells).digest()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(columns, "_HASH_BATCH", batch)
        assert Column.of(cells).digest() == whole


def test_half_a_surrogate_pair_is_refused():
    """What no encoding accepts is named before a tokenizer stumbles over it."""
    with pytest.raises(PairsError, match="half a surrogate pair"):
        Column.of([["a", "b\ud83d"]]).digest()
