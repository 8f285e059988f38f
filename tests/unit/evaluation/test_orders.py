"""Truths about two orders of a pair and several folds of a run."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tiewise.errors import PairsError
from tiewise.evaluation.orders import (
    average_folds,
    is_close,
    log_softmax,
    tabulate_both_orders,
    tabulate_one_order,
)
from tiewise.pairs.labels import swap_probs
from tiewise.predicting.tally import count_tokens

OUTCOMES = ("a", "b", "tie")
LOGITS = st.integers(0, 6).flatmap(
    lambda n: hnp.arrays(np.float64, (2, n, 3), elements=st.floats(-800, 800))
)
MISSING = st.integers(0, 2**31)


def values(table: pd.DataFrame, name: str, suffix: str = "") -> np.ndarray:
    """Give the three columns of a name."""
    return table[[f"{name}_{outcome}{suffix}" for outcome in OUTCOMES]].to_numpy()


def leave_out(logits: np.ndarray, seed: int) -> np.ndarray:
    """Take one order from some pairs, never both."""
    which = np.random.default_rng(seed).integers(0, 3, logits.shape[1])
    kept = logits.copy()
    kept[0, which == 0] = np.nan
    kept[1, which == 1] = np.nan
    return kept


@given(LOGITS, MISSING)
def test_the_average_of_the_swapped_pair_is_the_swapped_average(logits, seed):
    """Every column commutes with the swap to the last bit, single orders included."""
    given_order, swapped = leave_out(logits, seed)
    one = tabulate_both_orders(given_order, swapped)
    other = tabulate_both_orders(swapped, given_order)
    for name in ("prob", "logit"):
        np.testing.assert_array_equal(values(one, name), swap_probs(values(other, name)))
    np.testing.assert_array_equal(
        values(one, "prob", "_given"), swap_probs(values(other, "prob", "_swapped"))
    )


@given(LOGITS, MISSING)
def test_averaged_rows_are_probabilities(logits, seed):
    """Rows sum to one, and the logits are their logarithm, finite where a probability is 0."""
    table = tabulate_both_orders(*leave_out(logits, seed))
    np.testing.assert_allclose(values(table, "prob").sum(axis=1), 1)
    np.testing.assert_allclose(np.exp(values(table, "logit")), values(table, "prob"), atol=1e-12)
    assert np.isfinite(values(table, "logit")).all()


@given(LOGITS)
def test_equal_responses_win_equally_often(logits):
    """A pair whose two orders have the same logits has exactly equal chances for A and B."""
    table = tabulate_both_orders(logits[0], logits[0])
    np.testing.assert_array_equal(table["prob_a"], table["prob_b"])


@given(LOGITS)
def test_one_order_keeps_its_logits(logits):
    """Logits are handed through, and probabilities are their softmax."""
    table = tabulate_one_order(logits[0])
    np.testing.assert_array_equal(values(table, "logit"), logits[0])
    np.testing.assert_allclose(values(table, "prob"), np.exp(log_softmax(logits[0])))


@given(LOGITS, st.floats(0, 1), st.floats(0, 1))
def test_a_smaller_share_takes_in_more_rows(logits, share, other):
    """At 0 every row is close, and rows close at a larger share are close at a smaller one."""
    assert is_close(logits[0], 0.0).all()
    assert (is_close(logits[0], max(share, other)) <= is_close(logits[0], min(share, other))).all()


def make_table(logits: np.ndarray) -> pd.DataFrame:
    """Give predictions of both orders with ids and token counts."""
    table = tabulate_both_orders(*logits)
    return table.assign(id=np.arange(len(table)), n_tokens=10)


@given(LOGITS, st.integers(1, 4))
def test_folds_are_averaged_as_probabilities(logits, n_folds):
    """The mean of several tables is the mean of their probabilities; of equal ones, their own."""
    tables = [make_table(logits + shift) for shift in range(n_folds)]  # softmax ignores the shift
    averaged = average_folds(tables)
    for suffix in ("", "_given", "_swapped"):
        np.testing.assert_allclose(
            values(averaged, "prob", suffix), values(tables[0], "prob", suffix), atol=1e-12
        )
    np.testing.assert_allclose(
        np.exp(values(averaged, "logit")), values(averaged, "prob"), atol=1e-12
    )


@given(LOGITS)
def test_averaging_folds_commutes_with_the_swap(logits):
    """Averaged tables of swapped pairs are the swapped averaged tables, to the last bit."""
    tables = [make_table(logits), make_table(logits * 0.5)]
    swapped = [make_table(logits[::-1]), make_table(logits[::-1] * 0.5)]
    one, other = average_folds(tables), average_folds(swapped)
    for name in ("prob", "logit"):
        np.testing.assert_array_equal(values(one, name), swap_probs(values(other, name)))


def test_tables_of_different_pairs_are_not_averaged():
    """Other ids, or no table at all, are refused."""
    table = make_table(np.zeros((2, 2, 3)))
    with pytest.raises(PairsError, match="different pairs"):
        average_folds([table, table.assign(id=[0, 2])])
    with pytest.raises(PairsError, match="no finished fold"):
        average_folds([])


def test_folds_that_scored_a_second_order_are_not_lost_among_those_that_did_not():
    """What the second order gave is theirs, and what it cost is counted in parts of an order."""
    first = tabulate_both_orders(np.log([[0.6, 0.3, 0.1]] * 2), np.log([[0.3, 0.6, 0.1]] * 2))
    first.insert(0, "id", [1, 2])
    order = ["prob_a_swapped", "prob_b_swapped", "prob_tie_swapped"]
    second = first.assign(**dict.fromkeys(order, np.nan))
    second.loc[0, order] = first.loc[0, order]
    averaged = average_folds([first, second, second])
    np.testing.assert_allclose(averaged[order], first[order], rtol=1e-15)
    np.testing.assert_allclose(averaged["n_orders"], [2, 4 / 3], rtol=1e-15)
    assert count_tokens(averaged.assign(n_tokens=30)).tolist() == [60, 40]
    assert average_folds([second])[order].isna().any(axis=1).tolist() == [False, True]
    assert average_folds([second, second])[order].isna().any(axis=1).tolist() == [False, True]
