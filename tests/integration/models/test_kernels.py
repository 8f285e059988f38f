"""Attention kernels are compared with a textbook implementation, and with what CUDA is given."""

import functools
import importlib
import types

import pytest
import torch
from hypothesis import given, settings
from torch.nn.attention import flex_attention

from textbook import problems, reference
from tiewise.models import kernels
from tiewise.models.kernels import Rows, Scoring, attend


@given(problems())
def test_equals_textbook_attention(problem):
    """Values and gradients of the CPU kernel equal the textbook's to 1e-11 in float64."""
    tensors, rows, scoring = problem
    for part in tensors:
        part.requires_grad_()
    own, expected = attend(*tensors, rows, scoring), reference(*tensors, rows, scoring)
    grads = torch.autograd.grad(own.sin().sum(), tensors)
    expected_grads = torch.autograd.grad(expected.sin().sum(), tensors)
    for one, other in zip((own, *grads), (expected, *expected_grads), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-11)


@pytest.mark.parametrize("window", range(1, 6))
def test_windows_end_at_their_border(window):
    """Rows shorter than the window, as long, and a token or two longer are textbook attention."""
    lengths = tuple(range(1, window + 4))
    for n_queries in (lengths, (1,) * len(lengths)):
        rows, scoring = Rows(n_queries, lengths), Scoring(0.5, window=window)
        query = torch.randn(sum(n_queries), 2, 4, dtype=torch.float64)
        key, value = torch.randn(2, sum(lengths), 2, 4, dtype=torch.float64)
        expected = reference(query, key, value, rows, scoring)
        torch.testing.assert_close(attend(query, key, value, rows, scoring), expected)


def test_half_precision_computes_in_float32():
    """On a CPU, bfloat16 rows give the rounded float32 result, rounded only once."""
    rows, scoring = Rows((40,), (40,)), Scoring(0.25, 5.0, 16)
    wide = [torch.randn(40, heads, 8).bfloat16() for heads in (4, 2, 2)]
    expected = attend(*(part.float() for part in wide), rows, scoring).bfloat16()
    assert torch.equal(attend(*wide, rows, scoring), expected)


def test_no_graph_without_gradients():
    """Without gradients no weights are kept."""
    tensors = [torch.randn(300, 2, 8) for _ in range(3)]
    assert attend(*tensors, Rows((300,), (300,)), Scoring(1.0)).grad_fn is None


def test_little_kept_above_the_diagonal():
    """For a row of 960 tokens the kept weights are 55 % of the square; with a window, 20 %."""
    kept = []

    def count(part):
        kept.append(part.numel() if part.ndim == 3 and part.shape[0] == 1 else 0)
        return part

    tensors = [torch.randn(960, 1, 4, requires_grad=True) for _ in range(3)]
    for window, most in ((None, 0.56), (96, 0.2)):
        kept.clear()
        with torch.autograd.graph.saved_tensors_hooks(count, lambda part: part):
            attend(*tensors, Rows((960,), (960,)), Scoring(1.0, window=window))
        assert 0 < sum(kept) <= most * 960**2


@settings(max_examples=20)
@given(problems())
def test_flex_attention_gets_same_problem(problem):
    """The mask and the score function for CUDA describe what the CPU computes."""
    tensors, rows, scoring = problem
    # On a CPU, flex attention supports only float32 and heads of at least 16.
    tensors = [torch.nn.functional.pad(part.float(), (0, 16 - part.shape[-1])) for part in tensors]
    with torch.no_grad(), pytest.MonkeyPatch.context() as patch:
        # Without this, torch warns that flex attention is slow when it is not compiled.
        patch.setattr(flex_attention, "_FLEX_ATTENTION_DISABLE_COMPILE_DEBUG", True)
        own = kernels.attend_flex(*tensors, rows, scoring)
    expected = reference(*tensors, rows, scoring)
    torch.testing.assert_close(own, expected, rtol=0, atol=1e-5)


def test_variants_stay_compiled():
    """Above torch's limit of variants of a compiled function, flex attention is compiled too."""
    tensors = [torch.ones(3, 1, 16) for _ in range(3)]
    with pytest.MonkeyPatch.context() as patch:
        compile_eagerly = functools.partial(torch.compile, backend="eager")
        patch.setattr(torch, "compile", compile_eagerly)
        compiled = kernels._flex_attention.__wrapped__(is_compiled=True)
        patch.setattr(kernels, "_flex_attention", lambda _: compiled)
        strict = torch._dynamo.config.patch(recompile_limit=1, fail_on_recompile_limit_hit=True)
        with strict, torch.no_grad():
            for window in (None, 2):
                attend = kernels.attend_flex(
                    *tensors, Rows((3,), (3,)), Scoring(0.25, None, window)
                )
                assert attend.shape == (3, 1, 16)


@pytest.mark.parametrize(
    ("head_dim", "shared_memory", "is_smaller"),
    [(256, 101_376, True), (256, 166_912, False), (128, 101_376, False), (256, None, False)],
)
def test_tiles_fit_shared_memory(head_dim, shared_memory, is_smaller):
    """Only wide heads on a 24 GB card get smaller tiles, not on an 80 GB card or a CPU."""
    options = kernels.fit_backward(head_dim, shared_memory)
    assert (options is not None) == is_smaller


@given(problems())
def test_flash_attention_gets_same_problem(problem):
    """Offsets, window and cap have the meaning of flash-attention's variable-length kernel."""
    tensors, rows, scoring = problem

    def kernel(query, key, value, query_offsets, key_offsets, most_queries, most_keys, **options):
        assert options.pop("causal") is True
        left, right = options.pop("window_size")
        assert right == (-1 if left == -1 else 0)
        given_rows = Rows(tuple(query_offsets.diff().tolist()), tuple(key_offsets.diff().tolist()))
        assert query_offsets.dtype == torch.int32
        assert most_queries == max(rows.query_lengths)
        assert most_keys == max(rows.key_lengths)
        window = None if left == -1 else left + 1
        rule = Scoring(options.pop("softmax_scale"), options.pop("softcap") or None, window)
        assert not options
        return reference(query, key, value, given_rows, rule)

    with pytest.MonkeyPatch.context() as patch:
        module = types.SimpleNamespace(flash_attn_varlen_func=kernel)
        patch.setattr(importlib, "import_module", lambda name: {"flash_attn": module}[name])
        own = kernels.attend_flash(*tensors, rows, scoring)
    assert torch.equal(own, reference(*tensors, rows, scoring))
