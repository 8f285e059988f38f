"""Fit one fold: tokens in, an adapter and the held-out rows' probabilities out.

A leaf: imports torch.

The order of work is the order of this file: inputs by digest, rows of tokens, a classifier, the
steps, the adapter. What of it is resumed is decided by digests and sealed checkpoints alone.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pandas as pd
import torch
from transformers import TrainingArguments

from tiewise.config import RunConfig, TrainConfig, defining_fields
from tiewise.errors import DeviceError, Interrupted, RunError
from tiewise.files import atomic_folder, digest_json, write_json
from tiewise.models.attention import choose_layout
from tiewise.models.backbones import settings_digest
from tiewise.models.loading import Checkpointing
from tiewise.models.model import PairClassifier
from tiewise.models.scoring import predict_pairs
from tiewise.models.state import (
    gather,
    is_sharded,
    load_trainable_weights,
    load_tree,
    trainable_weights,
)
from tiewise.runs import checkpoints
from tiewise.runs.environment import is_first_process, own_cuda
from tiewise.runs.fold_lock import FoldTask, check_fingerprint
from tiewise.runs.folder import FoldFolder
from tiewise.runs.manifest import write_manifest
from tiewise.tokens.batches import Layout, step_rows
from tiewise.training.callbacks import History, Progress, StopOnSignal
from tiewise.training.examples import Backbone, Examples, make_examples, open_backbone
from tiewise.training.memory import checkpoint_size, choose_checkpointing
from tiewise.training.steps import StepDataset
from tiewise.training.trainer import N_CHECKPOINTS, StepTrainer
from tiewise.training.trainer_arguments import training_arguments
from tiewise.training.warm_start import digest_adapter, find_adapter, make_classifier

_log = logging.getLogger(__name__)


def require_device(config: RunConfig) -> torch.device:
    """Return the device to compute on, before anything else is done.

    Raises
    ------
    DeviceError
        When the configuration asks for CUDA and there is none.
    """
    has_cuda = torch.cuda.is_available()
    if config.train.device == "cuda" and not has_cuda:
        raise DeviceError(
            f"This configuration ({config.model.backbone}) needs CUDA, and torch "
            f"{torch.__version__} finds no CUDA device. Run it on a machine with a GPU, or take a "
            "CPU preset: tiewise fit --preset quickstart (or smollm2-135m). Nothing was downloaded."
        )
    if config.train.device == "cpu" or not has_cuda:
        return torch.device("cpu")
    return torch.device(own_cuda())


def fit_fold(
    config: RunConfig, train: pd.DataFrame, held_out: pd.DataFrame, task: FoldTask
) -> pd.DataFrame | None:
    """Fit on some rows, save the adapter, and predict the others.

    Parameters
    ----------
    config
        The resolved configuration.
    train, held_out
        Pairs tables: the rows to learn from, labelled, and the rows to predict.
    task
        Where the files go, what the fold is called, and how it is begun.

    Returns
    -------
    DataFrame or None
        Probabilities of the rows held out, in their order; None on every process but the first,
        and when the fold was finished before.

    Raises
    ------
    RunError
        When the folder belongs to other inputs.
    Interrupted
        When a signal asked to stop; a checkpoint was written before.
    """
    device = require_device(config)
    init_from = task.init_from and find_adapter(task.init_from)
    backbone = open_backbone(config, task.cache_dir)
    identity = {
        "config": defining_fields(config),
        "data": task.data_digest,
        "backbone": backbone.digest,
        "backbone_config": settings_digest(backbone.path),
        "tokenizer": backbone.tokenizer.digest,
        "template": backbone.template.digest,
        "fold": task.fold,
        "init_from": init_from and digest_adapter(init_from),
    }
    check_fingerprint(task.folder, identity, resume=task.resume)
    if task.resume and task.folder.is_finished:
        return None
    examples = make_examples(config, train, backbone, cache_dir=task.cache_dir)
    classifier = make_classifier(config, backbone.path, device, init_from=init_from)
    pad_id = backbone.template.special_tokens.pad
    _train(config, classifier, examples, task, pad_id=pad_id, fit=digest_json(identity))
    # Of weights that processes share, each gives its part before all but the first leave.
    shared = gather(trainable_weights(classifier)) if is_sharded(classifier) else None
    if not is_first_process():
        return None
    if shared is not None:
        classifier = make_classifier(config, backbone.path, device, init_from=init_from)
        load_trainable_weights(classifier, shared)
    save_adapter(classifier, backbone, task.folder.adapter_dir)
    return predict_pairs(
        classifier,
        held_out,
        backbone.tokenizer,
        backbone.template,
        is_swapped=config.predict.swap,
        cache_dir=task.cache_dir,
        batch_tokens=config.predict.score_batch_tokens,
    ).drop(columns="id")


def save_adapter(classifier: PairClassifier, backbone: Backbone, adapter_dir: Path) -> None:
    """Write adapter, head, tokenizer and template, all or nothing."""
    with atomic_folder(adapter_dir) as temporary:
        classifier.save(temporary)
        shutil.copyfile(backbone.path / "tokenizer.json", temporary / "tokenizer.json")
        write_json(temporary / "template.json", backbone.template.to_dict())
        write_manifest(temporary)


def _train(
    config: RunConfig,
    classifier: PairClassifier,
    examples: Examples,
    task: FoldTask,
    *,
    pad_id: int,
    fit: str,
) -> None:
    train, folder, device = config.train, task.folder, classifier.device
    layout = _choose_layout(classifier, train.layout, device)
    classifier.checkpoint(_choose_checkpointing(classifier, examples, train))
    counts = classifier.trainable_summary()
    _log.info("trainable parameters: %(n_trainable)d of %(n_total)d", counts)
    arguments = training_arguments(
        train, folder.checkpoints_dir, dtype=config.model.dtype, is_cpu=device.type == "cpu"
    )
    dataset = _deal_steps(examples, train, arguments, layout=layout, pad_id=pad_id)
    checkpoint = _find_checkpoint(folder, fit) if task.resume else None
    if checkpoint is not None and checkpoints.step_of(checkpoint) == len(dataset):
        load_trainable_weights(classifier, load_tree(checkpoint / "state")["weights"])
        return
    if is_first_process():
        n_checkpoints = min(N_CHECKPOINTS + 1, math.ceil(len(dataset) / train.save_steps))
        size = checkpoint_size(classifier, optimizer=train.optimizer)
        checkpoints.require_room(folder.checkpoints_dir, n_checkpoints, size=size)
    with StopOnSignal() as signals:
        callbacks = [signals, History(folder.history_path, dataset), Progress()]
        trainer = StepTrainer(classifier, dataset, train, arguments, callbacks, fit=fit)
        with _lost_processes_named():
            trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    if signals.received is not None and trainer.state.global_step < len(dataset):
        raise Interrupted(signals.received)


def _deal_steps(
    examples: Examples,
    train: TrainConfig,
    arguments: TrainingArguments,
    *,
    layout: Layout,
    pad_id: int,
) -> StepDataset:
    """Deal the examples to steps, and say the global batch, which nothing below changes."""
    n_pairs = len(examples.ids) // (2 if train.both_orders else 1)
    dataset = StepDataset(
        examples,
        step_rows(n_pairs, train.batch_size, train.n_epochs, train.seed),
        train,
        layout=layout,
        pad_id=pad_id,
        process_index=arguments.process_index,
        n_processes=arguments.world_size,
    )
    shape = (len(dataset), train.batch_size, arguments.world_size)
    _log.info("%d steps of %d pairs; processes: %d", *shape)
    return dataset


def _choose_checkpointing(
    classifier: PairClassifier, examples: Examples, train: TrainConfig
) -> Checkpointing:
    if train.checkpointing != "auto":
        _log.info("checkpointing: %s (as asked)", train.checkpointing)
        return train.checkpointing
    longest = int(examples.rows.lengths.max())
    n_tokens = max(train.micro_batch_tokens, longest)
    if train.n_micro_batches is not None:
        n_rows = train.batch_size * (2 if train.both_orders else 1)
        n_tokens = math.ceil(n_rows / train.n_micro_batches) * longest
    mode, reason = choose_checkpointing(
        classifier,
        n_tokens=n_tokens,
        longest=longest,
        optimizer=train.optimizer,
    )
    _log.info("checkpointing: %s (%s)", mode, reason)
    return mode


@contextlib.contextmanager
def _lost_processes_named() -> Iterator[None]:
    """Say in words that another process of the launch has died."""
    try:
        yield
    except RuntimeError as error:
        is_about_others = isinstance(error, torch.distributed.DistError) or "gloo" in str(error)
        if not (torch.distributed.is_initialized() and is_about_others):
            raise
        raise RunError(
            f"Process {os.environ.get('RANK')} has lost another one of this launch, which probably "
            "died: look above for its message. The last checkpoint is intact: launch again with "
            "--resume."
        ) from error


def _choose_layout(
    classifier: PairClassifier, wanted: Layout | Literal["auto"], device: torch.device
) -> Layout:
    chosen, reason = choose_layout(classifier.config, device)
    if wanted == "auto":
        _log.info("layout: %s (%s)", chosen, reason)
        return chosen
    _log.info("layout: %s (as asked)", wanted)
    return wanted


def _find_checkpoint(folder: FoldFolder, fit: str) -> Path | None:
    checkpoint = checkpoints.newest_intact(folder.checkpoints_dir, fit=fit)
    if checkpoint is None:
        _log.warning("%s holds no intact checkpoint: starting at step 0.", folder.checkpoints_dir)
    else:
        _log.info("going on from %s", checkpoint)
    return checkpoint
