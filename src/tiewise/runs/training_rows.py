"""Training rows of each fold: the rows that it does not hold out, and extra rows.

Three decisions are made here for all folds at once, logged, and counted in ``data.json``: the extra
rows that a fold must not see, the sources that teach A against B only, and whether a teacher's soft
labels may be used.
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
from tiewise.runs.dataset import Dataset, Fallback, assign_folds, find_data, load_dataset
from tiewise.runs.environment import is_first_process
from tiewise.runs.folder import RunFolder
from tiewise.runs.tables import save_data, save_folds
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
_LEAK_WARNINGS = (
    (
        START_LEAKS,
        "the model it starts from",
        "Start each fold from the same fold of a run over the same folds.",
    ),
    (LEAKS, "the teacher", "Label each fold with the teacher's same fold to avoid it."),
)
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingRows:
    """The rows of a run, fold by fold.

    pairs
        The n rows that are each held out in one fold.
    table
        The table of folds, n rows (:func:`tiewise.runs.dataset.assign_folds`).
    extra
        The m rows that are only trained on.
    is_barred
        Extra rows that a fold must not see: bool, shape (m, n_splits).
    described
        The content of ``data.json``.
    teachers
        The teachers of the soft labels.
    """

    pairs: pd.DataFrame
    table: pd.DataFrame
    extra: pd.DataFrame
    is_barred: npt.NDArray[np.bool_]
    described: dict[str, Any]
    teachers: dict[str, Teacher]

    @property
    def digest(self) -> str:
        """Digest of all rows."""
        return str(self.described["digest"])

    @property
    def folds(self) -> npt.NDArray[np.int64]:
        """Fold of each of the n rows, shape (n,)."""
        return self.table["fold"].to_numpy(np.int64)

    def held_out_idx(self, fold: int) -> npt.NDArray[np.int64]:
        """Return the positions of the rows that `fold` holds out."""
        return split(self.folds, fold)[1]

    def held_out(self, fold: int) -> pd.DataFrame:
        """Return the rows that `fold` holds out."""
        return self.pairs.iloc[self.held_out_idx(fold)]

    def of(self, fold: int) -> pd.DataFrame:
        """Return the rows to train on when `fold` is held out; extra rows come last."""
        train_idx, held_out_idx = split(self.folds, fold)
        train = self.pairs.iloc[train_idx]
        _log.info("fold %d: %d training rows, %d held out", fold, len(train), len(held_out_idx))
        if self.extra.empty:
            return train
        is_barred = self.is_barred[:, fold]
        n_barred = int(is_barred.sum())
        _log.info(
            "fold %d: %d extra training rows; %d skipped, because their prompt group is held out",
            fold,
            len(is_barred) - n_barred,
            n_barred,
        )
        return pd.concat(align_pairs([train, self.extra[~is_barred]]), ignore_index=True)

    def count_leaks(
        self, fold: int, train: pd.DataFrame, init_from: Path | None = None
    ) -> dict[str, int]:
        """Count training rows, and held-out rows that earlier models of this fit were trained on.

        Parameters
        ----------
        fold
            The fold that is held out.
        train
            Its training rows.
        init_from
            Folder of the fold that the fit starts from.

        Returns
        -------
        dict
            `n_learned_from`; `n_held_out_seen_by_teacher` if there are soft labels of a teacher;
            `n_held_out_seen_by_start` if the fit starts from a fold with known training rows.
            Scores on rows that were seen are too good, so both are also logged as warnings.
        """
        held_out = self.held_out(fold)
        counts = {"n_learned_from": len(train)}
        if init_from is not None:
            is_seen = find_seen_by_start(init_from, held_out)
            if is_seen is None:
                _log.warning("fold %d: the training rows of %s are not known.", fold, init_from)
            else:
                counts[START_LEAKS] = int(is_seen.sum())
        if self.teachers:
            counts[LEAKS] = int(find_leaks(held_out, train, self.teachers).sum())
        for name, source, advice in _LEAK_WARNINGS:
            if counts.get(name):
                _log.warning(
                    "fold %d: %s was trained on %d of %d held-out rows; scores on them are too "
                    "good. %s",
                    fold,
                    source,
                    counts[name],
                    len(held_out),
                    advice,
                )
        return counts

    def save(self, run: RunFolder) -> None:
        """Write the folds, the rows each fold has not seen, and the description of the data.

        Raises
        ------
        RunError
            If the run was started with other data or folds.
        """
        if not is_first_process():
            return
        save_folds(run, self.table)
        own = np.eye(self.is_barred.shape[1], dtype=bool)[self.folds]
        rows = pd.concat([self.pairs, self.extra])
        save_seen(run, rows, np.concatenate([own, self.is_barred]))
        save_data(run, self.described)


def load_training_rows(config: DataConfig, *, fallback: Fallback = "sample") -> TrainingRows:
    """Read the rows of a run, assign them to folds, and gather the training rows of each fold.

    Parameters
    ----------
    config
        Files, formats and folds.
    fallback
        Data to use if no file is named or found.

    Raises
    ------
    PairsError, FoldError, ConfigError
        If the data cannot be read or split.
    """
    dataset = load_dataset(config, fallback=fallback)
    return gather_training_rows(config, dataset, assign_folds(dataset, config))


def gather_training_rows(config: DataConfig, dataset: Dataset, table: pd.DataFrame) -> TrainingRows:
    """Read the extra files and decide the training rows of each fold.

    Parameters
    ----------
    config
        Names the extra files and the sources without ties.
    dataset, table
        The rows that are held out, and their table of folds.

    Raises
    ------
    PairsError
        If an extra file cannot be read, or a teacher was trained on rows that it labels.
    ConfigError
        If a source without ties is named that does not exist or has ties.
    """
    folds = table["fold"].to_numpy()
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
    return TrainingRows(pairs, table, extra, is_barred, described, teachers)


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
