"""Truths about what a second pass over close calls only would save and lose."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tiewise.errors import ScoresError
from tiewise.evaluation.orders import is_close, tabulate_both_orders
from tiewise.evaluation.scores import compare
from tiewise.evaluation.second_orders import has_both_orders, weigh_second_orders
from tiewise.pairs.labels import PROB_COLUMNS, swap_labels

LOGITS = st.integers(2, 9).flatmap(
    lambda n: hnp.arrays(np.float64, (2, n, 3), elements=st.floats(-9, 9))
)
SEED = st.integers(0, 2**31)
SHARES = (1.0, 0.9, 0.5, 0.1, 0.0)


def make_table(logits: np.ndarray) -> pd.DataFrame:
    """Give predictions of both orders; rows are 10, 11, ... tokens long."""
    table = tabulate_both_orders(*logits)
    return table.assign(id=np.arange(len(table)), n_tokens=10 + np.arange(len(table)))


def draw_labels(logits: np.ndarray, seed: int) -> np.ndarray:
    """Give a label to each row."""
    return np.random.default_rng(seed).integers(0, 3, logits.shape[1])


@given(LOGITS, SEED)
def test_the_change_is_the_paired_difference_of_what_would_have_been_predicted(logits, seed):
    """Rows that are not close keep their first order; against both orders of every row."""
    table, labels = make_table(logits), draw_labels(logits, seed)
    given, both = table[[f"{name}_given" for name in PROB_COLUMNS]], table[PROB_COLUMNS]
    for found in weigh_second_orders(table, labels, shares=SHARES, n_resamples=9):
        is_second = is_close(np.log(given.to_numpy()), found.swap_when)
        mixed = np.where(is_second[:, None], both, given)
        expected = compare(labels, mixed, both.to_numpy(), n_resamples=9)
        assert found.change.value == pytest.approx(expected.value, abs=1e-12)
        assert found.swapped_share == is_second.mean()
        n_tokens = table["n_tokens"]
        assert found.token_share == pytest.approx(1 + n_tokens[is_second].sum() / n_tokens.sum())


@given(LOGITS, SEED)
def test_a_smaller_share_costs_more_and_none_is_the_full_swap(logits, seed):
    """Cost grows as the share falls; at 0 every row is swapped and nothing is lost."""
    labels = draw_labels(logits, seed)
    found = weigh_second_orders(make_table(logits), labels, shares=SHARES, n_resamples=9)
    costs = [one.token_share for one in found]
    assert costs == sorted(costs)
    last = found[-1]
    assert (last.swapped_share, last.token_share, last.change.value) == (1.0, 2.0, 0.0)
    swapped = weigh_second_orders(
        make_table(logits[::-1]), swap_labels(labels), shares=[0.0], n_resamples=9
    )
    assert swapped[0].change.value == 0.0


def test_an_interval_covers_conversations_not_rows():
    """Copies of each row in its own conversation do not make the change any surer."""
    rows = np.random.default_rng(0).normal(size=(2, 60, 3))
    labels, groups = draw_labels(rows, 1), np.arange(60)
    [once] = weigh_second_orders(make_table(rows), labels, shares=[0.9], groups=groups)
    [often] = weigh_second_orders(
        make_table(np.repeat(rows, 5, axis=1)), labels.repeat(5), shares=[0.9],
        groups=groups.repeat(5),
    )  # fmt: skip
    assert once.change.low < once.change.value < once.change.high
    assert often.change.high - often.change.low == pytest.approx(
        once.change.high - once.change.low, rel=0.2
    )


def test_rows_of_one_order_cannot_be_weighed():
    """What the second order would have said is not known."""
    logits = np.zeros((2, 8, 3))
    whole = make_table(logits)
    assert has_both_orders(whole)
    logits[1, 3] = np.nan
    table = make_table(logits)
    assert not has_both_orders(table)
    assert not has_both_orders(whole[:0])
    assert not has_both_orders(whole.drop(columns="prob_a_swapped"))
    with pytest.raises(ScoresError, match="one order only"):
        weigh_second_orders(table, np.zeros(8))
