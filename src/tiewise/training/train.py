"""Train a classifier on examples: layout, checkpointing, the Trainer, and resuming."""

from __future__ import annotations

import atexit
import contextlib
import functools
import logging
import math
import os
from collections.abc import Iterator
from pathlib import Path

import torch
import transformers
from transformers.integrations.integration_utils import get_reporting_integration_callbacks
from transformers.training_args import OptimizerNames

from tiewise.config import TrainConfig
from tiewise.errors import ConfigError, Interrupted, RunError
from tiewise.models.attention import choose_layout
from tiewise.models.build import build_classifier
from tiewise.models.loading import Checkpointing
from tiewise.models.model import PairClassifier
from tiewise.models.state import (
    gather,
    is_sharded,
    load_trainable_weights,
    load_tree,
    trainable_weights,
)
from tiewise.runs import checkpoints
from tiewise.runs.environment import is_first_process
from tiewise.runs.fold_lock import FoldTask
from tiewise.runs.folder import FoldFolder
from tiewise.tokens.batches import Layout
from tiewise.training.callbacks import History, Progress, StopOnSignal
from tiewise.training.memory import checkpoint_size, choose_checkpointing
from tiewise.training.steps import Examples, StepDataset
from tiewise.training.trainer import N_CHECKPOINTS, StepTrainer

_log = logging.getLogger(__name__)
_TIMEOUT_SECONDS = 6 * 3600  # the other processes wait while the first one scores a fold


def train_classifier(
    classifier: PairClassifier,
    examples: Examples,
    train_config: TrainConfig,
    task: FoldTask,
    *,
    fit_digest: str,
    training_share: float = 1.0,
) -> PairClassifier | None:
    """Train a classifier in place, from the newest checkpoint if the task resumes.

    Only checkpoints with `fit_digest`, the SHA-256 of the fingerprint of the fit, are resumed from.
    `training_share`, in [0, 1], is the expected share of the training in the time of the fold.
    Returns the classifier; None on every process but rank 0. Raises NumericsError if
    a loss or gradient is not finite, RunError if memory or disk do not suffice or another process
    has died, and Interrupted, with a checkpoint written, if a signal asked to stop.
    """
    folder = task.folder
    classifier.checkpoint(_choose_checkpointing(classifier, examples, train_config))
    _log.info(
        "trainable parameters: %(n_trainable)d of %(n_total)d", classifier.trainable_summary()
    )
    arguments = training_arguments(
        train_config,
        folder.checkpoints_dir,
        dtype=classifier.model_config.dtype,
        is_cpu=classifier.device.type == "cpu",
    )
    steps = StepDataset(
        examples,
        train_config,
        layout=_choose_layout(classifier, train_config),
        process_index=arguments.process_index,
        n_processes=arguments.world_size,
    )
    counts = (len(steps), train_config.batch_size, arguments.world_size)
    _log.info("%d steps of %d pairs; processes: %d", *counts)
    checkpoint = _find_checkpoint(folder, fit_digest) if task.resume else None
    if checkpoint is not None and checkpoints.step_of(checkpoint) == len(steps):
        load_trainable_weights(classifier, load_tree(checkpoint / "state")["weights"])
        return classifier if is_first_process() else None
    _check_disk(classifier, folder, len(steps), train_config)
    progress = Progress(task.clock, training_share)
    with StopOnSignal() as signals, _explain_lost_process():
        callbacks = [signals, History(folder.history_path, steps), progress]
        trainer = StepTrainer(
            classifier, steps, train_config, arguments, callbacks, fit_digest=fit_digest
        )
        _leave_launch_at_exit()
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
        if signals.received is not None and trainer.state.global_step < len(steps):
            raise Interrupted(signals.received)
    return _join_shards(classifier)


def training_arguments(
    train_config: TrainConfig, output_dir: Path, *, dtype: str, is_cpu: bool
) -> transformers.TrainingArguments:
    """Return the configuration as transformers' arguments."""
    _check_names(train_config)
    schedule = train_config.schedule
    arguments = transformers.TrainingArguments(
        output_dir=str(output_dir),
        run_name="/".join(output_dir.parts[-3:-1]),  # trackers show the run and the fold
        num_train_epochs=1,
        per_device_train_batch_size=1,
        gradient_accumulation_steps=1,
        learning_rate=train_config.learning_rate,
        lr_scheduler_type="constant_with_warmup" if schedule == "constant" else schedule,
        warmup_steps=train_config.n_warmup_steps,
        weight_decay=train_config.weight_decay,
        # With 0 the Trainer would not compute the norm, which is logged and checked.
        max_grad_norm=train_config.max_grad_norm or math.inf,
        optim=train_config.optimizer,
        logging_steps=train_config.log_steps,
        logging_nan_inf_filter=False,
        save_strategy="steps",
        save_steps=train_config.save_steps,
        eval_strategy="no",
        seed=train_config.seed,
        use_cpu=is_cpu,
        fp16=dtype == "float16" and not is_cpu,
        ddp_find_unused_parameters=False,
        ddp_timeout=_TIMEOUT_SECONDS,
        dataloader_pin_memory=False,
        remove_unused_columns=False,
        report_to=list(train_config.report_to) or "none",
        disable_tqdm=True,
        log_level="warning",
    )
    if arguments.n_gpu > 1:
        _log.info("Only one of %d GPUs is used; start with torchrun to use all.", arguments.n_gpu)
        # With several GPUs the Trainer would use DataParallel, which splits tensors along their
        # first dimension; a packed batch has no such dimension of rows.
        arguments._n_gpu = 1  # noqa: SLF001 - transformers 5 has no public setter
    return arguments


