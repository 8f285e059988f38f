"""A tree of tensors and plain values as safetensors and JSON. A leaf: imports torch.

Optimiser and scheduler states are nested dictionaries, lists and tuples of tensors, numbers and
strings. Their tensors go to one safetensors file, the rest to one JSON file in which each tensor
is a reference; what comes back is equal to the last bit, and no pickle is written or read.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from tiewise.errors import RunError
from tiewise.files import atomic_path, read_json, write_bytes


def save_tree(path: Path, tree: Any) -> None:
    """Write `tree` to ``path.json`` and ``path.safetensors``.

    Raises
    ------
    TypeError
        When the tree holds something that is neither a tensor nor a plain value.
    """
    tensors: dict[str, torch.Tensor] = {}
    skeleton = _pack(tree, tensors)
    write_tensors(path.with_suffix(".safetensors"), tensors)
    write_bytes(path.with_suffix(".json"), json.dumps(skeleton).encode())


def load_tree(path: Path) -> Any:
    """Read what :func:`save_tree` wrote; tensors arrive on the CPU.

    Raises
    ------
    RunError
        When a file is missing or is not what `save_tree` writes.
    """
    try:
        skeleton = read_json(path.with_suffix(".json"))
        tensors = safetensors.torch.load_file(path.with_suffix(".safetensors"))
        return _unpack(skeleton, tensors)
    except (OSError, ValueError, KeyError, safetensors.SafetensorError) as error:
        raise RunError(f"{path}: the saved state cannot be read: {error}.") from error


def write_tensors(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Write tensors as safetensors, whole or not at all.

    Raises
    ------
    OSError
        When the system cannot write; safetensors itself hides which error it was.
    """
    with atomic_path(path) as temporary:
        try:
            safetensors.torch.save_file(tensors, temporary, metadata={"format": "pt"})
        except safetensors.SafetensorError as error:
            number = re.search(r"os error (\d+)", str(error))
            if number is None:
                raise
            code = int(number[1])
            raise OSError(code, os.strerror(code), str(path)) from error


def _pack(tree: Any, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(tree, torch.Tensor):
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


def _unpack(tree: Any, tensors: dict[str, torch.Tensor]) -> Any:
    if not isinstance(tree, dict):
        return tree
    ((kind, content),) = tree.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "dict":
        return {_unpack(k, tensors): _unpack(v, tensors) for k, v in content}
    values = [_unpack(value, tensors) for value in content]
    return tuple(values) if kind == "tuple" else values
