"""Export an adapter merged with its backbone as a plain model that other tools load.

The folder is what ``AutoModelForSequenceClassification`` reads: adapters merged, head in place,
``id2label`` A, B, tie. Such classes pool at the last token that is not padding, so `pad_token_id`
must be a token that no row contains. An adapter that was trained on 4-bit weights is merged into
the weights that these bits represent. Before the folder is renamed to its final name, transformers
loads it, and its probabilities are compared with those of the adapter.
"""

from __future__ import annotations

import gc
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import softmax

from tiewise.config import BASELINE, BLEND, ModelConfig, public_name
from tiewise.data.simulation.simulate import simulate
from tiewise.errors import ModelError
from tiewise.files import (
    atomic_folder,
    digest_file,
    refuse_existing,
    refuse_foreign,
    write_bytes,
    write_json,
)
from tiewise.models.adapters import has_trained_ties, read_config
from tiewise.models.backbones import backbone_digest, resolve_backbone
from tiewise.models.build import load_classifier, restore_adapter
from tiewise.models.loading import load_network, quiet_transformers
from tiewise.models.pretrained import ExportedClassifier, find_device, read_template
from tiewise.models.scoring import score_rows
from tiewise.report.card import UNKNOWN, find_licence, new_card, render
from tiewise.report.text import label_text
from tiewise.runs.folder import RunFolder
from tiewise.runs.manifest import write_manifest
from tiewise.runs.tables import has_ties
from tiewise.tokens.rows import TokenRows, token_rows
from tiewise.tokens.template import Template
from tiewise.tokens.tokenizer import TOKENIZER_FOLDER, load_tokenizer

_TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "tokenizer.model", "vocab.json", "vocab.txt", "merges.txt",
)  # fmt: skip
_LICENCE_FILES = ("LICENSE*", "LICENCE*", "NOTICE*", "USE_POLICY*")
_NO_TOKENIZER = "RowsOfIdsOnlySeeReadme"
_N_CHECKED = 16
_TOLERANCE = {"float64": 1e-9, "float32": 1e-5}
_ROUGH_TOLERANCE = 0.1
"""In 16 or 4 bits, where merging rounds: a larger difference means another model."""

Complete = Callable[[Path, int], object]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Export:
    """An exported folder.

    `drift` is the largest difference of a probability between the adapter and the folder, in
    [0, 1]; `licence` is that of the backbone as the hub names it, or ``unknown``.
    """

    path: Path
    drift: float
    licence: str

    def to_dict(self) -> dict[str, Any]:
        """Return everything for JSON."""
        return asdict(self) | {"path": str(self.path)}

    def __str__(self) -> str:
        return (
            f"{self.path}: probabilities differ from the adapter's by at most {self.drift:.2g} "
            f"over {_N_CHECKED} rows; licence of the backbone: {self.licence}\n"
            f"{self.path}/README.md shows how transformers and vLLM load it"
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
    """Export one fold of a run: the named one, or the only finished one.

    `complete` is called with the folder and the fold when all files are written, before the folder
    gets its final name. `device` is `cpu` or `cuda`, or None for that of the fit. ModelError is
    raised when the model cannot be a plain classifier, or the result scores differently.
    """
    model = run.config.model
    if model.backbone in {BASELINE, BLEND}:
        raise ModelError(
            f"{run.path} is a {model.backbone}: it has no network to export. Use tiewise predict."
        )
    _refuse_two_classes(run.path, has_ties=has_ties(run))
    fold = run.choose_fold(fold)
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
    origin: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    complete: Callable[[Path], object] | None = None,
    device: torch.device | str = "cpu",
) -> Export:
    """Merge the adapter of a fit with its backbone; `origin` are run and fold for the card.

    See :func:`export_run`.
    """
    refuse_existing(out_dir, overwrite=overwrite)
    refuse_foreign(out_dir, marked_by="export.json")
    config = read_config(adapter_dir, backbone_dir)
    if config.head != "linear":
        raise ModelError(
            f"{adapter_dir}: the head {config.head} is not possible in a plain "
            "*ForSequenceClassification. Fit with --head linear, or use tiewise predict."
        )
    _refuse_two_classes(adapter_dir, has_ties=has_trained_ties(adapter_dir))
    template = read_template(adapter_dir)
    pairs = simulate(_N_CHECKED, seed=0)
    rows = token_rows(pairs, load_tokenizer(backbone_dir), template, cache_dir=None)
    classifier = load_classifier(adapter_dir, backbone_dir, device=device)
    expected = np.asarray(softmax(score_rows(classifier, rows), axis=1))
    del classifier  # memory holds one network at a time
    licence = find_licence(config.backbone, backbone_dir)
    facts: dict[str, Any] = {"run": "an adapter", "fold": "-"} | dict(origin or {})
    facts |= _describe(config, adapter_dir, backbone_dir) | {"licence": licence}
    with atomic_folder(out_dir) as temporary:
        _write_model(config, adapter_dir, backbone_dir, temporary, template, device)
        _write_tokenizer(backbone_dir, temporary, template)
        probs = score_folder(temporary, rows, device)
        drift = float(np.abs(probs - expected).max())
        check_drift(drift, config)
        probes = _list_rows(rows, probs)
        example = min(probes, key=lambda probe: len(probe["input"]))
        facts |= {"drift": drift, "n_checked": len(rows), "example": example, "probes": probes}
        write_json(temporary / "template.json", template.to_dict())
        write_json(temporary / "export.json", facts)
        for path in licence_files(backbone_dir):
            shutil.copyfile(path, temporary / path.name)
        write_manifest(temporary)  # before the card, which may be edited later
        write_bytes(temporary / "README.md", export_card(facts, template).encode())
        if complete is not None:
            complete(temporary)
    return Export(Path(out_dir), drift, licence)


