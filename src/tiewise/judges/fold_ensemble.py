"""A fitted run, ready to judge pairs. A leaf: imports torch.

A run has a model for each fold, and all of them stand on one backbone. So the backbone is loaded
once, what each fold learned is kept beside it, and a prediction puts one after the other into
place. Memory holds one backbone however many folds there are (after full fine-tuning what a fold
learned is a whole model, kept in main memory).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from tiewise.errors import DeviceError, ModelError, RunError
from tiewise.evaluation.position import average_folds
from tiewise.files import read_json
from tiewise.models.adapters import check_folder
from tiewise.models.backbones import resolve_backbone
from tiewise.models.build import load_classifier
from tiewise.models.model import PairClassifier
from tiewise.models.scoring import predict_pairs
from tiewise.runs.environment import own_cuda
from tiewise.runs.folder import RunFolder
from tiewise.tokens.template import Template
from tiewise.tokens.tokenizer import TextTokenizer, load_tokenizer

Weights = dict[str, torch.Tensor]


class FoldEnsemble:
    """What several folds learned, on one backbone.

    Attributes
    ----------
    classifier
        The classifier; it holds the weights of the fold that judged last.
    tokenizer, template
        Those of the fit.
    n_folds
        Models that are averaged.
    """

    def __init__(
        self,
        classifier: PairClassifier,
        folds: Sequence[Weights],
        tokenizer: TextTokenizer,
        template: Template,
    ) -> None:
        self.classifier, self.tokenizer, self.template = classifier, tokenizer, template
        self._folds = list(folds)

    @property
    def n_folds(self) -> int:
        """Models that are averaged."""
        return len(self._folds)

    def predict(self, pairs: pd.DataFrame, **options: Any) -> pd.DataFrame:
        """Predict pairs with every fold and average the probabilities.

        Parameters
        ----------
        pairs
            A pairs table of n rows.
        **options
            Those of :func:`tiewise.models.scoring.predict_pairs`.

        Returns
        -------
        DataFrame
            As :func:`tiewise.models.scoring.predict_pairs`.
        """
        tables = []
        for weights in self._folds:
            _put(self.classifier, weights)
            tables.append(
                predict_pairs(self.classifier, pairs, self.tokenizer, self.template, **options)
            )
        return average_folds(tables)


def load_judge(
    adapter_dirs: Sequence[Path], backbone_dir: Path, *, device: torch.device | str = "cpu"
) -> FoldEnsemble:
    """Load what each fold learned on one backbone.

    Parameters
    ----------
    adapter_dirs
        At least one folder that a fit wrote, all with the same template.
    backbone_dir
        The backbone's folder.
    device
        Where to compute.

    Raises
    ------
    ModelError
        When a folder is damaged, has no head or another one, or belongs to another backbone.
    RunError
        When there is no folder, or two have different templates.
    """
    templates = [read_template(Path(folder)) for folder in adapter_dirs]
    if len({template.digest for template in templates}) > 1:
        raise RunError(
            "The folds were fitted with different templates, so they cannot be averaged: "
            + ", ".join(str(folder) for folder in adapter_dirs)
        )
    folds: list[Weights] = []
    classifier: PairClassifier | None = None
    for folder in adapter_dirs:
        classifier = None  # before the next is loaded: one backbone at a time
        classifier = load_classifier(folder, backbone_dir, device=device, is_trainable=True)
        parts = classifier.trainable_parameters()
        folds.append({name: part.detach().cpu().clone() for name, part in parts})
    if classifier is None:
        raise RunError("There is no fitted model to load: name at least one fold.")
    tokenizer = _load_same_tokenizer(backbone_dir, Path(adapter_dirs[0]))
    return FoldEnsemble(classifier.eval(), folds, tokenizer, templates[0])


def open_judge(
    run: RunFolder,
    *,
    cache_dir: Path,
    folds: Sequence[int] | None = None,
    device: str | None = None,
) -> FoldEnsemble:
    """Load the finished folds of a run.

    Parameters
    ----------
    run
        The run.
    cache_dir
        Where converted backbones are cached.
    folds
        Which folds; all finished ones when None.
    device
        `cpu` or `cuda`; where the run was fitted (`auto` taking CUDA where there is one) when None.

    Raises
    ------
    RunError
        When a fold is not finished, or none is.
    DeviceError
        When the device is not there.
    ModelError
        As :func:`load_judge`.
    """
    wanted = run.finished_folds() if folds is None else list(folds)
    unfinished = sorted(set(wanted) - set(run.finished_folds()))
    if unfinished or not wanted:
        raise RunError(
            f"{run.path}: {f'fold {unfinished[0]}' if unfinished else 'no fold'} is "
            f"{'not finished' if unfinished else 'finished yet'}. Go on with tiewise fit --resume."
        )
    model = run.config.model
    backbone_dir = resolve_backbone(
        model.backbone, revision=model.revision, sha256=model.backbone_sha256, cache_dir=cache_dir
    )
    adapter_dirs = [run.fold(fold).adapter_dir for fold in wanted]
    return load_judge(adapter_dirs, backbone_dir, device=find_device(device, run))


def find_device(device: str | None, run: RunFolder) -> str:
    """Return `cpu`, or this process's GPU: what is named, else where the run was fitted.

    Raises
    ------
    DeviceError
        When there is no CUDA and it is wanted.
    """
    wanted = device or run.config.train.device
    has_cuda = torch.cuda.is_available()
    if wanted == "cuda" and not has_cuda:
        raise DeviceError(
            f"Run {run.name} computes on CUDA, and torch {torch.__version__} finds no CUDA device. "
            "Give --device cpu, which is slow for a large backbone, or use a machine with a GPU."
        )
    return own_cuda() if has_cuda and wanted != "cpu" else "cpu"


def read_template(adapter_dir: Path) -> Template:
    """Return the template that travels with an adapter.

    Raises
    ------
    ModelError
        When it is missing, or a file of the folder is damaged.
    """
    check_folder(adapter_dir)
    path = adapter_dir / "template.json"
    if not path.is_file():
        raise ModelError(f"{path} is missing: this is no folder that a fit wrote.")
    return Template.from_dict(read_json(path))


def _load_same_tokenizer(backbone_dir: Path, adapter_dir: Path) -> TextTokenizer:
    """Load the backbone's tokenizer after comparing it with the one kept beside the adapter."""
    tokenizer = load_tokenizer(backbone_dir)
    if (adapter_dir / "tokenizer.json").is_file():
        kept = load_tokenizer(adapter_dir)
        if kept.digest != tokenizer.digest:
            raise ModelError(
                f"{backbone_dir}/tokenizer.json has changed since the fit: its digest was "
                f"{kept.digest} and is now {tokenizer.digest}. Give the same backbone."
            )
    return tokenizer


def _put(classifier: PairClassifier, weights: Weights) -> None:
    own = dict(classifier.trainable_parameters())
    with torch.no_grad():
        for name, value in weights.items():
            own[name].copy_(value)
