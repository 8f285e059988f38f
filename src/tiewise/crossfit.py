"""Cross-fitting: every row is predicted by a model that has not seen its conversation.

Here a configuration, a data set and a run folder come together. The model is fitted by
:mod:`tiewise.training.fit` (torch) or :mod:`tiewise.features.feature_model` (scikit-learn),
whichever the backbone names; everything around it, folds, identity, predictions, scores, is the
same for both.
"""

from __future__ import annotations

import functools
import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from tiewise.config.checks import check_config
from tiewise.config.loading import load_preset
from tiewise.config.run_config import BASELINE, RunConfig
from tiewise.data.folds import split
from tiewise.errors import ConfigError, DeviceError, FoldError, RunError, missing_extra
from tiewise.evaluation.references import RunScores
from tiewise.features.fold import fit_baseline_fold
from tiewise.files import file_lock, read_json
from tiewise.runs.dataset import assign_folds, load_dataset
from tiewise.runs.environment import is_first_process
from tiewise.runs.fold_lock import FoldTask, empty_fold, lock_fold, release_fold
from tiewise.runs.folder import RunFolder, start_run
from tiewise.runs.references import score_run
from tiewise.runs.tables import delete_scores, join_folds, save_data, save_folds, save_scored
from tiewise.runs.training_rows import (
    LEAKS,
    START_LEAKS,
    TrainingRows,
    gather_training_rows,
)

Describe = Callable[[RunFolder, int, pd.DataFrame, RunScores], None]
FitFold = Callable[[RunConfig, pd.DataFrame, pd.DataFrame, FoldTask], pd.DataFrame | None]
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FitOptions:
    """How a run is begun or gone on with; none of it changes what is computed.

    name
        The run's name; made from time and configuration when None.
    resume
        Go on where an earlier fit of the same identity stopped.
    overwrite
        Remove the folds to be fitted first.
    init_from
        Folder of a run's fold (or of an adapter) to start from.
    describe
        Called with a fold's run, number, predictions and scores before the fold counts as
        finished, to write what stands beside its adapter.
    """

    name: str | None = None
    resume: bool = False
    overwrite: bool = False
    init_from: Path | None = None
    describe: Describe | None = None


def cross_fit(
    config: RunConfig, folds: list[int], artifacts_dir: Path, options: FitOptions
) -> tuple[RunFolder, list[int]]:
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
    if options.resume and options.overwrite:
        raise ConfigError("--resume and --overwrite contradict each other; give one of them.")
    if config.model.backbone == BASELINE:
        _say_what_the_baseline_ignores(config, options)
    check_device(config)
    dataset = load_dataset(
        config.data, fallback="hub" if config.train.device == "cuda" else "sample"
    )
    table = assign_folds(dataset, config.data)
    _check_labels(table, folds)
    rows = gather_training_rows(config.data, dataset, table["fold"].to_numpy())
    run = start_run(artifacts_dir, config, name=options.name)
    if is_first_process():
        save_folds(run, table)
        rows.save_seen(run)
        save_data(run, rows.described)
    fit = functools.partial(_fit_one, run, rows, table, artifacts_dir, options)
    fitted = [fold for fold in folds if _hold_and_fit(run, fold, fit, options)]
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
        from tiewise.training.fit import require_device
    except ModuleNotFoundError as error:
        message = missing_extra(config.model.backbone, error)
        raise DeviceError(
            f"{message} Without it: tiewise fit --preset baseline. Nothing was downloaded."
        ) from error
    require_device(config)


def summarise(run: RunFolder) -> RunScores:
    """Join the finished folds' predictions, score them, and write both.

    Raises
    ------
    RunError
        When no fold is finished.
    """
    with file_lock(run.lock_path, wait=True):
        finished = run.finished_folds()
        if not finished:
            raise RunError(f"{run.path}: no fold is finished yet. Go on with tiewise fit --resume.")
        oof = join_folds(run, finished)
        scores = score_run(run, oof, counts=_join_leaks(run, finished))
        save_scored(run, oof, scores.to_dict())
    return scores


