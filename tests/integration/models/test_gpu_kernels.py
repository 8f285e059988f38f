"""What the kernels for CUDA are asked to compute; that they do is for tests/gpu."""

import importlib
import types

import pytest
import torch
from hypothesis import given, settings
from torch.nn.attention import flex_attention

from textbook import problems, reference
from tiewise.models import gpu_kernels
from tiewise.models.kernels import Rows, Scoring


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
        own = gpu_kernels.attend_flex(*tensors, rows, scoring)
    expected = reference(*tensors, rows, scoring)
    torch.testing.assert_close(own, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("head_dim", "shared_memory", "is_smaller"),
    [(256, 101_376, True), (256, 166_912, False), (128, 101_376, False), (256, None, False)],
)
def test_wide_heads_get_smaller_tiles_where_shared_memory_is_short(
    head_dim, shared_memory, is_smaller
):
    """A card with 24 GB, one with 80, narrow heads, a CPU; 64 by 64 tiles of 256 need 112 KiB."""
    options = gpu_kernels.fit_backward(head_dim, shared_memory)
    assert (options is not None) == is_smaller


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
        own = gpu_kernels.attend_flash(*tensors, rows, scoring)
    assert torch.equal(own, reference(*tensors, rows, scoring))
