"""Where a fit starts from: fresh adapters, or those of another fit.

A leaf: imports torch.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from tiewise.config import ModelConfig, RunConfig, first_difference
from tiewise.errors import ModelError
from tiewise.files import digest_file, digest_json
from tiewise.models.build import build_classifier, load_classifier
from tiewise.models.model import PairClassifier


def find_adapter(path: Path) -> Path:
    """Return the adapter's folder in a fold's folder, or the folder itself.

    Raises
    ------
    ModelError
        When there is no such folder.
    """
    if not path.is_dir():
        raise ModelError(f"--init-from {path}: there is no such folder. Name a fold of a run.")
    return path / "adapter" if (path / "adapter").is_dir() else path


def make_classifier(
    config: RunConfig, backbone_dir: Path, device: torch.device, *, init_from: Path | None
) -> PairClassifier:
    """Build the classifier that a fit begins with, or load the one it goes on with.

    Raises
    ------
    ModelError
        When the adapter to start from was built in another way than the configuration says.
    """
    if init_from is not None:
        classifier = load_classifier(init_from, backbone_dir, device=device, is_trainable=True)
        _check_same_model(classifier.model_config, config.model, init_from)
        return classifier
    return build_classifier(config.model, backbone_dir, seed=config.train.seed, device=device)


def digest_adapter(adapter_dir: Path) -> str:
    """Return the digest of what an adapter's folder holds, names included."""
    files = (path for path in adapter_dir.iterdir() if path.is_file())
    return digest_json(sorted((path.name, digest_file(path)) for path in files))


def _check_same_model(found: ModelConfig, wanted: ModelConfig, adapter_dir: Path) -> None:
    """Refuse to start from an adapter that was built in another way than the flags say."""
    where_from: dict[str, Any] = {"backbone": "", "revision": None, "backbone_sha256": None}
    first, second = asdict(replace(found, **where_from)), asdict(replace(wanted, **where_from))
    difference = first_difference(first, second)
    if difference is not None:
        name, before, now = difference
        raise ModelError(
            f"{adapter_dir} was built with {name} {before}, not {now}. Give "
            f"--{name.replace('_', '-')} {before}, or start without --init-from."
        )
