"""Trainable weights and optimizer state: list, shard, gather, write to files and read back.

Files hold whole tensors, so any number of processes, sharded by FSDP or not, can resume from them.
Nested states are one safetensors file and one JSON file, without pickle.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from tiewise.errors import ModelError, RunError
from tiewise.files import atomic_path, read_json, write_bytes


def trainable_weights(model: nn.Module) -> dict[str, Tensor]:
    """Return the tensors that training changes, by name."""
    return {name: value for name, value in model.named_parameters() if value.requires_grad}


def load_trainable_weights(model: nn.Module, weights: dict[str, Tensor]) -> None:
    """Copy weights into the trainable tensors of `model`; see :func:`copy_weights`."""
    copy_weights(weights, trainable_weights(model), source="The checkpoint")


def copy_weights(
    weights: dict[str, Tensor], targets: dict[str, Tensor], *, source: Path | str
) -> None:
    """Copy tensors by name; sharded targets take their part.

    Raises ModelError when a tensor is missing, unexpected or of another shape; `source` opens the
    message.
    """
    expected = {name: tuple(value.shape) for name, value in targets.items()}
    found = {name: tuple(value.shape) for name, value in weights.items()}
    if expected != found:
        name = min(set(expected.items()) ^ set(found.items()))[0]
        raise ModelError(
            f"{source} does not fit the model: {name} is {found.get(name, 'missing')}; expected "
            f"{expected.get(name, 'no such tensor')}. Use the model it was written for."
        )
    with torch.no_grad():
        for name, target in targets.items():
            target.copy_(shard_like(weights[name], target))


# ---- FSDP -----------------------------------------------------------------------------------


def is_sharded(model: nn.Module) -> bool:
    """Tell whether this process holds only parts of the model's tensors."""
    return any(isinstance(part, DTensor) for part in model.parameters())


def gather(tree: Any) -> Any:
    """Return nested dictionaries and lists with every tensor whole; sharded ones go to the CPU.

    Every process must call it on the same tree.
    """
    if isinstance(tree, DTensor):
        return tree.full_tensor().detach().cpu()
    if isinstance(tree, dict):
        return {key: gather(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return type(tree)(gather(value) for value in tree)
    return tree


def shard_like(whole: Tensor, own: Tensor) -> Tensor:
    """Return a whole tensor sharded as `own` is, or unchanged when `own` is whole."""
    if not isinstance(own, DTensor):
        return whole
    return distribute_tensor(whole.to(own.device, own.dtype), own.device_mesh, own.placements)


def shard_optimizer_state(state: dict[str, Any], optimizer: Any) -> dict[str, Any]:
    """Return an optimizer's whole state sharded as its parameters are."""
    parameters = [part for group in optimizer.param_groups for part in group["params"]]

    def shard(value: Any, own: Tensor) -> Any:
        has_shape = isinstance(value, Tensor) and value.shape == own.shape
        return shard_like(value, own) if has_shape else value

    sharded = {
        index: {name: shard(value, parameters[index]) for name, value in values.items()}
        for index, values in state["state"].items()
    }
    return state | {"state": sharded}


# ---- files ----------------------------------------------------------------------------------


def save_tree(path: Path, tree: Any) -> None:
    """Write nested dictionaries, lists and tuples to ``path.json`` and ``path.safetensors``.

    The values are tensors, numbers, strings, booleans or None; any other is a TypeError.
    """
    tensors: dict[str, Tensor] = {}
    skeleton = _pack(tree, tensors)
    write_tensors(path.with_suffix(".safetensors"), tensors)
    write_bytes(path.with_suffix(".json"), json.dumps(skeleton).encode())


def load_tree(path: Path) -> Any:
    """Read what :func:`save_tree` wrote, bit for bit; tensors are returned on the CPU."""
    try:
        skeleton = read_json(path.with_suffix(".json"))
        tensors = safetensors.torch.load_file(path.with_suffix(".safetensors"))
        return _unpack(skeleton, tensors)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise RunError(f"{path}: the saved state cannot be read: {error}.") from error


def write_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write tensors as safetensors, completely or not at all.

    safetensors reports a full disk as text; here it is an OSError with the error number.
    """
    with atomic_path(path) as temporary:
        try:
            safetensors.torch.save_file(tensors, temporary, metadata={"format": "pt"})
        except SafetensorError as error:
            number = re.search(r"os error (\d+)", str(error))
            if number is None:
                raise
            code = int(number[1])
            raise OSError(code, os.strerror(code), str(path)) from error


def _pack(tree: Any, tensors: dict[str, Tensor]) -> Any:
    """Return the tree as JSON values, with a reference for each tensor moved to `tensors`."""
    if isinstance(tree, Tensor):
        name = str(len(tensors))
        tensors[name] = tree.detach().cpu().contiguous().clone()
        return {"tensor": name}
    if isinstance(tree, dict):
        return {"dict": [[_pack(k, tensors), _pack(v, tensors)] for k, v in tree.items()]}
    if isinstance(tree, list | tuple):
        return {type(tree).__name__: [_pack(value, tensors) for value in tree]}
    if tree is None or isinstance(tree, bool | int | float | str):
        return tree
    raise TypeError(f"cannot save a {type(tree).__name__} without pickle")


def _unpack(tree: Any, tensors: dict[str, Tensor]) -> Any:
    if not isinstance(tree, dict):
        return tree
    ((kind, content),) = tree.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "dict":
        return {_unpack(k, tensors): _unpack(v, tensors) for k, v in content}
    values = [_unpack(value, tensors) for value in content]
    return tuple(values) if kind == "tuple" else values
