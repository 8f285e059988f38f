"""Score a run next to its reference models.

A run of the preset `baseline` is one of them if it is in the same artifacts folder and was fitted
on the same data with the same folds, so that both predicted each row without its own fold.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from tiewise.config import BASELINE
from tiewise.data.labels import PROB_COLUMNS
from tiewise.errors import TiewiseError
from tiewise.evaluation.intervals import FloatArray
from tiewise.evaluation.references import RunScores, evaluate_tables
from tiewise.files import file_lock, read_json
from tiewise.runs.folder import RunFolder, open_run
from tiewise.runs.tables import (
    join_folds,
    pairs_digest,
    read_data,
    read_folds,
    read_oof,
    save_scored,
)
from tiewise.runs.training_rows import LEAKS, START_LEAKS

_log = logging.getLogger(__name__)


def score_run(
    run: RunFolder,
    oof: pd.DataFrame,
    *,
    folds: pd.DataFrame | None = None,
    counts: Mapping[str, int] | None = None,
) -> RunScores:
    """Score predictions of a run's finished folds next to every available reference.

    `folds` is the table of folds if it has been read, and `counts` are further counts to report.
    """
    baseline, reason = predict_by_baseline(run, oof["id"])
    return evaluate_tables(
        oof,
        read_folds(run) if folds is None else folds,
        counts={**read_data(run)["counts"], **(counts or {})},
        others={} if baseline is None else {BASELINE: baseline},
        omitted={BASELINE: reason} if reason else {},
    )


def score_finished_folds(run: RunFolder) -> RunScores:
    """Join the predictions of the finished folds, score them, and write both."""
    with file_lock(run.lock_path, wait=True):
        oof, scores = _score_folds(run)
        save_scored(run, oof, scores.to_dict())
    return scores


def evaluate_finished_folds(run: RunFolder) -> RunScores:
    """Score the predictions of the finished folds; nothing is written."""
    return _score_folds(run)[1]


def _score_folds(run: RunFolder) -> tuple[pd.DataFrame, RunScores]:
    finished = run.choose_folds()
    oof = join_folds(run, finished)
    return oof, score_run(run, oof, counts=sum_leaks(run, finished))


def sum_leaks(run: RunFolder, folds: Sequence[int]) -> dict[str, int]:
    """Add up the held-out rows that teachers or starting models have seen."""
    counts = [read_json(run.fold(fold).scores_path).get("counts", {}) for fold in folds]
    found = {name: [own[name] for own in counts if name in own] for name in (LEAKS, START_LEAKS)}
    return {name: sum(leaks) for name, leaks in found.items() if leaks}


def predict_by_baseline(run: RunFolder, ids: pd.Series) -> tuple[FloatArray | None, str]:
    """Look up the out-of-fold probabilities of the feature model, (n, 3), for rows of a run.

    None comes with the reason, which is empty if the run is the feature model itself.
    """
    if _is_baseline(run):
        return None, ""
    oof = _newest_oof(run)
    if oof is None:
        return None, "not fitted on these folds; run tiewise fit --preset baseline --folds all"
    table = oof.set_index(oof["id"].astype(str))[PROB_COLUMNS].reindex(ids.astype(str))
    n_missing = int(table.isna().any(axis=1).sum())
    if n_missing:
        return None, f"its run has not predicted {n_missing:,} of these rows; fit its other folds"
    return table.to_numpy("float64"), ""


def _is_baseline(run: RunFolder) -> bool:
    """Return whether a run is the feature model, without the states of a language model."""
    return run.config.model.backbone == BASELINE and run.config.model.states is None


def _newest_oof(run: RunFolder) -> pd.DataFrame | None:
    """Return the predictions of the feature model with most finished folds, the newest of these."""
    found = [other for other in find_comparable_runs(run) if _is_baseline(other)]
    found.sort(key=lambda other: len(other.finished_folds()), reverse=True)
    for other in found:
        try:
            return read_oof(other)
        except (TiewiseError, OSError) as error:  # for example while another process writes it
            _log.warning("%s is not used as a reference: %s", other.path, error)
    return None


def find_comparable_runs(run: RunFolder) -> list[RunFolder]:
    """Return the other scored runs in the same folder with the same data and folds, newest first.

    Each of them, like `run`, predicted a row with a model that was not fitted on it.
    """
    folders = [path.parent for path in run.path.parent.glob("*/scores.json")]
    others = (_open_comparable(run, folder) for folder in folders if folder != run.path)
    found = [other for other in others if other is not None]
    return sorted(found, key=lambda other: (-_modified_at(other), other.name))


def _open_comparable(run: RunFolder, folder: Path) -> RunFolder | None:
    try:
        found = open_run(folder, run.path.parent.parent)
        return found if _folds_of(found) == _folds_of(run) else None
    except (TiewiseError, OSError):  # a damaged run does not stop the scoring of another
        return None


def _folds_of(run: RunFolder) -> tuple[str, int, int, str]:
    data = run.config.data
    return data.fold_rule, data.n_splits, data.data_seed, pairs_digest(read_data(run))


def _modified_at(run: RunFolder) -> int:
    try:
        return run.scores_path.stat().st_mtime_ns
    except FileNotFoundError:  # another process is replacing it
        return 0
