"""An adapter and its backbone as one plain model that other tools load. A leaf: imports torch.

The folder is what ``AutoModelForSequenceClassification`` reads: adapters merged, head in place,
``id2label`` A, B, tie. Such classes pool at the last token that is not padding, so `pad_token_id`
must be a token that no row contains. An adapter that was trained on 4-bit weights is merged into
the weights those bits stand for. Nothing is believed: the finished folder is loaded by transformers
alone, and its probabilities are held against the adapter's before it takes its name.
"""

from __future__ import annotations

import gc
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tiewise.config import BASELINE, BLEND, ModelConfig
from tiewise.errors import FilesError, ModelError, RunError
from tiewise.files import atomic_folder, digest_file, refuse_existing, write_bytes, write_json
from tiewise.models.adapters import read_config
from tiewise.models.backbones import backbone_digest, resolve_backbone
from tiewise.models.build import restore_adapter
from tiewise.models.loading import load_network, quiet_transformers
from tiewise.models.pretrained import find_device, read_template
from tiewise.runs.folder import RunFolder
from tiewise.runs.manifest import write_manifest
from tiewise.serving.export_card import find_licence, licence_files, write_card
from tiewise.serving.export_check import (
    N_CHECKED,
    Floats,
    check_drift,
    make_rows,
    score_adapter,
    score_plain,
)
from tiewise.tokens.rows import TokenRows
from tiewise.tokens.template import Template
from tiewise.tokens.tokenizer import load_tokenizer

_TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "tokenizer.model", "vocab.json", "vocab.txt", "merges.txt",
)  # fmt: skip
Complete = Callable[[Path, int], object]


@dataclass(frozen=True)
class Export:
    """What was exported.

    path
        The folder.
    drift
        Largest difference of a probability between the adapter and the folder, in [0, 1].
    licence
        The backbone's, as the hub names it, or ``unknown``.
    """

    path: Path
    drift: float
    licence: str

    def to_dict(self) -> dict[str, Any]:
        """Return everything for JSON."""
        return vars(self) | {"path": str(self.path)}

    def __str__(self) -> str:
        return (
            f"{self.path}: probabilities differ from the adapter's by at most {self.drift:.2g} "
            f"over {N_CHECKED} rows; licence of the backbone: {self.licence}\n"
            f"{self.path}/README.md says how transformers and vLLM load it"
        )


def export_run(
    run: RunFolder,
    out_dir: Path | str,
    *,
    cache_dir: Path,
    fold: int | None = None,
    overwrite: bool = False,
    complete: Complete | None = None,
    device: str | None = None,
) -> Export:
    """Export one fold of a run.

    Parameters
    ----------
    run
        The run.
    out_dir
        Folder to write.
    cache_dir
        Where converted backbones are cached.
    fold
        Which fold; the only finished one when None.
    overwrite
        Replace a folder that is there.
    complete
        Called with the folder and the fold when all is written, before the folder takes its name:
        such as to add scores to the model card.
    device
        `cpu` or `cuda`; where the run was fitted when None.

    Raises
    ------
    RunError
        When the fold is not finished, or several are and none is named.
    FilesError
        When `out_dir` exists.
    ModelError
        When the model cannot be a plain classifier, or the result does not score the same.
    DeviceError
        When the device is not there.
    """
    fold = _choose_fold(run, fold)
    model = run.config.model
    if model.backbone in {BASELINE, BLEND}:
        raise ModelError(
            f"{run.path} is a {model.backbone}: it has no network to export. Serve it with tiewise "
            "predict."
        )
    backbone_dir = resolve_backbone(
        model.backbone, revision=model.revision, sha256=model.backbone_sha256, cache_dir=cache_dir
    )
    return export_adapter(
        run.fold(fold).adapter_dir,
        backbone_dir,
        out_dir,
        origin={"run": run.name, "fold": fold},
        overwrite=overwrite,
        complete=None if complete is None else lambda folder: complete(folder, fold),
        device=find_device(device or run.config.train.device, f"run {run.name}"),
    )


