"""Whether a configuration makes sense: ranges, and fields that contradict one another."""

from __future__ import annotations

import math

from tiewise.config.run_config import RunConfig
from tiewise.errors import ConfigError


def check_config(config: RunConfig) -> None:
    """Raise ConfigError when fields are out of range or contradict one another."""
    for holds, message in _laws(config):
        if not holds:
            raise ConfigError(message)


def _laws(config: RunConfig) -> list[tuple[bool, str]]:
    data, model, train = config.data, config.model, config.train
    return [
        (data.n_splits >= 2, f"--n-splits is {data.n_splits}; at least 2 folds are needed."),
        (data.limit is None or data.limit >= 1, f"--limit is {data.limit}; give at least 1 row."),
        (
            (config.template.template == "notebook") <= (config.template.truncation == "right"),
            "--template notebook cuts on the right only; add --truncation right.",
        ),
        (data.data_seed >= 0, f"--data-seed is {data.data_seed}; give 0 or more."),
        (
            config.template.max_length >= 1,
            f"--max-length is {config.template.max_length}; give at least 1 token.",
        ),
        (
            model.n_layers is None or model.n_layers >= 1,
            f"--n-layers is {model.n_layers}; keep at least 1 layer.",
        ),
        (model.lora_r >= 1, f"--lora-r is {model.lora_r}; a rank is at least 1."),
        (
            0 < model.lora_alpha < math.inf,
            f"--lora-alpha is {model.lora_alpha}; give a positive number.",
        ),
        (0 <= model.lora_dropout < 1, f"--lora-dropout is {model.lora_dropout}; give 0 to 1."),
        (model.n_frozen_layers >= 0, "--n-frozen-layers is negative."),
        (
            model.tuning == "lora" or model.quantization == "none",
            "--tuning full cannot train 4-bit weights; add --quantization none or --tuning lora.",
        ),
        (
            model.tuning == "lora" or model.dtype in {"float32", "float64"},
            f"--tuning full in {model.dtype} would round small steps away; add --dtype float32, or "
            "--tuning lora.",
        ),
        (train.seed < 2**32, f"--seed is {train.seed}; give less than 2**32."),
        (data.data_seed < 2**32, f"--data-seed is {data.data_seed}; give less than 2**32."),
        (train.batch_size >= 1, f"--batch-size is {train.batch_size}; give at least 1 pair."),
        (train.n_epochs >= 1, f"--n-epochs is {train.n_epochs}; give at least 1."),
        (
            train.n_micro_batches is None or train.n_micro_batches >= 1,
            f"--n-micro-batches is {train.n_micro_batches}; give at least 1, or None.",
        ),
        *(
            (
                rate is None or 0 < rate < math.inf,
                f"--{name.replace('_', '-')} is {rate}; give a positive number.",
            )
            for name in ("learning_rate", "head_learning_rate")
            for rate in [getattr(train, name)]
        ),
        *(
            (
                0 <= number < math.inf,
                f"--{name.replace('_', '-')} is {number}; give 0 or more.",
            )
            for name in (
                "weight_decay",
                "max_grad_norm",
                "n_warmup_steps",
                "seed",
            )
            for number in [getattr(train, name)]
        ),
        (train.micro_batch_tokens >= 1, "--micro-batch-tokens must be at least 1."),
        (0 <= train.soft_weight <= 1, f"--soft-weight is {train.soft_weight}; give 0 to 1."),
        (train.log_steps >= 1, "--log-steps must be at least 1."),
        (train.save_steps >= 1, "--save-steps must be at least 1."),
        (
            config.predict.score_batch_tokens >= 1,
            f"--score-batch-tokens is {config.predict.score_batch_tokens}; give at least 1.",
        ),
    ]
