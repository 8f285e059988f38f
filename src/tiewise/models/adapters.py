"""What training changed: written to a folder, and read back to the bit.

A folder holds ``classifier.json`` (what was built on which backbone), a manifest with the digest of
every file, and either peft's own pair, ``adapter_config.json`` with ``adapter_model.safetensors``,
or, after full fine-tuning, a whole transformers model, ``config.json`` with ``model.safetensors``.
Other tools load either without this package. Reading refuses whatever is not exactly that: other
weights below, a missing or left-over tensor, a flipped bit, a file that could run code.

This module is a leaf: it imports torch and peft, and nothing below imports it.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pydantic
import torch
from peft import get_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from tiewise.config.identity import public_name
from tiewise.config.run_config import ModelConfig
from tiewise.errors import ModelError
from tiewise.files import read_json, write_json
from tiewise.models.backbones import backbone_digest
from tiewise.models.heads import CLASSES, head_name
from tiewise.models.tensor_tree import write_tensors
from tiewise.models.trainable import add_adapters
from tiewise.runs import checkpoints

_CARD = "classifier.json"
_FORMAT = 1
_FILES = {
    "lora": ("adapter_config.json", "adapter_model.safetensors"),
    "full": ("config.json", "model.safetensors"),
}
_CODE_SUFFIXES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".py")


def save_adapter(
    network: nn.Module, config: ModelConfig, backbone_dir: Path, adapter_dir: Path
) -> None:
    """Write the trained tensors, their configuration and the card, then the manifest."""
    settings_name, weights_name = _FILES[config.tuning]
    tensors = {name: part.detach().cpu().contiguous() for name, part in _saved(network).items()}
    write_tensors(adapter_dir / weights_name, tensors)
    write_json(adapter_dir / settings_name, _settings(network, config))
    write_card(adapter_dir, config, backbone_digest(backbone_dir))
    checkpoints.write_manifest(adapter_dir)


def write_card(adapter_dir: Path, config: ModelConfig, backbone_sha256: str) -> None:
    """Write what was built on which backbone."""
    card = {
        "format": _FORMAT,
        "classes": list(CLASSES),
        "backbone_sha256": backbone_sha256,
        "model": dataclasses.asdict(config) | {"backbone": public_name(config.backbone)},
    }
    write_json(adapter_dir / _CARD, card)


def file_names(config: ModelConfig) -> tuple[str, str]:
    """Return the names of the settings' and of the tensors' file."""
    return _FILES[config.tuning]


def read_built(adapter_dir: Path) -> tuple[ModelConfig, str]:
    """Return what a folder says was built, and the digest of the backbone below.

    Raises
    ------
    ModelError
        When a file is missing, damaged or could run code.
    """
    check_folder(adapter_dir)
    card = _read_card(adapter_dir)
    return _parse_model(card["model"], adapter_dir), card["backbone_sha256"]


def read_config(adapter_dir: Path, backbone_dir: Path) -> ModelConfig:
    """Return what an adapter's folder says was built, after checking every file of the manifest.

    Raises
    ------
    ModelError
        When a file is missing, damaged or could run code, or the backbone is another one.
    """
    config, wanted = read_built(adapter_dir)
    found = backbone_digest(backbone_dir)
    if wanted != found:
        raise ModelError(
            f"{adapter_dir} was fitted on {config.backbone} with SHA-256 {wanted}, but "
            f"{backbone_dir} has {found}. Give the same backbone."
        )
    return config


def check_folder(adapter_dir: Path) -> None:
    """Refuse a folder that a fit did not leave like this.

    Raises
    ------
    ModelError
        When a file is missing, damaged or could run code.
    """
    _refuse_code(adapter_dir)
    damage = checkpoints.verify_manifest(adapter_dir, is_closed=False)
    if damage is not None:
        raise ModelError(
            f"{adapter_dir} is damaged: {damage}. Copy the whole folder anew, or fit again."
        )


def restore_adapter(network: nn.Module, config: ModelConfig, adapter_dir: Path) -> nn.Module:
    """Return the network with the tensors of an adapter's folder, every one of them and no other.

    Raises
    ------
    ModelError
        When the tensors are not exactly those the configuration calls for.
    """
    head = head_name(network)
    adapted = add_adapters(network, config, seed=0)
    path = adapter_dir / _FILES[config.tuning][1]
    stored, places = read_tensors(path), _saved(adapted)
    _check_head(stored, places, head, path)
    if stored.keys() != places.keys():
        missing, left = sorted(places.keys() - stored), sorted(stored.keys() - places)
        raise ModelError(f"{path}: tensors missing: {missing[:5]}; left over: {left[:5]}.")
    with torch.no_grad():
        for name, place in places.items():
            if place.shape != stored[name].shape:
                raise ModelError(
                    f"{path}: {name} is {tuple(stored[name].shape)}, not {tuple(place.shape)}."
                )
            place.copy_(stored[name])
    return adapted


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read the tensors of an adapter.

    Raises
    ------
    ModelError
        When the file cannot be read.
    """
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{path} cannot be read: {error}. Fit again or copy it anew.") from error


