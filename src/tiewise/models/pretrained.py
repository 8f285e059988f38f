"""Fitted models for prediction: the adapters of several folds, or an exported folder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.special import log_softmax
from torch import Tensor, nn

from tiewise.errors import DeviceError, ModelError, RunError
from tiewise.evaluation.position import average_folds
from tiewise.files import read_json
from tiewise.models.adapters import check_folder, read_config
from tiewise.models.backbones import resolve_backbone
from tiewise.models.build import load_classifier
from tiewise.models.heads import CLASSES
from tiewise.models.loading import quiet_transformers
from tiewise.models.predictions import Floats
from tiewise.models.scoring import predict_pairs, score_rows
from tiewise.runs.environment import own_cuda
from tiewise.tokens.rows import TokenRows
from tiewise.tokens.template import Template
from tiewise.tokens.tokenizer import TOKENIZER_FOLDER, TextTokenizer, load_tokenizer


@dataclass
class FoldEnsemble:
    """The weights of several folds on one backbone; their probabilities are averaged.

    The backbone is loaded once, as a `PairClassifier` or an `ExportedClassifier`. `folds` has the
    trained tensors of each fold by name, in main memory; they are copied into the classifier before
    that fold predicts. An empty dictionary changes nothing. `swap` says whether both orders are
    scored unless a call says otherwise; `batch_tokens` limits the tokens of a forward pass.
    """

    classifier: Any
    folds: list[dict[str, Tensor]]
    tokenizer: TextTokenizer
    template: Template
    swap: bool = True
    batch_tokens: int = 16_384

    def predict(self, pairs: pd.DataFrame, *, swap: bool | None = None) -> pd.DataFrame:
        """Return the averaged table of :func:`tiewise.models.scoring.predict_pairs`."""
        both_orders = self.swap if swap is None else swap
        tables = []
        for _ in self._load_each():
            table = predict_pairs(
                self.classifier,
                pairs,
                self.tokenizer,
                self.template,
                both_orders=both_orders,
                batch_tokens=self.batch_tokens,
            )
            tables.append(table)
        return average_folds(tables)

    def score_rows(self, rows: TokenRows, *, names: Sequence[object]) -> Floats:
        """Return the logits of n rows of tokens, float64 `(n, 3)`; of several folds, averaged.

        The average is the logarithm of the mean probabilities.
        """
        logits = [
            score_rows(self.classifier, rows, batch_tokens=self.batch_tokens, names=names)
            for _ in self._load_each()
        ]
        if len(logits) == 1:
            return logits[0]
        log_probs = [log_softmax(values, axis=1) for values in logits]
        return np.asarray(np.logaddexp.reduce(log_probs, axis=0) - np.log(len(logits)))

    def _load_each(self) -> Iterator[None]:
        """Copy the weights of one fold after the other into the classifier."""
        own = dict(self.classifier.named_parameters())
        for weights in self.folds:
            for name, value in weights.items():
                own[name].data.copy_(value)
            yield


def load_folds(
    adapter_dirs: Sequence[Path], backbone_dir: Path, *, device: torch.device | str = "cpu"
) -> FoldEnsemble:
    """Load the adapters of several folds, all with the same template, on one backbone."""
    templates = [read_template(folder) for folder in adapter_dirs]
    if len({template.digest for template in templates}) > 1:
        listed = ", ".join(map(str, adapter_dirs))
        raise RunError(f"{listed} have different templates, so they cannot be averaged.")
    folds: list[dict[str, Tensor]] = []
    classifier: Any = None
    for folder in adapter_dirs:
        classifier = None  # release it first: memory holds one backbone at a time
        classifier = load_classifier(folder, backbone_dir, device=device, is_trainable=True)
        parts = classifier.trainable_parameters()
        folds.append({name: part.detach().cpu().clone() for name, part in parts})
    tokenizer = _load_same_tokenizer(backbone_dir, adapter_dirs[0])
    return FoldEnsemble(classifier.eval(), folds, tokenizer, templates[0])


def load_folder(folder: Path, *, cache_dir: Path, device: str | None = None) -> FoldEnsemble:
    """Load an exported folder, or an adapter with the backbone that it names.

    The device is `cpu` or `cuda`; None means CUDA where there is one.
    """
    found_device = find_device(device or "auto", str(folder))
    if (folder / "export.json").is_file():
        template = read_template(folder)
        classifier = ExportedClassifier(folder, found_device)
        return FoldEnsemble(classifier, [{}], load_tokenizer(folder / TOKENIZER_FOLDER), template)
    config = read_config(folder)
    backbone_dir = resolve_backbone(
        config.backbone,
        revision=config.revision,
        sha256=config.backbone_sha256,
        cache_dir=cache_dir,
    )
    return load_folds([folder], backbone_dir, device=found_device)


class ExportedClassifier(nn.Module):
    """The classifier in an exported folder, as transformers alone loads it."""

    can_pack = False

    def __init__(self, folder: Path, device: torch.device | str = "cpu") -> None:
        super().__init__()
        from transformers import AutoModelForSequenceClassification

        try:
            with quiet_transformers():
                loaded: Any = AutoModelForSequenceClassification.from_pretrained(
                    folder,
                    output_loading_info=True,
                    dtype="auto",
                    local_files_only=True,
                    trust_remote_code=False,
                    use_safetensors=True,
                )
        except (OSError, ValueError, RuntimeError) as error:  # the last: a tensor of another shape
            reason = str(error).strip().rstrip(".")
            raise ModelError(f"{folder} cannot be loaded: {reason}. Export it again.") from error
        network, found = loaded
        if found["missing_keys"]:  # transformers has filled them with random numbers
            missing = ", ".join(sorted(found["missing_keys"])[:3])
            raise ModelError(f"{folder}: its weights lack {missing}. Export it again.")
        names = list(network.config.id2label.values())
        if names != list(CLASSES):
            raise ModelError(
                f"{folder}: the classes are {', '.join(names)}; expected {', '.join(CLASSES)}, "
                "in this order. Export it again."
            )
        self.network = network.to(device).eval()

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return next(self.network.parameters()).device  # type: ignore[no-any-return]

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """Return the logits `(n_rows, 3)` of a padded batch.

        The network pools at the last token that is not its own padding token, so this token is
        written to all padded positions.
        """
        inputs = {name: values for name, values in batch.items() if name != "lengths"}
        is_padding = inputs["attention_mask"] == 0
        pad_id = self.network.config.pad_token_id
        inputs["input_ids"] = inputs["input_ids"].masked_fill(is_padding, pad_id)
        return self.network(**inputs).logits  # type: ignore[no-any-return]


def find_device(wanted: str, name: str) -> str:
    """Return `cpu` or the GPU of this process; `wanted` is `cpu`, `cuda`, or `auto` for either.

    `name` is the model's name in the DeviceError when CUDA is wanted and there is none.
    """
    has_cuda = torch.cuda.is_available()
    if wanted == "cuda" and not has_cuda:
        raise DeviceError(
            f"{name} needs CUDA, but torch {torch.__version__} finds no CUDA device. Give --device "
            "cpu, which is slow for a large backbone, or use a machine with a GPU."
        )
    return own_cuda() if has_cuda and wanted != "cpu" else "cpu"


def read_template(folder: Path) -> Template:
    """Return the template of an adapter or an export."""
    check_folder(folder)
    path = folder / "template.json"
    if not path.is_file():
        raise ModelError(f"{path} is missing: {folder} was not written by a fit or an export.")
    return Template.from_dict(read_json(path))


def _load_same_tokenizer(backbone_dir: Path, adapter_dir: Path) -> TextTokenizer:
    """Load the backbone's tokenizer, and compare it with the copy in the adapter's folder."""
    tokenizer = load_tokenizer(backbone_dir)
    if (adapter_dir / "tokenizer.json").is_file():
        kept = load_tokenizer(adapter_dir)
        if kept.digest != tokenizer.digest:
            raise ModelError(
                f"{backbone_dir}/tokenizer.json has changed since the fit: its digest is "
                f"{tokenizer.digest}; expected {kept.digest}. Give the same backbone."
            )
    return tokenizer
