"""Learning rates by part: head, depth, and the two factors of an adapter.

This module is a leaf: it imports torch, and nothing below imports it.
"""

from __future__ import annotations

import re
from typing import Any

from torch import nn

from tiewise.config.run_config import TrainConfig

_LAYER = re.compile(r"\.(?:layers?|h|blocks?)\.(\d+)\.")
_HEAD = re.compile(r"(?:^|\.)(score|classifier)\.")


def group_parameters(
    named: list[tuple[str, nn.Parameter]], n_layers: int, train: TrainConfig
) -> list[dict[str, Any]]:
    """Return an optimiser's groups, each with its own learning rate and weight decay.

    Parameters
    ----------
    named
        Names and tensors to be trained.
    n_layers
        Layers of the backbone.
    train
        `learning_rate` holds for the last layer; each layer below it takes `layer_decay` times the
        rate of the one above, the embedding one more. `lora_B` takes `lora_plus_ratio` times its
        layer's rate. The head takes `head_learning_rate`, or `learning_rate` when that is None.
        `weight_decay` holds for matrices; vectors (biases, norms) take none.

    Returns
    -------
    list of dict
        `params`, `lr` (the key optimisers read; `learning_rate` they would ignore) and
        `weight_decay`, in the order the tensors first appear.
    """
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    for name, parameter in named:
        rate = _rate(name, n_layers, train)
        decay = train.weight_decay if parameter.ndim > 1 else 0.0
        fresh = {"params": [], "lr": rate, "weight_decay": decay}
        groups.setdefault((rate, decay), fresh)["params"].append(parameter)
    return list(groups.values())


def _rate(name: str, n_layers: int, train: TrainConfig) -> float:
    if _HEAD.search(name):
        return train.head_learning_rate or train.learning_rate
    found = _LAYER.search(name)
    # A final norm or pooler stands above the last layer, an embedding below the first.
    depth = int(found[1]) if found else (-1 if "embed" in name else n_layers - 1)
    rate = train.learning_rate * train.layer_decay ** (n_layers - 1 - depth)
    return rate * train.lora_plus_ratio if ".lora_B." in name else rate
