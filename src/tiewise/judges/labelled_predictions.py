"""Predictions of labelled pairs, from a run or a file of any judge: read, evaluate, compare."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from tiewise.config import DataConfig
from tiewise.data.formats import read_many
from tiewise.data.formats.cells import is_missing, parse_number, shown
from tiewise.data.formats.columns import parse_assignments, rename_source
from tiewise.data.formats.detection import Columns
from tiewise.data.formats.opening import ParsedRecord
from tiewise.data.formats.sources import open_source
from tiewise.data.formats.stdin import STDIN
from tiewise.data.ids import read_id
from tiewise.data.labels import (
    LOGIT_COLUMNS,
    ONE_HOT_COLUMNS,
    PROB_COLUMNS,
    WINNER_WORDS,
    standard_word,
)
from tiewise.data.pairs import TEXT_COLUMNS
from tiewise.errors import LabelError, RunError, ScoresError
from tiewise.evaluation.metrics import check_probs, find_ids, normalize_probs
from tiewise.evaluation.paired import PairedDifferences, compare_many
from tiewise.evaluation.references import RunScores, evaluate_tables
from tiewise.evaluation.rewardbench import RewardBenchScores, score_rewardbench
from tiewise.runs.dataset import assign_folds, load_dataset, reread_pairs
from tiewise.runs.folder import RunFolder
from tiewise.runs.tables import read_folds, read_oof
from tiewise.runs.teachers import TRAINING_COLUMN

_log = logging.getLogger(__name__)
_TRIPLES = [
    PROB_COLUMNS,
    *([f"{name}_{order}" for name in PROB_COLUMNS] for order in ("given", "swapped")),
]
_OPTIONAL = [*_TRIPLES[1], *_TRIPLES[2], "n_truncated"]
"""Columns of predictions that are used if the file has them."""
_OWN = {"id", "fold", "label", "group", "is_degenerate", "n_tokens", *LOGIT_COLUMNS}
"""Columns of our own predictions that are not read and need no mention."""
_MAX_NAMED = 5


@dataclass(frozen=True)
class LabelledPredictions:
    """Predictions of labelled pairs, named after a run or a file.

    `oof` has `id, fold, label, group, prob_a, prob_b, prob_tie` and further columns; `folds` is the
    table of folds, one row per row of the data. `read_texts` reads the pairs table, or returns None
    if the texts are not available. `is_symmetric` says whether swapping the responses swaps the
    probabilities; `counts` are numbers of unused rows, by reason.
    """

    name: str
    oof: pd.DataFrame
    folds: pd.DataFrame
    read_texts: Callable[[], pd.DataFrame | None]
    is_symmetric: bool
    counts: dict[str, int]

    @cached_property
    def pairs(self) -> pd.DataFrame | None:
        """The pairs table, read on first use; None if the texts are not available."""
        return self.read_texts()

    def texts(self) -> pd.DataFrame:
        """Return the pairs table, or raise RunError if the texts are not available."""
        if self.pairs is None:
            raise RunError(
                f"the texts of {self.name} are not available, and this needs them. Name the files "
                "of its data with --data."
            )
        return self.pairs


def load_run_predictions(run: RunFolder, data: Sequence[str] = ()) -> LabelledPredictions:
    """Read the out-of-fold predictions of a run; its texts are read on first use.

    The texts are in the files `data`, or else in those of its configuration.
    """
    return LabelledPredictions(
        run.name,
        read_oof(run),
        read_folds(run),
        lambda: reread_pairs(run, data),
        is_symmetric=run.config.predict.swap,
        counts={},
    )


def load_file_predictions(
    data: Sequence[str],
    predictions_path: str | Path,
    *,
    normalize: bool = False,
    allow_missing: bool = False,
    **reading: Any,
) -> LabelledPredictions:
    """Join a file of predictions, in any format of data, with labelled pairs by id.

    Its columns are id, prob_a, prob_b, prob_tie and optionally ``prob_*_given`` and
    ``prob_*_swapped``, the probabilities of each order, both in A and B of the pair. In a file
    without texts they may have Kaggle's names, or be replaced by a column of verdicts, ``winner``,
    or by two, ``winner`` and ``winner_swapped``, of both orders. Both orders alone are averaged.

    ScoresError is raised when a column is missing, a cell is no number, an id repeats, or a
    labelled row has no prediction and not `allow_missing`. `normalize` divides the probabilities of
    a row by their sum. `reading` are `data_format` of the data, and `columns`: each is renamed in
    the data, in the predictions, or in both, wherever it occurs.
    """
    reading["columns"], own = _split_columns(data, predictions_path, reading.get("columns") or ())
    config = DataConfig(data=tuple(map(str, data)), **reading)
    dataset = load_dataset(config)
    # Only the references need folds, so data with few groups are scored with fewer folds.
    n_splits = min(config.n_splits, dataset.pairs["group"].nunique())
    table = assign_folds(dataset, replace(config, n_splits=n_splits))
    name = _name_of(predictions_path)
    predictions = _read_predictions(predictions_path, own, normalize=normalize)
    positions = _find_predictions(table["id"], predictions, name, allow_missing=allow_missing)
    _warn_of_training_rows(predictions.iloc[positions[positions >= 0]], name)
    columns = PROB_COLUMNS + [name for name in _OPTIONAL if name in predictions]
    has_one = positions >= 0
    counts = {"n_unused_predictions": len(predictions) - len(np.unique(positions[has_one]))}
    counts |= {} if has_one.all() else {"n_missing_predictions": int((~has_one).sum())}
    found = predictions[columns].iloc[positions[has_one]].reset_index(drop=True)
    rows = table.loc[has_one, ["id", "fold", "label", "group"]].reset_index(drop=True)
    return LabelledPredictions(
        name,
        pd.concat([rows, found], axis=1),
        table,
        lambda: dataset.pairs,
        is_symmetric=False,
        counts=counts,
    )


def score_predictions(predictions: LabelledPredictions) -> RunScores:
    """Score predictions next to the references that need no run."""
    return evaluate_tables(predictions.oof, predictions.folds, counts=predictions.counts)


def score_rewardbench_file(
    data: Sequence[str],
    predictions_path: str | Path,
    *,
    normalize: bool = False,
    allow_missing: bool = False,
    data_format: str | None = None,
    **reading: Any,
) -> RewardBenchScores:
    """Score a file of predictions as RewardBench does; see :func:`load_file_predictions`."""
    if allow_missing:
        raise ScoresError(
            "--rewardbench is about all pairs, and --allow-missing leaves some out; give only one."
        )
    reading["columns"], own = _split_columns(data, predictions_path, reading.get("columns") or ())
    pairs = read_many(data, format=data_format, **reading)
    predictions = _read_predictions(predictions_path, own, normalize=normalize)
    name = _name_of(predictions_path)
    positions = find_ids(pairs["id"], predictions["id"], name=name)
    _warn_of_training_rows(predictions.iloc[positions], name)
    return score_rewardbench(pairs, predictions[PROB_COLUMNS].to_numpy()[positions])


def _warn_of_training_rows(predictions: pd.DataFrame, name: str) -> None:
    """Log a warning with the number of rows that the judge was trained on, if the file says so."""
    n_seen = int(predictions.get(TRAINING_COLUMN, pd.Series(0.0)).sum())
    if n_seen:
        _log.warning(
            "%s: the judge was trained on %d of %d rows, so its scores on them are too good. Give "
            "rows that it was not trained on, or evaluate the run itself, which is out of fold.",
            name, n_seen, len(predictions),
        )  # fmt: skip


def _find_predictions(
    ids: pd.Series, predictions: pd.DataFrame, name: str, *, allow_missing: bool
) -> npt.NDArray[np.int64]:
    """Return the row of the prediction of each id, -1 where there is none or it is empty."""
    positions = find_ids(ids, predictions["id"], name=name, allow_missing=True)
    is_empty = predictions[PROB_COLUMNS].isna().all(axis=1).to_numpy()
    positions = np.where((positions >= 0) & ~np.append(is_empty, True)[positions], positions, -1)
    is_missing_one = positions < 0
    if is_missing_one.any() and not (allow_missing and not is_missing_one.all()):
        listed = ", ".join(map(str, ids[is_missing_one].head(_MAX_NAMED)))
        raise ScoresError(
            f"{name} has no prediction for {is_missing_one.sum()} of {len(ids)} pairs, the first "
            f"ids {listed}. Give predictions and data of the same pairs"
            + ("." if allow_missing else ", or --allow-missing to leave such pairs out.")
        )
    return positions


def _name_of(path: str | Path) -> str:
    return "standard input" if str(path) == STDIN else Path(path).name


def _split_columns(
    data: Sequence[str], predictions_path: str | Path, columns: Columns
) -> tuple[tuple[str, ...], dict[str, str]]:
    """Return the new names of columns of the data, and those of columns of the predictions.

    A column that neither has is looked for in the data, where it is an error.
    """
    given = parse_assignments(columns)
    found = open_source(predictions_path).columns if given else ()
    readable = {"id", "winner", "winner_given", "winner_swapped", *PROB_COLUMNS, *_OPTIONAL}
    own = {ours: theirs for ours, theirs in given if ours in readable and theirs in found}
    in_data = {name for path in data if own for name in open_source(path).columns}
    rest = [
        f"{ours}={theirs}" for ours, theirs in given if own.get(ours) != theirs or theirs in in_data
    ]
    return tuple(rest), own


def _read_predictions(
    path: str | Path, renamed: dict[str, str], *, normalize: bool
) -> pd.DataFrame:
    """Return ids as text, and probabilities as float64, of a file in any format of `--data`.

    `renamed` gives for a name of ours the column of the file.
    """
    source = open_source(path)
    source = rename_source(source, renamed) if renamed else source
    names, words = _name_columns(path, source.columns)
    names |= {TRAINING_COLUMN: TRAINING_COLUMN} if TRAINING_COLUMN in source.columns else {}
    rows = [
        _read_row(f"{path}, row {row}", entry, names, words)
        for row, entry in enumerate(source.records)
    ]
    columns = ["id", *names.values(), *(each for triple in words.values() for each in triple)]
    table = pd.DataFrame(rows, columns=columns)
    if unread := [name for name in source.columns if name not in {*names, *words, *_OWN}]:
        _log.info("%s: not read: %s", path, ", ".join(unread))
    for triple in _TRIPLES:
        if set(triple) <= set(table):
            table[triple] = _check_triple(table[triple], path, normalize=normalize)
    if not set(PROB_COLUMNS) <= set(table):
        given, swapped = (table[triple].to_numpy() for triple in _TRIPLES[1:])
        table[PROB_COLUMNS] = (given + swapped) / 2
    return table


def _check_triple(
    probs: pd.DataFrame, path: str | Path, *, normalize: bool
) -> npt.NDArray[np.float64]:
    """Return probabilities (n, 3), normalised if asked; a ScoresError names their columns."""
    values, name = probs.to_numpy(np.float64), f"{path}: {', '.join(map(str, probs))}"
    is_known = ~np.isnan(values).all(axis=1, keepdims=True)
    filled = np.where(is_known, values, 1 / 3)
    checked = normalize_probs(filled, name) if normalize else check_probs(filled, len(filled), name)
    return np.where(is_known, checked, np.nan)


def _name_columns(
    path: str | Path, columns: Sequence[str]
) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Return our name of each column of numbers, and the probabilities of each column of words.

    Those of a submission are the winners'. A file with texts has no words: it may be the data.
    """
    found = set(columns)
    is_data = not {*TEXT_COLUMNS, "chosen"}.isdisjoint(found)
    complete = [triple for triple in _TRIPLES if set(triple) <= found]
    if "id" in found and not (complete[:1] == [PROB_COLUMNS] or is_data):
        if set(ONE_HOT_COLUMNS) <= found:
            return dict(zip(ONE_HOT_COLUMNS, PROB_COLUMNS, strict=True)), {}
        if "winner_swapped" in found and not found.isdisjoint(("winner", "winner_given")):
            given = "winner_given" if "winner_given" in found else "winner"
            return {}, {given: _TRIPLES[1], "winner_swapped": _TRIPLES[2]}
        if "winner" in found:
            return {}, {"winner": PROB_COLUMNS}
    missing = [name for name in ["id", *PROB_COLUMNS] if name not in found]
    if missing == PROB_COLUMNS and complete == _TRIPLES[1:]:
        missing = []
    if missing:
        raise ScoresError(
            f"columns of {path} are {', '.join(columns)}; {', '.join(missing)} are missing. "
            f"Expected id, {', '.join(PROB_COLUMNS)}; or, in a file without texts, id and "
            f"{', '.join(ONE_HOT_COLUMNS)}, or id and winner (also winner_swapped)."
        )
    return {name: name for name in (*PROB_COLUMNS, *_OPTIONAL) if name in found}, {}


