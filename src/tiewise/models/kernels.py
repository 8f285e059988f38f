"""Causal attention over rows that are packed end to end, on the CPU and on CUDA.

Queries are `(n_queries, n_heads, head_dim)`, keys and values `(n_keys, n_key_heads, head_dim)`. The
queries of a row are its last positions: all of them in most layers, only the last where a layer is
pooled. The CPU kernel takes rows one by one and queries in blocks, so it computes little above
the diagonal (or outside the window) and never repeats keys for grouped heads. On CUDA,
flash-attention is used where it is installed and fits, otherwise flex attention.
"""

from __future__ import annotations

import functools
import importlib.util
import inspect
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

_BLOCK = 96
"""Queries in one block; the area computed above the diagonal grows with it."""
_WIDEST_HEAD, _ENOUGH_SHARED_MEMORY = 128, 160 * 1024
"""flex attention's default tiles fit if the head size is at most the first, or if a block of the
GPU has at least the second in bytes of shared memory."""
_MOST_VARIANTS = 64
"""Limit of compiled variants of flex attention in a process. A fit needs about 14: with and without
a window, gradients, frozen inputs, a pooled layer, a single row. Above torch's own limit of 8, flex
attention would no longer be compiled, and compute all scores at once, in much memory."""


@dataclass(frozen=True, eq=False)
class Rows:
    """Numbers of queries and keys in each row of a batch."""

    query_lengths: tuple[int, ...]
    key_lengths: tuple[int, ...]

    @functools.cached_property
    def blocks(self) -> list[_Block]:
        """Blocks of queries with the keys they may see; all positions are absolute."""
        blocks: list[_Block] = []
        query_start = key_start = 0
        for n_queries, n_keys in zip(self.query_lengths, self.key_lengths, strict=True):
            n_before = n_keys - n_queries
            for first in range(0, n_queries, _BLOCK):
                last = min(first + _BLOCK, n_queries)
                queries = slice(query_start + first, query_start + last)
                blocks.append(_Block(queries, key_start, n_before + first))
            query_start += n_queries
            key_start += n_keys
        return blocks


class _Block(NamedTuple):
    queries: slice
    key_start: int
    """Where the keys of the row begin."""
    position: int
    """Position of the first query in its row."""

    def keys(self, window: int | None) -> slice:
        """Return the keys that at least one query of the block sees."""
        n_queries = self.queries.stop - self.queries.start
        first = 0 if window is None else max(0, self.position - window + 1)
        return slice(self.key_start + first, self.key_start + self.position + n_queries)


class Scoring(NamedTuple):
    """How a layer turns queries and keys into attention weights."""

    scale: float
    softcap: float | None = None
    window: int | None = None
    """A query sees this many positions including its own; all earlier ones when None."""


def attend(query: Tensor, key: Tensor, value: Tensor, rows: Rows, scoring: Scoring) -> Tensor:
    """Return causal attention within each row, `(n_queries, n_heads, head_dim)`."""
    if query.is_cuda:
        on_cuda = attend_flash if can_use_flash(query.dtype) else attend_flex
        return on_cuda(query, key, value, rows, scoring)
    is_kept = torch.is_grad_enabled() and any(part.requires_grad for part in (query, key, value))
    apply: Any = _BlockAttention.apply
    # Half precision only saves memory here: a CPU computes faster and better in float32.
    wide = [part.to(torch.promote_types(part.dtype, torch.float32)) for part in (query, key, value)]
    return apply(*wide, rows, scoring, is_kept).to(query.dtype)  # type: ignore[no-any-return]


# ---- CPU ------------------------------------------------------------------------------------


class _BlockAttention(torch.autograd.Function):
    """Attention block by block; keeps the weights of each block for the backward pass."""

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        rows: Rows,
        scoring: Scoring,
        is_kept: bool,
    ) -> Tensor:
        out, kept = torch.empty_like(query), []
        for block in rows.blocks:
            keys = block.keys(scoring.window)
            scores, sigmoid = _scores(query, key, block, keys, scoring)
            weights = torch.softmax(scores, -1)
            _scatter(out, block.queries, weights @ value[keys].transpose(0, 1))
            if is_kept:
                kept += [weights] if sigmoid is None else [weights, sigmoid]
        ctx.save_for_backward(query, key, value, *kept)
        ctx.rows, ctx.scoring = rows, scoring
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, *kept = ctx.saved_tensors
        scoring: Scoring = ctx.scoring
        grads = torch.empty_like(query), torch.zeros_like(key), torch.zeros_like(value)
        remaining = iter(kept)
        for block in ctx.rows.blocks:
            keys, weights = block.keys(scoring.window), next(remaining)
            out_grad = _gather(grad, block.queries, key.shape[1])
            grads[2][keys].transpose(0, 1).baddbmm_(weights.mT, out_grad)
            weight_grad = out_grad @ value[keys].transpose(0, 1).mT
            # torch 2.13 has no public backward of softmax; written out in public operations it
            # takes two more passes over the weights.
            backward = torch._softmax_backward_data  # noqa: SLF001 - torch 2.13 has no other
            score_grad = backward(weight_grad, weights, -1, weights.dtype)
            if scoring.softcap is not None:
                score_grad.mul_(_softcap_slope(next(remaining)))
            score_grad.mul_(scoring.scale)
            _scatter(grads[0], block.queries, score_grad @ key[keys].transpose(0, 1))
            own = _gather(query, block.queries, key.shape[1])
            grads[1][keys].transpose(0, 1).baddbmm_(score_grad.mT, own)
        return *grads, None, None, None