def export_adapter(
    adapter_dir: Path,
    backbone_dir: Path,
    out_dir: Path | str,
    *,
    origin: dict[str, Any] | None = None,
    overwrite: bool = False,
    complete: Callable[[Path], object] | None = None,
    device: torch.device | str = "cpu",
) -> Export:
    """Merge what a fit wrote with its backbone; see :func:`export_run`.

    Parameters
    ----------
    adapter_dir, backbone_dir
        The adapter's folder and its backbone's.
    origin
        Names of run and fold for the card.
    """
    refuse_existing(out_dir, overwrite=overwrite)
    _refuse_foreign(Path(out_dir))
    config = read_config(adapter_dir, backbone_dir)
    if config.head != "linear":
        raise ModelError(
            f"{adapter_dir}: a head of several layers has no place in a plain "
            "*ForSequenceClassification. Fit with --head linear, or serve it with tiewise predict."
        )
    template = read_template(adapter_dir)
    rows = make_rows(backbone_dir, template)
    expected = score_adapter(adapter_dir, backbone_dir, rows, device)
    licence = find_licence(config.backbone, backbone_dir)
    facts: dict[str, Any] = {"run": "an adapter", "fold": "-"} | (origin or {})
    facts |= _describe(config, adapter_dir, backbone_dir) | {"licence": licence}
    with atomic_folder(out_dir) as temporary:
        _write_model(config, adapter_dir, backbone_dir, temporary, template, device)
        _write_tokenizer(backbone_dir, temporary, template)
        probs = score_plain(temporary, rows, device)
        drift = float(np.abs(probs - expected).max())
        check_drift(drift, config)
        facts |= {"drift": drift, "n_checked": len(rows), "example": _shortest(rows, probs)}
        write_json(temporary / "template.json", template.to_dict())
        write_json(temporary / "export.json", facts)
        for path in licence_files(backbone_dir):
            shutil.copyfile(path, temporary / path.name)
        write_manifest(temporary)  # before the card, which may be edited later
        write_bytes(temporary / "README.md", write_card(facts, template).encode())
        if complete is not None:
            complete(temporary)
    return Export(Path(out_dir), drift, licence)


def _refuse_foreign(out_dir: Path) -> None:
    """Refuse to replace a folder that is neither empty nor an export."""
    if not out_dir.exists() or (out_dir / "export.json").is_file():
        return
    if not out_dir.is_dir() or any(out_dir.iterdir()):
        raise FilesError(f"{out_dir} holds something else than an export. Name another folder.")


def _choose_fold(run: RunFolder, fold: int | None) -> int:
    finished = run.finished_folds()
    if fold is None and len(finished) == 1:
        return finished[0]
    if fold is None or fold not in finished:
        listed = ", ".join(map(str, finished)) or "none"
        raise RunError(
            f"{run.path}: an export holds one fold; finished folds: {listed}. "
            + ("Name one with --fold." if fold is None else f"Fold {fold} is not among them.")
        )
    return fold


def _describe(config: ModelConfig, adapter_dir: Path, backbone_dir: Path) -> dict[str, Any]:
    files = ("classifier.json", "template.json")
    return {
        "backbone": config.backbone,
        "backbone_sha256": backbone_digest(backbone_dir),
        "adapter": {name: digest_file(adapter_dir / name) for name in files},
        "dtype": config.dtype,
        "quantization": config.quantization,
    }


def _shortest(rows: TokenRows, probs: Floats) -> dict[str, Any]:
    """Return a row and what the folder says of it, for whoever serves it to try."""
    index = int(rows.lengths.argmin())
    return {"input": rows.row(index).tolist(), "probs": probs[index].tolist()}


def _write_model(
    config: ModelConfig,
    adapter_dir: Path,
    backbone_dir: Path,
    out_dir: Path,
    template: Template,
    device: torch.device | str,
) -> None:
    with quiet_transformers():
        network: Any = load_network(config, backbone_dir, device=device, seed=0)
        if config.quantization != "none":
            network = network.dequantize()
        network = restore_adapter(network, config, adapter_dir)
        if hasattr(network, "merge_and_unload"):
            network = network.merge_and_unload(safe_merge=True)
        network = network.to(getattr(torch, config.dtype))
        network.config.pad_token_id = _find_pad(template, backbone_dir)
        network.config.problem_type = "single_label_classification"
        network.config.architectures = [type(network).__name__]
        network.save_pretrained(out_dir, max_shard_size="5GB")
    del network
    gc.collect()


def _find_pad(template: Template, backbone_dir: Path) -> int:
    """Return a token that no row contains: the template's, or any that no text can produce."""
    special = template.special_tokens
    used = special.reserved
    if special.pad not in used:
        return special.pad
    spare = [token for token in load_tokenizer(backbone_dir).reserved.values() if token not in used]
    if not spare:
        raise ModelError(
            f"{backbone_dir}: its vocabulary has no token left to pad with, so a plain classifier "
            "could not find the last token of a row. Serve it with tiewise predict."
        )
    return min(spare)


def _write_tokenizer(backbone_dir: Path, out_dir: Path, template: Template) -> None:
    for name in _TOKENIZER_FILES:
        if (backbone_dir / name).is_file():
            shutil.copyfile(backbone_dir / name, out_dir / name)
    path = out_dir / "tokenizer_config.json"
    settings = json.loads(path.read_bytes()) if path.is_file() else {}
    vocabulary = load_tokenizer(backbone_dir).vocabulary
    pad_id = _find_pad(template, backbone_dir)
    pad = next(token for token, index in vocabulary.items() if index == pad_id)
    settings |= {"pad_token": pad, "padding_side": "right"}
    write_json(path, settings | {"model_max_length": template.max_length})