def _check_names(train_config: TrainConfig) -> None:
    known = [name.value for name in OptimizerNames]
    if train_config.optimizer not in known:
        raise ConfigError(
            f"--optimizer is {train_config.optimizer}; expected a name that transformers knows: "
            f"{', '.join(known)}."
        )
    trackers = list(train_config.report_to)
    try:
        for tracker in get_reporting_integration_callbacks(trackers):  # type: ignore[no-untyped-call]
            tracker()
    except (ValueError, RuntimeError, ImportError) as error:
        raise ConfigError(f"--report-to {' '.join(trackers)}: {error}") from error


def _choose_layout(classifier: PairClassifier, train_config: TrainConfig) -> Layout:
    if train_config.layout != "auto":
        _log.info("layout: %s (configured)", train_config.layout)
        return train_config.layout
    chosen, reason = choose_layout(classifier.config, classifier.device)
    _log.info("layout: %s (%s)", chosen, reason)
    return chosen


def _choose_checkpointing(
    classifier: PairClassifier, examples: Examples, train_config: TrainConfig
) -> Checkpointing:
    if train_config.checkpointing != "auto":
        _log.info("checkpointing: %s (configured)", train_config.checkpointing)
        return train_config.checkpointing
    longest = int(examples.rows.lengths.max())
    n_tokens = max(train_config.micro_batch_tokens, longest)
    mode, reason = choose_checkpointing(
        classifier, n_tokens=n_tokens, longest=longest, optimizer=train_config.optimizer
    )
    _log.info("checkpointing: %s (%s)", mode, reason)
    return mode


def _find_checkpoint(folder: FoldFolder, fit_digest: str) -> Path | None:
    checkpoint = checkpoints.newest_intact(folder.checkpoints_dir, fit=fit_digest)
    if checkpoint is None:
        _log.warning("%s holds no intact checkpoint: starting at step 0.", folder.checkpoints_dir)
    else:
        _log.info("resuming from %s", checkpoint)
    return checkpoint


def _check_disk(
    classifier: PairClassifier, folder: FoldFolder, n_steps: int, train_config: TrainConfig
) -> None:
    """Check that the disk has room for the checkpoints."""
    if is_first_process():
        n_checkpoints = min(N_CHECKPOINTS + 1, math.ceil(n_steps / train_config.save_steps))
        size = checkpoint_size(classifier, optimizer=train_config.optimizer)
        checkpoints.require_room(folder.checkpoints_dir, n_checkpoints, size=size)


@functools.cache
def _leave_launch_at_exit() -> None:
    """Let this process leave its launch before it ends, which threads of gloo may not survive."""
    atexit.register(_leave_launch)


def _leave_launch() -> None:
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


@contextlib.contextmanager
def _explain_lost_process() -> Iterator[None]:
    """Raise a RunError in place of the error of torch when another process has died."""
    try:
        yield
    except RuntimeError as error:
        is_about_others = isinstance(error, torch.distributed.DistError) or "gloo" in str(error)
        if not (torch.distributed.is_initialized() and is_about_others):
            raise
        raise RunError(
            f"Process {os.environ.get('RANK')} has lost another process of this launch, which "
            "probably died: look above for its message. Launch again with --resume to continue "
            "from the last checkpoint."
        ) from error


def _join_shards(classifier: PairClassifier) -> PairClassifier | None:
    """Return the classifier with whole tensors on the first process, None on the others."""
    if not is_sharded(classifier):
        return classifier if is_first_process() else None
    weights = gather(trainable_weights(classifier))  # every process gives its part
    if not is_first_process():
        return None
    whole = build_classifier(
        classifier.model_config, classifier.backbone_dir, seed=0, device=classifier.device
    )
    load_trainable_weights(whole, weights)
    return whole
