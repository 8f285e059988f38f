"""Build a pair classifier from a backbone, or load a saved one."""

from __future__ import annotations

import logging
import re
import warnings
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, TaskType, get_peft_model
from torch import nn

from tiewise.config import ModelConfig
from tiewise.errors import ModelError
from tiewise.models.adapters import fill_weights, read_config
from tiewise.models.decoder import pool_last_layer, replace_norms
from tiewise.models.heads import head_name
from tiewise.models.loading import (
    Checkpointing,
    find_dropped_head,
    find_layers,
    load_network,
    seeded,
)
from tiewise.models.model import PairClassifier

_ABOVE_LAYERS = re.compile(r"(^|\.)(norm|final_norm|final_layer_?norm|ln_f|pooler)\.")
_log = logging.getLogger(__name__)


def build_classifier(
    config: ModelConfig,
    backbone_dir: Path | str,
    *,
    seed: int,
    device: torch.device | str = "cpu",
    checkpointing: Checkpointing = "none",
) -> PairClassifier:
    """Build a classifier with new adapters and a new head.

    Equal seeds give equal initial values, and torch's own random state does not change.
    """
    backbone_dir = Path(backbone_dir)
    if dropped := find_dropped_head(backbone_dir):
        _log.info("%s is %s; its head is not used.", config.backbone, dropped)
    network = load_network(config, backbone_dir, device=device, seed=seed)
    return adapt_network(network, config, backbone_dir, seed=seed, checkpointing=checkpointing)


def adapt_network(
    network: nn.Module,
    config: ModelConfig,
    backbone_dir: Path,
    *,
    seed: int,
    checkpointing: Checkpointing = "none",
) -> PairClassifier:
    """Return the classifier of a prepared backbone, with new adapters."""
    network = add_adapters(network, config, seed=seed)
    return _finish(PairClassifier(network, config, backbone_dir), checkpointing)


def load_classifier(
    adapter_dir: Path | str,
    backbone_dir: Path | str,
    *,
    device: torch.device | str = "cpu",
    is_trainable: bool = False,
    checkpointing: Checkpointing = "none",
) -> PairClassifier:
    """Load what :meth:`PairClassifier.save` wrote; its logits are the same, bit for bit.

    Raises ModelError when files are damaged or can run code, tensors do not fit, or the backbone is
    another one.
    """
    adapter_dir, backbone_dir = Path(adapter_dir), Path(backbone_dir)
    config = read_config(adapter_dir, backbone_dir)
    network = load_network(config, backbone_dir, device=device, seed=0)
    network = restore_adapter(network, config, adapter_dir)
    if not is_trainable:
        network.requires_grad_(requires_grad=False)
    classifier = _finish(PairClassifier(network, config, backbone_dir), checkpointing)
    return classifier.train(is_trainable)


def restore_adapter(network: nn.Module, config: ModelConfig, adapter_dir: Path) -> nn.Module:
    """Return a loaded backbone with the adapters and the head of a folder."""
    adapted = add_adapters(network, config, seed=0)
    fill_weights(adapted, config, adapter_dir)
    return adapted


def add_adapters(network: nn.Module, config: ModelConfig, *, seed: int) -> nn.Module:
    """Return the network with its trainable parts: LoRA adapters and head, or all weights."""
    if config.tuning == "full":
        _unfreeze(network, config)
        adapted = network
    else:
        with seeded(seed + 1), warnings.catch_warnings():
            # peft 0.18 uses a name that transformers 5 deprecates.
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
            adapted = get_peft_model(network, _lora_config(network, config))
    if config.head == "responses":
        _freeze_skipped(network)
    return adapted


def _lora_config(network: Any, config: ModelConfig) -> LoraConfig:
    """Return peft's configuration: adapters on linear layers from the first unfrozen layer up."""
    layers = find_layers(network)
    inside = {_last(name) for name, part in layers.named_modules() if isinstance(part, nn.Linear)}
    targets = inside if config.lora_targets == ("all-linear",) else set(config.lora_targets)
    if unknown := sorted(targets - inside):
        raise ModelError(
            f"--lora-targets is {' '.join(unknown)}; expected linear layers of {config.backbone}: "
            f"{', '.join(sorted(inside))}."
        )
    within = {id(module) for module in layers.modules()}
    outside = [
        name
        for name, module in network.named_modules()
        if id(module) not in within and _last(name) in targets
    ]
    return LoraConfig(
        task_type=TaskType.SEQ_CLS,
        r=config.lora_r,
        lora_alpha=config.lora_alpha,  # type: ignore[arg-type]  # peft accepts a float
        lora_dropout=config.lora_dropout,
        target_modules=sorted(targets),
        exclude_modules=outside or None,
        layers_to_transform=list(range(config.n_frozen_layers, len(layers))),
        modules_to_save=list(network.tiewise_new_modules),
    )


def _last(name: str) -> str:
    return name.rsplit(".", 1)[-1]


def _unfreeze(network: Any, config: ModelConfig) -> None:
    """Train every weight; with frozen layers, those layers and all weights below stay frozen."""
    layers, body = find_layers(network), f"{network.base_model_prefix}."
    network.requires_grad_(config.n_frozen_layers == 0)
    for name, part in network.named_parameters():
        if not name.startswith(body) or _ABOVE_LAYERS.search(name):
            part.requires_grad_(requires_grad=True)
    layers.requires_grad_(requires_grad=True)
    layers[: config.n_frozen_layers].requires_grad_(requires_grad=False)


def _freeze_skipped(network: Any) -> None:
    """Freeze what the response head skips: poolers, and layers that only another head would use."""
    used = {network.base_model_prefix, head_name(network)}
    for name, part in network.named_parameters():
        names = name.split(".")
        if "pooler" in names or names[0] not in used:
            part.requires_grad_(requires_grad=False)


def _finish(classifier: PairClassifier, checkpointing: Checkpointing) -> PairClassifier:
    """Install the faster decoder code where the family is known."""
    if classifier.can_pack:
        replace_norms(classifier.network)
        if classifier.model_config.head == "linear":  # else all tokens of a response are read
            pool_last_layer(classifier.layers[-1])
    classifier.checkpoint(checkpointing)
    return classifier
