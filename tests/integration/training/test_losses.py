"""The loss of a row is a cross-entropy or divergence over three classes or over A and B only."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from strategies import probs
from tiewise.training.trainer import row_losses

FLOATS = st.floats(-30, 30)


@st.composite
def rows(draw):
    """Draw logits, target distributions, and the share of each loss that is over A and B only."""
    target = draw(probs(5).filter(len))
    logits = draw(arrays(np.float64, target.shape, elements=FLOATS))
    share = draw(arrays(np.float64, len(target), elements=st.sampled_from([0.0, 0.5, 1.0])))
    return tuple(map(torch.from_numpy, (logits, target, share)))


def losses(logits, target, share, **options):
    target_entropy = options.pop("target_entropy", torch.zeros(len(target), dtype=logits.dtype))
    return row_losses(
        logits, target, binary_fraction=share, target_entropy=target_entropy, **options
    )


@given(rows=rows())
def test_loss_equals_torch_cross_entropy(rows):
    """Over three classes, also with soft labels, the loss is that of torch."""
    logits, target, _ = rows
    expected = torch.nn.functional.cross_entropy(logits, target, reduction="none")
    found = losses(logits, target, torch.zeros(len(target)).double())
    torch.testing.assert_close(found, expected)


@given(rows=rows())
def test_loss_is_zero_at_target(rows):
    """Minus the target entropy the loss is a divergence: never negative, 0 at the soft label."""
    logits, target, _ = rows
    target_entropy = torch.special.entr(target).sum(1)
    none = torch.zeros(len(target)).double()
    assert (losses(logits, target, none, target_entropy=target_entropy) > -1e-9).all()
    at_target = losses(target.clamp_min(1e-300).log(), target, none, target_entropy=target_entropy)
    torch.testing.assert_close(at_target, none, atol=1e-9, rtol=0)


@given(rows=rows())
def test_binary_rows_ignore_tie_logits(rows):
    """With a binary share of 1 the tie's logit gets a gradient of exactly zero."""
    logits, target, _ = rows
    target = target * torch.tensor([1.0, 1.0, 0.0])
    target = torch.where(
        target.sum(1, keepdim=True) > 0, target, torch.tensor([1.0, 0.0, 0.0]).double()
    )
    target = target / target.sum(1, keepdim=True)
    logits = logits.clone().requires_grad_()
    loss = losses(logits, target, torch.ones(len(target)).double())
    loss.sum().backward()
    assert (logits.grad[:, 2] == 0).all()
    two = torch.nn.functional.cross_entropy(logits[:, :2], target[:, :2], reduction="none")
    torch.testing.assert_close(loss, two)


@given(rows=rows())
def test_loss_is_symmetric(rows):
    """Exchanging A and B in logits and targets changes nothing."""
    logits, target, share = rows
    swapped = losses(logits[:, [1, 0, 2]], target[:, [1, 0, 2]], share)
    found = losses(logits, target, share)
    torch.testing.assert_close(found, swapped)


@given(rows=rows())
def test_loss_splits_into_factors(rows):
    """The loss over three classes is that of tie or not plus that of A or B."""
    logits, target, _ = rows
    ones = torch.ones(len(target)).double()
    p_tie = logits.softmax(1)[:, 2]
    full = losses(logits, target, ones * 0)
    about_tie = full - losses(logits, target, ones)
    torch.testing.assert_close(about_tie, -torch.log1p(-p_tie), atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("scale", [1e4, -1e4])
def test_extreme_logits_stay_finite(scale):
    """Nothing overflows in float32."""
    logits = torch.tensor([[scale, 0.0, -scale]], requires_grad=True)
    loss = losses(logits, torch.tensor([[0.5, 0.5, 0.0]]), torch.tensor([0.5]))
    loss.sum().backward()
    assert torch.isfinite(loss).all()
    assert torch.isfinite(logits.grad).all()