def _hold_and_fit(
    run: RunFolder, fold: int, fit: Callable[[int], bool], options: FitOptions
) -> bool:
    """Fit a fold that no other command fits meanwhile; tell whether there was anything to do."""
    folder = run.fold(fold)
    if not is_first_process():
        return fit(fold)
    with lock_fold(folder):
        if options.overwrite:
            with file_lock(run.lock_path, wait=True):
                delete_scores(run)
                empty_fold(folder)
        try:
            return fit(fold)
        except BaseException:
            release_fold(folder)
            raise


def _fit_one(
    run: RunFolder,
    rows: TrainingRows,
    table: pd.DataFrame,
    artifacts_dir: Path,
    options: FitOptions,
    fold: int,
) -> bool:
    folder = run.fold(fold)
    _, eval_idx = split(rows.folds, fold)
    train = rows.of(fold)
    _log.info("fold %d: %d rows to learn from, %d held out", fold, len(train), len(eval_idx))
    counts = rows.count_start_leaks(fold, options.init_from)
    task = FoldTask(
        folder,
        fold,
        rows.digest,
        artifacts_dir / "cache",
        resume=options.resume,
        init_from=options.init_from,
    )
    predictions = _fitter(run.config)(run.config, train, rows.pairs.iloc[eval_idx], task)
    if predictions is None:
        return False
    known = table.iloc[eval_idx][["id", "fold", "label", "group"]].reset_index(drop=True)
    counts |= {"n_learned_from": len(train), **rows.count_leaks(fold, train)}
    oof = pd.concat([known, predictions.drop(columns="id", errors="ignore")], axis=1)
    scores = score_run(run, oof, counts=counts)
    if options.describe is not None:
        options.describe(run, fold, oof, scores)
    save_scored(folder, oof, scores.to_dict())
    shutil.rmtree(folder.checkpoints_dir, ignore_errors=True)
    return True


def _fitter(config: RunConfig) -> FitFold:
    if config.model.backbone == BASELINE:
        return fit_baseline_fold
    from tiewise.training.fit import fit_fold

    return fit_fold


def _join_leaks(run: RunFolder, folds: list[int]) -> dict[str, int]:
    """Add up how many held-out rows the folds' teachers, or what they began with, have seen."""
    counts = [read_json(run.fold(fold).scores_path).get("counts", {}) for fold in folds]
    found = {name: [own[name] for own in counts if name in own] for name in (LEAKS, START_LEAKS)}
    return {name: sum(leaks) for name, leaks in found.items() if leaks}


def _say_what_the_baseline_ignores(config: RunConfig, options: FitOptions) -> None:
    """Refuse to start from another fit, and name the fields that only a network reads."""
    if options.init_from is not None:
        raise ConfigError("--init-from needs a network; the baseline is fitted afresh.")
    read = {"model": {"backbone"}, "train": {"seed", "soft_weight"}}
    usual, given = load_preset(BASELINE).to_dict(), config.to_dict()
    ignored = [
        f"--{name.replace('_', '-')}"
        for section in ("template", "model", "train", "predict")
        for name, value in given[section].items()
        if name not in read.get(section, ()) and value != usual[section][name]
    ]
    if ignored:
        _log.warning("The baseline does not read %s.", ", ".join(ignored))


def _check_labels(table: pd.DataFrame, folds: list[int]) -> None:
    """Refuse before the fit what could not be scored after it."""
    judged = table.loc[table["label"].notna(), "fold"]
    if blind := [fold for fold in folds if fold not in set(judged)]:
        raise FoldError(
            f"No row that fold {blind[0]} holds out has a winner, so its predictions could not be "
            "scored. Name rows with winners with --data, and those that have soft labels alone "
            "with --extra-data."
        )


def _check_folds(folds: list[int], n_splits: int) -> None:
    for fold in folds:
        if not 0 <= fold < n_splits:
            raise FoldError(f"--fold is {fold}; folds are 0 to {n_splits - 1} (--n-splits).")
