"""An interval is three numbers that print and compare as one."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiewise.errors import ScoresError
from tiewise.evaluation.intervals import Interval, check_confidence, list_rows


def test_an_interval_prints_with_any_number_format():
    """The format specification goes to each of the three numbers."""
    assert f"{Interval(1 / 3, 0.25, 0.5):.2f}" == "0.33 [0.25, 0.50]"
    assert str(Interval(1.0, 0.5, 1.5)) == "1.0000 [0.5000, 1.5000]"


@pytest.mark.parametrize("level", [0, 1, 95, -0.1, math.nan])
def test_a_confidence_level_lies_between_0_and_1(level):
    """95 is not 0.95."""
    with pytest.raises(ScoresError, match="between 0 and 1"):
        check_confidence(level)


@given(st.floats(-5, 5), st.floats(0, 3), st.floats(0, 3))
def test_clipping_keeps_the_value_and_moves_only_the_ends(value, below, above):
    """Ends stay within what is possible, in order; the value is as it was."""
    clipped = Interval(value, value - below, value + above).clip(0, 1)
    assert clipped.value == value
    assert 0 <= clipped.low <= clipped.high <= 1


@given(st.floats(-5, 5), st.floats(0, 3))
def test_an_interval_excludes_zero_when_both_ends_are_on_one_side(low, width):
    """Touching zero is not excluding it."""
    interval = Interval(low, low, low + width)
    assert interval.excludes_zero == (low > 0 or low + width < 0)


def test_a_message_names_a_few_rows():
    """The first five, and that there are more."""
    import numpy as np

    assert list_rows(np.array([3, 9])) == "row 3, 9"
    assert list_rows(np.arange(9)).endswith("4, …")
