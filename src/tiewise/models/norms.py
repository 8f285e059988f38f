"""RMS norms that keep one number per token for the backward pass, at the input's own precision.

transformers computes every RMS norm in float32 and keeps each intermediate. Here float64 stays
float64, so that layouts can be compared to the last digits, half precision is still computed in
float32, and forward and backward take a third of the time.

This module is a leaf: it imports torch, and nothing below imports it.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor, nn

_CENTRED_AT_ZERO = ("GemmaRMSNorm", "Gemma2RMSNorm", "Gemma3RMSNorm")
_CENTRED_AT_ONE = ("LlamaRMSNorm", "MistralRMSNorm", "Qwen2RMSNorm", "Qwen3RMSNorm")


def replace_norms(network: nn.Module) -> int:
    """Give every RMS norm of a known kind the forward of this module; return how many.

    Parameters
    ----------
    network
        A transformers model; its weights, names and state stay as they are.
    """
    known: list[Any] = [
        module
        for module in network.modules()
        if type(module).__name__ in _CENTRED_AT_ZERO + _CENTRED_AT_ONE
    ]
    for module in known:
        shift = 1.0 if type(module).__name__ in _CENTRED_AT_ZERO else 0.0
        epsilon = module.eps if hasattr(module, "eps") else module.variance_epsilon
        module.forward = functools.partial(_norm, module, shift, epsilon)
    return len(known)


def _norm(module: Any, shift: float, epsilon: float, hidden_states: Tensor) -> Tensor:
    apply: Any = _RootMeanSquare.apply
    return apply(hidden_states, module.weight, shift, epsilon)  # type: ignore[no-any-return]


class _RootMeanSquare(torch.autograd.Function):
    """x / sqrt(mean(x^2) + epsilon) * (shift + weight), over the last axis."""

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
