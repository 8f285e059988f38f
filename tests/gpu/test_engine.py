"""On CUDA: the kernels for GPUs against the CPU's, and one gradient in every layout."""

import pytest
import torch

from tiewise.models.attention import collate
from tiewise.models.kernels import Rows, Scoring, attend, can_use_flash
from tiny_models import build_tiny, make_rows


def run_on(device, classifier, rows, layout):
    """Return logits and gradients of one batch on a device, as float32 on the CPU."""
    classifier.to(device).zero_grad(set_to_none=True)
    logits = classifier(collate(rows, range(len(rows)), layout=layout, pad_id=0, device=device))
    logits.square().sum().backward()
    grads = {name: part.grad.cpu() for name, part in classifier.trainable_parameters()}
    return logits.detach().cpu(), grads


@pytest.mark.parametrize("backbone", ["tiny:0", "tiny-llama:0"])
@pytest.mark.parametrize("layout", ["padded", "packed"])
def test_the_gradient_is_the_cpus(backbone, layout, cache_dir):
    """Flex attention in float32 gives the CPU's logits and gradients to rounding."""
    classifier = build_tiny(backbone, cache_dir, dtype="float32")
    rows = make_rows()
    expected, expected_grads = run_on("cpu", classifier, rows, "packed")
    logits, grads = run_on("cuda", classifier, rows, layout)
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-3)
    for name, part in grads.items():
        scale = 1 + float(expected_grads[name].abs().max())
        torch.testing.assert_close(part, expected_grads[name], rtol=0, atol=1e-3 * scale, msg=name)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("scoring", [Scoring(0.25), Scoring(0.25, 5.0, 32)])
@pytest.mark.parametrize("head_dim", [64, 256])
def test_half_precision_kernels_are_close_to_the_cpu(dtype, scoring, head_dim):
    """Flash-attention where it is installed, flex attention elsewhere; forward and backward.

    A head of Gemma's has 256 numbers, for which a block's shared memory may be short.
    """
    rows = Rows((5, 70, 128), (5, 70, 128))
    tensors = [0.5 * torch.randn(203, heads, head_dim, dtype=dtype) for heads in (4, 2, 2)]
    found = {}
    for device in ("cpu", "cuda"):
        parts = [part.to(device).requires_grad_() for part in tensors]
        out = attend(*parts, rows, scoring)
        grads = torch.autograd.grad(out.float().sum(), parts)
        found[device] = [part.detach().cpu() for part in (out, *grads)]
    kind = "flash" if can_use_flash(dtype) else "flex"
    for own, expected in zip(found["cuda"], found["cpu"], strict=True):
        scale = 1 + float(expected.abs().max())
        torch.testing.assert_close(own, expected, rtol=0.02, atol=0.02 * scale, msg=kind)
