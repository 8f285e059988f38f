"""Tables of a run folder: its data, its folds, and predictions with their scores.

The JSON file next to a table states its SHA-256, which is compared before the table is read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from tiewise.data.labels import LOGIT_COLUMNS, PROB_COLUMNS, without_ties
from tiewise.errors import RunError
from tiewise.files import digest_file, write_json, write_parquet
from tiewise.runs.folder import RunFolder, ScoredFolder, as_run, read_object

_SMALLEST_PROB = 1e-12
_OTHER_DATA = "Choose another --run name, or give the data that the run was started with."


def save_folds(run: RunFolder, table: pd.DataFrame) -> None:
    """Write ``folds.parquet``; RunError when the run has other folds."""
    if not run.folds_path.is_file():
        write_parquet(run.folds_path, table)
    elif not read_folds(run)[["id", "fold"]].equals(table[["id", "fold"]]):
        raise RunError(f"{run.folds_path} has other rows or folds than these data. {_OTHER_DATA}")


def save_data(run: RunFolder, description: dict[str, Any]) -> None:
    """Write ``data.json``; RunError when the run was started with other data."""
    if not run.data_path.is_file():
        tables = {"folds_sha256": run.folds_path, "rows_sha256": run.rows_path}
        digests = {name: digest_file(path) for name, path in tables.items() if path.is_file()}
        write_json(run.data_path, description | digests)
        return
    before, now = read_data(run)["digest"], description["digest"]
    if before != now:
        raise RunError(
            f"{run.path} was started with other data: their SHA-256 was {before} and is now {now}. "
            f"{_OTHER_DATA}"
        )


def read_data(run: RunFolder) -> dict[str, Any]:
    """Return the description in ``data.json``: SHA-256, sources and counts of the data."""
    description = read_object(run.data_path)
    if missing := {"digest", "counts", "sources"} - set(description):
        raise RunError(f"{run.data_path} is damaged: the key {min(missing)} is missing.")
    return description


def pairs_digest(description: Mapping[str, Any]) -> str:
    """Return the SHA-256 of the rows that are in folds, extra rows not counted."""
    return str(description.get("pairs_digest", description["digest"]))


def has_ties(run: RunFolder) -> bool:
    """Return whether ties are possible in the data of a run."""
    return bool(read_data(run).get("has_ties", True)) if run.data_path.is_file() else True


def drop_ties(table: pd.DataFrame) -> pd.DataFrame:
    """Return predictions, in each order that they have, for pairs that cannot be a tie.

    Logits become log-probabilities, that of a tie -27.6 (1e-12).
    """
    changed: dict[str, Any] = {}
    for suffix in ("", "_given", "_swapped"):
        columns = [f"{name}{suffix}" for name in PROB_COLUMNS]
        if set(columns) <= set(table):
            probs = without_ties(table[columns])
            changed |= dict(zip(columns, probs.T, strict=True))
            if not suffix and set(LOGIT_COLUMNS) <= set(table):
                logits = np.log(np.clip(probs, _SMALLEST_PROB, 1.0))
                changed |= dict(zip(LOGIT_COLUMNS, logits.T, strict=True))
    return table.assign(**changed)


def read_folds(run: str | Path | RunFolder, artifacts: str | Path | None = None) -> pd.DataFrame:
    """Return the fold of each row of a run's data, in the order of the data.

    Parameters
    ----------
    run
        A run, its name, or the path of its folder.
    artifacts
        Folder of the runs; None means the environment variable ``TIEWISE_ARTIFACTS``, else
        ``artifacts``.

    Returns
    -------
    DataFrame
        A row per pair: ``id``, ``fold`` (the fold that holds the pair out, from 0), ``label``
        (0 A, 1 B, 2 tie), ``group`` (prompt group), and ``n_chars_prompt``, ``n_chars_a``,
        ``n_chars_b``, the lengths of the texts in characters.

    Raises
    ------
    RunError
        If there is no such run, or the file is damaged.
    """
    opened = as_run(run, artifacts)
    return _read_table(opened.folds_path, opened.data_path)


def read_rows(run: RunFolder) -> pd.DataFrame:
    """Return ``rows.parquet``: which folds are not trained on a pair, for each pair."""
    return _read_table(run.rows_path, run.data_path)


def read_fold_oof(fold: ScoredFolder) -> pd.DataFrame:
    """Return the predictions of the held-out rows of a finished fold."""
    return _read_table(fold.oof_path, fold.scores_path)


def read_oof(run: str | Path | RunFolder, artifacts: str | Path | None = None) -> pd.DataFrame:
    """Return the out-of-fold predictions of all finished folds, in the order of the data.

    Parameters
    ----------
    run, artifacts
        As in :func:`tiewise.read_folds`.

    Returns
    -------
    DataFrame
        A row per pair of a finished fold: ``id``, ``fold``, ``label`` (0 A, 1 B, 2 tie), ``group``
        (prompt group), ``prob_a``, ``prob_b``, ``prob_tie`` (in [0, 1], they sum to 1),
        ``logit_a``, ``logit_b``, ``logit_tie``; of a language model that scored both orders also
        ``prob_*_given`` and ``prob_*_swapped``, both in A and B of the pair, and ``n_tokens``,
        ``n_truncated``.

    Raises
    ------
    RunError
        If there is no such run, no fold is finished, or a file is damaged.
    """
    opened = as_run(run, artifacts)
    finished = opened.finished_folds()
    opened.check_folds(finished)
    if not finished or is_joined(opened):
        table = _read_table(opened.oof_path, opened.scores_path)
    else:
        table = join_folds(opened, finished)
    positions = pd.Index(read_folds(opened)["id"]).get_indexer(pd.Index(table["id"]))
    return table.iloc[np.argsort(positions, kind="stable")].reset_index(drop=True)


def join_folds(run: RunFolder, folds: Sequence[int]) -> pd.DataFrame:
    """Return the predictions of some finished folds as one table."""
    return pd.concat([read_fold_oof(run.fold(fold)) for fold in folds], ignore_index=True)


def is_joined(run: RunFolder) -> bool:
    """Return whether the run's ``oof.parquet`` has exactly the folds that are finished now."""
    if not run.oof_path.is_file():
        return False
    return set(_read_table(run.oof_path, run.scores_path)["fold"]) == set(run.finished_folds())


