"""A run, opened: from a pairs table to its predictions, whatever kind of run it is.

A network is asked through :mod:`tiewise.judges.fold_ensemble`; torch is loaded only then. A blend
mixes what its members say. The feature model averages its folds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tiewise.config import BASELINE, BLEND
from tiewise.data.labels import PROB_COLUMNS
from tiewise.data.pairs import is_degenerate
from tiewise.errors import ConfigError, RunError, missing_extra
from tiewise.features.feature_model import extract_table_features, load_feature_model
from tiewise.judges.mixture import load_mixture
from tiewise.judges.prediction_stats import add_costs
from tiewise.runs.calibration import apply_calibration, read_calibration
from tiewise.runs.folder import RunFolder, open_run, read_object
from tiewise.runs.tables import check_predictions, table_logits


@dataclass(frozen=True)
class PredictOptions:
    """How pairs are scored.

    swap
        Score both orders and average; as the run was configured when None.
    chunk_rows
        Rows read, scored and written at a time.
    device
        `cpu` or `cuda`; where the run was fitted when None.

    Raises
    ------
    ConfigError
        When `chunk_rows` is out of range.
    """

    swap: bool | None = None
    chunk_rows: int = 1_000
    device: str | None = None

    def __post_init__(self) -> None:
        if self.chunk_rows < 1:
            raise ConfigError(f"--chunk-rows is {self.chunk_rows}; expected at least 1.")

    def is_swapped(self, run: RunFolder) -> bool:
        """Whether a run's pairs are scored in both orders."""
        return run.config.predict.swap if self.swap is None else self.swap


Predict = Callable[[pd.DataFrame, PredictOptions], pd.DataFrame]
"""From a pairs table to its predictions, a line each, in the same order."""


def open_predictor(
    run: RunFolder,
    *,
    cache_dir: Path,
    device: str | None = None,
    folds: Sequence[int] | None = None,
) -> Predict:
    """Return a function from a pairs table to its predictions, averaged over the finished folds.

    Where a calibration of the run was adopted, it is applied to all folds together. Runs that this
    one is built on are asked without theirs, since it was fitted on what they say of themselves;
    and so are single folds, since a calibration has seen the rows that they have not.

    Parameters
    ----------
    run
        A run with finished folds.
    cache_dir
        Where converted backbones are cached.
    device
        `cpu` or `cuda`; where the run was fitted when None.
    folds
        Which finished folds are averaged; all of them when None.

    Raises
    ------
    RunError
        When no fold is finished, or the calibration belongs to other predictions.
    ModelError, DeviceError
        When the model is damaged or the machine cannot compute it.
    """
    calibration = read_calibration(run)
    predict = _open_model(run, cache_dir, device, folds=folds)
    if folds is not None:
        return predict
    return lambda pairs, options: apply_calibration(predict(pairs, options), calibration)


def _open_model(
    run: RunFolder,
    cache_dir: Path,
    device: str | None,
    *,
    folds: Sequence[int] | None = None,
) -> Predict:
    if run.config.model.backbone == BLEND:
        return _open_blend(run, cache_dir, device)
    if run.config.model.backbone == BASELINE:
        chosen = run.finished_folds() if folds is None else folds
        return _open_baseline(run, chosen)
    try:
        from tiewise.judges.fold_ensemble import open_judge
    except ModuleNotFoundError as error:
        raise missing_extra(run.config.model.backbone, error) from error

    judge = open_judge(run, cache_dir=cache_dir, device=device, folds=folds)

    def predict(pairs: pd.DataFrame, options: PredictOptions) -> pd.DataFrame:
        return judge.predict(
            pairs,
            is_swapped=options.is_swapped(run),
            batch_tokens=run.config.predict.score_batch_tokens,
        )

    return predict


def _open_blend(run: RunFolder, cache_dir: Path, device: str | None) -> Predict:
    """Return a function that blends the predictions of the members, unless one was fitted again."""
    mixture = load_mixture(run.mixture_path)
    members = [open_run(name, run.path.parent.parent) for name in mixture.members]
    for fold in run.finished_folds():
        check_predictions(members, read_object(run.fold(fold).fingerprint_path).get("members", {}))
    judges = [_open_model(member, cache_dir, device) for member in members]

    def predict(pairs: pd.DataFrame, options: PredictOptions) -> pd.DataFrame:
        told = [judge(pairs, options) for judge in judges]
        logits = [table_logits(table) for table in told]
        return add_costs(_tabulate(pairs, np.exp(mixture.apply(logits))), told)

    return predict


def _open_baseline(run: RunFolder, folds: Sequence[int]) -> Predict:
    """Return a function that averages the predictions of finished folds of the feature model."""
    if not folds:
        raise RunError(f"{run.path}: no fold is finished yet. Go on with tiewise fit --resume.")
    models = [load_feature_model(run.fold(fold).adapter_dir) for fold in folds]

    def predict(pairs: pd.DataFrame, _: PredictOptions) -> pd.DataFrame:
        if pairs.empty:
            return _tabulate(pairs, np.zeros((0, 3)))
        features = extract_table_features(pairs)
        probs = np.mean([model.predict_features(features) for model in models], axis=0)
        return _tabulate(pairs, probs)

    return predict


def _tabulate(pairs: pd.DataFrame, probs: Any) -> pd.DataFrame:
    table = pd.DataFrame(probs, columns=PROB_COLUMNS)
    table.insert(0, "id", pairs["id"].to_numpy())
    return table.assign(is_degenerate=is_degenerate(pairs))
