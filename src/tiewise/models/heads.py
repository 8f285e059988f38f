"""The head: the layers above a backbone that turn what it says of a row into three logits.

This module is a leaf: it imports torch, and nothing below imports it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tiewise.config.run_config import ModelConfig
from tiewise.errors import ModelError

CLASSES = ("A", "B", "tie")
_NAMES = ("score", "classifier")


def head_name(network: Any) -> str:
    """Return the attribute that holds the head."""
    for name in _NAMES:
        if hasattr(network, name):
            return name
    raise ModelError(f"{network.config.model_type}: its classifier has no head named {_NAMES}.")


def reset_head(network: Any, config: ModelConfig) -> None:
    """Put a fresh head in the place of transformers' own, unless that is more than one layer."""
    name = head_name(network)
    if config.head == "responses" and name == "score":
        raise ModelError(
            f"--head responses is for encoders; {network.config.model_type} is a decoder. Use "
            "--head linear."
        )
    if isinstance(getattr(network, name), nn.Linear):
        size = getattr(network, name).in_features
        spread = getattr(network.config, "initializer_range", 0.02)
        setattr(network, name, _new_head(config.head, size, spread, has_bias=name == "classifier"))
    elif config.head != "linear":
        raise ModelError(
            f"--head {config.head} cannot replace the head of {network.config.model_type}, which "
            "has layers of its own. Use --head linear."
        )
    else:  # what the backbone's files hold of it belongs to another question
        _draw(getattr(network, name), getattr(network.config, "initializer_range", 0.02))


def _new_head(kind: str, size: int, spread: float, *, has_bias: bool) -> nn.Module:
    n_inputs = size if kind == "linear" else 2 * size
    head = nn.Linear(n_inputs, len(CLASSES), bias=has_bias)
    _draw(head, spread)
    return head


def _draw(head: nn.Module, spread: float) -> None:
    for part in head.modules():
        if isinstance(part, nn.Linear):
            nn.init.normal_(part.weight, std=spread)
            if part.bias is not None:
                nn.init.zeros_(part.bias)


def keep_precision(module: nn.Module, dtype: torch.dtype) -> None:
    """Let a module take inputs of any floating dtype and compute in its own, under autocast too."""
    entered: list[Any] = []

    def enter(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        entered.append(torch.autocast(inputs[0].device.type, enabled=False))
        entered[-1].__enter__()
        return tuple(part.to(dtype) for part in inputs)

    def leave(*_: object) -> None:
        entered.pop().__exit__(None, None, None)

    module.register_forward_pre_hook(enter)
    module.register_forward_hook(leave, always_call=True)
