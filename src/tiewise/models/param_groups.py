"""Learning rate and weight decay of each trained tensor.

This module is a leaf: it imports torch, and nothing below imports it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from torch import nn

from tiewise.config.run_config import TrainConfig

_HEAD = re.compile(r"(?:^|\.)(score|classifier)\.")


def group_parameters(
    named: Iterable[tuple[str, nn.Parameter]], train: TrainConfig
) -> list[dict[str, Any]]:
    """Return an optimiser's groups, each with its own learning rate and weight decay.

    Parameters
    ----------
    named
        Names and tensors to be trained.
    train
        The head takes `head_learning_rate`, or `learning_rate` when that is None; every other
        tensor takes `learning_rate`. Matrices take `weight_decay`; vectors (biases, norms) none.

    Returns
    -------
    list of dict
        `params`, `lr` (the key optimisers read; `learning_rate` they would ignore) and
        `weight_decay`, in the order the tensors first appear.
    """
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    for name, parameter in named:
        is_head = _HEAD.search(name) is not None
        rate = (is_head and train.head_learning_rate) or train.learning_rate
        decay = train.weight_decay if parameter.ndim > 1 else 0.0
        fresh = {"params": [], "lr": rate, "weight_decay": decay}
        groups.setdefault((rate, decay), fresh)["params"].append(parameter)
    return list(groups.values())
