"""Load a backbone as a transformers classifier with three classes: cut, quantize, find layers."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import torch
from bitsandbytes.nn.modules import Linear4bit
from huggingface_hub.errors import StrictDataclassError
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import (
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    AutoConfig,
    AutoModel,
    AutoModelForSequenceClassification,
    BitsAndBytesConfig,
)
from transformers.utils import logging

from tiewise.config import ModelConfig
from tiewise.errors import ModelError
from tiewise.files import read_json
from tiewise.models.attention import attends_by_rows, register_attention
from tiewise.models.heads import CLASSES, head_name, keep_precision, reset_head
from tiewise.runs.environment import uses_fsdp

Checkpointing = Literal["none", "trainable"]

_QUANTIZED_BLOCK = 64
_POSITION_TABLES = ("position_embeddings", "embed_positions", "wpe")


def load_network(
    config: ModelConfig, backbone_dir: Path, *, device: torch.device | str, seed: int
) -> nn.Module:
    """Load the backbone as a transformers model with three classes, a new head and no gradients.

    Its attribute `tiewise_new_modules` lists the modules that must be trained with any adapters:
    the head, and poolers that the backbone's files lack.
    """
    settings = _read_settings(config, backbone_dir)
    with seeded(seed), quiet_transformers():
        network, report = _load(config, settings, backbone_dir, device)
    _check_quantized(network, device)
    new_modules = _find_new_modules(network, config, report, backbone_dir)
    return prepare_network(network, config, new_modules, device=device, seed=seed)


def load_body(
    backbone_dir: Path, *, dtype: str, share: float, device: torch.device | str
) -> tuple[nn.Module, int]:
    """Load the first layers of a backbone without a head, and return the number of all layers.

    `share` of the layers are kept, at least one.
    """
    settings = _read_config(backbone_dir)
    n_layers = getattr(settings, "num_hidden_layers", None)
    if n_layers is None or getattr(settings, "is_encoder_decoder", False):
        raise ModelError(
            f"{backbone_dir} is a {settings.model_type}, which has no single stack of layers. "
            "Choose a decoder or an encoder of text."
        )
    with quiet_transformers():
        try:
            kept = _keep_layers(settings, max(1, round(share * n_layers)))
            body, report = AutoModel.from_pretrained(
                backbone_dir, config=kept, dtype=getattr(torch, dtype), use_safetensors=True,
                local_files_only=True, trust_remote_code=False, output_loading_info=True,
                ignore_mismatched_sizes=True,
            )  # fmt: skip
        except (ValueError, OSError, KeyError, AssertionError, StrictDataclassError) as error:
            raise ModelError(
                f"{backbone_dir}: transformers cannot load the first layers of this "
                f"{settings.model_type}: {error}"
            ) from error
    _check_loaded(_find_wrong(report), backbone_dir)
    return body.to(device).eval(), n_layers


def prepare_network(
    network: Any,
    config: ModelConfig,
    new_modules: list[str],
    *,
    device: torch.device | str,
    seed: int,
) -> nn.Module:
    """Freeze a transformers classifier, and give it a new head; see :func:`load_network`."""
    # A second seed: the values that transformers drew depend on its version and on the dtype.
    with seeded(seed):
        reset_head(network, config)
    for name in new_modules:
        part = network.get_submodule(name).to(device=device, dtype=working_dtype(config))
        keep_precision(part, working_dtype(config))
    network.requires_grad_(requires_grad=False)
    network.tiewise_new_modules = new_modules
    return network  # type: ignore[no-any-return]


def find_dropped_head(backbone_dir: Path) -> str | None:
    """Describe the head in a backbone's files, such as a reward model's; None without one.

    This head is not used: training starts from the backbone below it.
    """
    settings = read_json(backbone_dir / "config.json")
    kind = next(iter(settings.get("architectures") or []), "")
    if not kind.endswith("ForSequenceClassification"):
        return None
    n_outputs = settings.get("num_labels") or len(settings.get("id2label") or "ab")
    name = "a reward model" if n_outputs == 1 else "a classifier"
    return f"{name} ({kind}, outputs: {n_outputs})"


def working_dtype(config: ModelConfig) -> torch.dtype:
    """Return the dtype of head and adapters: float32, or float64 with a float64 backbone."""
    return torch.float64 if config.dtype == "float64" else torch.float32


def find_layers(network: Any) -> nn.ModuleList:
    """Return the list of the backbone's layers, first to last."""
    n_layers = network.config.num_hidden_layers
    found: list[nn.ModuleList] = []
    for module in network.modules():
        is_list = isinstance(module, nn.ModuleList) and len(module) == n_layers
        if is_list and not any(module is part for own in found for part in own.modules()):
            found.append(module)
    if len(found) == 1:
        return found[0]
    raise ModelError(
        f"{network.config.model_type}: expected one list of {n_layers} layers, found {len(found)}. "
        "Use a backbone with separate layers."
    )


def count_positions(network: nn.Module) -> int | None:
    """Return the longest row that a table of positions allows; None without a table."""
    for name, module in network.named_modules():
        if name.rsplit(".", 1)[-1] in _POSITION_TABLES and isinstance(module, nn.Embedding):
            # RoBERTa counts from after its padding token, OPT from a fixed offset.
            first = -1 if module.padding_idx is None else module.padding_idx
            return module.num_embeddings - max(first + 1, getattr(module, "offset", 0))
    return None


