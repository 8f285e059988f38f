"""Whose soft labels they are, and which rows that teacher was trained on.

Soft labels of a teacher that saw the row in training repeat the row's label: a student learns
nothing from them but what the teacher memorised. So a run notes for each of its rows which folds
have not seen it (``rows.parquet``); ``tiewise label`` lets only those folds speak, writes this
table into the file beside the rows, and names in the column ``teacher`` the folds that did speak;
and a fit holds row after row against it, by the digest of the texts in either order.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from tiewise.config.run_config import BLEND
from tiewise.data.formats.parquet import read_teacher
from tiewise.data.table import pair_digests
from tiewise.errors import PairsError, RunError
from tiewise.files import digest_file, digest_json, write_parquet
from tiewise.runs.folder import RunFolder, open_run, read_object
from tiewise.runs.tables import read_rows

BoolArray = npt.NDArray[np.bool_]
_DIGITS = 16


@dataclass(frozen=True)
class Teacher:
    """A run that gives soft labels.

    name
        The run's name.
    digest
        16 hex digits over its folds' scores and predictions.
    n_splits
        Its number of folds.
    unseen
        By the digest of each pair that it was trained on, the folds that have not seen the pair.
    """

    name: str
    digest: str
    n_splits: int
    unseen: dict[str, list[int]]

    def find_unseen(self, pairs: pd.DataFrame) -> BoolArray:
        """Tell which folds have not been trained on which pairs, shape (n, n_splits)."""
        everyone = list(range(self.n_splits))
        found = np.zeros((len(pairs), self.n_splits), dtype=bool)
        for row, digest in enumerate(pair_digests(pairs)):
            found[row, self.unseen.get(digest, everyone)] = True
        return found

    def sign(self, folds: Iterable[int]) -> str:
        """Return what stands in the column ``teacher`` of a row that these folds labelled."""
        return f"{self.name} {self.digest} {','.join(map(str, folds))}"

    def to_json(self) -> str:
        """Return the teacher as JSON."""
        return json.dumps(vars(self))


def save_seen(run: RunFolder, pairs: pd.DataFrame, unseen: BoolArray) -> None:
    """Write ``rows.parquet``: a line per distinct pair, and which folds have not seen it.

    Parameters
    ----------
    run
        The run that learns from the pairs.
    pairs
        Every row that any fold learns from, n of them.
    unseen
        Shape (n, n_splits). A pair that stands twice is unseen where both rows are.
    """
    if run.rows_path.is_file() and run.is_begun:
        return
    columns = [f"unseen_by_fold{fold}" for fold in range(unseen.shape[1])]
    table = pd.DataFrame(unseen, columns=columns)
    table.insert(0, "pair", pair_digests(pairs))
    write_parquet(run.rows_path, table.groupby("pair", as_index=False).all())


def open_teacher(run: RunFolder, folds: Sequence[int]) -> Teacher:
    """Return a run as a teacher.

    Raises
    ------
    RunError
        When the run does not say which rows it was trained on, its folds started from weights of
        which that is not known, or it is a blend.
    """
    if run.config.model.backbone == BLEND:
        raise RunError(
            f"{run.name} is a blend, so it has seen the rows of all its members. Take one of them "
            "as the teacher."
        )
    if not run.rows_path.is_file():
        raise RunError(
            f"{run.rows_path} is missing, so which rows the run has seen is not known. Fit it "
            "again with this version."
        )
    table = read_rows(run)
    flags = table.drop(columns="pair").to_numpy(bool)
    unseen = {
        pair: np.flatnonzero(row).tolist() for pair, row in zip(table["pair"], flags, strict=True)
    }
    _refuse_unknown_start(run, folds)
    scores = {str(fold): digest_file(run.fold(fold).scores_path) for fold in folds}
    return Teacher(run.name, digest_json(scores)[:_DIGITS], flags.shape[1], unseen)


def read_teachers(paths: Iterable[Path | str]) -> dict[str, Teacher]:
    """Return the teachers of the soft labels in these files, by ``NAME DIGEST``.

    Raises
    ------
    PairsError
        When what a file says of its teacher cannot be read.
    """
    teachers = {}
    for path in map(Path, paths):
        text = read_teacher(path) if path.suffix == ".parquet" else None
        if text is not None:
            try:
                teacher = Teacher(**json.loads(text))
            except (TypeError, ValueError) as error:
                raise PairsError(f"{path}: its teacher cannot be read: {error}") from error
            teachers[f"{teacher.name} {teacher.digest}"] = teacher
    return teachers


def find_seen(pairs: pd.DataFrame, teachers: dict[str, Teacher]) -> BoolArray:
    """Tell which rows carry soft labels of a teacher's fold that was trained on them, shape (n,).

    Raises
    ------
    PairsError
        When a row's teacher is not among those given.
    """
    is_seen = np.zeros(len(pairs), dtype=bool)
    for signature, rows in _by_signature(pairs).items():
        teacher, folds = _read_signature(signature, teachers)
        is_seen[rows] = ~teacher.find_unseen(pairs.iloc[rows])[:, folds].all(axis=1)
    return is_seen


def find_leaks(
    held_out: pd.DataFrame, train: pd.DataFrame, teachers: dict[str, Teacher]
) -> BoolArray:
    """Tell which held-out rows were learned from by a teacher's fold that labelled training rows.

    Returns
    -------
    bool array
        Shape (n_held_out,). The teacher hands on, through other rows, what it learned from these.
    """
    is_seen = np.zeros(len(held_out), dtype=bool)
    for signature in _by_signature(train):
        teacher, folds = _read_signature(signature, teachers)
        is_seen |= ~teacher.find_unseen(held_out)[:, folds].all(axis=1)
    return is_seen


def find_seen_by_start(start: Path, held_out: pd.DataFrame) -> BoolArray | None:
    """Tell which held-out rows were learned from by the fold that a fit starts from, shape (n,).

    Parameters
    ----------
    start
        A fold's folder, or its adapter's.
    held_out
        The rows that the fit holds out.

    Returns
    -------
    bool array or None
        None where it is not known: the folder is not in a run, or its fold was begun from another.
    """
    fold_dir = start.parent if start.name == "adapter" else start
    number = fold_dir.resolve().name.removeprefix("fold")
    try:
        run = open_run(fold_dir.resolve().parent, Path())
        teacher = open_teacher(run, [int(number)])
    except (RunError, ValueError, OSError):
        return None
    return ~teacher.find_unseen(held_out)[:, int(number)]


def _by_signature(pairs: pd.DataFrame) -> dict[str, npt.NDArray[np.int64]]:
    if "teacher" not in pairs.columns:
        return {}
    codes, names = pd.factorize(pairs["teacher"])
    return {str(name): np.flatnonzero(codes == code) for code, name in enumerate(names)}


def _read_signature(signature: str, teachers: dict[str, Teacher]) -> tuple[Teacher, list[int]]:
    key, _, folds = signature.rpartition(" ")
    if key not in teachers:
        raise PairsError(
            f"soft labels are signed {signature!r}, and no file says which rows that teacher was "
            "trained on. Give the file that tiewise label wrote."
        )
    return teachers[key], [int(fold) for fold in folds.split(",")]


def _refuse_unknown_start(run: RunFolder, folds: Sequence[int]) -> None:
    for fold in folds:
        identity = read_object(run.fold(fold).identity_path)
        if identity.get("init_from"):
            raise RunError(
                f"fold {fold} of {run.name} was fitted with --init-from, and which rows those "
                "weights have seen is not known. Take a run that was fitted from the backbone."
            )
