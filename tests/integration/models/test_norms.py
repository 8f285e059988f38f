"""RMS norms at the input's own precision."""

import pytest
import torch
from transformers.models.gemma2.modeling_gemma2 import Gemma2RMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from tiewise.models.norms import replace_norms

KINDS = (Gemma2RMSNorm, LlamaRMSNorm)


def make_norm(kind, *, dtype):
    """Make a norm with random weights, and one of our own with the same."""
    theirs = kind(48)
    with torch.no_grad():
        theirs.weight.copy_(torch.randn(48, generator=torch.Generator().manual_seed(0)))
    ours = kind(48)
    ours.load_state_dict(theirs.state_dict())
    assert replace_norms(torch.nn.ModuleList([ours])) == 1
    return theirs.to(dtype), ours.to(dtype)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-5), (torch.bfloat16, 0.05)])
def test_equals_transformers(kind, dtype, tolerance):
    """Value, input gradient and weight gradient are transformers' own, to rounding."""
    theirs, ours = make_norm(kind, dtype=dtype)
    results = []
    for norm in (theirs, ours):
        x = (3 * torch.randn(7, 5, 48, generator=torch.Generator().manual_seed(1))).to(dtype)
        x.requires_grad_()
        out = norm(x)
        assert out.dtype == dtype
        out.float().sin().sum().backward()
        results.append((out, x.grad, norm.weight.grad))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("kind", KINDS)
def test_float64_is_not_rounded_to_float32(kind):
    """The gradient is the numerical derivative to the digits that only float64 has."""
    _, ours = make_norm(kind, dtype=torch.float64)
    x = torch.randn(2, 3, 48, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, weight: ours(x), (x, ours.weight), atol=1e-9)


def test_frozen_weights_get_no_gradient():
    """With a frozen weight the gradient goes to the input alone."""
    _, ours = make_norm(Gemma2RMSNorm, dtype=torch.float32)
    ours.requires_grad_(requires_grad=False)
    x = torch.randn(2, 48, requires_grad=True)
    ours(x).sum().backward()
    assert x.grad is not None
    assert ours.weight.grad is None
