"""A run's probabilities as soft labels for others to learn from."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from tiewise.data.formats.parquet import write_parquet
from tiewise.data.labels import PROB_COLUMNS
from tiewise.errors import PairsError, RunError
from tiewise.files import refuse_existing
from tiewise.judges.predictors import PredictOptions, open_predictor
from tiewise.runs.folder import RunFolder
from tiewise.runs.teachers import Teacher, open_teacher

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Labelled:
    """How many rows were labelled by whom.

    n
        Rows written.
    n_out_of_fold
        Of them those the teacher was trained on, labelled by the folds that have not seen them.
    n_seen
        Rows that every fold was trained on: left out, unless they were asked for.
    """

    n: int
    n_out_of_fold: int
    n_seen: int

    def to_dict(self) -> dict[str, int]:
        """Return the counts for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        return (
            f"{self.n} rows labelled, {self.n_out_of_fold} of them out of fold; "
            f"{self.n_seen} rows were seen by every fold"
        )


def label_pairs(
    run: RunFolder,
    pairs: pd.DataFrame,
    out: Path,
    *,
    cache_dir: Path,
    folds: Sequence[int] | None = None,
    keep_seen: bool = False,
    overwrite: bool = False,
) -> Labelled:
    """Write pairs with a run's probabilities as soft labels, and with whose they are.

    Each row is labelled by the mean of the folds that were not trained on it. Labels that the pairs
    have are kept.

    Parameters
    ----------
    run
        The teacher.
    pairs
        A pairs table; its soft labels, if any, are replaced.
    out
        The parquet file to write.
    cache_dir
        Where converted backbones are cached.
    folds
        Which folds may speak; all finished ones when None.
    keep_seen
        Label rows that every fold was trained on by all of them; they are left out otherwise.
    overwrite
        Replace `out` if it stands.

    Raises
    ------
    RunError
        When a fold is not finished, or which rows the run was trained on is not known.
    PairsError
        When `out` is no parquet file, or no row is left to label.
    """
    if Path(out).suffix != ".parquet":
        raise PairsError(f"{out}: expected a file that ends in .parquet, which keeps the teacher")
    refuse_existing(out, overwrite=overwrite)
    chosen = _check_folds(run, folds)
    teacher = open_teacher(run, chosen)
    unseen_by_fold = teacher.find_unseen(pairs)
    unseen = unseen_by_fold[:, chosen]
    is_seen = ~unseen.any(axis=1)
    unseen[is_seen] = keep_seen
    kept = np.flatnonzero(unseen.any(axis=1))
    labelled, speaking = pairs.iloc[kept].reset_index(drop=True), unseen[kept]
    if labelled.empty:
        raise PairsError(
            f"{run.name} was trained on all {len(pairs)} rows; give others, or --keep-seen"
        )
    labelled = _label(run, teacher, labelled, speaking, np.array(chosen), cache_dir)
    write_parquet(labelled, Path(out), teacher=teacher.to_json())
    n_out_of_fold = int((~unseen_by_fold.all(axis=1) & ~is_seen).sum())
    return Labelled(len(labelled), n_out_of_fold, int(is_seen.sum()))


def _check_folds(run: RunFolder, folds: Sequence[int] | None) -> list[int]:
    finished = run.finished_folds()
    chosen = finished if folds is None else sorted(set(folds))
    unfinished = sorted(set(chosen) - set(finished))
    if unfinished or not chosen:
        which = f"fold {unfinished[0]} is not" if unfinished else "no fold is"
        raise RunError(f"{run.path}: {which} finished. Go on with tiewise fit --resume.")
    return chosen


def _label(
    run: RunFolder,
    teacher: Teacher,
    pairs: pd.DataFrame,
    speaking: npt.NDArray[np.bool_],
    folds: npt.NDArray[np.int64],
    cache_dir: Path,
) -> pd.DataFrame:
    """Let those folds label each row that speak for it, rows with the same folds together."""
    probs = np.empty((len(pairs), 3))
    signatures = np.empty(len(pairs), dtype=object)
    kinds, kind = np.unique(speaking, axis=0, return_inverse=True)
    for number, speakers in enumerate(kinds):
        rows, own = np.flatnonzero(kind.ravel() == number), folds[speakers].tolist()
        _log.info("%d rows are labelled by fold %s", len(rows), ", ".join(map(str, own)))
        predict = open_predictor(run, cache_dir=cache_dir, folds=own)
        table = predict(pairs.iloc[rows].reset_index(drop=True), PredictOptions())
        probs[rows] = table[PROB_COLUMNS].to_numpy()
        signatures[rows] = teacher.sign(own)
    return pairs.assign(
        **dict(zip(PROB_COLUMNS, probs.T, strict=True)),
        teacher=pd.array(signatures, dtype="string"),
    )
