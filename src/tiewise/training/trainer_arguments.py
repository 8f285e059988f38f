"""The configuration of a fit in transformers' words. A leaf: imports torch with transformers."""

from __future__ import annotations

import logging
import math
from pathlib import Path

import transformers
from transformers.integrations.integration_utils import get_reporting_integration_callbacks
from transformers.training_args import OptimizerNames

from tiewise.config import TrainConfig
from tiewise.errors import ConfigError

_log = logging.getLogger(__name__)
_PATIENCE_SECONDS = 6 * 3600  # the others wait while the first process scores a fold


def training_arguments(
    config: TrainConfig, output_dir: Path, *, dtype: str, is_cpu: bool
) -> transformers.TrainingArguments:
    """Say the configuration in transformers' words.

    Raises
    ------
    ConfigError
        When transformers knows no such optimiser or tracker, or the tracker is not installed.
    """
    _check_names(config)
    arguments = transformers.TrainingArguments(
        output_dir=str(output_dir),
        run_name="/".join(output_dir.parts[-3:-1]),  # what trackers show: the run and the fold
        num_train_epochs=1,
        per_device_train_batch_size=1,
        gradient_accumulation_steps=1,
        learning_rate=config.learning_rate,
        lr_scheduler_type=config.schedule
        if config.schedule != "constant"
        else "constant_with_warmup",
        warmup_steps=config.n_warmup_steps,
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm or math.inf,  # at 0 the norm would not be looked at
        optim=config.optimizer,
        logging_steps=config.log_steps,
        logging_nan_inf_filter=False,
        save_strategy="steps",
        save_steps=config.save_steps,
        eval_strategy="no",
        seed=config.seed,
        use_cpu=is_cpu,
        fp16=dtype == "float16" and not is_cpu,
        ddp_find_unused_parameters=False,
        ddp_timeout=_PATIENCE_SECONDS,
        dataloader_pin_memory=False,
        remove_unused_columns=False,
        report_to=list(config.report_to) or "none",
        disable_tqdm=True,
        log_level="warning",
    )
    if arguments.n_gpu > 1:  # else the Trainer would deal out what is no row of a batch
        _log.info("%d GPUs, one process: one is used; a launcher uses all.", arguments.n_gpu)
        arguments._n_gpu = 1
    return arguments


def _check_names(config: TrainConfig) -> None:
    known = [name.value for name in OptimizerNames]
    if config.optimizer not in known:
        raise ConfigError(
            f"--optimizer {config.optimizer} is not one of transformers': {', '.join(known)}."
        )
    try:
        trackers = get_reporting_integration_callbacks(list(config.report_to))  # type: ignore[no-untyped-call]
        for tracker in trackers:
            tracker()
    except (ValueError, RuntimeError, ImportError) as error:
        raise ConfigError(f"--report-to {' '.join(config.report_to)}: {error}") from error
