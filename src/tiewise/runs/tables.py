"""What a run folder says: its data, its folds, and predictions with their scores.

A table is read only after it was compared with the digest that the JSON file beside it states.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from tiewise.data.labels import LOGIT_COLUMNS, PROB_COLUMNS
from tiewise.errors import RunError
from tiewise.files import digest_file, write_json, write_parquet
from tiewise.runs.folder import FoldFolder, RunFolder, read_object


def save_folds(run: RunFolder, table: pd.DataFrame) -> None:
    """Write ``folds.parquet``, or check that it says the same.

    Raises
    ------
    RunError
        When the run's folds were made from other rows.
    """
    if run.folds_path.is_file() and run.is_begun:
        if not read_folds(run)[["id", "fold"]].equals(table[["id", "fold"]]):
            raise RunError(
                f"{run.folds_path} deals other rows to the folds than the data given now. Take "
                "another --run name, or give the data the run was begun with."
            )
        return
    write_parquet(run.folds_path, table)


def save_data(run: RunFolder, described: dict[str, Any]) -> None:
    """Write ``data.json``, or check that it names the same data.

    Raises
    ------
    RunError
        When the run was begun with other data.
    """
    if run.data_path.is_file() and run.is_begun:
        before, now = read_data(run)["digest"], described["digest"]
        if before != now:
            raise RunError(
                f"{run.path} was begun with other data: their digest was {before} and is now "
                f"{now}. Take another --run name, or give the data the run was begun with."
            )
        return
    witnesses = {"folds_sha256": digest_file(run.folds_path)}
    if run.rows_path.is_file():
        witnesses["rows_sha256"] = digest_file(run.rows_path)
    write_json(run.data_path, described | witnesses)


def read_data(run: RunFolder) -> dict[str, Any]:
    """Return what ``data.json`` says: digest, sources and counts of the run's data."""
    data = read_object(run.data_path)
    if not {"digest", "counts"} <= set(data):
        raise RunError(f"{run.data_path} does not say which data the run was fitted on.")
    return data


def pairs_digest(described: Mapping[str, Any]) -> str:
    """Return the digest of the rows that are dealt to folds, of what ``data.json`` says.

    Extra rows, which are only learned from, do not count: runs that differ in them alone have the
    same folds.
    """
    return str(described.get("pairs_digest", described["digest"]))


def read_folds(run: RunFolder) -> pd.DataFrame:
    """Return the table of folds: id, fold, label, group and lengths, a line per row of the data."""
    return _read_table(run.folds_path, run.data_path, "folds_sha256")


def read_rows(run: RunFolder) -> pd.DataFrame:
    """Return the table of pairs that the run learned from, and which folds have not seen them."""
    return _read_table(run.rows_path, run.data_path, "rows_sha256")


def read_fold_oof(fold: FoldFolder) -> pd.DataFrame:
    """Return the predictions for the rows that a finished fold held out."""
    return _read_table(fold.oof_path, fold.scores_path, "oof_sha256")


def read_oof(run: RunFolder) -> pd.DataFrame:
    """Return the out-of-fold predictions of all finished folds.

    They are joined in ``oof.parquet`` where the run was scored since its last fold was finished;
    else, after a fit that was stopped, they are those that the folds hold.

    Raises
    ------
    RunError
        When no fold is finished, or a file is damaged.
    """
    finished = run.finished_folds()
    if not finished or is_joined(run):
        return _read_table(run.oof_path, run.scores_path, "oof_sha256")
    return join_folds(run, finished)


def table_logits(table: pd.DataFrame) -> npt.NDArray[np.float64]:
    """Return the logits of a table of predictions, shape (n, 3); log-probabilities without any."""
    if set(LOGIT_COLUMNS) <= set(table):
        return np.asarray(table[LOGIT_COLUMNS].to_numpy(np.float64))
    return np.asarray(np.log(table[PROB_COLUMNS].to_numpy(np.float64)))


def digest_predictions(runs: Sequence[RunFolder]) -> dict[str, str]:
    """Return the SHA-256 of each run's out-of-fold predictions, by its name."""
    return {run.name: digest_file(run.oof_path) for run in runs}


def check_predictions(runs: Sequence[RunFolder], digests: Mapping[str, str]) -> None:
    """Check that the members of a blend were not fitted again since it was made.

    Raises
    ------
    RunError
        When the predictions of one are missing or have another digest.
    """
    for run in runs:
        if not run.oof_path.is_file() or digest_file(run.oof_path) != digests.get(run.name):
            raise RunError(
                f"{run.path} has changed since it became a member of a blend: its out-of-fold "
                "predictions have another digest. Restore it, or blend the runs again."
            )


def is_joined(run: RunFolder) -> bool:
    """Return whether ``oof.parquet`` speaks of exactly the folds that are finished now."""
    if not run.oof_path.is_file():
        return False
    joined = _read_table(run.oof_path, run.scores_path, "oof_sha256")
    return set(joined["fold"]) == set(run.finished_folds())


def join_folds(run: RunFolder, folds: Sequence[int]) -> pd.DataFrame:
    """Return the predictions that some finished folds hold, one fold after the other."""
    return pd.concat([read_fold_oof(run.fold(fold)) for fold in folds], ignore_index=True)


def delete_scores(run: RunFolder) -> None:
    """Remove the joined predictions and their scores: a fold they speak of is fitted anew."""
    for path in (run.scores_path, run.oof_path):
        path.unlink(missing_ok=True)


def save_scored(place: FoldFolder | RunFolder, oof: pd.DataFrame, scores: dict[str, Any]) -> None:
    """Write predictions and, last, their scores with the digest of the predictions.

    Predictions that stand there already are not written again: another version of pandas would make
    another file of them, and calibrations and blends know the file by its digest.
    """
    if not _holds(place.oof_path, oof):
        place.scores_path.unlink(missing_ok=True)  # they would witness against the new predictions
        write_parquet(place.oof_path, oof)
    write_json(place.scores_path, scores | {"oof_sha256": digest_file(place.oof_path)})


def _holds(path: Path, table: pd.DataFrame) -> bool:
    try:
        return bool(pd.read_parquet(path).equals(table))
    except (OSError, ValueError):  # missing or damaged
        return False


def _read_table(path: Path, witness_path: Path, name: str) -> pd.DataFrame:
    """Read a table after comparing it with the digest that the file beside it states."""
    if not path.is_file():
        raise RunError(f"{path} is missing: no fold of this run is finished yet. Run tiewise fit.")
    stated = read_object(witness_path).get(name) if witness_path.is_file() else None
    if stated is not None and digest_file(path) != stated:
        raise RunError(f"{path} is damaged: {witness_path.name} states another SHA-256. Fit again.")
    try:
        return pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read: {error}. Fit the run again.") from error
