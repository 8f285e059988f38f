"""What is judged: predictions of labelled rows, a run's own or anybody's, with all that is known.

Every command that says how good predictions are takes either a run, whose out-of-fold predictions
are read from its folder, or data with labels and a table of predictions, joined by id. Both become
a :class:`Judged`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from tiewise.config.run_config import DataConfig
from tiewise.data.formats import read_many
from tiewise.data.labels import PROB_COLUMNS
from tiewise.errors import RunError, ScoresError
from tiewise.evaluation.intervals import IntArray
from tiewise.evaluation.references import RunScores, evaluate_tables
from tiewise.evaluation.rewardbench import RewardBenchScores, score_rewardbench
from tiewise.runs.dataset import assign_folds, load_dataset, reread_pairs
from tiewise.runs.folder import RunFolder
from tiewise.runs.tables import read_folds, read_oof

_FURTHER = [f"{name}_{order}" for order in ("given", "swapped") for name in PROB_COLUMNS] + [
    "n_truncated"
]
"""Columns of predictions that are looked at where they are there."""
_NUMBERS = (*PROB_COLUMNS, *_FURTHER)


@dataclass(frozen=True)
class LabelledPredictions:
    """Predictions of labelled rows.

    name
        Of the run, or of the file of predictions.
    oof
        Predictions: `id, fold, label, group, prob_a, prob_b, prob_tie`, and what else is known.
    folds
        The table of folds, a line per row of the data.
    read_texts
        Reads the pairs table; gives None where the texts cannot be had.
    is_symmetric
        Whether exchanging the answers exchanges the probabilities.
    counts
        Rows that were not used, and why.
    """

    name: str
    oof: pd.DataFrame
    folds: pd.DataFrame
    read_texts: Callable[[], pd.DataFrame | None]
    is_symmetric: bool
    counts: dict[str, int]

    @cached_property
    def pairs(self) -> pd.DataFrame | None:
        """The pairs table, read when it is first asked for; None where it cannot be had."""
        return self.read_texts()

    def texts(self) -> pd.DataFrame:
        """Return the pairs table, or refuse where the texts cannot be had.

        Raises
        ------
        RunError
            When there are no texts.
        """
        if self.pairs is None:
            raise RunError(
                f"The texts of {self.name} are needed and not where they were; name the files with "
                "--data."
            )
        return self.pairs


def judge_run(run: RunFolder, data: Sequence[str] = ()) -> LabelledPredictions:
    """Read a run's out-of-fold predictions, and its texts where they can be had.

    Parameters
    ----------
    run
        A run with a finished fold.
    data
        Where its data are now, if not where they were.

    Raises
    ------
    RunError
        When nothing is finished, or `data` are not the run's.
    """
    return LabelledPredictions(
        run.name,
        read_oof(run),
        read_folds(run),
        lambda: reread_pairs(run, data),
        is_symmetric=run.config.predict.swap,
        counts={},
    )


def judge_file(data: Sequence[str], predictions_path: Path) -> LabelledPredictions:
    """Join a table of predictions with the labelled pairs it is about, by id.

    Parameters
    ----------
    data
        Files of labelled pairs of any known format.
    predictions_path
        A csv, parquet or jsonl file with the columns id, prob_a, prob_b, prob_tie; with
        ``prob_*_given`` and ``prob_*_swapped`` (both in the order of the row) what it said in each
        order.

    Raises
    ------
    ScoresError
        When a column is missing, an id stands twice, or a labelled row has no prediction.
    """
    config = DataConfig(data=tuple(map(str, data)))
    dataset = load_dataset(config)
    # Folds are for the references alone: a judge of few conversations is scored with fewer.
    n_splits = min(config.n_splits, dataset.pairs["group"].nunique())
    table = assign_folds(dataset, replace(config, n_splits=n_splits))
    predictions = _read_predictions(predictions_path)
    position = _find(table["id"], predictions["id"], data, predictions_path)
    columns = PROB_COLUMNS + [name for name in _FURTHER if name in predictions]
    found = predictions[columns].iloc[position].reset_index(drop=True)
    oof = pd.concat([table[["id", "fold", "label", "group"]], found], axis=1)
    unused = {"n_unused_predictions": len(predictions) - len(np.unique(position))}
    return LabelledPredictions(
        predictions_path.name,
        oof,
        table,
        lambda: dataset.pairs,
        is_symmetric=False,
        counts=unused,
    )


def score_judged(judged: LabelledPredictions) -> RunScores:
    """Score predictions beside the references that need no run."""
    return evaluate_tables(judged.oof, judged.folds, counts=judged.counts)


def score_preferences(data: Sequence[str], predictions_path: Path) -> RewardBenchScores:
    """Score a table of predictions as RewardBench does, joined by id.

    Parameters
    ----------
    data, predictions_path
        As for :func:`judge_file`.

    Raises
    ------
    ScoresError
        As :func:`judge_file`, and when no row has a choice.
    """
    pairs = read_many(data)
    predictions = _read_predictions(predictions_path)
    position = _find(pairs["id"], predictions["id"], data, predictions_path)
    return score_rewardbench(pairs, predictions[PROB_COLUMNS].to_numpy()[position])


def _find(ids: pd.Series, predicted: pd.Series, data: Sequence[str], path: Path) -> IntArray:
    """Return where each id stands among those predicted, (n,)."""
    position = pd.Index(predicted.astype(str)).get_indexer(pd.Index(ids.astype(str)))
    if (position < 0).any():
        missing = ids[position < 0]
        raise ScoresError(
            f"{path}: {len(missing)} rows of {data[0]} have no prediction, such as "
            f"id={missing.iloc[0]}. Predict every row, or leave them out of the data."
        )
    return position.astype(np.int64)


def _read_predictions(path: Path) -> pd.DataFrame:
    readers = {
        ".csv": lambda: _read_csv(path),
        ".parquet": lambda: pd.read_parquet(path),
        ".jsonl": lambda: pd.read_json(path, lines=True, dtype={"id": str}, precise_float=True),
    }
    if path.suffix not in readers:
        raise ScoresError(f"{path}: predictions are read from {', '.join(readers)} files.")
    try:
        table = readers[path.suffix]()
    except (OSError, ValueError) as error:
        raise ScoresError(f"{path} cannot be read: {error}.") from error
    missing = [name for name in ["id", *PROB_COLUMNS] if name not in table.columns]
    if missing:
        found = ", ".join(map(str, table.columns))
        raise ScoresError(f"{path} lacks the columns {', '.join(missing)}; it has {found}.")
    for name in [name for name in _NUMBERS if name in table]:
        table[name] = _as_numbers(table[name], path)
    repeated = table["id"][table["id"].duplicated()]
    if len(repeated):
        raise ScoresError(f"{path}: id={repeated.iloc[0]} stands {len(repeated) + 1} times.")
    return table


def _read_csv(path: Path) -> pd.DataFrame:
    """Read cells as they are: an id that is spelled `null` or `NA` is a word, as it is in pairs."""
    return pd.read_csv(path, dtype=str, keep_default_na=False)


def _as_numbers(column: pd.Series, path: Path) -> pd.Series:
    """Return a column as float64, every number as it is spelled and an empty cell as NaN."""
    try:
        return column.replace("", None).astype(np.float64)
    except (TypeError, ValueError) as error:
        raise ScoresError(f"{path}: {column.name} holds what is no number: {error}.") from error
