"""Load the rows of a run, and find the training rows of each fold.

A fold is fitted to the rows that it does not hold out, and to extra rows, which are never held out.
Folds are made from the data alone, so runs with and without extra rows are scored on the same rows.
A fold excludes the extra rows that share a prompt group with its held-out rows.
"""

from __future__ import annotations

import contextlib
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from tiewise.config import DataConfig
from tiewise.data.folds import derive_groups, merge_groups, split
from tiewise.data.formats import align_pairs, fetch_files, name_files, read_pairs
from tiewise.data.formats.joining import join_tables
from tiewise.data.languages import count_languages
from tiewise.data.pairs import pair_digests
from tiewise.data.targets import (
    DETECT,
    NO_TIE_COLUMN,
    choose_no_tie_sources,
    has_ties,
    mark_no_tie_rows,
)
from tiewise.errors import PairsError
from tiewise.files import digest_file, digest_json
from tiewise.runs.dataset import Fallback, assign_folds, find_data, load_dataset, locate_data
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
_LEAK_WARNINGS = {
    START_LEAKS: "fold %d: the model it starts from was trained on %d of %d held-out rows; scores "
    "on them are too good. Start fold K from fold K of a run with the same folds.",
    LEAKS: "fold %d: the teacher was trained on %d of %d held-out rows; scores on them are too "
    "good. Label each fold with the teacher's same fold to avoid it.",
}
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingRows:
    """The rows of a run, fold by fold.

    The n `pairs` are each held out in one fold, by the table of folds
    (:func:`tiewise.runs.dataset.assign_folds`). Folds exclude those of the m `extra` rows that
    `is_excluded`, (m, n_splits), marks. `described` is the content of ``data.json``, and `teachers`
    are those of the soft labels, by ``NAME DIGEST``.
    """

    pairs: pd.DataFrame
    table: pd.DataFrame
    extra: pd.DataFrame
    is_excluded: npt.NDArray[np.bool_]
    described: dict[str, Any]
    teachers: dict[str, Teacher]

    @property
    def digest(self) -> str:
        """SHA-256 of all rows."""
        return str(self.described["digest"])

    @property
    def has_ties(self) -> bool:
        """Whether a tie is possible."""
        return bool(self.described.get("has_ties", True))

    @property
    def folds(self) -> npt.NDArray[np.int64]:
        """Fold of each of the n rows, shape (n,)."""
        return self.table["fold"].to_numpy(np.int64)

    def held_out(self, fold: int) -> pd.DataFrame:
        """Return the rows that `fold` holds out."""
        return self.pairs.iloc[split(self.folds, fold)[1]]

    def of(self, fold: int) -> pd.DataFrame:
        """Return the rows to train on when `fold` is held out; extra rows come last."""
        train_idx, held_out_idx = split(self.folds, fold)
        train = self.pairs.iloc[train_idx]
        _log.info("fold %d: %d training rows, %d held out", fold, len(train), len(held_out_idx))
        if self.extra.empty:
            return train
        is_excluded = self.is_excluded[:, fold]
        _log.info(
            "fold %d: %d extra training rows; %d skipped, because their prompt group is held out",
            fold,
            (~is_excluded).sum(),
            is_excluded.sum(),
        )
        return pd.concat(align_pairs([train, self.extra[~is_excluded]]), ignore_index=True)

    def count_leaks(
        self, fold: int, train: pd.DataFrame, init_from: Path | None = None
    ) -> dict[str, int]:
        """Count training rows, and held-out rows that earlier models were trained on.

        These models are the teacher and that in `init_from`, the folder that the fit starts from.
        Scores on such rows are too good, so these are also logged as warnings.
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
        for name, warning in _LEAK_WARNINGS.items():
            if counts.get(name):
                _log.warning(warning, fold, counts[name], len(held_out))
        return counts

    def save(self, run: RunFolder) -> None:
        """Write the folds, the rows each fold has not seen, and the description of the data."""
        if not is_first_process():
            return
        save_folds(run, self.table)
        is_held_out = np.eye(self.is_excluded.shape[1], dtype=bool)[self.folds]
        rows = pd.concat([self.pairs, self.extra])
        save_seen(run, rows, np.concatenate([is_held_out, self.is_excluded]))
        save_data(run, self.described)


def load_training_rows(config: DataConfig, *, fallback: Fallback = "sample") -> TrainingRows:
    """Read the rows of a run and the extra rows, and find the training rows of each fold."""
    dataset = load_dataset(config, fallback=fallback)
    table = assign_folds(dataset, config)
    names_read = ", ".join(source.rpartition(" ")[0] for source in dataset.sources)
    n_groups = table["group"].nunique()
    _log.info("Data: %s; %d pairs in %d prompt groups", names_read, len(table), n_groups)
    pairs, extra = dataset.pairs, dataset.pairs.head(0)
    paths = [file for path in config.extra_data for file in fetch_files(path)]
    described: dict[str, Any] = {"digest": dataset.digest, "sources": list(dataset.sources)}
    described["paths"] = locate_data(config)
    if paths:
        tables = [_read_extra(path, config) for path in paths]
        extra = join_tables(name_files(paths), tables, derive_groups)
        names = zip(name_files(paths), map(digest_file, paths), strict=True)
        lines = [f"{name} {digest}" for name, digest in names]
        described["digest"] = digest_json([dataset.digest, *lines])
        described |= {"pairs_digest": dataset.digest, "extra_sources": lines}
    unread = dict.fromkeys([*pairs.attrs.get("unread", ()), *extra.attrs.get("unread", ())])
    if unread:
        _log.info("Columns that are not read: %s", ", ".join(unread))
    every_row = pd.concat(align_pairs([pairs, extra]), ignore_index=True)
    if languages := count_languages(every_row):
        described["languages"] = languages
    teachers = read_teachers([*find_data(config), *paths])
    counts = dataset.counts | _check_teachers(every_row, teachers)
    is_excluded = find_leaking_rows(pairs, table["fold"], extra, config.n_splits)
    counts |= _count_extra(pairs, extra, is_excluded)
    sources = choose_no_tie_sources(every_row, config.no_tie_sources)
    pairs, extra = (mark_no_tie_rows(rows, sources) for rows in (pairs, extra))
    is_named = pairs[NO_TIE_COLUMN].all() and extra[NO_TIE_COLUMN].all()
    if is_named or (config.no_tie_sources == (DETECT,) and not has_ties(every_row)):
        _log.info(
            "None of %d votes is a tie: predictions and scores are of two classes, A and B. "
            "--no-tie-sources without a name keeps three classes.",
            len(every_row),
        )
        described["has_ties"] = False
    if sources:
        n_rows = int(pairs[NO_TIE_COLUMN].sum() + extra[NO_TIE_COLUMN].sum())
        named = ", ".join(name or "rows without a source" for name in sources)
        _log.info("the loss of %d rows is over A and B only: no ties in %s", n_rows, named)
        counts["n_no_tie_rows"] = n_rows
    described["counts"] = counts
    return TrainingRows(pairs, table, extra, is_excluded, described, teachers)


def _read_extra(path: str | Path, config: DataConfig) -> pd.DataFrame:
    """Read extra rows with the names of the data's columns, or as they are where these do not fit.

    What `tiewise predict --out-of-fold` wrote has our names, also where those of the data differ.
    """
    options: dict[str, Any] = {"format": config.data_format, "on_error": config.on_error}
    try:
        return read_pairs(path, columns=config.columns, **options)
    except PairsError:
        if config.columns:
            with contextlib.suppress(PairsError):
                pairs = read_pairs(path, **options)
                _log.info("%s is read without --columns, which do not fit it.", path)
                return pairs
        raise


def find_leaking_rows(
    pairs: pd.DataFrame, folds: npt.ArrayLike, extra: pd.DataFrame, n_splits: int
) -> npt.NDArray[np.bool_]:
    """Return which extra rows share a prompt group with a held-out row of a fold, (m, n_splits).

    >>> pairs = pd.DataFrame({"prompt": [["p"], ["q"]], "group": ["1", "2"]})
    >>> extra = pd.DataFrame({"prompt": [["Q "], ["r"]], "group": ["2", "3"]})
    >>> find_leaking_rows(pairs, [0, 1], extra, 2).tolist()
    [[False, True], [False, False]]
    """
    joined = pd.concat([pairs, extra], ignore_index=True)
    groups = merge_groups(derive_groups(joined).tolist(), joined["group"])
    held_out, own = groups[: len(pairs)], groups[len(pairs) :]
    folds = np.asarray(folds)
    return np.stack([np.isin(own, held_out[folds == fold]) for fold in range(n_splits)], axis=1)


def _check_teachers(pairs: pd.DataFrame, teachers: dict[str, Teacher]) -> dict[str, int]:
    """Refuse soft labels by a teacher that was trained on the row; count those by teachers."""
    if "teacher" not in pairs.columns or pairs["teacher"].isna().all():
        return {}
    is_seen = find_seen(pairs, teachers)
    if is_seen.any():
        named = ", ".join(f"id={name}" for name in pairs["id"][is_seen][:3])
        raise PairsError(
            f"{is_seen.sum()} of {len(pairs)} rows have soft labels by a teacher that was trained "
            f"on them ({named}). Label them again with tiewise predict --out-of-fold."
        )
    return {"n_labelled_by_teacher": int(pairs["teacher"].notna().sum())}


def _count_extra(
    pairs: pd.DataFrame, extra: pd.DataFrame, is_excluded: npt.NDArray[np.bool_]
) -> dict[str, int]:
    if extra.empty:
        return {}
    counts = {"n_extra": len(extra)}
    for fold, n_excluded in enumerate(is_excluded.sum(axis=0).tolist()):
        counts[f"n_extra_left_out_of_fold{fold}"] = n_excluded
    n_repeated = int(np.isin(pair_digests(extra), pair_digests(pairs)).sum())
    if n_repeated:
        _log.warning("%d extra rows repeat rows of the data: such a pair counts twice", n_repeated)
        counts["n_extra_repeated"] = n_repeated
    return counts
