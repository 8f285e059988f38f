"""Truths about two orders of a pair and several folds of a run."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tiewise.data.labels import swap_probs
from tiewise.errors import PairsError
from tiewise.evaluation.swap_averaging import (
    average_folds,
    log_softmax,
    tabulate_both_orders,
    tabulate_one_order,
)

OUTCOMES = ("a", "b", "tie")
LOGITS = st.integers(0, 6).flatmap(
    lambda n: hnp.arrays(np.float64, (2, n, 3), elements=st.floats(-800, 800))
)


def values(table: pd.DataFrame, name: str, suffix: str = "") -> np.ndarray:
    """Give the three columns of a name."""
    return table[[f"{name}_{outcome}{suffix}" for outcome in OUTCOMES]].to_numpy()


@given(LOGITS)
def test_the_average_of_the_swapped_pair_is_the_swapped_average(logits):
    """Every column commutes with the swap to the last bit."""
    given_order, swapped = logits
    one = tabulate_both_orders(given_order, swapped)
    other = tabulate_both_orders(swapped, given_order)
    for name in ("prob", "logit"):
        np.testing.assert_array_equal(values(one, name), swap_probs(values(other, name)))
    np.testing.assert_array_equal(
        values(one, "prob", "_given"), swap_probs(values(other, "prob", "_swapped"))
    )


@given(LOGITS)
def test_averaged_rows_are_probabilities(logits):
    """Rows sum to one, and the logits are their logarithm, finite where a probability is 0."""
    table = tabulate_both_orders(*logits)
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
