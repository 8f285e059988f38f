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

from tiewise.config.ranks import multiply_ranks
from tiewise.config.run_config import BASELINE, BLEND, ModelConfig
from tiewise.errors import ModelError, RunError
from tiewise.files import atomic_folder, digest_file, read_json, refuse_existing, write_json
from tiewise.network import adapters
from tiewise.network.tensor_tree import write_tensors
from tiewise.runs import checkpoints
from tiewise.runs.folder import Run

_RECORD = "average.json"
_SIDE_FILES = ("tokenizer.json", "template.json")


def average_run(run: Run, *, is_overwritten: bool = False) -> ModelConfig:
    """Average the adapters of a run's finished folds into its folder ``average``.

    Returns
    -------
    ModelConfig
        What the average is built like.

    Raises
    ------
    RunError
        When fewer than two folds are finished.
    FilesError
        When an average stands there and may not be replaced.
    ModelError
        As :func:`average_adapters`, and when the run has no adapters.
    """
    folds = run.finished_folds()
    if run.config.model.backbone in {BASELINE, BLEND}:
        raise ModelError(
            f"{run.name} has no adapters to average: it is a {run.config.model.backbone}. Its "
            "predictions are averaged by tiewise predict."
        )
    if len(folds) < 2:
        raise RunError(
            f"{run.path}: {len(folds)} folds are finished, and an average needs two. Go on with "
            f"tiewise fit --run {run.name} --folds all --resume."
        )
    refuse_existing(run.average_dir, is_overwritten=is_overwritten)
    (run.average_dir / _RECORD).unlink(missing_ok=True)
    averaged = average_adapters(
        [run.fold(fold).adapter_dir for fold in folds], run.average_dir / "adapter"
    )
    write_json(run.average_dir / _RECORD, _digest_folds(run, folds))
    return averaged


def find_average(run: Run) -> Path:
    """Return the folder of a run's averaged adapter.

    Raises
    ------
    RunError
        When there is none, or a fold was fitted since.
    """
    path = run.average_dir / _RECORD
    if not path.is_file():
        raise RunError(f"{run.path} has no averaged adapter. Run tiewise average {run.name}.")
    if read_json(path) != _digest_folds(run, run.finished_folds()):
        raise RunError(
            f"{run.average_dir} is the average of other folds than are finished now. Run tiewise "
            f"average {run.name} --overwrite."
        )
    return run.average_dir / "adapter"


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
            if (adapter_dirs[0] / name).is_file():
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


def _digest_folds(run: Run, folds: Sequence[int]) -> dict[str, str]:
    return {str(fold): digest_file(run.fold(fold).oof_path) for fold in folds}


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
            if _digest(folder / name) != _digest(folders[0] / name):
                raise ModelError(f"{folder / name} is not that of {folders[0]}: fit them alike.")


def _digest(path: Path) -> str | None:
    return digest_file(path) if path.is_file() else None


def _widen(settings: dict[str, Any], averaged: ModelConfig, n: int) -> dict[str, Any]:
    """Return peft's settings with the ranks of the average; a whole model's stay."""
    if averaged.tuning == "full":
        return settings
    pattern = {name: rank * n for name, rank in (settings.get("rank_pattern") or {}).items()}
    built = asdict(averaged)
    widened = {"r": built["lora_r"], "lora_alpha": built["lora_alpha"], "rank_pattern": pattern}
    return settings | widened