def log_probs(table: pd.DataFrame) -> npt.NDArray[np.float64]:
    """Return the log-probabilities (n, 3) of predictions, at least that of 1e-12: finite."""
    probs = table[PROB_COLUMNS].to_numpy(np.float64)
    return np.asarray(np.log(np.clip(probs, _SMALLEST_PROB, 1.0)))


def table_logits(table: pd.DataFrame) -> npt.NDArray[np.float64]:
    """Return the logits of a table of predictions, or finite log-probabilities, shape (n, 3)."""
    if set(LOGIT_COLUMNS) <= set(table):
        return np.asarray(table[LOGIT_COLUMNS].to_numpy(np.float64))
    return log_probs(table)


def digest_predictions(runs: Sequence[RunFolder]) -> dict[str, str]:
    """Return the SHA-256 of each run's out-of-fold predictions, by its name."""
    return {run.name: digest_file(run.oof_path) for run in runs}


def check_predictions(runs: Sequence[RunFolder], digests: Mapping[str, str]) -> None:
    """Raise RunError when a member of a blend was fitted again since the blend was made."""
    for run in runs:
        if not run.oof_path.is_file() or digest_file(run.oof_path) != digests.get(run.name):
            raise RunError(
                f"{run.path} has changed since it became a member of a blend: its out-of-fold "
                "predictions have another SHA-256. Restore it, or blend the runs again."
            )


def save_scored(folder: ScoredFolder, oof: pd.DataFrame, scores: dict[str, Any]) -> None:
    """Write predictions and, last, their scores with the SHA-256 of the predictions.

    A file with the same predictions is kept: another version of pandas would write other bytes, and
    calibrations and blends refer to the file by its SHA-256.
    """
    if not _has_table(folder.oof_path, oof):
        folder.scores_path.unlink(missing_ok=True)  # they state the SHA-256 of the old file
        write_parquet(folder.oof_path, oof)
    write_json(folder.scores_path, scores | {"oof_sha256": digest_file(folder.oof_path)})


def _has_table(path: Path, table: pd.DataFrame) -> bool:
    try:
        return bool(pd.read_parquet(path).equals(table))
    except (OSError, ValueError):  # missing or damaged
        return False


def _read_table(path: Path, json_path: Path) -> pd.DataFrame:
    """Return a table after comparing it with the SHA-256 in the JSON file next to it."""
    if not path.is_file():
        raise RunError(f"{path} is missing. Continue with tiewise fit --resume, or fit again.")
    key = f"{path.stem}_sha256"
    if json_path.is_file() and read_object(json_path).get(key) != digest_file(path):
        raise RunError(f"{path} is damaged: {json_path.name} states another SHA-256. Fit again.")
    try:
        return pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read: {error}. Fit the run again.") from error


def read_shared(runs: Sequence[RunFolder]) -> list[pd.DataFrame]:
    """Return the predictions of several runs for the rows that all predicted, in one order.

    Ids are compared as text: those of one run are text if any of its ids is. RunError is raised
    when they share no row, or their labels differ.
    """
    tables = [read_oof(run) for run in runs]
    tables = [table.set_index(table["id"].astype(str)).rename_axis(None) for table in tables]
    shared = tables[0].index
    for run, table in zip(runs[1:], tables[1:], strict=True):
        shared = shared[shared.isin(table.index)]
        if not len(shared):
            raise RunError(
                f"{runs[0].name} and {run.name} have no row in common. Name runs of the same data."
            )
    chosen = [table.loc[shared].reset_index(drop=True) for table in tables]
    for run, table in zip(runs[1:], chosen[1:], strict=True):
        if not chosen[0]["label"].equals(table["label"]):
            raise RunError(
                f"{runs[0].name} and {run.name} have different labels. Name runs of the same data."
            )
    return chosen
