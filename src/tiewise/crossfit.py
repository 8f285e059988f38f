"""Cross-fitting: every row is predicted by a model that has not seen its conversation.

Here a configuration, a data set and a run folder come together. The model is fitted by
:mod:`tiewise.fit` (torch) or :mod:`tiewise.baseline` (scikit-learn), whichever the backbone names;
everything around it, folds, identity, predictions, scores, is the same for both.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from tiewise.claims import FoldTask, claim_fold, empty_fold, hold_fold, release_fold
from tiewise.config import BASELINE, RunConfig, check_config
from tiewise.dataset import Dataset, deal_folds, load_dataset
from tiewise.environment import is_first_process
from tiewise.errors import ConfigError, DeviceError, FoldError, RunError, missing_extra
from tiewise.files import atomic_folder, held
from tiewise.folds import split
from tiewise.identity import defining_fields
from tiewise.pairs import is_degenerate
from tiewise.references import RunScores, evaluate_tables
from tiewise.runs import (
    Run,
    read_data,
    read_fold_oof,
    read_folds,
    save_data,
    save_folds,
    save_scored,
    start_run,
)
from tiewise.stacking import digest_stack, open_stack, read_stack

FitFold = Callable[[RunConfig, pd.DataFrame, pd.DataFrame, FoldTask], pd.DataFrame | None]
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
    if options.is_resumed and options.is_overwritten:
        raise ConfigError("--resume and --overwrite contradict each other; give one of them.")
    check_device(config)
    dataset = load_dataset(
        config.data, fallback="hub" if config.train.device == "cuda" else "sample"
    )
    table = deal_folds(dataset, config.data)
    dataset = _add_stack(dataset, table, config, artifacts_dir)
    run = start_run(artifacts_dir, config, name=options.name)
    if is_first_process():
        save_folds(run, table)
        save_data(run, dataset.describe())
    fitted = [fold for fold in folds if _fit_one(run, dataset, table, fold, artifacts_dir, options)]
    return run, fitted


def check_device(config: RunConfig) -> None:
    """Refuse a configuration that this machine or this installation cannot compute.

    Raises
    ------
    DeviceError
        When torch is not installed, or CUDA is asked for and not there.
    """
    if config.model.backbone == BASELINE:
        return
    try:
        from tiewise.fit import require_device
    except ModuleNotFoundError as error:
        message = missing_extra(config.model.backbone, error)
        raise DeviceError(
            f"{message} Without it: tiewise fit --preset baseline. Nothing was downloaded."
        ) from error
    require_device(config)


def summarise(run: Run) -> RunScores:
    """Join the finished folds' predictions, score them, and write both.

    Raises
    ------
    RunError
        When no fold is finished.
    """
    with held(run.lock_path, wait=True):
        finished = run.finished_folds()
        if not finished:
            raise RunError(f"{run.path}: no fold is finished yet. Go on with tiewise fit --resume.")
        parts = [read_fold_oof(run.fold(fold)) for fold in finished]
        oof = pd.concat(parts, ignore_index=True)
        scores = _score(run, oof)
        save_scored(run, oof, scores.to_dict())
    return scores


def _add_stack(
    dataset: Dataset, table: pd.DataFrame, config: RunConfig, artifacts_dir: Path
) -> Dataset:
    """Put the out-of-fold logits of the runs that the model is built on beside the pairs."""
    if not config.model.stack:
        return dataset
    runs = open_stack(config.model.stack, artifacts_dir / "runs")
    return replace(dataset, pairs=dataset.pairs.join(read_stack(runs, table)))


def _fit_one(
    run: Run,
    dataset: Dataset,
    table: pd.DataFrame,
    fold: int,
    artifacts_dir: Path,
    options: FitOptions,
) -> bool:
    folder = run.fold(fold)
    if not is_first_process():
        return _fit_held(run, dataset, table, fold, artifacts_dir, options)
    with hold_fold(folder):
        if options.is_overwritten:
            empty_fold(folder)
        try:
            return _fit_held(run, dataset, table, fold, artifacts_dir, options)
        except BaseException:
            release_fold(folder)
            raise


def _fit_held(
    run: Run,
    dataset: Dataset,
    table: pd.DataFrame,
    fold: int,
    artifacts_dir: Path,
    options: FitOptions,
) -> bool:
    folder = run.fold(fold)
    train_idx, eval_idx = split(table["fold"].to_numpy(), fold)
    _log.info("fold %d: %d rows to learn from, %d held out", fold, len(train_idx), len(eval_idx))
    task = FoldTask(
        folder,
        fold,
        dataset.digest,
        artifacts_dir / "cache",
        is_resumed=options.is_resumed,
        init_from=options.init_from,
    )
    fit_fold, pairs = _fitter(run.config), dataset.pairs
    predictions = fit_fold(run.config, pairs.iloc[train_idx], pairs.iloc[eval_idx], task)
    if predictions is None:
        return False
    known = table.iloc[eval_idx][["id", "fold", "label", "group"]].reset_index(drop=True)
    oof = pd.concat([known, predictions.drop(columns="id", errors="ignore")], axis=1)
    save_scored(folder, oof, _score(run, oof).to_dict())
    shutil.rmtree(folder.checkpoints_dir, ignore_errors=True)
    return True


def _fitter(config: RunConfig) -> FitFold:
    if config.model.backbone == BASELINE:
        return _fit_baseline_fold
    from tiewise.fit import fit_fold

    return fit_fold


def _fit_baseline_fold(
    config: RunConfig, train: pd.DataFrame, held_out: pd.DataFrame, task: FoldTask
) -> pd.DataFrame | None:
    from tiewise.baseline import fit_baseline

    stack = open_stack(config.model.stack, task.folder.path.parent.parent)
    identity = {
        "config": defining_fields(config),
        "data": task.data_digest,
        "fold": task.fold,
        "stack": digest_stack(stack),
    }
    claim_fold(task.folder, identity, is_resumed=task.is_resumed)
    if task.folder.is_finished:
        return None
    model = fit_baseline(
        train,
        groups=train["group"].to_numpy(),
        seed=config.train.seed,
        stack=config.model.stack,
    )
    with atomic_folder(task.folder.adapter_dir) as temporary:
        model.save(temporary)
    probs = model.predict(held_out)
    table = pd.DataFrame(probs, columns=["prob_a", "prob_b", "prob_tie"])
    logits = pd.DataFrame(np.log(probs), columns=["logit_a", "logit_b", "logit_tie"])
    return pd.concat([table, logits], axis=1).assign(is_degenerate=is_degenerate(held_out))


def _score(run: Run, oof: pd.DataFrame) -> RunScores:
    return evaluate_tables(oof, read_folds(run), counts=read_data(run)["counts"])


def _check_folds(folds: list[int], n_splits: int) -> None:
    for fold in folds:
        if not 0 <= fold < n_splits:
            raise FoldError(f"--fold is {fold}; folds are 0 to {n_splits - 1} (--n-splits).")
