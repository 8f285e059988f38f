"""Faster equivalents of transformers' code for decoders of known families.

RMS norms keep their input and one number per token for the backward pass, where transformers keeps
all intermediates in float32. With the head `linear`, the last layer runs its queries, output
projection and MLP only at the last token of each row, which is all that this head reads.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tiewise.models.attention import Spans, attend_rows

_WEIGHTS_AROUND_ZERO = ("GemmaRMSNorm", "Gemma2RMSNorm", "Gemma3RMSNorm")
_WEIGHTS_AROUND_ONE = ("LlamaRMSNorm", "MistralRMSNorm", "Qwen2RMSNorm", "Qwen3RMSNorm")


def replace_norms(network: nn.Module) -> int:
    """Replace the forward of every RMS norm of a known kind; return how many were replaced."""
    kinds = _WEIGHTS_AROUND_ZERO + _WEIGHTS_AROUND_ONE
    known: list[Any] = [part for part in network.modules() if type(part).__name__ in kinds]
    for module in known:
        shift = 1.0 if type(module).__name__ in _WEIGHTS_AROUND_ZERO else 0.0
        epsilon = module.eps if hasattr(module, "eps") else module.variance_epsilon
        module.forward = functools.partial(_norm, module, shift, epsilon)
    return len(known)


def _norm(module: Any, shift: float, epsilon: float, hidden_states: Tensor) -> Tensor:
    apply: Any = _RMSNorm.apply
    return apply(hidden_states, module.weight, shift, epsilon)  # type: ignore[no-any-return]


class _RMSNorm(torch.autograd.Function):
    """x / sqrt(mean(x^2) + epsilon) * (shift + weight), over the last axis.

    Half precision is computed in float32 and float64 in float64, so that layouts can be compared to
    the last digits.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, shift: float, epsilon: float) -> Tensor:
        wide = _widen(x)
        size = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
        inverse = (size.square_() / x.shape[-1]).add_(epsilon).rsqrt_()
        factor = _widen(weight) + shift
        ctx.save_for_backward(x, inverse, factor)
        ctx.weight_dtype = weight.dtype
        normed: Tensor = (wide * inverse).mul_(factor)
        return normed.to(x.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, inverse, factor = ctx.saved_tensors
        wide, grad = _widen(x), _widen(grad)
        weight_grad = None
        if ctx.needs_input_grad[1]:
            axes = tuple(range(x.ndim - 1))
            weight_grad = (grad * wide).mul_(inverse).sum(axes).to(ctx.weight_dtype)
        if not ctx.needs_input_grad[0]:
            return None, weight_grad, None, None
        scaled = grad * factor
        dot = (scaled * wide).sum(-1, keepdim=True)
        dot.mul_(inverse.pow(3).div_(-x.shape[-1]))
        return scaled.mul_(inverse).addcmul_(wide, dot).to(x.dtype), weight_grad, None, None


def _widen(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor


def pool_last_layer(layer: nn.Module) -> None:
    """Make the last decoder layer return its output only at each row's last token (`last`).

    The layer is of one of :data:`tiewise.models.attention.FAMILIES`; its weights do not change.
    """
    layer.forward = functools.partial(_forward, layer)


def _forward(layer: Any, hidden_states: Tensor, *, last: Spans, **kwargs: Any) -> Tensor:
    """Return `(1, n_rows, hidden)` from `(n_batch, width, hidden)`."""
    run = functools.partial(_run, layer, last, kwargs["position_embeddings"])
    if layer.gradient_checkpointing and layer.training:
        return checkpoint(run, hidden_states, use_reentrant=False)  # type: ignore[no-any-return]
    return run(hidden_states)


def _run(layer: Any, spans: Spans, rotary: tuple[Tensor, Tensor], hidden_states: Tensor) -> Tensor:
    residual = _at_queries(hidden_states, spans)
    attended = _attend(layer.self_attn, layer.input_layernorm(hidden_states), spans, rotary)
    # Gemma 2 and 3 have four norms, two of them after the attention and the MLP.
    if hasattr(layer, "pre_feedforward_layernorm"):
        hidden = residual + layer.post_attention_layernorm(attended)
        update = layer.mlp(layer.pre_feedforward_layernorm(hidden))
        return hidden + layer.post_feedforward_layernorm(update)  # type: ignore[no-any-return]
    hidden = residual + attended
    return hidden + layer.mlp(layer.post_attention_layernorm(hidden))  # type: ignore[no-any-return]


def _attend(attention: Any, normed: Tensor, spans: Spans, rotary: tuple[Tensor, Tensor]) -> Tensor:
    query = _heads(attention, attention.q_proj(_at_queries(normed, spans)), "q_norm")
    key = _heads(attention, attention.k_proj(normed), "k_norm")
    value = _heads(attention, attention.v_proj(normed), None)
    cos, sin = (part.expand(*normed.shape[:2], -1) for part in rotary)
    out, _ = attend_rows(
        attention,
        _rotate(query, _at_queries(cos, spans), _at_queries(sin, spans)),
        _rotate(key, cos, sin),
        value,
        None,
        spans=spans,
        scaling=attention.scaling,
        sliding_window=getattr(attention, "sliding_window", _config_window(attention)),
        softcap=getattr(attention, "attn_logit_softcapping", None),
    )
    return attention.o_proj(out.flatten(2))  # type: ignore[no-any-return]


def _at_queries(tensor: Tensor, spans: Spans) -> Tensor:
    """Return `(1, n_queries, size)` from `(n_batch, width, size)`."""
    return tensor.flatten(0, 1)[spans.query_index][None]


def _config_window(attention: Any) -> int | None:
    """Return Mistral's window, which its attention reads from the configuration."""
    config = attention.config
    return config.sliding_window if config.model_type == "mistral" else None


def _heads(attention: Any, projected: Tensor, norm: str | None) -> Tensor:
    """Return `(n_batch, n_heads, width, head_dim)`, normed where the family norms its heads."""
    heads = projected.view(*projected.shape[:2], -1, attention.head_dim)
    if norm is not None and hasattr(attention, norm):
        heads = getattr(attention, norm)(heads)
    return heads.transpose(1, 2)


def _rotate(heads: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate `(n_batch, n_heads, width, head_dim)` by `(n_batch, width, head_dim)`."""
    first, second = heads.chunk(2, -1)
    return heads * cos[:, None] + torch.cat((-second, first), -1) * sin[:, None]
