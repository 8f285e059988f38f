"""What each fold of a run learns from: the rows it does not hold out, and extra rows.

Three things are settled here for all folds at once, said in the log and counted in ``data.json``:
which extra rows a fold must not see, which sources teach A against B alone, and whether a teacher's
soft labels may be learned from.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from tiewise.config.run_config import DataConfig
from tiewise.data.extra_data import find_leaking_rows
from tiewise.data.folds import split
from tiewise.data.formats import align_pairs, name_files, read_many
from tiewise.data.table import pair_digests
from tiewise.data.targets import choose_no_tie_sources, mark_no_tie_rows
from tiewise.errors import PairsError
from tiewise.files import digest_file, digest_json
from tiewise.runs.dataset import Dataset, find_data
from tiewise.runs.folder import RunFolder
from tiewise.runs.teachers import (
    Teacher,
    find_leaks,
    find_seen,
    find_seen_by_start,
    read_teachers,
    save_seen,
)

LEAKS = "n_held_out_seen_by_teacher"
START_LEAKS = "n_held_out_seen_by_start"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingRows:
    """What a run learns from, fold by fold.

    pairs, folds
        The n rows that are held out in turn, and where: shape (n,).
    extra
        The m rows that are only learned from.
    is_barred
        Which extra rows a fold may not see: shape (m, n_splits).
    described
        What ``data.json`` says of all this.
    teachers
        Whose soft labels there are.
    """

    pairs: pd.DataFrame
    folds: npt.NDArray[np.int64]
    extra: pd.DataFrame
    is_barred: npt.NDArray[np.bool_]
    described: dict[str, Any]
    teachers: dict[str, Teacher]

    @property
    def digest(self) -> str:
        """Digest of everything that may be learned from."""
        return str(self.described["digest"])

    def of(self, fold: int) -> pd.DataFrame:
        """Return the rows to learn from where `fold` is held out; extra rows stand last."""
        train = self.pairs.iloc[split(self.folds, fold)[0]]
        if self.extra.empty:
            return train
        is_barred = self.is_barred[:, fold]
        _log.info(
            "fold %d: %d extra rows to learn from; %d left out, their conversation is held out",
            *(fold, (~is_barred).sum(), is_barred.sum()),
        )
        return pd.concat(align_pairs([train, self.extra[~is_barred]]), ignore_index=True)

    def count_leaks(self, fold: int, train: pd.DataFrame) -> dict[str, int]:
        """Count the rows held out in `fold` that the teacher of its soft labels has learned from.

        Nothing is counted where there is no teacher. Through the labels of other rows it hands on
        what it learned: scores on these rows flatter the student.
        """
        if not self.teachers:
            return {}
        held_out = self.pairs.iloc[split(self.folds, fold)[1]]
        n_leaks = int(find_leaks(held_out, train, self.teachers).sum())
        if n_leaks:
            _log.warning(
                "fold %d: the teacher has learned from %d of %d held-out rows; scores on them "
                "flatter the student. Label with tiewise label --folds %d to avoid it.",
                *(fold, n_leaks, len(held_out), fold),
            )
        return {LEAKS: n_leaks}

    def count_start_leaks(self, fold: int, start: Path | None) -> dict[str, int]:
        """Count the rows held out in `fold` that the fold a fit starts from has learned from.

        Nothing is counted where a fit starts afresh, or where it is not known what was learned.
        """
        if start is None:
            return {}
        held_out = self.pairs.iloc[split(self.folds, fold)[1]]
        is_seen = find_seen_by_start(start, held_out)
        if is_seen is None:
            _log.warning("fold %d: what %s has learned from is not known.", fold, start)
            return {}
        if is_seen.any():
            _log.warning(
                "fold %d: %s has learned from %d of %d held-out rows; scores on them flatter this "
                "fit. Start each fold from the same fold of a run over the same folds.",
                *(fold, start, is_seen.sum(), len(held_out)),
            )
        return {START_LEAKS: int(is_seen.sum())}

    def save_seen(self, run: RunFolder) -> None:
        """Note in the run's folder which folds have not seen which rows."""
        own = np.eye(self.is_barred.shape[1], dtype=bool)[self.folds]
        rows = pd.concat([self.pairs, self.extra])
        save_seen(run, rows, np.concatenate([own, self.is_barred]))