def _read_row(
    where: str, entry: ParsedRecord, names: dict[str, str], words: dict[str, list[str]]
) -> dict[str, Any]:
    if entry.problem is not None:
        raise ScoresError(f"{where} {entry.problem}.")
    if is_missing(entry.values["id"]):
        raise ScoresError(f"{where}: id is missing.")
    row: dict[str, Any] = {"id": read_id(entry.values["id"])}
    for theirs, ours in names.items():
        cell = entry.values[theirs]
        if ours == TRAINING_COLUMN:
            cell = str(cell).strip().lower() == "true" or parse_number(cell) == 1
        number = np.nan if is_missing(cell) else parse_number(cell)
        if number is None:
            raise ScoresError(f"{theirs} of {where}, is not numeric: {shown(cell)}.")
        row[ours] = number
    for name, triple in words.items():
        row |= zip(triple, _read_verdict(where, entry.values[name]), strict=True)
    return row


def _read_verdict(where: str, cell: Any) -> list[float]:
    """Return 1 for the winner that a word names and 0 for the others; NaN where it names none."""
    if is_missing(cell):
        return [np.nan] * 3
    try:
        winner = WINNER_WORDS[standard_word(str(cell))]
    except LabelError as error:
        raise ScoresError(f"{where}: {error}.") from None
    return [float(winner == place) for place in range(3)]


def compare_runs(first: RunFolder, second: RunFolder, **options: Any) -> PairedDifferences:
    """Compare the out-of-fold predictions of two runs; differences are the first minus the second.

    `options` are those of :func:`compare_with_reference`.
    """
    return compare_with_reference(
        [load_run_predictions(first)], load_run_predictions(second), **options
    )


def compare_with_reference(
    predictions: Sequence[LabelledPredictions],
    reference: LabelledPredictions,
    *,
    by_slice: bool = False,
    **options: Any,
) -> PairedDifferences:
    """Compare predictions with those of a reference, each on the rows that both predicted.

    `by_slice` also compares slices of the rows; RunError is raised if the reference has no texts.
    `options` are `confidence_level`, `n_resamples`, `seed`, as for :func:`tiewise.compare`.
    """
    names = [one.name for one in (*predictions, reference)]
    if len(names) > 2 and len(set(names)) < len(names):
        raise RunError(f"runs are {', '.join(names)}; name each run once, the reference last.")
    tables = {one.name: one.oof for one in predictions}
    texts = reference.texts() if by_slice else None
    return compare_many(tables, reference.oof, name=reference.name, pairs=texts, **options)
