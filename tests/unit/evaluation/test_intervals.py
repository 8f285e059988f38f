"""Tests of intervals: printing, clipping and their checks."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiewise.errors import ScoresError
from tiewise.evaluation.intervals import Interval, check_confidence, list_rows


def test_interval_takes_number_format():
    """The format specification applies to each of the three numbers."""
    assert f"{Interval(1 / 3, 0.25, 0.5):.2f}" == "0.33 [0.25, 0.50]"
    assert str(Interval(1.0, 0.5, 1.5)) == "1.0000 [0.5000, 1.5000]"


@pytest.mark.parametrize("level", [0, 1, 95, -0.1, math.nan])
def test_confidence_level_is_checked(level):
    """A level is between 0 and 1; 95 is refused."""
    with pytest.raises(ScoresError, match="between 0 and 1"):
        check_confidence(level)


@given(st.floats(-5, 5), st.floats(0, 3), st.floats(0, 3))
def test_clip_moves_only_ends(value, below, above):
    """The ends stay within the bounds and in order; the value does not change."""
    clipped = Interval(value, value - below, value + above).clip(0, 1)
    assert clipped.value == value
    assert 0 <= clipped.low <= clipped.high <= 1


@given(st.floats(-5, 5), st.floats(0, 3))
def test_interval_excludes_zero(low, width):
    """Both ends must be on the same side; touching zero does not count."""
    interval = Interval(low, low, low + width)
    assert interval.excludes_zero == (low > 0 or low + width < 0)


def test_few_rows_are_listed():
    """A message lists the first five rows and marks that there are more."""
    assert list_rows(np.array([3, 9])) == "row 3, 9"
    assert list_rows(np.arange(9)).endswith("4, …")
