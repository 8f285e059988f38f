"""A backbone's weights as a network with three classes: loaded, cut, quantised, and its layers.

This module is a leaf: it imports torch and transformers, and nothing below imports it.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import torch
from bitsandbytes.nn.modules import Linear4bit
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import (
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    AutoConfig,
    AutoModelForSequenceClassification,
    BitsAndBytesConfig,
)
from transformers.utils import logging

from tiewise.config.run_config import ModelConfig
from tiewise.errors import ModelError
from tiewise.files import read_json
from tiewise.models.attention import attends_by_rows, register_attention
from tiewise.models.heads import CLASSES, head_name, keep_precision, reset_head
from tiewise.runs.environment import uses_fsdp

Checkpointing = Literal["none", "trainable", "all"]

_QUANTIZED_BLOCK = 64
_POSITION_TABLES = ("position_embeddings", "embed_positions", "wpe")


def load_network(
    config: ModelConfig, backbone_dir: Path, *, device: torch.device | str, seed: int
) -> nn.Module:
    """Return the backbone as a transformers model for three classes, with a fresh head.

    Raises
    ------
    ModelError
        When the folder is not a backbone transformers knows, or the configuration asks for more
        layers than it has.
    """
    settings = _read_settings(config, backbone_dir)
    with seeded(seed), quiet_transformers():
        network, report = _load(config, settings, backbone_dir, device)
        _check_quantized(network, device)
        fresh = _fresh_modules(network, report, backbone_dir)
    with seeded(seed):  # anew: what transformers drew depends on its version and the dtype
        reset_head(network, config)
    for name in fresh:
        part = network.get_submodule(name).to(device=device, dtype=working_dtype(config))
        keep_precision(part, working_dtype(config))
    network.requires_grad_(requires_grad=False)
    network.tiewise_fresh = fresh
    return network  # type: ignore[no-any-return]


def find_dropped_head(backbone_dir: Path) -> str | None:
    """Say which head a backbone's files hold, of a reward model for example; None without one.

    It is left out: what is started from is the backbone below it.
    """
    settings = read_json(backbone_dir / "config.json")
    kind = next(iter(settings.get("architectures") or []), "")
    if not kind.endswith("ForSequenceClassification"):
        return None
    n_outputs = settings.get("num_labels") or len(settings.get("id2label") or "ab")
    name = "a reward model" if n_outputs == 1 else "a classifier"
    return f"{name} ({kind}, outputs: {n_outputs})"


def working_dtype(config: ModelConfig) -> torch.dtype:
    """Return the head's and the adapters' dtype: float32, or float64 under a float64 backbone."""
    return torch.float64 if config.dtype == "float64" else torch.float32


def find_layers(network: Any) -> nn.ModuleList:
    """Return the list of the backbone's layers, first to last."""
    n_layers = network.config.num_hidden_layers
    for module in network.modules():
        if isinstance(module, nn.ModuleList) and len(module) == n_layers:
            return module
    raise ModelError(f"{network.config.model_type}: no list of {n_layers} layers was found in it.")


def count_positions(network: nn.Module) -> int | None:
    """Return the most tokens of a row that a table of positions allows; None without a table."""
    for name, module in network.named_modules():
        if name.rsplit(".", 1)[-1] in _POSITION_TABLES and isinstance(module, nn.Embedding):
            # RoBERTa counts from behind its padding token, OPT from a fixed offset.
            first = -1 if module.padding_idx is None else module.padding_idx
            return module.num_embeddings - max(first + 1, getattr(module, "offset", 0))
    return None


