"""Judges of every kind with one method, and the function that opens the judge of a run.

The kinds are the folds of a language model
(:class:`tiewise.models.pretrained.FoldEnsemble`), the folds of a feature model, a blend of other
runs, and the small model in this package.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd

from tiewise.config import BASELINE, BLEND, ModelConfig
from tiewise.data.labels import PROB_COLUMNS
from tiewise.data.pairs import TEXT_COLUMNS, is_degenerate
from tiewise.errors import ModelError, NumericsError, missing_extra
from tiewise.evaluation.calibration import Calibration
from tiewise.features.feature_model import (
    FeatureModel,
    ReadStates,
    extract_table_features,
    load_feature_model,
)
from tiewise.features.pair_features import extract_features
from tiewise.features.shipped import load_shipped
from tiewise.judges.blending import Mixture, add_token_counts, load_mixture
from tiewise.runs.calibration import apply_calibration, read_calibration
from tiewise.runs.folder import RunFolder, open_run, read_object
from tiewise.runs.tables import check_predictions, drop_ties, has_ties, table_logits


class PairJudge(Protocol):
    """Anything that returns probabilities for pairs."""

    def predict(self, pairs: pd.DataFrame, *, swap: bool | None = None) -> pd.DataFrame:
        """Predict n pairs in order; labels are not read.

        With `swap` both orders of each pair are averaged; None means the judge's own setting, and
        symmetric judges ignore it. The columns are those of :meth:`tiewise.Judge.predict`.
        """
        ...


@dataclass(frozen=True)
class FeatureJudge:
    """The feature models of several folds; their probabilities are averaged.

    `reader` reads hidden states for models that were fitted with them.
    """

    models: list[FeatureModel]
    reader: ReadStates | None = None

    def predict(self, pairs: pd.DataFrame, *, swap: bool | None = None) -> pd.DataFrame:
        """Predict pairs; see :class:`PairJudge`."""
        del swap
        if pairs.empty:
            return _tabulate(pairs, np.zeros((0, 3)))
        features = extract_table_features(pairs)
        if self.reader is not None:
            features = replace(features, states=self.reader.read(pairs))
        probs = [model.predict_features(features) for model in self.models]
        return _tabulate(pairs, np.mean(probs, axis=0))


@dataclass(frozen=True)
class BlendJudge:
    """A mixture of the predictions of other judges."""

    members: list[PairJudge]
    mixture: Mixture

    def predict(self, pairs: pd.DataFrame, *, swap: bool | None = None) -> pd.DataFrame:
        """Predict pairs; see :class:`PairJudge`."""
        tables = [member.predict(pairs, swap=swap) for member in self.members]
        probs = np.exp(self.mixture.apply([table_logits(table) for table in tables]))
        return add_token_counts(_tabulate(pairs, probs), tables)


class ShippedJudge:
    """The small model in this package."""

    def predict(self, pairs: pd.DataFrame, *, swap: bool | None = None) -> pd.DataFrame:
        """Predict pairs; see :class:`PairJudge`."""
        del swap
        features = extract_features(*(pairs[name].tolist() for name in TEXT_COLUMNS))
        return _tabulate(pairs, load_shipped().predict(features))


@dataclass(frozen=True)
class CalibratedJudge:
    """A judge with a calibration of its probabilities."""

    judge: PairJudge
    calibration: Calibration

    def predict(self, pairs: pd.DataFrame, *, swap: bool | None = None) -> pd.DataFrame:
        """Predict pairs; see :class:`PairJudge`."""
        table = self.judge.predict(pairs, swap=swap)
        has_ties = not isinstance(self.judge, TwoClassJudge)
        return apply_calibration(table, self.calibration, has_ties=has_ties)


@dataclass(frozen=True)
class TwoClassJudge:
    """A judge of pairs that cannot be a tie."""

    judge: PairJudge

    def predict(self, pairs: pd.DataFrame, *, swap: bool | None = None) -> pd.DataFrame:
        """Predict pairs; see :class:`PairJudge`."""
        return drop_ties(self.judge.predict(pairs, swap=swap))


def judge_classes(judge: PairJudge, *, has_ties: bool) -> PairJudge:
    """Return the judge itself, or one without ties."""
    return judge if has_ties else TwoClassJudge(judge)


def device_of(judge: Any) -> str:
    """Return the device of a judge's weights, such as ``cuda:0``; of a blend, its first member's.

    A feature model computes on the CPU, but for the backbone that reads for it.
    """
    inner = getattr(judge, "judge", None) or next(iter(getattr(judge, "members", ())), None)
    if inner is not None:
        return device_of(inner)
    reader = getattr(judge, "reader", None)
    if reader is not None:
        return str(reader.device)
    return str(judge.classifier.device) if hasattr(judge, "classifier") else "cpu"


def open_judge(
    run: RunFolder,
    *,
    cache_dir: Path,
    device: str | None = None,
    folds: Sequence[int] | None = None,
) -> PairJudge:
    """Return the judge of a run: its finished folds averaged, then calibrated.

    A calibration is fitted on the average of all folds. It is therefore not applied when `folds`
    are named, nor to the members of a blend. `device` is `cpu` or `cuda`, or None for that of the
    fit. RunError is raised when a fold is not finished or the calibration belongs to other
    predictions, ModelError for a damaged model, DeviceError where this machine cannot compute it.
    """
    calibration = read_calibration(run)
    judge = _open_uncalibrated(run, cache_dir, device, folds)
    return CalibratedJudge(judge, calibration) if folds is None else judge


def open_feature_judge(
    models: list[FeatureModel], *, cache_dir: Path, device: str | None, states: str | None = None
) -> FeatureJudge:
    """Return the judge of feature models, with the backbone that reads for them if there is one.

    `states` is the name of this backbone, that in the models when None. ModelError is raised when
    it is another one than at the fit.
    """
    if not any(model.reads_states for model in models):
        return FeatureJudge(models)
    fields = dict(models[0].reader or {})
    digest = fields.pop("digest", None)
    fields["states"] = states or fields["states"]
    try:
        from tiewise.models.pretrained import find_device
        from tiewise.models.states import StateReader
    except ModuleNotFoundError as error:
        raise missing_extra(fields["states"], error) from error
    found = find_device(device or "auto", fields["states"])
    config = ModelConfig(backbone=BASELINE, **fields)
    reader = StateReader(config, cache_dir=cache_dir, device=found, keeps_states=False)
    if reader.digest != digest:
        raise ModelError(
            f"{fields['states']}: its weights, tokenizer or settings are not those that the model "
            "was fitted with. Use the same backbone, or fit again."
        )
    reader.load()
    return FeatureJudge(models, reader)


def _open_uncalibrated(
    run: RunFolder, cache_dir: Path, device: str | None, folds: Sequence[int] | None = None
) -> PairJudge:
    chosen = run.choose_folds(folds)
    model = run.config.model
    if model.backbone == BLEND:
        return _open_blend(run, folds, cache_dir, device)
    adapter_dirs = [run.fold(fold).adapter_dir for fold in chosen]
    if model.backbone == BASELINE:
        models = [load_feature_model(folder) for folder in adapter_dirs]
        device = device or run.config.train.device
        judge = open_feature_judge(models, cache_dir=cache_dir, device=device, states=model.states)
        return judge_classes(judge, has_ties=has_ties(run))
    try:
        from tiewise.models.backbones import resolve_backbone
        from tiewise.models.pretrained import find_device, load_folds
    except ModuleNotFoundError as error:
        raise missing_extra(model.backbone, error) from error
    device = find_device(device or run.config.train.device, f"run {run.name}")
    backbone_dir = resolve_backbone(
        model.backbone, revision=model.revision, sha256=model.backbone_sha256, cache_dir=cache_dir
    )
    ensemble = load_folds(adapter_dirs, backbone_dir, device=device)
    ensemble.swap = run.config.predict.swap
    ensemble.batch_tokens = run.config.predict.score_batch_tokens
    return judge_classes(ensemble, has_ties=has_ties(run))


def _open_blend(
    run: RunFolder, folds: Sequence[int] | None, cache_dir: Path, device: str | None
) -> PairJudge:
    """Return a blend of some folds of its members, or of all.

    RunError is raised when a member was fitted again after the blend.
    """
    mixture = load_mixture(run.mixture_path)
    members = [open_run(name, run.path.parent.parent) for name in mixture.members]
    for fold in run.choose_folds(folds):
        check_predictions(members, read_object(run.fold(fold).fingerprint_path).get("members", {}))
    judges = [_open_uncalibrated(member, cache_dir, device, folds) for member in members]
    return judge_classes(BlendJudge(judges, mixture), has_ties=has_ties(run))


def _tabulate(pairs: pd.DataFrame, probs: Any) -> pd.DataFrame:
    is_wrong = ~np.isfinite(probs).all(axis=1)
    if is_wrong.any():
        named = ", ".join(f"id={name}" for name in pairs["id"][is_wrong].head(5))
        raise NumericsError(
            f"The probabilities of {int(is_wrong.sum())} rows are not finite ({named}). None is "
            "returned; please report this with the configuration of the run."
        )
    table = pd.DataFrame(probs, columns=PROB_COLUMNS)
    table.insert(0, "id", pairs["id"].to_numpy())
    return table.assign(is_degenerate=is_degenerate(pairs))