def _saved(network: Any) -> dict[str, Tensor]:
    """Return the tensors that are written, by their names in the file; they share memory."""
    if not hasattr(network, "peft_config"):
        return dict(network.state_dict())
    # Otherwise peft may ask the hub whether the vocabulary has grown.
    return get_peft_model_state_dict(network, save_embedding_layers=False)  # type: ignore[no-any-return]


def _settings(network: Any, config: ModelConfig) -> dict[str, Any]:
    if config.tuning == "full":
        network.config.architectures = [type(network).__name__]
        return json.loads(network.config.to_json_string())  # type: ignore[no-any-return]
    values = network.peft_config["default"].to_dict()
    values = {k: sorted(v) if isinstance(v, set) else v for k, v in values.items()}
    # Where the weights lay on this machine is nobody's business; their name is.
    name = public_name(config.backbone)
    values |= {"base_model_name_or_path": name, "revision": config.revision}
    return values | {"inference_mode": True}


def _refuse_code(adapter_dir: Path) -> None:
    if not adapter_dir.is_dir():
        raise ModelError(f"{adapter_dir}: there is no such folder.")
    risky = sorted(path.name for path in adapter_dir.iterdir() if path.suffix in _CODE_SUFFIXES)
    if risky:
        raise ModelError(
            f"{adapter_dir} holds {', '.join(risky)}; such files can run code when read. "
            "Only safetensors and JSON are read here: remove them or convert them."
        )


def _read_card(adapter_dir: Path) -> dict[str, Any]:
    path = adapter_dir / _CARD
    try:
        card: dict[str, Any] = read_json(path)
        known = card["format"] == _FORMAT and card["classes"] == list(CLASSES)
        complete = {"backbone_sha256", "model"} <= set(card)
    except FileNotFoundError as error:
        raise ModelError(f"{path} is missing: this is no folder that a fit wrote.") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{path} is damaged: {error!r}. Fit again or copy it anew.") from error
    if not (known and complete):
        raise ModelError(f"{path}: its format or classes are not those read here.")
    return card


def _parse_model(values: dict[str, Any], adapter_dir: Path) -> ModelConfig:
    try:
        return pydantic.TypeAdapter(ModelConfig).validate_python(values)
    except pydantic.ValidationError as error:
        raise ModelError(f"{adapter_dir / _CARD}: {error}.") from error


def _check_head(
    stored: dict[str, Tensor], places: dict[str, Tensor], head: str, path: Path
) -> None:
    own = [name for name in places if f".{head}." in f".{name}"]
    if lost := [name for name in own if name not in stored]:
        raise ModelError(f"{path} holds no head ({lost[0]}), so it cannot classify.")
    wrong = [name for name in own if stored[name].shape[0] != places[name].shape[0]]
    if wrong:
        n_classes = stored[wrong[-1]].shape[0]
        raise ModelError(f"{path}: its head gives {n_classes} classes, not {len(CLASSES)}.")