def _scores(
    query: Tensor, key: Tensor, block: _Block, keys: slice, scoring: Scoring
) -> tuple[Tensor, Tensor | None]:
    """Return scores `(n_key_heads, group * n_queries, n_keys)` and the sigmoid behind a soft cap.

    A capped score is cap * tanh(x / cap) = 2 cap * sigmoid(2 x / cap) - cap. The softmax ignores
    the constant, and a sigmoid costs a twentieth of a tanh on a CPU.
    """
    cap = scoring.softcap
    factor = scoring.scale if cap is None else 2 * scoring.scale / cap
    raw = (_gather(query, block.queries, key.shape[1]) * factor) @ key[keys].transpose(0, 1).mT
    sigmoid = None if cap is None else raw.sigmoid_()
    scores = raw if cap is None else raw * (2 * cap)
    _mask(scores, block, keys, scoring.window)
    return scores, sigmoid


def _softcap_slope(sigmoid: Tensor) -> Tensor:
    """Return the slope of a capped score, 1 - tanh^2 = 4 sigmoid (1 - sigmoid)."""
    return torch.addcmul(sigmoid, sigmoid, sigmoid, value=-1).mul_(4.0)


def _mask(scores: Tensor, block: _Block, keys: slice, window: int | None) -> None:
    """Add minus infinity above the diagonal and left of the window, in place."""
    n_queries, n_keys = block.queries.stop - block.queries.start, keys.stop - keys.start
    if n_queries == 1:
        return
    square = scores.view(scores.shape[0], -1, n_queries, n_keys)
    square[..., n_keys - n_queries :] += _future(n_queries, scores.dtype)
    if window is not None and n_keys > window:
        n_left = n_keys - window
        square[..., :n_left] += _past(n_queries, n_left, scores.dtype)


@functools.lru_cache(maxsize=1024)
def _future(size: int, dtype: torch.dtype) -> Tensor:
    """Return `(size, size)`: minus infinity above the diagonal, otherwise zero."""
    return torch.full((size, size), -torch.inf, dtype=dtype).triu_(1)


@functools.lru_cache(maxsize=1024)
def _past(n_queries: int, n_left: int, dtype: torch.dtype) -> Tensor:
    """Return `(n_queries, n_left)`: minus infinity on keys before a query's window."""
    left = torch.full((n_queries, n_left), -torch.inf, dtype=dtype)
    return left.tril_(n_left - n_queries)


def _gather(tensor: Tensor, queries: slice, n_key_heads: int) -> Tensor:
    """Return `(n_key_heads, group * n_queries, head_dim)`: a group's queries share their keys."""
    block = tensor[queries]
    grouped = block.view(block.shape[0], n_key_heads, -1, block.shape[-1]).permute(1, 2, 0, 3)
    return grouped.reshape(n_key_heads, -1, block.shape[-1])


def _scatter(target: Tensor, queries: slice, values: Tensor) -> None:
    """Write `(n_key_heads, group * n_queries, head_dim)` to the place of the block's queries."""
    block = target[queries]
    n_key_heads, _, head_dim = values.shape
    grouped = values.view(n_key_heads, -1, block.shape[0], head_dim).permute(2, 0, 1, 3)
    block.view(block.shape[0], n_key_heads, -1, head_dim).copy_(grouped)


# ---- CUDA -----------------------------------------------------------------------------------


def can_use_flash(dtype: torch.dtype) -> bool:
    """Return whether flash-attention is installed, runs on this GPU and computes in `dtype`."""
    return dtype in (torch.bfloat16, torch.float16) and _has_flash()


@functools.cache
def _has_flash() -> bool:
    """Tell whether flash-attention can cap scores (2.6 and later) and the GPU runs it."""
    if importlib.util.find_spec("flash_attn") is None or not torch.cuda.is_available():
        return False
    kernel = getattr(importlib.import_module("flash_attn"), "flash_attn_varlen_func", None)
    if kernel is None or "softcap" not in inspect.signature(kernel).parameters:
        return False
    return torch.cuda.get_device_capability() >= (8, 0)


