"""Cross-fitting: every row is predicted by a model that has not seen its conversation.

Here a configuration, a data set and a run folder come together. The model is fitted by
:mod:`tiewise.fit` (torch) or :mod:`tiewise.baseline` (scikit-learn), whichever the backbone names;
everything around it, folds, identity, predictions, scores, is the same for both.
"""

from __future__ import annotations

import logging
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from tiewise.config import RunConfig, check_config
from tiewise.dataset import Dataset, deal_folds, load_dataset
from tiewise.errors import FoldError
from tiewise.files import write_json, write_parquet
from tiewise.folds import split
from tiewise.references import evaluate_tables
from tiewise.runs import FoldFolder, Run, save_folds, start_run

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FitOptions:
    """How a run is begun or gone on with; none of it changes what is computed.

    name
        The run's name; made from time and configuration when None.
    is_resumed
        Go on where an earlier fit of the same identity stopped.
    is_overwritten
        Remove the folds to be fitted first.
    init_from
        Folder of a run's fold (or of an adapter) to start from.
    """

    name: str | None = None
    is_resumed: bool = False
    is_overwritten: bool = False
    init_from: Path | None = None


def cross_fit(
    config: RunConfig, folds: list[int], artifacts_dir: Path, options: FitOptions
) -> tuple[Run, list[int]]:
    """Fit the folds named, one after the other, and write the run folder.

    Returns
    -------
    run, fitted
        The run, and the folds that were fitted now: those finished before are left as they are
        when resumed.

    Raises
    ------
    TiewiseError
        When the configuration, the data, the device or the run folder do not allow it.
    """
    check_config(config)
    _check_folds(folds, config.data.n_splits)
    is_baseline = config.model.backbone == "baseline"
    if not is_baseline:
        from tiewise.fit import require_device

        require_device(config)
    dataset = load_dataset(config.data, fallback="hub" if config.train.device == "cuda" else "sample")
    table = deal_folds(dataset, config.data)
    run = start_run(artifacts_dir, config, name=options.name)
    save_folds(run, table)
    fitted = [
        fold
        for fold in folds
        if _fit_one(run, dataset, table, fold, artifacts_dir / "cache", options)
    ]
    return run, fitted


def summarise(run: Run) -> dict[str, Any]:
    """Join the finished folds' predictions, score them, and write both; return the scores."""
    parts = [pd.read_parquet(run.fold(fold).oof_path) for fold in run.finished_folds()]
    oof = pd.concat(parts, ignore_index=True)
    write_parquet(run.oof_path, oof)
    scores = evaluate_tables(oof, pd.read_parquet(run.folds_path)).to_dict()
    write_json(run.scores_path, scores)
    return scores


def _fit_one(
    run: Run, dataset: Dataset, table: pd.DataFrame, fold: int, cache_dir: Path, options: FitOptions
) -> bool:
    folder = run.fold(fold)
    if options.is_overwritten and folder.path.exists():
        shutil.rmtree(folder.path)
    train_idx, eval_idx = split(table["fold"].to_numpy(), fold)
    if folder.is_finished and options.is_resumed:
        _log.warning("%s is finished: nothing to do.", folder.path)
        return False
    fit = _fit_baseline if run.config.model.backbone == "baseline" else _fit_backbone
    predictions = fit(run.config, dataset, train_idx, eval_idx, folder, fold, cache_dir, options)
    if predictions is None:
        return False
    _finish(folder, predictions, table, eval_idx, fold, dataset)
    return True


def _fit_backbone(
    run: Run, dataset: Dataset, table: pd.DataFrame, fold: int, cache_dir: Path, options: FitOptions
) -> pd.DataFrame | None:
    from tiewise.fit import fit_fold

    train_idx, eval_idx = split(table["fold"].to_numpy(), fold)
    return fit_fold(
        run.config,
        dataset.pairs,
        train_idx,
        eval_idx,
        run.fold(fold),
        data_digest=dataset.digest,
        fold=fold,
        cache_dir=cache_dir,
        is_resumed=options.is_resumed,
        init_from=options.init_from,
    )


def _check_folds(folds: list[int], n_splits: int) -> None:
    for fold in folds:
        if not 0 <= fold < n_splits:
            raise FoldError(f"--fold is {fold}; folds are 0 to {n_splits - 1} (--n-splits).")