def score_folder(folder: Path, rows: TokenRows, device: torch.device | str) -> Floats:
    """Return the probabilities (n, 3) of an exported folder as transformers alone loads it."""
    classifier: Any = ExportedClassifier(folder, device)
    return np.asarray(softmax(score_rows(classifier, rows), axis=1))


def check_drift(drift: float, config: ModelConfig) -> None:
    """Raise ModelError when probabilities differ more than rounding explains, or are NaN."""
    is_rough = config.quantization != "none" or config.dtype not in _TOLERANCE
    most = _ROUGH_TOLERANCE if is_rough else _TOLERANCE[config.dtype]
    if not drift <= most:
        raise ModelError(
            f"The merged model's probabilities differ by {drift:.3g} from the adapter's, more than "
            f"{most:g}. Nothing was written; please report this with the configuration."
        )


def licence_files(backbone_dir: Path) -> list[Path]:
    """Return the files that state the terms of a backbone."""
    found = {path for pattern in _LICENCE_FILES for path in backbone_dir.glob(pattern)}
    return sorted(path for path in found if path.is_file())


def _refuse_two_classes(path: Path, *, has_ties: bool) -> None:
    """Refuse a model of two classes: programs that load an export would use its third output."""
    if not has_ties:
        raise ModelError(
            f"{path} was fitted to data without ties, so its output for a tie is not trained, and "
            "other programs would use it. Use tiewise predict or tiewise serve, which leave it "
            "out, or train three classes: tiewise fit … --no-tie-sources, without a name."
        )


def _describe(config: ModelConfig, adapter_dir: Path, backbone_dir: Path) -> dict[str, Any]:
    files = ("classifier.json", "template.json")
    return {
        "backbone": public_name(config.backbone),
        "backbone_sha256": backbone_digest(backbone_dir),
        "adapter": {name: digest_file(adapter_dir / name) for name in files},
        "dtype": config.dtype,
        "quantization": config.quantization,
    }


def _list_rows(rows: TokenRows, probs: Floats) -> list[dict[str, Any]]:
    """Return rows and their probabilities, which a server that loads the folder should repeat."""
    return [
        {"input": rows.row(index).tolist(), "probs": probs[index].tolist()}
        for index in range(len(rows))
    ]


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
    """Return a token that no row contains: the template's, or one that no text can produce."""
    special = template.special_tokens
    used = special.reserved
    if special.pad not in used:
        return special.pad
    spare = [token for token in load_tokenizer(backbone_dir).reserved.values() if token not in used]
    if not spare:
        raise ModelError(
            f"{backbone_dir}: its vocabulary has no token left for padding, so a plain classifier "
            "could not find the last token of a row. Use tiewise predict."
        )
    return min(spare)


def _write_tokenizer(backbone_dir: Path, out_dir: Path, template: Template) -> None:
    """Write the tokenizer into a folder of its own, and refuse to load one from the export itself.

    A pipeline of transformers, or a server, would tokenise text without the delimiters of a row and
    answer with wrong numbers. transformers 5 makes an empty tokenizer where it finds no files, but
    refuses a class that does not exist.
    """
    write_json(out_dir / "tokenizer_config.json", {"tokenizer_class": _NO_TOKENIZER})
    folder = out_dir / TOKENIZER_FOLDER
    folder.mkdir()
    for name in _TOKENIZER_FILES:
        if (backbone_dir / name).is_file():
            shutil.copyfile(backbone_dir / name, folder / name)
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_bytes()) if path.is_file() else {}
    vocabulary = load_tokenizer(backbone_dir).vocabulary
    pad_id = _find_pad(template, backbone_dir)
    pad = next(token for token, index in vocabulary.items() if index == pad_id)
    settings |= {"pad_token": pad, "padding_side": "right"}
    write_json(path, settings | {"model_max_length": template.max_length})


def export_card(facts: Mapping[str, Any], template: Template) -> str:
    """Return the model card, from the content of ``export.json`` and the template of rows."""
    example = facts["example"]
    card = new_card(
        facts["backbone"], facts["licence"], library="transformers", relation="finetune"
    )
    card.text = render(
        "export_card.md.jinja",
        **{name: facts[name] for name in ("fold", "licence", "quantization", "dtype", "n_checked")},
        backbone=label_text(facts["backbone"]),
        run=label_text(facts["run"]),
        unknown=UNKNOWN,
        is_notebook=template.name == "notebook",
        has_type_ids=bool(template.special_tokens.type_ids),
        max_length=template.max_length,
        request=json.dumps({"model": "tiewise", "input": [example["input"]]}),
        probs=", ".join(f"{prob:.4f}" for prob in example["probs"]),
        drift=f"{facts['drift']:.2g}",
    )
    return str(card)
