"""Write what training changed into a folder, and read it back bit for bit.

A folder contains ``classifier.json`` (model configuration and digest of the backbone), a manifest,
and the files of peft or, after full fine-tuning, of transformers, so that other tools can load it.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, Literal

import pydantic
from peft import get_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from tiewise.config import ModelConfig, public_name
from tiewise.errors import ModelError
from tiewise.files import write_json
from tiewise.models.backbones import backbone_digest
from tiewise.models.heads import CLASSES
from tiewise.models.state import copy_weights, write_tensors
from tiewise.runs.manifest import verify_manifest, write_manifest

_CARD = "classifier.json"
_FILES = {
    "lora": ("adapter_config.json", "adapter_model.safetensors"),
    "full": ("config.json", "model.safetensors"),
}
_CODE_SUFFIXES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".py")


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Card:
    """Contents of ``classifier.json``."""

    __pydantic_config__ = pydantic.ConfigDict(extra="forbid")
    format: Literal[1] = 1
    classes: tuple[Literal["A"], Literal["B"], Literal["tie"]] = CLASSES
    backbone_sha256: str
    model: ModelConfig
    has_ties: bool = True


def save_adapter(
    network: nn.Module,
    config: ModelConfig,
    backbone_dir: Path,
    adapter_dir: Path,
    *,
    has_ties: bool = True,
) -> None:
    """Write the trained tensors, their configuration and ``classifier.json``, then the manifest.

    Without `has_ties` no tie was possible in the data, and the output for a tie is not trained.
    """
    settings_name, weights_name = _FILES[config.tuning]
    tensors = {name: part.detach().cpu().contiguous() for name, part in _saved(network).items()}
    write_tensors(adapter_dir / weights_name, tensors)
    write_json(adapter_dir / settings_name, _settings(network, config))
    named = dataclasses.replace(config, backbone=public_name(config.backbone))
    digest = backbone_digest(backbone_dir)
    card = _Card(backbone_sha256=digest, model=named, has_ties=has_ties)
    write_json(adapter_dir / _CARD, dataclasses.asdict(card))
    write_manifest(adapter_dir)


def read_config(adapter_dir: Path, backbone_dir: Path | None = None) -> ModelConfig:
    """Return the model configuration of a folder, after checking its files and its backbone."""
    check_folder(adapter_dir)
    card = _read_card(adapter_dir)
    found = card.backbone_sha256 if backbone_dir is None else backbone_digest(backbone_dir)
    if found != card.backbone_sha256:
        raise ModelError(
            f"{backbone_dir} has SHA-256 {found}; expected {card.backbone_sha256}, because "
            f"{adapter_dir} was fitted on {card.model.backbone}. Use the same backbone."
        )
    return card.model


def has_trained_ties(adapter_dir: Path) -> bool:
    """Return whether the output for a tie is trained; not if the data could have no ties."""
    return _read_card(adapter_dir).has_ties


def _read_card(adapter_dir: Path) -> _Card:
    path = adapter_dir / _CARD
    try:
        return pydantic.TypeAdapter(_Card).validate_json(path.read_bytes())
    except FileNotFoundError as error:
        raise ModelError(f"{path} is missing: {adapter_dir} was not written by a fit.") from error
    except pydantic.ValidationError as error:
        raise ModelError(f"{path} cannot be used by this version: {error}. Fit again.") from error


def check_folder(adapter_dir: Path) -> None:
    """Raise ModelError when a file is missing, has changed since a fit, or can run code."""
    if not adapter_dir.is_dir():
        raise ModelError(f"{adapter_dir}: there is no such folder.")
    risky = sorted(path.name for path in adapter_dir.iterdir() if path.suffix in _CODE_SUFFIXES)
    if risky:
        raise ModelError(
            f"{adapter_dir} contains {', '.join(risky)}, which can run code when read; expected "
            "only safetensors and JSON. Remove or convert these files."
        )
    damage = verify_manifest(adapter_dir, allow_extra_files=True)
    if damage is not None:
        raise ModelError(
            f"{adapter_dir} is damaged: {damage}. Copy the whole folder again, or fit again; "
            "remove it first if it was downloaded from the hub."
        )


def fill_weights(network: nn.Module, config: ModelConfig, adapter_dir: Path) -> None:
    """Copy the tensors of a folder into a network that has exactly these trainable parts."""
    path = adapter_dir / _FILES[config.tuning][1]
    try:
        stored = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{path} cannot be read: {error}. Copy it again, or fit again.") from error
    copy_weights(stored, _saved(network), source=path)


def _saved(network: Any) -> dict[str, Tensor]:
    """Return the tensors that are saved, by their names in the file; they share memory."""
    if not hasattr(network, "peft_config"):
        return dict(network.state_dict())
    # Without this argument peft may ask the hub whether the vocabulary has grown.
    return get_peft_model_state_dict(network, save_embedding_layers=False)  # type: ignore[no-any-return]


def _settings(network: Any, config: ModelConfig) -> dict[str, Any]:
    """Return the contents of transformers' or peft's configuration file."""
    if config.tuning == "full":
        network.config.architectures = [type(network).__name__]
        return json.loads(network.config.to_json_string())  # type: ignore[no-any-return]
    values = network.peft_config["default"].to_dict()
    values = {k: sorted(v) if isinstance(v, set) else v for k, v in values.items()}
    # The model's name, not the local path that peft knows.
    name = public_name(config.backbone)
    values |= {"base_model_name_or_path": name, "revision": config.revision}
    return values | {"inference_mode": True}
