"""Tensors of which each process holds a part (FSDP): whole to be saved, dealt out to be loaded.

What is saved never depends on how many processes there were: a checkpoint and an adapter hold whole
tensors, so any number of processes, sharded or not, can go on from them.

This module is a leaf: it imports torch, and nothing below imports it.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from tiewise.errors import ConfigError


def check_fsdp(plugin: Any, *, is_scaled: bool) -> None:
    """Refuse accelerate's FSDP plugin, if there is one, where weights or head would be changed.

    Raises
    ------
    ConfigError
        When it is of the first version, which flattens weights, or casts them: to bfloat16 itself,
        or to float16 with scaled gradients.
    """
    is_right = plugin is None or (
        plugin.fsdp_version == 2 and plugin.mixed_precision_policy is None and not is_scaled
    )
    if not is_right:
        raise ConfigError(
            "FSDP works here in its second version, and leaves the dtype to --dtype: set "
            "fsdp_version: 2 and mixed_precision: 'no' in accelerate's file, and give --dtype "
            "bfloat16 or float32."
        )


def is_sharded(model: nn.Module) -> bool:
    """Tell whether this process holds only parts of the model's tensors."""
    return any(isinstance(part, DTensor) for part in model.parameters())


def gather(tree: Any) -> Any:
    """Return nested dictionaries and lists with every tensor whole.

    Every process must call it, on the same tree; whole tensors that were parts lie on the CPU.
    """
    if isinstance(tree, DTensor):
        return tree.full_tensor().detach().cpu()
    if isinstance(tree, dict):
        return {key: gather(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return type(tree)(gather(value) for value in tree)
    return tree


def shard_like(whole: Tensor, own: Tensor) -> Tensor:
    """Return a whole tensor in the parts that `own` has, or as it is."""
    if not isinstance(own, DTensor):
        return whole
    return distribute_tensor(whole.to(own.device, own.dtype), own.device_mesh, own.placements)


def shard_optimizer_state(state: dict[str, Any], optimizer: Any) -> dict[str, Any]:
    """Return an optimiser's whole state in the parts that its parameters have."""
    parameters = [part for group in optimizer.param_groups for part in group["params"]]
    dealt = {
        index: {
            name: shard_like(value, parameters[index])
            if isinstance(value, Tensor) and value.shape == parameters[index].shape
            else value
            for name, value in values.items()
        }
        for index, values in state["state"].items()
    }
    return state | {"state": dealt}