def checkpoint_layers(network: Any, mode: Checkpointing) -> None:
    """Set which layers recompute their activations: none, or those from the first trainable one.

    Layers below it have no graph; transformers would keep their inputs although no backward pass
    uses them.
    """
    layers: list[Any] = list(find_layers(network))
    trains = [any(part.requires_grad for part in layer.parameters()) for layer in layers]
    first = trains.index(True) if True in trains else len(layers)
    for index, layer in enumerate(layers):
        layer.gradient_checkpointing = mode == "trainable" and index >= first
        # Reentrant checkpointing loses gradients without a message when no input needs one.
        # The public method of transformers would also checkpoint the frozen layers.
        recompute = functools.partial(checkpoint, use_reentrant=False)
        layer._gradient_checkpointing_func = recompute  # noqa: SLF001 - transformers 5 has no other


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw from `seed` inside the block; torch's own state does not change."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silence transformers' progress bars and its report of new weights; errors still show."""
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
    """Return the backbone's transformers configuration with our layers and classes."""
    settings = _read_config(backbone_dir)
    n_layers = getattr(settings, "num_hidden_layers", None)
    if n_layers is None or type(settings) not in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING:
        raise ModelError(
            f"{config.backbone} is a {settings.model_type}, for which transformers has no text "
            "classifier. Choose a text backbone."
        )
    n_kept = n_layers if config.n_layers is None else config.n_layers
    if not 1 <= n_kept <= n_layers:
        raise ModelError(
            f"--n-layers is {n_kept}; expected 1 to {n_layers}, the layers of {config.backbone}."
        )
    if config.n_frozen_layers >= n_kept:
        raise ModelError(
            f"--n-frozen-layers is {config.n_frozen_layers}; expected less than {n_kept}, the "
            f"layers used of {config.backbone}, so that at least one is trained. Give "
            f"--n-frozen-layers {n_kept - 1} or less, or more layers."
        )
    labels = dict(enumerate(CLASSES))
    names = {"id2label": labels, "label2id": {name: index for index, name in labels.items()}}
    return _keep_layers(settings, n_kept, **names)


def _read_config(backbone_dir: Path) -> Any:
    try:
        return AutoConfig.from_pretrained(backbone_dir, local_files_only=True)
    except (ValueError, KeyError, OSError) as error:
        raise ModelError(
            f"{backbone_dir}/config.json: transformers cannot read it: {error}"
        ) from error


def _keep_layers(settings: Any, n_kept: int, **changes: Any) -> Any:
    """Return a transformers configuration with the first layers only, and other changes."""
    values = settings.to_dict() | {"num_hidden_layers": n_kept}
    if values.get("layer_types"):
        values["layer_types"] = values["layer_types"][:n_kept]
    return type(settings).from_dict(values | changes)


def _load(
    config: ModelConfig, settings: Any, backbone_dir: Path, device: torch.device | str
) -> tuple[Any, dict[str, Any]]:
    """Return the model, and transformers' report of missing and mismatched tensors."""
    options: dict[str, Any] = {}
    if config.quantization != "none":
        options["quantization_config"] = _quantization(config, settings)
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
            **options,
        )
    except (ValueError, OSError, KeyError) as error:
        raise ModelError(f"{backbone_dir}: transformers cannot load it: {error}") from error


def _quantization(config: ModelConfig, settings: Any) -> Any:
    """Return the 4-bit settings, which quantize the backbone's layers and nothing above them."""
    kind: Any = MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING[type(settings)]
    return BitsAndBytesConfig(  # type: ignore[no-untyped-call]
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=getattr(torch, config.dtype),
        # FSDP shards floating-point tensors only, so 4-bit numbers are stored as such.
        bnb_4bit_quant_storage=getattr(torch, config.dtype) if uses_fsdp() else torch.uint8,
        llm_int8_skip_modules=[rf"(?!{kind.base_model_prefix}\.).*", r".*\.pooler"],
    )


def _check_quantized(network: nn.Module, device: torch.device | str) -> None:
    """Refuse layer widths on which bitsandbytes' CPU kernels fail in the first forward pass."""
    if torch.device(device).type != "cpu":
        return
    for name, part in network.named_modules():
        if isinstance(part, Linear4bit) and part.in_features % _QUANTIZED_BLOCK:
            raise ModelError(
                f"--quantization is nf4, and {name} has {part.in_features} inputs; expected a "
                f"multiple of {_QUANTIZED_BLOCK} on a CPU. Use --quantization none."
            )


def _find_new_modules(
    network: Any, config: ModelConfig, report: dict[str, Any], backbone_dir: Path
) -> list[str]:
    """Return the names of the head and of poolers that were not in the backbone's files.

    A head in the files may have another shape; everything below it must match.
    """
    wrong = _find_wrong(report)
    body = f"{network.base_model_prefix}."
    _check_loaded({name for name in wrong if name.startswith(body)}, backbone_dir)
    head = head_name(network)
    if config.head == "responses":  # it skips poolers, and layers before another head
        return [head]
    others = {name.rsplit(".", 1)[0] for name in wrong if name.split(".")[0] != head}
    return [head, *sorted(others)]


def _find_wrong(report: dict[str, Any]) -> set[str]:
    """Return the tensors that the files lack, or have in another shape."""
    return {*report["missing_keys"], *(name for name, *_ in report["mismatched_keys"])}


def _check_loaded(wrong: set[str], backbone_dir: Path) -> None:
    """Raise ModelError unless all tensors below the head were in the files, but for a pooler."""
    damaged = sorted(name for name in wrong if "pooler" not in name.split("."))
    if damaged:
        raise ModelError(
            f"{backbone_dir}: {len(damaged)} tensors, such as {damaged[0]}, are missing in its "
            "safetensors or have another shape. Check that config.json belongs to these weights."
        )