def attend_flash(query: Tensor, key: Tensor, value: Tensor, rows: Rows, scoring: Scoring) -> Tensor:
    """Attend with flash-attention's kernel for rows of different lengths."""
    flash_attn: Any = importlib.import_module("flash_attn")
    window = (-1, -1) if scoring.window is None else (scoring.window - 1, 0)
    return flash_attn.flash_attn_varlen_func(  # type: ignore[no-any-return]
        query,
        key,
        value,
        _offsets(rows.query_lengths, query.device),
        _offsets(rows.key_lengths, query.device),
        max(rows.query_lengths),
        max(rows.key_lengths),
        softmax_scale=scoring.scale,
        causal=True,
        window_size=window,
        softcap=scoring.softcap or 0.0,
    )


def attend_flex(query: Tensor, key: Tensor, value: Tensor, rows: Rows, scoring: Scoring) -> Tensor:
    """Attend with flex attention and a block mask; compiled on CUDA."""
    cap = scoring.softcap

    def cap_score(score: Tensor, *_: Tensor) -> Tensor:
        return cap * torch.tanh(score / cap)  # type: ignore[operator]

    out = _flex_attention(query.is_cuda)(
        query.transpose(0, 1)[None],
        key.transpose(0, 1)[None],
        value.transpose(0, 1)[None],
        score_mod=None if cap is None else cap_score,
        block_mask=flex_mask(rows, scoring.window, query.device),
        scale=scoring.scale,
        enable_gqa=query.shape[1] != key.shape[1],
        kernel_options=fit_backward(query.shape[2], _shared_memory(query.device)),
    )
    return out[0].transpose(0, 1)  # type: ignore[no-any-return]


def fit_backward(head_dim: int, shared_memory: int | None) -> dict[str, int] | None:
    """Return smaller tiles for the backward pass where the default ones need too much memory.

    The default tiles for Ampere and Ada need more than the 99 KiB of shared memory of most cards
    with 24 GB when heads are as wide as Gemma's (github.com/pytorch/pytorch/issues/198224). None
    where the default tiles fit, or off CUDA, where `shared_memory` is None.
    """
    if shared_memory is None or head_dim <= _WIDEST_HEAD or shared_memory >= _ENOUGH_SHARED_MEMORY:
        return None
    tiles = dict.fromkeys(("bwd_BLOCK_M1", "bwd_BLOCK_N1", "bwd_BLOCK_M2", "bwd_BLOCK_N2"), 32)
    return tiles | {"bwd_num_stages": 1}


def _shared_memory(device: torch.device) -> int | None:
    """Return the bytes of shared memory available to one block; None off CUDA."""
    if device.type != "cuda":
        return None
    return getattr(torch.cuda.get_device_properties(device), "shared_memory_per_block_optin", None)


@functools.cache
def _flex_attention(is_compiled: bool) -> Any:
    if not is_compiled:
        return flex_attention
    config: Any = torch._dynamo.config  # noqa: SLF001 - torch 2.8 has no argument for the limit
    patch = config.patch(recompile_limit=_MOST_VARIANTS)
    return patch(torch.compile(flex_attention, dynamic=True))


@functools.lru_cache(maxsize=16)
def flex_mask(rows: Rows, window: int | None, device: torch.device) -> Any:
    """Return the block mask of packed rows for flex attention; the last ones are kept."""
    query_row, query_position = _positions(rows.query_lengths, rows.key_lengths, device)
    key_row, key_position = _positions(rows.key_lengths, rows.key_lengths, device)

    def sees(_batch: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        distance = query_position[query] - key_position[key]
        near = distance >= 0 if window is None else (distance >= 0) & (distance < window)
        return (query_row[query] == key_row[key]) & near

    return create_block_mask(sees, None, None, len(query_row), len(key_row), device=str(device))


def _positions(
    lengths: tuple[int, ...], key_lengths: tuple[int, ...], device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return each token's row and its position in that row, int32 `(n_tokens,)` each."""
    sizes = torch.tensor(lengths)
    row = torch.repeat_interleave(torch.arange(len(lengths)), sizes)
    shift = torch.tensor(key_lengths) - torch.cumsum(sizes, 0)
    position = torch.arange(len(row)) + shift[row]
    return row.to(device, torch.int32), position.to(device, torch.int32)


def _offsets(lengths: tuple[int, ...], device: torch.device) -> Tensor:
    return torch.cumsum(torch.tensor((0, *lengths)), 0, dtype=torch.int32).to(device)
