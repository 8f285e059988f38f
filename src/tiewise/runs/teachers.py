"""Check that soft labels come from folds of a run that were not trained on the rows.

A teacher that was trained on a row repeats its label there. Therefore a run stores which folds were
not trained on which pair (``rows.parquet``). Labelling uses these folds alone, writes the table
into the file of labels, and names the folds of each row in the column ``teacher``. A fit compares
every row with that table, by the digest of its texts in either order. The table also has the first
user text of each pair, as a digest, its group and its session, which connect pairs to groups.

Several teachers are a blend: its fold K is the fold K of every member, which was not trained on a
pair if none of them was. Only the few weights of the blend are fitted on all rows.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from tiewise.config import BLEND
from tiewise.data.folds import derive_groups, merge_groups
from tiewise.data.formats.parquet import read_teacher
from tiewise.data.pairs import pair_digests
from tiewise.errors import PairsError, RunError
from tiewise.files import digest_file, digest_json, write_parquet
from tiewise.runs.folder import RunFolder, open_run, read_object
from tiewise.runs.tables import read_rows

BoolArray = npt.NDArray[np.bool_]
TRAINING_COLUMN = "is_training_row"
"""Column of predictions: whether a fold of the run was trained on the row."""
_N_DIGITS = 16
_UNSEEN = "unseen_by_fold"
_KEYS = ["prompt", "group", "session"]
"""Columns of ``rows.parquet`` that connect a pair to its prompt group."""


@dataclass(frozen=True)
class Teacher:
    """A run that gives soft labels.

    `digest` has 16 hex digits over its folds' scores and predictions; `unseen` has for the digest
    of each pair of its training rows the folds that were not trained on it.
    """

    name: str
    digest: str
    n_splits: int
    unseen: dict[str, list[int]]

    def find_unseen(self, pairs: pd.DataFrame) -> BoolArray:
        """Return which folds were not trained on which pairs, shape (n, n_splits)."""
        all_folds = list(range(self.n_splits))
        is_unseen = np.zeros((len(pairs), self.n_splits), dtype=bool)
        for row, digest in enumerate(pair_digests(pairs)):
            is_unseen[row, self.unseen.get(digest, all_folds)] = True
        return is_unseen

    def sign(self, folds: Iterable[int]) -> str:
        """Return the value of the column ``teacher`` for rows that these folds labelled."""
        return f"{self.name} {self.digest} {','.join(map(str, folds))}"

    def to_json(self) -> str:
        """Return the teacher as JSON."""
        return json.dumps(vars(self))


def save_seen(run: RunFolder, pairs: pd.DataFrame, is_unseen: BoolArray) -> None:
    """Write ``rows.parquet``: for each distinct pair the folds that are not trained on it.

    `is_unseen` has the shape (n, n_splits). A pair that occurs twice is unseen where both rows are.
    """
    if run.rows_path.is_file():
        return
    columns = [f"{_UNSEEN}{fold}" for fold in range(is_unseen.shape[1])]
    table = _group_keys(pairs).join(pd.DataFrame(is_unseen, columns=columns))
    table.insert(0, "pair", pair_digests(pairs))
    keys = ["pair", *_KEYS]
    write_parquet(run.rows_path, table.groupby(keys, as_index=False, dropna=False).all())


def find_unseen_groups(run: RunFolder, pairs: pd.DataFrame) -> BoolArray:
    """Return which folds were trained on no row of a pair's prompt group, shape (n, n_splits).

    Groups are those of :func:`tiewise.data.folds.derive_groups` in the pairs and the rows of the
    run together, merged by the column ``group``. For a blend, no member was trained on the group.
    """
    if run.config.model.backbone == BLEND:
        of_members = [find_unseen_groups(member, pairs) for member in _open_members(run)]
        return np.asarray(np.logical_and.reduce(of_members))
    known = read_rows(run)
    if not set(_KEYS) <= set(known):
        raise RunError(f"{run.rows_path} has no prompt groups. Fit the run again.")
    keys = pd.concat([known[_KEYS], _group_keys(pairs)], ignore_index=True)
    by_session = merge_groups(keys["prompt"].tolist(), keys["session"])
    groups = merge_groups(by_session.tolist(), keys["group"])
    is_seen = pd.DataFrame(~_flags(known)).groupby(groups[: len(known)]).any()
    return ~is_seen.reindex(groups[len(known) :], fill_value=False).to_numpy(bool)


def open_teacher(run: RunFolder, folds: Sequence[int]) -> Teacher:
    """Return a run as a teacher; RunError when the rows that it was trained on are not known."""
    if run.config.model.backbone == BLEND:
        return _open_blend(run, folds)
    if not run.rows_path.is_file():
        raise RunError(
            f"{run.rows_path} is missing, so the rows that the run was trained on are not known. "
            "Fit it again with this version."
        )
    for fold in folds:
        if read_object(run.fold(fold).fingerprint_path).get("init_from"):
            raise RunError(
                f"fold {fold} of {run.name} was fitted with --init-from, so the rows that its "
                "weights have seen are not known. Take a run that was fitted from the backbone."
            )
    scores = {str(fold): digest_file(run.fold(fold).scores_path) for fold in folds}
    return _read_teacher(run, digest_json(scores)[:_N_DIGITS])


def _open_blend(run: RunFolder, folds: Sequence[int]) -> Teacher:
    members = [open_teacher(member, member.choose_folds(folds)) for member in _open_members(run)]
    n_splits = {member.name: member.n_splits for member in members}
    if len(set(n_splits.values())) > 1:
        listed = ", ".join(f"{name} has {n}" for name, n in n_splits.items())
        raise RunError(
            f"the members of {run.name} have different numbers of folds ({listed}), so they label "
            "no row together. Blend runs with equal --n-splits."
        )
    pairs = sorted(set().union(*(member.unseen for member in members)))
    all_folds = set(range(members[0].n_splits))
    unseen = {
        pair: sorted(all_folds.intersection(*(m.unseen.get(pair, all_folds) for m in members)))
        for pair in pairs
    }
    parts = [digest_file(run.mixture_path), *(member.digest for member in members)]
    return Teacher(run.name, digest_json(parts)[:_N_DIGITS], len(all_folds), unseen)


def _open_members(blend: RunFolder) -> list[RunFolder]:
    names = read_object(blend.mixture_path)["members"]
    return [open_run(blend.path.parent / name, Path()) for name in names]


def _read_teacher(run: RunFolder, digest: str) -> Teacher:
    table = read_rows(run)
    flags = pd.DataFrame(_flags(table)).groupby(table["pair"].to_numpy()).all()
    unseen = {
        pair: np.flatnonzero(row).tolist()
        for pair, row in zip(flags.index, flags.to_numpy(), strict=True)
    }
    return Teacher(run.name, digest, flags.shape[1], unseen)


def find_training_rows(run: RunFolder, folds: Sequence[int]) -> Callable[[pd.DataFrame], BoolArray]:
    """Return a function of pairs: which of them were training rows of these folds, shape (n,).

    Those of a blend are the training rows of its members. Rows that a fit with --init-from started
    from are not known.
    """
    if run.config.model.backbone == BLEND:
        members = _open_members(run)
        found = [find_training_rows(member, member.finished_folds()) for member in members]
        return lambda pairs: np.any([of_member(pairs) for of_member in found], axis=0)
    if not run.rows_path.is_file():
        return lambda pairs: np.zeros(len(pairs), dtype=bool)
    teacher = _read_teacher(run, "")
    return lambda pairs: np.asarray(~teacher.find_unseen(pairs)[:, list(folds)].all(axis=1))


def read_teachers(paths: Iterable[Path | str]) -> dict[str, Teacher]:
    """Return the teachers of the soft labels in these files, by ``NAME DIGEST``."""
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
    """Return which rows are labelled by a fold that had them as training rows, shape (n,)."""
    is_seen = np.zeros(len(pairs), dtype=bool)
    for signature, rows in pairs.groupby("teacher").indices.items():
        teacher, folds = _read_signature(str(signature), teachers)
        is_seen[rows] = ~teacher.find_unseen(pairs.iloc[rows])[:, folds].all(axis=1)
    return is_seen


def find_leaks(
    held_out: pd.DataFrame, train: pd.DataFrame, teachers: dict[str, Teacher]
) -> BoolArray:
    """Return which held-out rows were training rows of a fold that labelled `train`, shape (n,)."""
    is_seen = np.zeros(len(held_out), dtype=bool)
    for signature in train["teacher"].dropna().unique() if "teacher" in train else ():
        teacher, folds = _read_signature(signature, teachers)
        is_seen |= ~teacher.find_unseen(held_out)[:, folds].all(axis=1)
    return is_seen


def find_seen_by_start(start: Path, held_out: pd.DataFrame) -> BoolArray | None:
    """Return which held-out rows were training rows of the fold that a fit starts from, shape (n,).

    `start` is the folder of the fold or of its adapter. None means that its rows are not known.
    """
    fold_dir = (start.parent if start.name == "adapter" else start).resolve()
    try:
        fold = int(fold_dir.name.removeprefix("fold"))
        teacher = open_teacher(open_run(fold_dir.parent, Path()), [fold])
    except (RunError, ValueError, OSError):
        return None
    return ~teacher.find_unseen(held_out)[:, fold]


def _group_keys(pairs: pd.DataFrame) -> pd.DataFrame:
    """Return the digest of the first user text, the group and the session of n rows, (n, 3)."""
    own = pairs.reset_index(drop=True)
    session = own["session"] if "session" in own else pd.Series(pd.NA, index=own.index)
    prompt = derive_groups(own.drop(columns="session", errors="ignore"))
    keys = {"prompt": prompt, "group": own["group"], "session": session}
    return pd.DataFrame(keys).astype("string")


def _flags(rows: pd.DataFrame) -> BoolArray:
    """Return the folds that are not trained on each row of ``rows.parquet``, (n, n_splits)."""
    return rows[[name for name in rows if str(name).startswith(_UNSEEN)]].to_numpy(bool)


def _read_signature(signature: str, teachers: dict[str, Teacher]) -> tuple[Teacher, list[int]]:
    key, _, folds = signature.rpartition(" ")
    if key not in teachers:
        raise PairsError(
            f"soft labels are by the teacher {signature!r}, and no file says which rows it was "
            "trained on. Give the file that tiewise predict --out-of-fold wrote."
        )
    return teachers[key], [int(fold) for fold in folds.split(",")]
