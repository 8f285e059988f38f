"""Fit one fold: rows of tokens, a classifier, optimiser steps, a saved adapter, predictions."""

from __future__ import annotations

import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from tiewise.config import (
    ModelConfig,
    RunConfig,
    defining_fields,
    find_backbone,
    first_difference,
)
from tiewise.errors import DeviceError, ModelError
from tiewise.files import atomic_folder, digest_file, digest_json, write_json
from tiewise.models.build import build_classifier, load_classifier
from tiewise.models.model import PairClassifier
from tiewise.models.scoring import predict_pairs
from tiewise.runs.environment import own_cuda
from tiewise.runs.fold_lock import FoldTask, check_fingerprint
from tiewise.runs.manifest import write_manifest
from tiewise.training.steps import Backbone, make_examples, open_backbone
from tiewise.training.train import train_classifier


def require_device(config: RunConfig) -> torch.device:
    """Return the device to compute on; called before anything is downloaded."""
    has_cuda = torch.cuda.is_available()
    if config.train.device == "cuda" and not has_cuda:
        raise DeviceError(
            f"This configuration ({find_backbone(config.model)}) needs CUDA, and torch "
            f"{torch.__version__} finds no CUDA device. Run it on a machine with a GPU, or use a "
            "CPU preset: tiewise fit --preset quickstart (or smollm2-135m). Nothing was downloaded."
        )
    if config.train.device == "cpu" or not has_cuda:
        return torch.device("cpu")
    return torch.device(own_cuda())


def fit_fold(
    config: RunConfig, train: pd.DataFrame, held_out: pd.DataFrame, task: FoldTask
) -> pd.DataFrame | None:
    """Train on some pairs, save the adapter, and predict the held-out pairs.

    `train` has labels or soft labels. Returns the predictions of the held-out rows, in their order,
    without ids (:func:`tiewise.models.scoring.predict_pairs`); None if the fold was finished
    before, and on every process but rank 0. Raises RunError if the folder belongs to
    other inputs, and Interrupted, with a checkpoint written, if a signal asked to stop.
    """
    device = require_device(config)
    backbone = open_backbone(config, task.cache_dir)
    init_from = task.init_from and find_adapter(task.init_from)
    fingerprint = _describe_inputs(config, backbone, task, init_from)
    check_fingerprint(task.folder, fingerprint, resume=task.resume)
    if task.resume and task.folder.is_finished:
        return None
    examples = make_examples(config, train, backbone, cache_dir=task.cache_dir)
    classifier = _make_classifier(config, backbone, device, init_from)
    trained = train_classifier(
        classifier,
        examples,
        config.train,
        task,
        fit_digest=digest_json(fingerprint),
        training_share=_training_share(config, len(train), len(held_out)),
    )
    if trained is None:  # not the first process of a launch
        return None
    save_adapter(trained, backbone, task.folder.adapter_dir, has_ties=task.has_ties)
    return predict_pairs(
        trained,
        held_out,
        backbone.tokenizer,
        backbone.template,
        both_orders=config.predict.swap,
        cache_dir=task.cache_dir,
        batch_tokens=config.predict.score_batch_tokens,
    ).drop(columns="id")


def _training_share(config: RunConfig, n_train: int, n_held_out: int) -> float:
    """Estimate the share of the training in the time of a fold: the rest scores held-out rows.

    A step takes about three times as long as a forward pass of the same rows.
    """
    n_rows = n_train * (2 if config.train.both_orders else 1) * config.train.n_epochs
    n_scored = n_held_out * (2 if config.predict.swap else 1)
    return 3 * n_rows / (3 * n_rows + n_scored)


def save_adapter(
    classifier: PairClassifier, backbone: Backbone, adapter_dir: Path, *, has_ties: bool = True
) -> None:
    """Write adapter, head, tokenizer and template, all or nothing."""
    with atomic_folder(adapter_dir) as temporary:
        classifier.save(temporary, has_ties=has_ties)
        shutil.copyfile(backbone.path / "tokenizer.json", temporary / "tokenizer.json")
        write_json(temporary / "template.json", backbone.template.to_dict())
        write_manifest(temporary)


def find_adapter(path: Path) -> Path:
    """Return the adapter folder inside the folder of a fold, or the folder itself."""
    if not path.is_dir():
        raise ModelError(f"--init-from {path}: there is no such folder. Name a fold of a run.")
    return path / "adapter" if (path / "adapter").is_dir() else path


def _describe_inputs(
    config: RunConfig, backbone: Backbone, task: FoldTask, init_from: Path | None
) -> dict[str, Any]:
    """Return the fingerprint of a fit: every input by value or digest."""
    return {
        "config": defining_fields(config),
        "data": task.data_digest,
        **backbone.digests,
        "fold": task.fold,
        "init_from": init_from and _digest_files(init_from),
    }


def _digest_files(folder: Path) -> str:
    files = (path for path in folder.iterdir() if path.is_file())
    return digest_json(sorted((path.name, digest_file(path)) for path in files))


def _make_classifier(
    config: RunConfig, backbone: Backbone, device: torch.device, init_from: Path | None
) -> PairClassifier:
    """Build a classifier with a fresh adapter, or load the adapter to start from."""
    if init_from is None:
        return build_classifier(config.model, backbone.path, seed=config.train.seed, device=device)
    classifier = load_classifier(init_from, backbone.path, device=device, is_trainable=True)
    _check_same_model(classifier.model_config, config.model, init_from)
    return classifier


def _check_same_model(found: ModelConfig, wanted: ModelConfig, adapter_dir: Path) -> None:
    """Refuse an adapter of another configuration; `load_classifier` checks the backbone."""
    ignored: dict[str, Any] = {"backbone": "", "revision": None, "backbone_sha256": None}
    difference = first_difference(
        asdict(replace(found, **ignored)), asdict(replace(wanted, **ignored))
    )
    if difference is not None:
        name, before, now = difference
        raise ModelError(
            f"{adapter_dir} was built with {name} {before}, not {now}. Add "
            f"--{name.replace('_', '-')} {before}, or start without --init-from."
        )
