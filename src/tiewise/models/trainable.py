"""Which parts of a network are trained: low-rank adapters and the head, or every weight.

This module is a leaf: it imports torch and peft, and nothing below imports it.
"""

from __future__ import annotations

import re
import warnings
from typing import Any

import torch
from peft import LoraConfig, TaskType, get_peft_model
from torch import nn

from tiewise.config.run_config import ModelConfig
from tiewise.errors import ModelError, RunError
from tiewise.models.loading import find_layers, seeded
from tiewise.models.sharding import shard_like

_ABOVE_LAYERS = re.compile(r"(^|\.)(norm|final_norm|final_layer_?norm|ln_f|pooler)\.")


def add_adapters(network: nn.Module, config: ModelConfig, *, seed: int) -> nn.Module:
    """Return the network with its trainable parts: adapters and head, or every weight.

    Raises
    ------
    ModelError
        When no linear layer bears a name in `lora_targets`.
    """
    if config.tuning == "full":
        return _unfreeze(network, config)
    with seeded(seed + 1), warnings.catch_warnings():
        # peft asks transformers by a name that transformers is about to drop.
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        return get_peft_model(network, _lora_config(network, config))  # type: ignore[no-any-return]


def trainable_weights(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return the tensors that training changes, by name."""
    return {name: value for name, value in model.named_parameters() if value.requires_grad}


def load_trainable_weights(model: nn.Module, weights: dict[str, torch.Tensor]) -> None:
    """Copy weights into the trainable tensors of `model`; names and shapes must match exactly.

    Raises
    ------
    RunError
        When a tensor is missing, unexpected or of another shape.
    """
    own = trainable_weights(model)
    expected = {name: tuple(value.shape) for name, value in own.items()}
    found = {name: tuple(value.shape) for name, value in weights.items()}
    if expected != found:
        name = sorted(set(expected.items()) ^ set(found.items()))[0][0]
        raise RunError(
            f"The checkpoint does not fit the model: {name} is {found.get(name, 'missing')}, "
            f"expected {expected.get(name, 'nothing')}. Start anew without --resume."
        )
    with torch.no_grad():
        for name, value in own.items():
            value.copy_(shard_like(weights[name], value))


def _lora_config(network: Any, config: ModelConfig) -> Any:
    layers = find_layers(network)
    inside = _linear_names(layers)
    wanted = inside if config.lora_targets == ("all-linear",) else set(config.lora_targets)
    if unknown := sorted(wanted - inside):
        raise ModelError(
            f"--lora-targets names {', '.join(unknown)}; {config.backbone} has linear layers "
            f"{', '.join(sorted(inside))}."
        )
    within = {id(module) for module in layers.modules()}
    outside = [
        name
        for name, module in network.named_modules()
        if id(module) not in within and name.rsplit(".", 1)[-1] in wanted
    ]
    return LoraConfig(
        task_type=TaskType.SEQ_CLS,
        r=config.lora_r,
        lora_alpha=config.lora_alpha,  # type: ignore[arg-type]  # peft multiplies by it
        lora_dropout=config.lora_dropout,
        target_modules=sorted(wanted),
        exclude_modules=outside or None,
        layers_to_transform=list(range(config.n_frozen_layers, len(layers))),
        modules_to_save=list(network.tiewise_fresh),
    )


def _linear_names(layers: nn.ModuleList) -> set[str]:
    named = layers.named_modules()
    return {name.rsplit(".", 1)[-1] for name, part in named if isinstance(part, nn.Linear)}


def _unfreeze(network: Any, config: ModelConfig) -> nn.Module:
    """Train every weight, or those from the first layer that is not frozen on."""
    layers = find_layers(network)
    upper = {id(part) for part in layers[config.n_frozen_layers :].parameters()}
    lower = {id(part) for part in layers.parameters()} - upper
    body = f"{network.base_model_prefix}."
    for name, part in network.named_parameters():
        # Between the head and the layers stand a final norm or a pooler; all else lies below.
        is_above = not name.startswith(body) or _ABOVE_LAYERS.search(name) is not None
        is_trained = id(part) in upper or (is_above and id(part) not in lower)
        # A head that compares the responses passes the pooler by.
        is_passed_by = config.head == "responses" and "pooler" in name.split(".")
        part.requires_grad_((is_trained or config.n_frozen_layers == 0) and not is_passed_by)
    return network  # type: ignore[no-any-return]
