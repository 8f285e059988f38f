"""Attention over rows that lie end to end."""

import torch
from hypothesis import given

from textbook import problems, reference
from tiewise.models.kernels import Rows, Scoring, attend


@given(problems())
def test_equals_the_textbook_in_value_and_gradient(problem):
    """Blocks, grouped heads and kept weights change no digit that float64 can hold."""
    tensors, rows, scoring = problem
    for part in tensors:
        part.requires_grad_()
    own, expected = attend(*tensors, rows, scoring), reference(*tensors, rows, scoring)
    grads = torch.autograd.grad(own.sin().sum(), tensors)
    expected_grads = torch.autograd.grad(expected.sin().sum(), tensors)
    for one, other in zip((own, *grads), (expected, *expected_grads), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-11)


def test_half_precision_is_computed_in_float32():
    """On a CPU, bfloat16 rows give the rounded float32 result, not one rounded at every step."""
    rows, scoring = Rows((40,), (40,)), Scoring(0.25, 5.0, 16)
    wide = [torch.randn(40, heads, 8).bfloat16() for heads in (4, 2, 2)]
    expected = attend(*(part.float() for part in wide), rows, scoring).bfloat16()
    assert torch.equal(attend(*wide, rows, scoring), expected)


def test_nothing_is_kept_when_no_gradient_is_wanted():
    """Scoring holds no weights: the output carries no graph."""
    tensors = [torch.randn(300, 2, 8) for _ in range(3)]
    assert attend(*tensors, Rows((300,), (300,)), Scoring(1.0)).grad_fn is None


def test_little_is_computed_above_the_diagonal():
    """Of a row of 960 tokens the kept weights hold 55 % of the square, the window's 20 %."""
    kept = []

    def count(part):
        kept.append(part.numel() if part.ndim == 3 and part.shape[0] == 1 else 0)
        return part

    tensors = [torch.randn(960, 1, 4, requires_grad=True) for _ in range(3)]
    for window, most in ((None, 0.56), (96, 0.2)):
        kept.clear()
        with torch.autograd.graph.saved_tensors_hooks(count, lambda part: part):
            attend(*tensors, Rows((960,), (960,)), Scoring(1.0, window=window))
        assert sum(kept) <= most * 960**2
