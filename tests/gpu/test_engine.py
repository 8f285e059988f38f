"""On CUDA: the gradient of a classifier in every layout, compared with the CPU's."""

import pytest
import torch

from tiewise.models.attention import collate
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
