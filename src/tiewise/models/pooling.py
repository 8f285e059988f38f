"""The last decoder layer, run only where it matters: at each row's last token.

The head reads one token of a row. In the last layer that token needs the keys and values of all
tokens before it, but the queries, the output projection and the MLP of no other. The result is the
same number; a test holds it, family by family, to the layer's own forward.

This module is a leaf: it imports torch, and nothing below imports it.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tiewise.models.attention import Spans, attend_rows


def pool_last_layer(layer: nn.Module) -> None:
    """Make a decoder layer return its output at the queries of `last` alone.

    Parameters
    ----------
    layer
        Last decoder layer of one of :data:`tiewise.models.attention.FAMILIES`. Its weights, names
        and state stay as they are.
    """
    layer.forward = functools.partial(_forward, layer)


def _forward(layer: Any, hidden_states: Tensor, *, last: Spans, **kwargs: Any) -> Tensor:
    """Return `(1, n_rows, hidden)` from `(n_batch, width, hidden)`."""
    run = functools.partial(_run, layer, last, kwargs["position_embeddings"])
    if layer.gradient_checkpointing and layer.training:
        return checkpoint(run, hidden_states, use_reentrant=False)  # type: ignore[no-any-return]
    return run(hidden_states)


def _run(layer: Any, spans: Spans, rotary: tuple[Tensor, Tensor], hidden_states: Tensor) -> Tensor:
    residual = hidden_states.flatten(0, 1)[spans.query_index][None]
    attended = _attend(layer.self_attn, layer.input_layernorm(hidden_states), spans, rotary)
    # Gemma 2 and 3 have four norms, two of them behind the attention and the MLP.
    if hasattr(layer, "pre_feedforward_layernorm"):
        hidden = residual + layer.post_attention_layernorm(attended)
        update = layer.mlp(layer.pre_feedforward_layernorm(hidden))
        return hidden + layer.post_feedforward_layernorm(update)  # type: ignore[no-any-return]
    hidden = residual + attended
    return hidden + layer.mlp(layer.post_attention_layernorm(hidden))  # type: ignore[no-any-return]


def _attend(attention: Any, normed: Tensor, spans: Spans, rotary: tuple[Tensor, Tensor]) -> Tensor:
    last = normed.flatten(0, 1)[spans.query_index][None]
    query = _heads(attention, attention.q_proj(last), "q_norm")
    key = _heads(attention, attention.k_proj(normed), "k_norm")
    value = _heads(attention, attention.v_proj(normed), None)
    cos, sin = (part.expand(*normed.shape[:2], -1) for part in rotary)
    own = [part.flatten(0, 1)[spans.query_index][None] for part in (cos, sin)]
    out, _ = attend_rows(
        attention,
        _rotate(query, *own),
        _rotate(key, cos, sin),
        value,
        None,
        spans=spans,
        scaling=attention.scaling,
        sliding_window=getattr(attention, "sliding_window", _config_window(attention)),
        softcap=getattr(attention, "attn_logit_softcapping", None),
    )
    return attention.o_proj(out.flatten(2))  # type: ignore[no-any-return]


def _config_window(attention: Any) -> int | None:
    """Return Mistral's window, which its attention reads from the configuration itself."""
    config = attention.config
    return config.sliding_window if config.model_type == "mistral" else None


def _heads(attention: Any, projected: Tensor, norm: str | None) -> Tensor:
    """Return `(n_batch, n_heads, width, head_dim)`, normed where the family norms its heads."""
    heads = projected.view(*projected.shape[:2], -1, attention.head_dim)
    if norm is not None and hasattr(attention, norm):
        heads = getattr(attention, norm)(heads)
    return heads.transpose(1, 2)


def _rotate(heads: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn `(n_batch, n_heads, width, head_dim)` by `(n_batch, width, head_dim)`."""
    first, second = heads.chunk(2, -1)
    return heads * cos[:, None] + torch.cat((-second, first), -1) * sin[:, None]
