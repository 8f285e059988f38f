"""Causal attention over rows that lie end to end: the arithmetic.

Every function takes queries `(n_queries, n_heads, head_dim)` and keys and values
`(n_keys, n_key_heads, head_dim)` of many rows without padding. The queries of a row are its last
positions: all of them in most layers, one where only the pooled token is needed.

On a CPU rows are taken one by one and queries in blocks, so little above the diagonal (or outside
the window) is computed or kept, and keys are never repeated for grouped heads.

This module is a leaf: it imports torch, and nothing below imports it.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tiewise.models import gpu_kernels

_BLOCK = 96
"""Queries of one block; the area computed above the diagonal grows with it."""


@dataclass(frozen=True, eq=False)
class Rows:
    """Where each row's queries and keys begin and end, and how scores are formed."""

    query_lengths: tuple[int, ...]
    key_lengths: tuple[int, ...]

    @functools.cached_property
    def blocks(self) -> list[_Block]:
        """Blocks of queries with the keys they may see; all positions are absolute."""
        return list(self._iterate_blocks())

    def _iterate_blocks(self) -> Iterator[_Block]:
        query_start = key_start = 0
        for n_queries, n_keys in zip(self.query_lengths, self.key_lengths, strict=True):
            hidden = n_keys - n_queries
            for first in range(0, n_queries, _BLOCK):
                last = min(first + _BLOCK, n_queries)
                yield _Block(
                    slice(query_start + first, query_start + last), key_start, hidden + first
                )
            query_start += n_queries
            key_start += n_keys


class _Block(NamedTuple):
    queries: slice
    key_start: int
    """Where the row's keys begin."""
    position: int
    """The first query's position in its row."""

    def keys(self, window: int | None) -> slice:
        """Return the keys that some query of the block may see."""
        n_queries = self.queries.stop - self.queries.start
        first = 0 if window is None else max(0, self.position - window + 1)
        return slice(self.key_start + first, self.key_start + self.position + n_queries)


class Scoring(NamedTuple):
    """How a layer turns queries and keys into weights."""

    scale: float
    softcap: float | None = None
    window: int | None = None
    """A query sees this many positions, its own included; None: all before it."""


def attend(query: Tensor, key: Tensor, value: Tensor, rows: Rows, scoring: Scoring) -> Tensor:
    """Return causal attention within each row, `(n_queries, n_heads, head_dim)`."""
    if query.is_cuda:
        return gpu_kernels.attend(query, key, value, rows, scoring)
    is_kept = torch.is_grad_enabled() and any(part.requires_grad for part in (query, key, value))
    apply: Any = _BlockAttention.apply
    # Half precision is for storing; a CPU computes faster and better in float32.
    wide = [part.to(torch.promote_types(part.dtype, torch.float32)) for part in (query, key, value)]
    return apply(*wide, rows, scoring, is_kept).to(query.dtype)  # type: ignore[no-any-return]


class _BlockAttention(torch.autograd.Function):
    """Attention block by block; weights are kept for the backward pass, never the square."""

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
            scores, slope = _scores(query, key, block, keys, scoring)
            weights = torch.softmax(scores, -1)
            _scatter(out, block.queries, weights @ _by_head(value[keys]))
            if is_kept:
                kept += [weights] if slope is None else [weights, slope]
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
            _by_head(grads[2][keys]).baddbmm_(weights.mT, out_grad)
            weight_grad = out_grad @ _by_head(value[keys]).mT
            score_grad = torch._softmax_backward_data(weight_grad, weights, -1, weights.dtype)
            if scoring.softcap is not None:
                score_grad.mul_(_bend_slope(next(remaining)))
            score_grad.mul_(scoring.scale)
            _scatter(grads[0], block.queries, score_grad @ _by_head(key[keys]))
            own = _gather(query, block.queries, key.shape[1])
            _by_head(grads[1][keys]).baddbmm_(score_grad.mT, own)
        return *grads, None, None, None


def _scores(
    query: Tensor, key: Tensor, block: _Block, keys: slice, scoring: Scoring
) -> tuple[Tensor, Tensor | None]:
    """Return scores `(n_key_heads, group * n_queries, n_keys)`, and the sigmoid they come from.

    A capped score is cap * tanh(x / cap) = 2 cap * sigmoid(2 x / cap) - cap. The softmax does not
    see the shift, and a sigmoid costs a twentieth of a tanh here.
    """
    cap = scoring.softcap
    factor = scoring.scale if cap is None else 2 * scoring.scale / cap
    raw = (_gather(query, block.queries, key.shape[1]) * factor) @ _by_head(key[keys]).mT
    sigmoid = None if cap is None else raw.sigmoid_()
    scores = raw if cap is None else raw * (2 * cap)
    _hide(scores, block, keys, scoring.window)
    return scores, sigmoid


def _bend_slope(sigmoid: Tensor) -> Tensor:
    """Return the slope of a capped score, 1 - tanh^2 = 4 sigmoid (1 - sigmoid)."""
    return torch.addcmul(sigmoid, sigmoid, sigmoid, value=-1).mul_(4.0)


def _hide(scores: Tensor, block: _Block, keys: slice, window: int | None) -> None:
    """Write minus infinity where a query may not look: above the diagonal, left of the window."""
    n_queries, n_keys = block.queries.stop - block.queries.start, keys.stop - keys.start
    if n_queries == 1:
        return
    square = scores.view(scores.shape[0], -1, n_queries, n_keys)
    square[..., n_keys - n_queries :] += _ahead(n_queries, scores.dtype)
    if window is not None and n_keys > window:
        n_left = n_keys - window
        square[..., :n_left] += _behind(n_queries, n_left, scores.dtype)


@functools.lru_cache(maxsize=1024)
def _ahead(size: int, dtype: torch.dtype) -> Tensor:
    """Return `(size, size)`: minus infinity above the diagonal, else zero."""
    return torch.full((size, size), -torch.inf, dtype=dtype).triu_(1)


@functools.lru_cache(maxsize=1024)
def _behind(n_queries: int, n_left: int, dtype: torch.dtype) -> Tensor:
    """Return `(n_queries, n_left)`: minus infinity on keys that a query's window has left."""
    left = torch.full((n_queries, n_left), -torch.inf, dtype=dtype)
    return left.tril_(n_left - n_queries)


def _by_head(tensor: Tensor) -> Tensor:
    return tensor.transpose(0, 1)


def _gather(tensor: Tensor, queries: slice, n_key_heads: int) -> Tensor:
    """Return `(n_key_heads, group * n_queries, head_dim)`: a group's queries share their keys."""
    block = tensor[queries]
    grouped = block.view(block.shape[0], n_key_heads, -1, block.shape[-1]).permute(1, 2, 0, 3)
    return grouped.reshape(n_key_heads, -1, block.shape[-1])


def _scatter(target: Tensor, queries: slice, values: Tensor) -> None:
    """Write `(n_key_heads, group * n_queries, head_dim)` back to the block's place."""
    block = target[queries]
    n_key_heads, _, head_dim = values.shape
    grouped = values.view(n_key_heads, -1, block.shape[0], head_dim).permute(2, 0, 1, 3)
    block.view(block.shape[0], n_key_heads, -1, head_dim).copy_(grouped)
