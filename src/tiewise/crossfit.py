"""Cross-fitting: fit every requested fold and score its held-out rows.

:func:`cross_fit` is the main job of the package. The model of a fold is fitted by
:func:`tiewise.training.fit.fit_fold` (a language model, torch) or by
:func:`tiewise.features.feature_model.fit_feature_fold` (the feature model, scikit-learn); data,
folds, run folder and scores are the same for both.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

from tiewise.config import BASELINE, RunConfig, check_config, fields_in_use, load_preset
from tiewise.console import FoldClock
from tiewise.data.formats.stdin import STDIN
from tiewise.errors import ConfigError, DeviceError, FoldError, missing_extra
from tiewise.report.card import write_fold_card
from tiewise.runs.fold_lock import FoldTask, begin_fold, clear_fold, finish_fold
from tiewise.runs.folder import RunFolder, name_run
from tiewise.runs.references import score_run
from tiewise.runs.tables import drop_ties
from tiewise.runs.training_rows import load_training_rows

FitFold = Callable[[RunConfig, pd.DataFrame, pd.DataFrame, FoldTask], pd.DataFrame | None]
_log = logging.getLogger(__name__)


def cross_fit(
    config: RunConfig,
    folds: Sequence[int],
    artifacts_dir: Path,
    *,
    name: str | None = None,
    resume: bool = False,
    overwrite: bool = False,
    init_from: Path | None = None,
) -> tuple[RunFolder, list[int]]:
    """Fit the requested folds, one after the other, and write the run folder.

    Parameters
    ----------
    config
        The resolved configuration.
    folds
        Folds to hold out, each in [0, n_splits).
    artifacts_dir
        Folder of runs and caches.
    name
        Name of the run; made from time and configuration when None.
    resume
        Continue unfinished folds of the same configuration and data; skip finished folds.
    overwrite
        Delete the requested folds before they are fitted.
    init_from
        Folder of a fold of another run, or of an adapter, to start from.

    Returns
    -------
    run, fitted
        The run, and the folds that were fitted by this call. Processes of a distributed fit other
        than rank 0 return no folds.

    Raises
    ------
    TiewiseError
        If the configuration, the data, the device or the run folder do not allow the fit.
    """
    if STDIN in (*config.data.data, *config.data.extra_data):
        raise ConfigError(
            "--data is -, standard input; expected a file, because a resumed fit and the report "
            "read the data again. Save it first: tiewise convert - --out pairs.parquet"
        )
    _check_request(config, folds, resume=resume, overwrite=overwrite, init_from=init_from)
    fit_fold = _choose_fit(config)
    rows = load_training_rows(
        config.data, fallback="hub" if config.train.device == "cuda" else "sample"
    )
    _check_labels(rows.table, folds)
    run = name_run(artifacts_dir, config, name=name)
    fitted = []
    for number, fold in enumerate(folds, start=1):
        folder, clock = run.fold(fold), FoldClock(fold, len(folds) - number)
        with begin_fold(run, fold, rows.save):
            if overwrite:
                clear_fold(run, fold)
            train, held_out = rows.of(fold), rows.held_out(fold)
            counts = rows.count_leaks(fold, train, init_from)
            cache_dir = artifacts_dir / "cache"
            task = FoldTask(
                folder, fold, rows.digest, cache_dir, resume, init_from, clock, rows.has_ties
            )
            predictions = fit_fold(config, train, held_out, task)
            if predictions is None:  # finished before, or not the first process of a launch
                continue
            if not rows.has_ties:
                predictions = drop_ties(predictions)
            known = rows.table[rows.table["fold"] == fold].reset_index(drop=True)
            oof = pd.concat([known[["id", "fold", "label", "group"]], predictions], axis=1)
            scores = score_run(run, oof, counts=counts)
            write_fold_card(run, fold, oof, scores)
            finish_fold(folder, oof, scores.to_dict())
        fitted.append(fold)
        clock.end()
    return run, fitted


def _choose_fit(config: RunConfig) -> FitFold:
    """Return the function that fits one fold, after checking that it can run here."""
    if config.model.backbone == BASELINE:
        from tiewise.features.feature_model import fit_feature_fold

        return fit_feature_fold
    try:
        from tiewise.training.fit import fit_fold, require_device
    except ModuleNotFoundError as error:
        message = missing_extra(config.model.backbone, error)
        raise DeviceError(
            f"{message} Without it: tiewise fit --preset baseline. Nothing was downloaded."
        ) from error
    require_device(config)
    return fit_fold


def _check_request(
    config: RunConfig,
    folds: Sequence[int],
    *,
    resume: bool,
    overwrite: bool,
    init_from: Path | None,
) -> None:
    check_config(config)
    n_splits = config.data.n_splits
    for fold in folds:
        if not 0 <= fold < n_splits:
            raise FoldError(f"--fold is {fold}; expected 0 to {n_splits - 1} (--n-splits).")
    if resume and overwrite:
        raise ConfigError("--resume and --overwrite contradict each other; give one of them.")
    if config.model.backbone == BASELINE:
        if init_from is not None:
            raise ConfigError("--init-from does not apply to the feature model; leave it out.")
        warn_ignored_options(config)


def warn_ignored_options(config: RunConfig) -> None:
    """Log a warning that names the changed fields which the feature model does not read."""
    used, preset, given = fields_in_use(config), load_preset(BASELINE).to_dict(), config.to_dict()
    ignored = [
        f"--{name.replace('_', '-')}"
        for section in ("template", "model", "train", "predict")
        for name, value in given[section].items()
        if name not in used.get(section, ()) and value != preset[section][name]
    ]
    if ignored:
        _log.warning("The feature model ignores %s.", ", ".join(ignored))


def _check_labels(table: pd.DataFrame, folds: Sequence[int]) -> None:
    """Check that every fold can be scored."""
    labelled = set(table.loc[table["label"].notna(), "fold"])
    if unlabelled := [fold for fold in folds if fold not in labelled]:
        raise FoldError(
            f"Fold {unlabelled[0]} holds out no row with a winner; at least one is needed to score "
            "it. Name files with winners with --data, and files that have soft labels only with "
            "--extra-data."
        )
