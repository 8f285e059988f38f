"""Attention over rows that lie end to end, on CUDA: flash-attention's kernel, else flex attention.

Both are given what :mod:`tiewise.models.kernels` describes, and tests hold each to the same
textbook.

This module is a leaf: it imports torch, and nothing below imports it.
"""

from __future__ import annotations

import functools
import importlib.util
import inspect
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

if TYPE_CHECKING:
    from tiewise.models.kernels import Rows, Scoring

_NARROW, _AMPLE = 128, 160 * 1024
"""Width of a head, and bytes of shared memory a block, up to and from which torch's tiles fit."""


def attend(query: Tensor, key: Tensor, value: Tensor, rows: Rows, scoring: Scoring) -> Tensor:
    """Return causal attention within each row, `(n_queries, n_heads, head_dim)`, on CUDA."""
    kernel = attend_flash if can_use_flash(query.dtype) else attend_flex
    return kernel(query, key, value, rows, scoring)


def can_use_flash(dtype: torch.dtype) -> bool:
    """Return whether flash-attention is installed, runs on this GPU, and computes in `dtype`."""
    return dtype in (torch.bfloat16, torch.float16) and _has_flash()


@functools.cache
def _has_flash() -> bool:
    """Whether there is a kernel that bends scores (2.6 and later), and a GPU that runs it."""
    if importlib.util.find_spec("flash_attn") is None or not torch.cuda.is_available():
        return False
    kernel = getattr(importlib.import_module("flash_attn"), "flash_attn_varlen_func", None)
    if kernel is None or "softcap" not in inspect.signature(kernel).parameters:
        return False
    return torch.cuda.get_device_capability() >= (8, 0)


def attend_flash(query: Tensor, key: Tensor, value: Tensor, rows: Rows, scoring: Scoring) -> Tensor:
    """Attend by flash-attention's kernel for rows of varying length."""
    flash_attn: Any = importlib.import_module("flash_attn")
    query_offsets = _offsets(rows.query_lengths, query.device)
    key_offsets = _offsets(rows.key_lengths, query.device)
    window = (-1, -1) if scoring.window is None else (scoring.window - 1, 0)
    return flash_attn.flash_attn_varlen_func(  # type: ignore[no-any-return]
        query,
        key,
        value,
        query_offsets,
        key_offsets,
        max(rows.query_lengths),
        max(rows.key_lengths),
        softmax_scale=scoring.scale,
        causal=True,
        window_size=window,
        softcap=scoring.softcap or 0.0,
    )


def attend_flex(query: Tensor, key: Tensor, value: Tensor, rows: Rows, scoring: Scoring) -> Tensor:
    """Attend by flex attention with a mask of blocks, compiled on CUDA."""
    cap = scoring.softcap

    def bend(score: Tensor, *_: Tensor) -> Tensor:
        return cap * torch.tanh(score / cap)  # type: ignore[operator]

    out = _flex_attention(query.is_cuda)(
        query.transpose(0, 1)[None],
        key.transpose(0, 1)[None],
        value.transpose(0, 1)[None],
        score_mod=None if cap is None else bend,
        block_mask=_flex_mask(rows, scoring.window, query.device),
        scale=scoring.scale,
        enable_gqa=query.shape[1] != key.shape[1],
        kernel_options=fit_backward(query.shape[2], _shared_memory(query.device)),
    )
    return out[0].transpose(0, 1)  # type: ignore[no-any-return]


def fit_backward(head_dim: int, shared_memory: int | None) -> dict[str, int] | None:
    """Return smaller tiles where the backward pass's own would not fit a block's shared memory.

    Torch's for Ampere and Ada take more than the 99 KiB of most cards with 24 GB where heads are as
    wide as Gemma's (github.com/pytorch/pytorch/issues/198224). None where there is room.
    """
    if shared_memory is None or head_dim <= _NARROW or shared_memory >= _AMPLE:
        return None
    tiles = dict.fromkeys(("bwd_BLOCK_M1", "bwd_BLOCK_N1", "bwd_BLOCK_M2", "bwd_BLOCK_N2"), 32)
    return tiles | {"bwd_num_stages": 1}


def _shared_memory(device: torch.device) -> int | None:
    """Return the bytes of shared memory that one block may ask for; None off CUDA."""
    if device.type != "cuda":
        return None
    return getattr(torch.cuda.get_device_properties(device), "shared_memory_per_block_optin", None)


@functools.cache
def _flex_attention(is_compiled: bool) -> Any:
    return torch.compile(flex_attention, dynamic=True) if is_compiled else flex_attention


@functools.lru_cache(maxsize=16)
def _flex_mask(rows: Rows, window: int | None, device: torch.device) -> Any:
    query_row, query_place = _places(rows.query_lengths, rows.key_lengths, device)
    key_row, key_place = _places(rows.key_lengths, rows.key_lengths, device)

    def sees(_batch: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        distance = query_place[query] - key_place[key]
        near = distance >= 0 if window is None else (distance >= 0) & (distance < window)
        return (query_row[query] == key_row[key]) & near

    return create_block_mask(sees, None, None, len(query_row), len(key_row), device=str(device))


def _places(
    lengths: tuple[int, ...], key_lengths: tuple[int, ...], device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return each token's row and its position in that row, int32 `(n_tokens,)` each."""
    sizes = torch.tensor(lengths)
    row = torch.repeat_interleave(torch.arange(len(lengths)), sizes)
    shift = torch.tensor(key_lengths) - torch.cumsum(sizes, 0)
    place = torch.arange(len(row)) + shift[row]
    return row.to(device, torch.int32), place.to(device, torch.int32)


def _offsets(lengths: tuple[int, ...], device: torch.device) -> Tensor:
    sums = torch.cumsum(torch.tensor((0, *lengths)), 0, dtype=torch.int32)
    return sums.to(device)