def gather_training_rows(
    config: DataConfig, dataset: Dataset, folds: npt.NDArray[np.int64]
) -> TrainingRows:
    """Read the extra files and settle what each fold may learn from.

    Parameters
    ----------
    config
        Names the extra files and the sources without ties.
    dataset, folds
        The rows that are held out in turn, and where.

    Raises
    ------
    PairsError
        When an extra file cannot be read.
    PairsError
        When a teacher was trained on rows that it gives soft labels for.
    ConfigError
        When a source without ties is named that there is not, or that has ties.
    """
    extra, lines = _read_extra(config, dataset.pairs)
    everything = pd.concat(align_pairs([dataset.pairs, extra]), ignore_index=True)
    teachers = read_teachers([*find_data(config), *config.extra_data])
    counts = _check_teachers(everything, teachers)
    sources = choose_no_tie_sources(everything, config.no_tie_sources)
    is_barred = find_leaking_rows(dataset.pairs, folds, extra, config.n_splits)
    pairs, extra = (mark_no_tie_rows(table, sources) for table in (dataset.pairs, extra))
    described = dataset.describe()
    if lines:
        described |= {
            "digest": digest_json([dataset.digest, *lines]),
            "pairs_digest": dataset.digest,
            "extra_sources": lines,
        }
    counts |= _count_repeated(dataset.pairs, extra)
    counts |= _count_extra(is_barred) | _count_no_tie_rows(sources, pairs, extra)
    described |= {"counts": dataset.counts | counts}
    return TrainingRows(pairs, folds, extra, is_barred, described, teachers)


def _read_extra(config: DataConfig, pairs: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Read the extra rows, none where no file is named; and a line a file, its name and digest."""
    paths = config.extra_data
    if not paths:
        return pairs.head(0), []
    extra = read_many(paths, format=config.data_format, on_error=config.on_error)
    digests = zip(name_files(paths), map(digest_file, paths), strict=True)
    return extra, [f"{name} {digest}" for name, digest in digests]


def _check_teachers(pairs: pd.DataFrame, teachers: dict[str, Teacher]) -> dict[str, int]:
    """Refuse soft labels that repeat what the teacher has seen; count a teacher's soft labels."""
    if "teacher" not in pairs.columns or pairs["teacher"].isna().all():
        return {}
    is_seen = find_seen(pairs, teachers)
    if is_seen.any():
        named = ", ".join(f"id={name}" for name in pairs["id"][is_seen][:3])
        raise PairsError(
            f"{is_seen.sum()} of {len(pairs)} rows carry soft labels of a teacher that was trained "
            f"on them ({named}). Label them again with tiewise label, which uses only folds that "
            "have not seen a row."
        )
    return {"n_labelled_by_teacher": int(pairs["teacher"].notna().sum())}


def _count_repeated(pairs: pd.DataFrame, extra: pd.DataFrame) -> dict[str, int]:
    """Count the extra rows that stand among the data too, in either order of the responses."""
    n_repeated = int(np.isin(pair_digests(extra), pair_digests(pairs)).sum()) if len(extra) else 0
    if not n_repeated:
        return {}
    _log.warning("%d extra rows repeat rows of the data: where both are learned from, the pair "
                 "counts twice.", n_repeated)  # fmt: skip
    return {"n_extra_repeated": n_repeated}


def _count_extra(is_barred: npt.NDArray[np.bool_]) -> dict[str, int]:
    if not len(is_barred):
        return {}
    by_fold = is_barred.sum(axis=0)
    names = (f"n_extra_left_out_of_fold{fold}" for fold in range(len(by_fold)))
    return {"n_extra": len(is_barred), **dict(zip(names, by_fold.tolist(), strict=True))}


def _count_no_tie_rows(sources: list[str], *tables: pd.DataFrame) -> dict[str, int]:
    if not sources:
        return {}
    n_rows = sum(int(table["is_no_tie_row"].sum()) for table in tables)
    _log.info(
        "%d rows teach A against B alone: no vote of %s is a tie (--no-tie-sources)",
        *(n_rows, ", ".join(name or "rows without a source" for name in sources)),
    )
    return {"n_no_tie_rows": n_rows}
