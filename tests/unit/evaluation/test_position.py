"""Tests of averaging orders and folds, and of position bias and flip rate."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats
from scipy.special import softmax

from strategies import scored_rows
from tiewise.data.labels import swap_probs
from tiewise.errors import PairsError, ScoresError
from tiewise.evaluation.position import (
    average_folds,
    flip_rate,
    measure_position_bias,
    position_bias,
    tabulate_both_orders,
    tabulate_one_order,
)

OUTCOMES = ("a", "b", "tie")
LOGITS = st.integers(0, 6).flatmap(
    lambda n: hnp.arrays(np.float64, (2, n, 3), elements=st.floats(-800, 800))
)


def values(table: pd.DataFrame, name: str, suffix: str = "") -> np.ndarray:
    return table[[f"{name}_{outcome}{suffix}" for outcome in OUTCOMES]].to_numpy()


@given(LOGITS)
def test_averaging_orders_commutes_with_swap(logits):
    """Every column, single orders included, bit for bit."""
    one = tabulate_both_orders(*logits)
    other = tabulate_both_orders(*logits[::-1])
    for name in ("prob", "logit"):
        np.testing.assert_array_equal(values(one, name), swap_probs(values(other, name)))
    np.testing.assert_array_equal(
        values(one, "prob", "_given"), swap_probs(values(other, "prob", "_swapped"))
    )


@given(LOGITS)
def test_averaged_rows_are_probabilities(logits):
    """Rows sum to one; logits are their logarithm, finite even where a probability is 0."""
    table = tabulate_both_orders(*logits)
    np.testing.assert_allclose(values(table, "prob").sum(axis=1), 1)
    np.testing.assert_allclose(np.exp(values(table, "logit")), values(table, "prob"), atol=1e-12)
    assert np.isfinite(values(table, "logit")).all()


@given(LOGITS)
def test_equal_orders_give_equal_chances(logits):
    """A pair with the same logits in both orders has exactly P(A) = P(B)."""
    table = tabulate_both_orders(logits[0], logits[0])
    np.testing.assert_array_equal(table["prob_a"], table["prob_b"])


@given(LOGITS)
def test_one_order_keeps_its_logits(logits):
    """Logits do not change, and probabilities are their softmax."""
    table = tabulate_one_order(logits[0])
    np.testing.assert_array_equal(values(table, "logit"), logits[0])
    np.testing.assert_allclose(values(table, "prob"), softmax(logits[0], axis=1))


def make_table(logits: np.ndarray) -> pd.DataFrame:
    table = tabulate_both_orders(*logits)
    return table.assign(id=np.arange(len(table)), n_tokens=10)


@given(LOGITS, st.integers(1, 4))
def test_folds_are_averaged_as_probabilities(logits, n_folds):
    """The average of equal folds is each of them, in every column."""
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
def test_averaging_folds_commutes_with_swap(logits):
    """Averaged tables of swapped pairs are the swapped averaged tables, bit for bit."""
    tables = [make_table(logits), make_table(logits * 0.5)]
    swapped = [make_table(logits[::-1]), make_table(logits[::-1] * 0.5)]
    one, other = average_folds(tables), average_folds(swapped)
    for name in ("prob", "logit"):
        np.testing.assert_array_equal(values(one, name), swap_probs(values(other, name)))


def test_tables_of_different_pairs_are_refused():
    """So is an empty list of tables."""
    table = make_table(np.zeros((2, 2, 3)))
    with pytest.raises(PairsError, match="different pairs"):
        average_folds([table, table.assign(id=[0, 2])])
    with pytest.raises(PairsError, match="no prediction to average"):
        average_folds([])


@given(scored_rows())
def test_symmetric_model_has_no_bias(rows):
    """Permuted outputs have no bias; only rows with P(A) = P(B) flip."""
    _, probs, groups = rows
    bias = position_bias(probs, swap_probs(probs), groups=groups, n_resamples=19)
    assert bias.value == 0
    distinct = probs[:, 0] != probs[:, 1]
    assert flip_rate(probs, swap_probs(probs)) <= 1 - distinct.mean() + 1e-12


@given(scored_rows())
def test_bias_of_equal_outputs_is_their_lead(rows):
    """With the same output for both orders the bias is the mean of P(first) - P(second)."""
    _, probs, groups = rows
    bias = position_bias(probs, probs, groups=groups, n_resamples=19)
    assert bias.value == pytest.approx((probs[:, 0] - probs[:, 1]).mean(), abs=1e-12)


@given(scored_rows())
def test_preference_for_second_is_negative(rows):
    """Exchanging the two positions changes the sign."""
    _, probs, groups = rows
    other = probs[::-1]
    first = position_bias(probs, other, groups=groups, n_resamples=19).value
    second = position_bias(swap_probs(probs), swap_probs(other), groups=groups, n_resamples=19)
    assert first == pytest.approx(-second.value, abs=1e-12)


@given(scored_rows())
def test_bias_does_not_depend_on_given_order(rows):
    """Bias and flip rate are the same if the swapped order is called the given one."""
    _, probs, _ = rows
    other = probs[::-1]
    assert position_bias(probs, other).value == pytest.approx(position_bias(other, probs).value)
    unequal = (probs[:, 0] != probs[:, 1]) & (other[:, 0] != other[:, 1])
    if unequal.all():
        assert flip_rate(probs, other) == flip_rate(other, probs)


@given(scored_rows())
def test_averaging_removes_bias(rows):
    """After averaging both orders the bias is exactly zero."""
    _, probs, groups = rows
    measured = measure_position_bias(probs, probs[::-1], groups=groups, n_resamples=19)
    assert measured.bias_after.value == 0
    assert measured.flip_rate_before.value == flip_rate(probs, probs[::-1])


def test_bias_has_a_clustered_interval():
    """A tilt of 0.1 is significant; ten copies of each row in its group keep the interval."""
    generator = np.random.default_rng(0)
    fair = generator.dirichlet([3, 3, 3], 400)
    tilt = 0.05 * np.array([1, -1, 0]) * np.minimum(fair[:, 1:2], fair[:, :1]) * 4
    orders = fair + tilt, swap_probs(fair) + tilt
    bias = position_bias(*orders, groups=np.arange(400) // 4)
    assert bias.low > 0
    assert 0.05 < bias.value < 0.15
    copies = [order.repeat(10, axis=0) for order in orders]
    clustered = position_bias(*copies, groups=np.arange(4000) // 40)
    assert clustered.high - clustered.low == pytest.approx(bias.high - bias.low, rel=0.15)


def test_rare_flips_have_a_width():
    """No flip in 40 rows leaves a rate above zero open, but not after averaging."""
    given = np.tile([0.5, 0.3, 0.2], (40, 1))
    measured = measure_position_bias(given, swap_probs(given))
    assert measured.flip_rate_before.value == measured.flip_rate_before.low == 0
    quantile = stats.t.ppf(0.975, 39) ** 2
    assert measured.flip_rate_before.high == pytest.approx(quantile / (40 + quantile))
    assert measured.flip_rate_after.high == 0
    certain = np.tile([1.0, 0, 0], (4, 1))
    certain[0] = [0.6, 0.4, 0]
    for orders in ((certain, certain), (swap_probs(certain),) * 2):
        bias = measure_position_bias(*orders).bias_before
        assert -1 <= bias.low <= bias.value <= bias.high <= 1


def test_position_bias_prints_and_converts_to_json():
    """Two lines for single orders; the JSON has those of the average too."""
    measured = measure_position_bias([[0.5, 0.3, 0.2]] * 3, [[0.5, 0.3, 0.2]] * 3)
    assert len(str(measured).splitlines()) == 2
    assert len(measured.to_dict()) == 4
    assert "position bias" in measured._repr_html_()


def test_orders_of_different_length_are_refused():
    """Each pair needs both orders."""
    with pytest.raises(ScoresError, match=r"probs_of_swapped has shape \(1, 3\)"):
        flip_rate([[0.5, 0.3, 0.2]] * 2, [[0.5, 0.3, 0.2]])
