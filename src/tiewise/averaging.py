"""Several adapters averaged into one that predicts like one model. A leaf: imports torch.

What is averaged is what the adapters *do*. A LoRA adapter adds `s B A` to a layer's weight, and the
mean of such products is not the product of the means; but

    mean over i of s B_i A_i  =  s [B_1 … B_k] / k  ·  [A_1; …; A_k]

so the matrices are put side by side: the averaged adapter has k times the rank and adds exactly the
mean. Head and whole tensors (full fine-tuning) are averaged number by number. The model that
results is not the mean of the models' *predictions*: between a weight and a prediction stand
non-linear layers.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tiewise import adapters, checkpoints
from tiewise.config import ModelConfig
from tiewise.errors import ModelError
from tiewise.files import atomic_folder, read_json, write_json
from tiewise.ranks import multiply_ranks
from tiewise.tensor_tree import write_tensors

_SIDE_FILES = ("tokenizer.json", "template.json")


def average_adapters(adapter_dirs: Sequence[Path], output_dir: Path) -> ModelConfig:
    """Write the average of several adapters, in the form a fit writes one.

    Parameters
    ----------
    adapter_dirs
        At least one folder that a fit wrote; all built alike on one backbone.
    output_dir
        The folder to write; replaced when it is there.

    Returns
    -------
    ModelConfig
        What the average is built like: k times the ranks.

    Raises
    ------
    ModelError
        When a folder is damaged, the adapters are not built alike, or they are DoRA's, whose mean
        is no adapter.
    """
    cards = [adapters.read_built(folder) for folder in adapter_dirs]
    config, n = cards[0][0], len(adapter_dirs)
    _check_alike(adapter_dirs, cards)
    settings_name, weights_name = adapters.file_names(config)
    tensors = [adapters.read_tensors(folder / weights_name) for folder in adapter_dirs]
    averaged = replace(
        config,
        lora_r=config.lora_r * n,
        lora_alpha=config.lora_alpha * (math.sqrt(n) if config.use_rslora else n),
        lora_ranks=multiply_ranks(config.lora_ranks, n),
    )
    if config.tuning == "full":
        averaged = config
    with atomic_folder(output_dir) as temporary:
        for name in _SIDE_FILES:
            shutil.copyfile(adapter_dirs[0] / name, temporary / name)
        write_tensors(temporary / weights_name, average_tensors(tensors))
        settings = read_json(adapter_dirs[0] / settings_name)
        write_json(temporary / settings_name, _widen(settings, averaged, n))
        adapters.write_card(temporary, averaged, cards[0][1])
        checkpoints.seal(temporary)
    return averaged


def average_tensors(parts: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Average tensors by name: the factors of adapters side by side, all else by number.

    Parameters
    ----------
    parts
        k dictionaries with the same names and shapes.

    Examples
    --------
    >>> a, b = torch.ones(1, 2), torch.ones(3, 1)
    >>> parts = [{"q.lora_A.weight": k * a, "q.lora_B.weight": b} for k in (1, 3)]
    >>> average = average_tensors(parts)
    >>> average["q.lora_B.weight"] @ average["q.lora_A.weight"]
    tensor([[2., 2.],
            [2., 2.],
            [2., 2.]])
    """
    return {name: _average([part[name] for part in parts], name) for name in parts[0]}


def _average(tensors: Sequence[Tensor], name: str) -> Tensor:
    if ".lora_A." in name:
        return torch.cat(list(tensors), dim=0)
    if ".lora_B." in name:
        return torch.cat(list(tensors), dim=1) / len(tensors)
    if not tensors[0].is_floating_point():
        return tensors[0]
    mean: Tensor = torch.stack([part.double() for part in tensors]).mean(dim=0)
    return mean.to(tensors[0].dtype).contiguous()


def _check_alike(folders: Sequence[Path], cards: Sequence[tuple[ModelConfig, str]]) -> None:
    if cards[0][0].use_dora:
        raise ModelError(
            f"{folders[0]} is a DoRA adapter: it scales the direction of a sum, and a mean of such "
            "is no adapter. Average the predictions, as tiewise predict does by itself."
        )
    for folder, card in zip(folders, cards, strict=True):
        if card != cards[0]:
            raise ModelError(
                f"{folder} is built otherwise, or on another backbone, than {folders[0]}: they "
                "cannot be averaged."
            )
        for name in _SIDE_FILES:
            if (folder / name).read_bytes() != (folders[0] / name).read_bytes():
                raise ModelError(f"{folder / name} is not that of {folders[0]}: fit them alike.")


def _widen(settings: dict[str, Any], averaged: ModelConfig, n: int) -> dict[str, Any]:
    """Return peft's settings with the ranks of the average; a whole model's stay."""
    if averaged.tuning == "full":
        return settings
    pattern = {name: rank * n for name, rank in (settings.get("rank_pattern") or {}).items()}
    built = asdict(averaged)
    widened = {"r": built["lora_r"], "lora_alpha": built["lora_alpha"], "rank_pattern": pattern}
    return settings | widened