def checkpoint_layers(network: Any, mode: Checkpointing) -> None:
    """Let layers recompute their activations: none, or those from the first trainable one.

    Below the first trainable layer there is no graph and nothing to recompute, so `all` saves no
    more than `trainable`; transformers would keep each frozen layer's input for nothing.
    """
    layers: list[Any] = list(find_layers(network))
    trains = [any(part.requires_grad for part in layer.parameters()) for layer in layers]
    first = trains.index(True) if True in trains else len(layers)
    for index, layer in enumerate(layers):
        layer.gradient_checkpointing = mode != "none" and index >= first
        # Reentrant checkpointing silently loses gradients when the inputs need none.
        layer._gradient_checkpointing_func = functools.partial(checkpoint, use_reentrant=False)


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw from `seed` inside the block; torch's own state is untouched."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keep transformers' bars and its report of fresh weights off the screen; errors still show."""
    screen: Any = logging
    level, had_bars = screen.get_verbosity(), screen.is_progress_bar_enabled()
    screen.set_verbosity_error()
    screen.disable_progress_bar()
    try:
        yield
    finally:
        screen.set_verbosity(level)
        if had_bars:
            screen.enable_progress_bar()


def _read_settings(config: ModelConfig, backbone_dir: Path) -> Any:
    try:
        settings = AutoConfig.from_pretrained(backbone_dir, local_files_only=True)
    except (ValueError, KeyError, OSError) as error:
        raise ModelError(
            f"{backbone_dir}/config.json: transformers cannot use it: {error}"
        ) from error
    n_layers = getattr(settings, "num_hidden_layers", None)
    if n_layers is None or type(settings) not in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING:
        raise ModelError(
            f"{config.backbone} is a {settings.model_type}, of which transformers has no classifier"
            " of text alone. Name a backbone for text."
        )
    wanted = n_layers if config.n_layers is None else config.n_layers
    if not 1 <= wanted <= n_layers:
        raise ModelError(f"--n-layers is {wanted}; {config.backbone} has {n_layers} layers.")
    if config.n_frozen_layers >= wanted:
        raise ModelError(
            f"--n-frozen-layers is {config.n_frozen_layers}; {config.backbone} has {wanted} layers "
            "here, and at least one must be trained."
        )
    values = settings.to_dict() | {"num_hidden_layers": wanted}
    if values.get("layer_types"):
        values["layer_types"] = values["layer_types"][:wanted]
    labels = dict(enumerate(CLASSES))
    values |= {"id2label": labels, "label2id": {name: index for index, name in labels.items()}}
    return type(settings).from_dict(values)


def _load(
    config: ModelConfig, settings: Any, backbone_dir: Path, device: torch.device | str
) -> tuple[Any, dict[str, Any]]:
    options: dict[str, Any] = {"quantization_config": _quantization(config, settings)}
    if attends_by_rows(settings):
        options["attn_implementation"] = register_attention()
    try:
        return AutoModelForSequenceClassification.from_pretrained(  # type: ignore[no-any-return]
            backbone_dir,
            config=settings,
            dtype=getattr(torch, config.dtype),
            device_map={"": str(device)},
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            **{name: value for name, value in options.items() if value is not None},
        )
    except (ValueError, OSError, KeyError) as error:
        raise ModelError(f"{backbone_dir}: transformers cannot load it: {error}") from error


def _quantization(config: ModelConfig, settings: Any) -> Any:
    """Return how to quantise the backbone's layers, and nothing above them."""
    if config.quantization == "none":
        return None
    kind: Any = MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING[type(settings)]
    return BitsAndBytesConfig(  # type: ignore[no-untyped-call]
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=getattr(torch, config.dtype),
        # FSDP deals out floating tensors only: two 4-bit numbers a byte, called something else.
        bnb_4bit_quant_storage=getattr(torch, config.dtype) if uses_fsdp() else torch.uint8,
        llm_int8_skip_modules=[rf"(?!{kind.base_model_prefix}\.).*", r".*\.pooler"],
    )


def _check_quantized(network: nn.Module, device: torch.device | str) -> None:
    """Refuse widths that the CPU kernels of bitsandbytes fail on at the first forward pass."""
    if torch.device(device).type != "cpu":
        return
    for name, part in network.named_modules():
        if isinstance(part, Linear4bit) and part.in_features % _QUANTIZED_BLOCK:
            raise ModelError(
                f"--quantization nf4 on a CPU takes layers whose width is a multiple of "
                f"{_QUANTIZED_BLOCK}; {name} has {part.in_features}. Use --quantization none."
            )


def _fresh_modules(network: Any, report: dict[str, Any], backbone_dir: Path) -> list[str]:
    """Return names of modules trained beside the adapters: the head, and poolers just made up.

    A head that the backbone's files hold may be of another shape; everything below may not.
    """
    wrong = {*report["missing_keys"], *(name for name, *_ in report["mismatched_keys"])}
    body = f"{network.base_model_prefix}."
    own = sorted(
        name for name in wrong if name.startswith(body) and "pooler" not in name.split(".")
    )
    if own:
        raise ModelError(
            f"{backbone_dir}: its safetensors lack or misshape {len(own)} tensors, such as "
            f"{own[0]}. Is config.json the one that belongs to them?"
        )
    head = head_name(network)
    others = {name.rsplit(".", 1)[0] for name in wrong if name.split(".")[0] != head}
    return [head, *sorted(others)]
