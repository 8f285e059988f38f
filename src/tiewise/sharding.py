"""Tensors of which each process holds a part (FSDP): whole to be saved, dealt out to be loaded.

What is saved never depends on how many processes there were: a checkpoint and an adapter hold whole
tensors, so any number of processes, sharded or not, can go on from them.

This module is a leaf: it imports torch, and nothing below imports it.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor


def is_sharded(model: nn.Module) -> bool:
    """Tell whether this process holds only parts of the model's tensors."""
    return any(isinstance(part, DTensor) for part in model.parameters())


def gather(tree: Any) -> Any:
    """Return nested dictionaries and lists with every tensor whole.

    Every process must call it, on the same tree; whole tensors that were parts lie on the CPU.
    """
    if isinstance(tree, DTensor):
        return tree.detach().full_tensor().cpu()
    if isinstance(tree, dict):
        return {key: gather(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return type(tree)(gather(value) for value in tree)
    return tree


def deal_like(whole: Tensor, own: Tensor) -> Tensor:
    """Return a whole tensor in the parts that `own` has, or as it is."""
    if not isinstance(own, DTensor):
        return whole
    return distribute_tensor(whole.to(own.device, own.dtype), own.device_mesh, own.placements)


def deal_state(state: dict[str, Any], optimizer: Any) -> dict[str, Any]:
    """Return an optimiser's whole state in the parts that its parameters have."""
    parameters = [part for group in optimizer.param_groups for part in group["params"]]
    dealt = {
        index: {
            name: deal_like(value, parameters[index])
            if isinstance(value, Tensor) and value.shape == parameters[index].shape
            else value
            for name, value in values.items()
        }
        for index, values in state["state"].items()
    }
    return state | {"state": dealt}
