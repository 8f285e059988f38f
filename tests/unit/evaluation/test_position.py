"""Position bias: signed, symmetric, and gone once both orders are averaged."""

import numpy as np
import pytest
from hypothesis import given

from strategies import scored_rows
from tiewise.data.labels import swap_probs
from tiewise.errors import ScoresError
from tiewise.evaluation.position import flip_rate, measure_position_bias, position_bias


@given(scored_rows())
def test_a_model_blind_to_order_has_no_bias(rows):
    """What is only permuted by the swap has no bias; it flips no row without equals."""
    _, probs, groups = rows
    bias = position_bias(probs, swap_probs(probs), groups=groups, n_resamples=19)
    assert bias.value == 0
    distinct = probs[:, 0] != probs[:, 1]
    assert flip_rate(probs, swap_probs(probs)) <= 1 - distinct.mean() + 1e-12


@given(scored_rows())
def test_a_model_that_sees_only_places_has_its_lead_as_bias(rows):
    """The same output for both orders: the bias is the mean of P(first) - P(second)."""
    _, probs, groups = rows
    bias = position_bias(probs, probs, groups=groups, n_resamples=19)
    assert bias.value == pytest.approx((probs[:, 0] - probs[:, 1]).mean(), abs=1e-12)


@given(scored_rows())
def test_exchanging_places_turns_the_sign(rows):
    """Preferring the second by as much is the negative bias."""
    _, probs, groups = rows
    other = probs[::-1]
    there = position_bias(probs, other, groups=groups, n_resamples=19).value
    back = position_bias(swap_probs(probs), swap_probs(other), groups=groups, n_resamples=19).value
    assert there == pytest.approx(-back, abs=1e-12)


@given(scored_rows())
def test_it_does_not_matter_which_order_is_called_the_given(rows):
    """Bias and flip rate are the same from either side."""
    _, probs, _ = rows
    other = probs[::-1]
    assert position_bias(probs, other).value == pytest.approx(position_bias(other, probs).value)
    unequal = (probs[:, 0] != probs[:, 1]) & (other[:, 0] != other[:, 1])
    if unequal.all():
        assert flip_rate(probs, other) == flip_rate(other, probs)


@given(scored_rows())
def test_averaging_both_orders_leaves_no_bias(rows):
    """After averaging, the bias is exactly zero, whatever it was before."""
    _, probs, groups = rows
    measured = measure_position_bias(probs, probs[::-1], groups=groups, n_resamples=19)
    assert measured.bias_after.value == 0
    assert measured.flip_rate_before.value == flip_rate(probs, probs[::-1])


def test_a_bias_is_found_with_an_interval():
    """A tilt of 0.1 towards the first shown is measured, and zero excluded."""
    generator = np.random.default_rng(0)
    fair = generator.dirichlet([3, 3, 3], 400)
    tilt = 0.05 * np.array([1, -1, 0]) * np.minimum(fair[:, 1:2], fair[:, :1]) * 4
    bias = position_bias(fair + tilt, swap_probs(fair) + tilt, groups=np.arange(400) // 4)
    assert bias.low > 0
    assert 0.05 < bias.value < 0.15


def test_it_prints_and_goes_to_json():
    """Four intervals, each named."""
    measured = measure_position_bias([[0.5, 0.3, 0.2]] * 3, [[0.5, 0.3, 0.2]] * 3)
    assert len(str(measured).splitlines()) == len(measured.to_dict()) == 4
    assert "bias before" in measured._repr_html_()


def test_orders_of_different_length_are_refused():
    """Each pair needs both orders."""
    with pytest.raises(ScoresError, match=r"probs_of_swapped has shape \(1, 3\)"):
        flip_rate([[0.5, 0.3, 0.2]] * 2, [[0.5, 0.3, 0.2]])
