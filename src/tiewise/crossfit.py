"""Cross-fitting: fit every requested fold and score its held-out rows.

:func:`cross_fit` is the main job of the package. The model of a fold is fitted by
:func:`tiewise.training.fit.fit_fold` (a language model, torch) or by
:func:`tiewise.features.feature_model.fit_feature_fold` (the feature model, scikit-learn); data,
folds, run folder and scores are the same for both.
"""

from __future__ import annotations

import functools
import logging
import os
import platform
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from tiewise.config import BASELINE, RunConfig, check_config, fields_in_use, load_preset
from tiewise.console import FoldClock
from tiewise.data.formats.stdin import STDIN
from tiewise.data.labels import Winner
from tiewise.errors import ConfigError, DeviceError, FoldError, RunError, missing_extra
from tiewise.files import temporary_path
from tiewise.report.card import write_fold_card
from tiewise.runs.fold_lock import FoldTask, begin_fold, clear_fold, finish_fold
from tiewise.runs.folder import RunFolder, name_run
from tiewise.runs.references import score_run
from tiewise.runs.tables import drop_ties
from tiewise.runs.training_rows import load_training_rows

if TYPE_CHECKING:
    from tiewise.cluster.ray_pool import Cluster

FitFold = Callable[[RunConfig, pd.DataFrame, pd.DataFrame, FoldTask], pd.DataFrame | None]
_PATIENCE = 6 * 3600.0
"""Seconds that a worker may fit without progress: the feature model shows none."""
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
    fit_fold = _choose_fit(config, artifacts_dir / "cache")
    run = name_run(artifacts_dir, config, name=name)
    rows = load_training_rows(
        config.data, fallback="hub" if config.train.device == "cuda" else "sample"
    )
    _check_labels(rows.table, folds)
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


def cross_fit_on(
    cluster: Cluster,
    config: RunConfig,
    folds: Sequence[int],
    artifacts_dir: Path,
    *,
    name: str | None = None,
    **options: Any,
) -> tuple[RunFolder, list[int]]:
    """Fit each fold with a worker of a cluster; the result is that of :func:`cross_fit`.

    All machines share the folders of runs and data, at the same paths. A fold whose worker dies is
    resumed by another worker. RunError names the folds that cannot be fitted, after all others.
    """
    from tiewise.cluster.ray_pool import run_tasks

    _check_request(config, folds, **options)
    run = name_run(artifacts_dir, config, name=name)
    artifacts_dir.mkdir(parents=True, exist_ok=True)
    mark = temporary_path(artifacts_dir.resolve() / "cluster")
    mark.touch()
    call = {"config": config, "artifacts_dir": artifacts_dir, "name": run.name, **options}
    make_worker = functools.partial(_open_worker, mark, Path.cwd(), sys.argv, _settings(), call)
    fitted: list[int] = []
    try:
        outcome = run_tasks(
            [_FoldRequest(fold, _begin_time(run, fold)) for fold in folds],
            make_worker,
            cluster=replace(cluster, patience=_PATIENCE),
            on_done=lambda request, done: fitted.extend(done),
            again=lambda request: replace(request, is_again=True),
            unit="fold",
        )
    finally:
        mark.unlink()
    if outcome.left_out:
        listed = [f"fold {folds[place]}: {why}" for place, why in outcome.left_out.items()]
        raise RunError(
            f"{len(listed)} of {len(folds)} folds are not fitted:\n  " + "\n  ".join(listed) + "\n"
            f"All others are kept. Continue with --resume --run {run.name}."
        )
    return run, sorted(fitted)


def _settings() -> dict[str, str]:
    """Return the variables of tiewise, without the secret of a server."""
    names = {name for name in os.environ if name.startswith("TIEWISE_")} - {"TIEWISE_TOKEN"}
    return {name: os.environ[name] for name in names}


def _begin_time(run: RunFolder, fold: int) -> int | None:
    """Return when the fingerprint of a fold was written, in ns; None if there is none."""
    path = run.fold(fold).fingerprint_path
    return path.stat().st_mtime_ns if path.is_file() else None


@dataclass(frozen=True)
class _FoldRequest:
    """A fold to fit; `begun` is when it was begun before this job, `is_again` after a first try."""

    fold: int
    begun: int | None
    is_again: bool = False

    def __str__(self) -> str:
        return f"fold {self.fold}"


@dataclass(frozen=True)
class _FoldWorker:
    """Fits folds of one run in a process of a cluster."""

    call: dict[str, Any]

    def compute(self, request: _FoldRequest) -> list[int]:
        """Fit a fold, or resume what this job began; return what :func:`cross_fit` has fitted."""
        run = name_run(self.call["artifacts_dir"], self.call["config"], name=self.call["name"])
        is_begun = request.is_again and _begin_time(run, request.fold) != request.begun
        resumed = {"resume": True, "overwrite": False} if is_begun else {}
        return cross_fit(folds=[request.fold], **self.call | resumed)[1]


def _open_worker(
    mark: Path, folder: Path, command: list[str], settings: dict[str, str], call: dict[str, Any]
) -> _FoldWorker:
    """Make a worker in the folder and with the settings of the process that asks for it."""
    if not mark.is_file():
        raise RunError(
            f"machine {platform.node()} does not have the files of {mark.parent}. A fit on a "
            "cluster needs the folders of runs and data at the same path on every machine."
        )
    os.chdir(folder)
    os.environ.update(settings)
    sys.argv = command
    return _FoldWorker(call)


def _choose_fit(config: RunConfig, cache_dir: Path) -> FitFold:
    """Return the function that fits one fold, after checking that it can run here."""
    if config.model.backbone == BASELINE:
        from tiewise.features.feature_model import fit_feature_fold

        if config.model.states is None:
            return fit_feature_fold
    try:
        from tiewise.models.states import StateReader
        from tiewise.training.fit import fit_fold, require_device
    except ModuleNotFoundError as error:
        message = missing_extra(config.model.states or config.model.backbone, error)
        raise DeviceError(
            f"{message} Without it: tiewise fit --preset baseline. Nothing was downloaded."
        ) from error
    device = require_device(config)
    if config.model.states is None:
        return fit_fold
    reader = StateReader(config.model, cache_dir=cache_dir, device=device)
    return functools.partial(fit_feature_fold, reader=reader)


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
    for name, side in {"A": Winner.A, "B": Winner.B}.items():
        if side not in set(table["label"]):
            _log.warning("Response %s never wins: check the column of the winners.", name)
