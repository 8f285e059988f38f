"""Tests of the statistics of a prediction."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tiewise.evaluation.position import tabulate_both_orders, tabulate_one_order
from tiewise.judges.prediction import Tally

LOGITS = st.integers(1, 8).flatmap(
    lambda n: hnp.arrays(np.float64, (2, n, 3), elements=st.floats(-20, 20))
)


def make_table(logits: np.ndarray) -> pd.DataFrame:
    """Return a table of predictions in both orders."""
    table = tabulate_both_orders(*logits)
    n = len(table)
    return table.assign(
        id=np.arange(n), n_tokens=10 + np.arange(n), n_truncated=np.arange(n) % 2,
        is_degenerate=np.arange(n) % 3 == 0,
    )  # fmt: skip


@given(LOGITS, st.integers(1, 8))
def test_chunks_do_not_change_statistics(logits, size):
    """Chunks of any size give the statistics of the whole table."""
    table = make_table(logits)
    whole, parts = Tally(), Tally()
    whole.add(table)
    for start in range(0, len(table), size):
        parts.add(table.iloc[start : start + size])
    assert parts.describe() == pytest.approx(whole.describe())


@given(LOGITS)
def test_swap_keeps_position_bias(logits):
    """Swapping the responses of every pair does not change the position bias."""
    one, other = Tally(), Tally()
    one.add(make_table(logits))
    table = make_table(logits)
    names = {
        f"prob_{x}_{old}": f"prob_{y}_{new}"
        for x, y in zip(("a", "b", "tie"), ("b", "a", "tie"), strict=True)
        for old, new in (("given", "swapped"), ("swapped", "given"))
    }
    other.add(table.rename(columns=names))
    names = ["n_swapped", "bias"]
    assert [getattr(one, name) for name in names] == pytest.approx(
        [getattr(other, name) for name in names]
    )


def test_first_response_always_wins():
    """A judge that always prefers the first response has position bias 1 and flips every row."""
    first = np.tile([50.0, 0.0, 0.0], (4, 1))
    tally = Tally()
    tally.add(make_table(np.stack([first, first])))
    assert tally.describe() == pytest.approx(
        {
            "n_rows": 4, "n_truncated": 2, "n_degenerate": 2, "n_training_rows": 0,
            "n_swapped": 4, "flip_rate": 1.0, "position_bias": 1.0,
        }
    )  # fmt: skip


def test_one_order_has_no_bias():
    """Predictions of one order have counts of rows only."""
    table = tabulate_one_order(np.zeros((3, 3))).assign(is_degenerate=False, n_truncated=0)
    tally = Tally()
    tally.add(table)
    assert tally.describe() == {
        "n_rows": 3,
        "n_truncated": 0,
        "n_degenerate": 0,
        "n_training_rows": 0,
    }
