"""Attention over rows that lie end to end."""

import importlib
import types

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.attention import flex_attention

from tiewise import kernels
from tiewise.kernels import Rows, Scoring, attend


def reference(query, key, value, rows, scoring):
    """Attend row by row with a mask and repeated keys, as a textbook would."""
    outputs, query_start, key_start = [], 0, 0
    for n_queries, n_keys in zip(rows.query_lengths, rows.key_lengths, strict=True):
        own = query[query_start : query_start + n_queries].transpose(0, 1)
        group = query.shape[1] // key.shape[1]
        keys, values = (
            part[key_start : key_start + n_keys].transpose(0, 1).repeat_interleave(group, 0)
            for part in (key, value)
        )
        scores = own @ keys.mT * scoring.scale
        if scoring.softcap is not None:
            scores = scoring.softcap * torch.tanh(scores / scoring.softcap)
        distance = torch.arange(n_keys - n_queries, n_keys)[:, None] - torch.arange(n_keys)
        hidden = distance < 0
        if scoring.window is not None:
            hidden |= distance >= scoring.window
        weights = torch.softmax(scores.masked_fill(hidden, -torch.inf), -1)
        outputs.append((weights @ values).transpose(0, 1))
        query_start, key_start = query_start + n_queries, key_start + n_keys
    return torch.cat(outputs)


@st.composite
def problems(draw):
    """Rows, heads and scoring of every kind: grouped heads, capped, windowed, last token only."""
    lengths = draw(st.lists(st.integers(1, 250), min_size=1, max_size=4))
    wants_last = draw(st.booleans())
    rows = Rows(tuple(1 if wants_last else n for n in lengths), tuple(lengths))
    n_key_heads, group, head_dim = draw(st.tuples(*[st.integers(1, 3)] * 3))
    scoring = Scoring(
        scale=draw(st.sampled_from([0.25, 1.0])),
        softcap=draw(st.sampled_from([None, 2.0, 50.0])),
        window=draw(st.none() | st.integers(1, 260)),
    )
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    n_queries, n_keys = sum(rows.query_lengths), sum(rows.key_lengths)
    shapes = (
        (n_queries, n_key_heads * group, head_dim),
        (n_keys, n_key_heads, head_dim),
        (n_keys, n_key_heads, head_dim),
    )
    tensors = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]
    return tensors, rows, scoring


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


@settings(max_examples=20)
@given(problems())
def test_flex_attention_is_given_the_same_problem(problem):
    """The mask and score rule for CUDA describe what the CPU computes."""
    tensors, rows, scoring = problem
    # Flex attention on a CPU knows float32 and heads of some size only.
    tensors = [torch.nn.functional.pad(part.float(), (0, 16 - part.shape[-1])) for part in tensors]
    with torch.no_grad(), pytest.MonkeyPatch.context() as patch:
        # Uncompiled it warns that it is slow, unless it is being debugged.
        patch.setattr(flex_attention, "_FLEX_ATTENTION_DISABLE_COMPILE_DEBUG", True)
        own = kernels._attend_flex(*tensors, rows, scoring)
    expected = reference(*tensors, rows, scoring)
    torch.testing.assert_close(own, expected, rtol=0, atol=1e-5)


@given(problems())
def test_flash_attention_is_given_the_same_problem(problem):
    """Offsets, window and cap are passed as flash-attention's variable-length kernel reads them."""
    tensors, rows, scoring = problem

    def stand_in(query, key, value, query_offsets, key_offsets, most_queries, most_keys, **options):
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
        module = types.SimpleNamespace(flash_attn_varlen_func=stand_in)
        patch.setattr(importlib, "import_module", lambda name: {"flash_attn": module}[name])
        own = kernels._attend_flash(*tensors, rows, scoring)
    assert torch.equal(own, reference(*tensors, rows, scoring))


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
