"""The loss of a row: cross-entropy, divergence, and A against B alone."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from strategies import probs
from tiewise.training.losses import row_losses

FLOATS = st.floats(-30, 30)


@st.composite
def rows(draw):
    """Logits, distributions and the share that is about A against B alone."""
    goal = draw(probs(5).filter(len))
    logits = draw(arrays(np.float64, goal.shape, elements=FLOATS))
    share = draw(arrays(np.float64, len(goal), elements=st.sampled_from([0.0, 0.5, 1.0])))
    return tuple(map(torch.from_numpy, (logits, goal, share)))


def losses(logits, goal, share, **options):
    target_entropy = options.pop("target_entropy", torch.zeros(len(goal), dtype=logits.dtype))
    return row_losses(logits, goal, binary_fraction=share, target_entropy=target_entropy, **options)


@given(rows=rows())
def test_with_all_three_classes_it_is_torchs_cross_entropy(rows):
    """Soft labels included."""
    logits, goal, _ = rows
    expected = torch.nn.functional.cross_entropy(logits, goal, reduction="none")
    found = losses(logits, goal, torch.zeros(len(goal)).double())
    torch.testing.assert_close(found, expected)


@given(rows=rows())
def test_a_soft_label_predicted_exactly_costs_nothing(rows):
    """Less the entropy the cross-entropy is a divergence: never negative, 0 at the soft label."""
    logits, goal, _ = rows
    target_entropy = torch.special.entr(goal).sum(1)
    none = torch.zeros(len(goal)).double()
    assert (losses(logits, goal, none, target_entropy=target_entropy) > -1e-9).all()
    at_goal = losses(goal.clamp_min(1e-300).log(), goal, none, target_entropy=target_entropy)
    torch.testing.assert_close(at_goal, none, atol=1e-9, rtol=0)


@given(rows=rows())
def test_a_row_about_a_and_b_alone_moves_no_tie_mass(rows):
    """Its gradient at the tie's logit is zero to the last bit, wherever that logit stands."""
    logits, goal, _ = rows
    goal = goal * torch.tensor([1.0, 1.0, 0.0])
    goal = torch.where(goal.sum(1, keepdim=True) > 0, goal, torch.tensor([1.0, 0.0, 0.0]).double())
    goal = goal / goal.sum(1, keepdim=True)
    logits = logits.clone().requires_grad_()
    loss = losses(logits, goal, torch.ones(len(goal)).double())
    loss.sum().backward()
    assert (logits.grad[:, 2] == 0).all()
    two = torch.nn.functional.cross_entropy(logits[:, :2], goal[:, :2], reduction="none")
    torch.testing.assert_close(loss, two)


@given(rows=rows())
def test_the_loss_of_the_swap_is_the_loss(rows):
    """Exchanging A and B in logits and targets changes nothing."""
    logits, goal, share = rows
    swapped = losses(logits[:, [1, 0, 2]], goal[:, [1, 0, 2]], share)
    found = losses(logits, goal, share)
    torch.testing.assert_close(found, swapped)


@given(rows=rows())
def test_the_factors_of_the_loss_add_up(rows):
    """Loss of three classes = tie or not + A or B; decisive rows are without the first."""
    logits, goal, _ = rows
    ones = torch.ones(len(goal)).double()
    p_tie = logits.softmax(1)[:, 2]
    full = losses(logits, goal, ones * 0)
    about_tie = full - losses(logits, goal, ones)
    torch.testing.assert_close(about_tie, -torch.log1p(-p_tie), atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("scale", [1e4, -1e4])
def test_far_logits_stay_finite(scale):
    """Nothing overflows in single precision."""
    logits = torch.tensor([[scale, 0.0, -scale]], requires_grad=True)
    loss = losses(logits, torch.tensor([[0.5, 0.5, 0.0]]), torch.tensor([0.5]))
    loss.sum().backward()
    assert torch.isfinite(loss).all()
    assert torch.isfinite(logits.grad).all()
