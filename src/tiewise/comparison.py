"""Scores of predictions wherever they come from: two runs side by side, or any judge's table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tiewise.config import DataConfig
from tiewise.dataset import Dataset, deal_folds
from tiewise.errors import RunError, ScoresError
from tiewise.files import digest_file
from tiewise.formats import read_pairs
from tiewise.intervals import Interval
from tiewise.references import RunScores, evaluate_tables
from tiewise.runs import Run, read_oof
from tiewise.scores import compare

PROBS = ["prob_a", "prob_b", "prob_tie"]


@dataclass(frozen=True)
class Comparison:
    """Two runs on the rows that both have predicted; differences are the first minus the second.

    n, n_groups
        Rows compared, and the conversations they come from.
    n_only_first, n_only_second
        Rows that only one of the two has predicted; they are left out.
    log_loss, accuracy
        Paired differences with intervals.
    """

    first: str
    second: str
    n: int
    n_groups: int
    n_only_first: int
    n_only_second: int
    log_loss: Interval
    accuracy: Interval

    def to_dict(self) -> dict[str, Any]:
        """Return the comparison as JSON can hold it."""
        plain = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return plain | {name: plain[name].to_dict() for name in ("log_loss", "accuracy")}

    def __str__(self) -> str:
        verdict = "no difference shown"
        if self.log_loss.high < 0:
            verdict = f"{self.first} is better"
        elif self.log_loss.low > 0:
            verdict = f"{self.second} is better"
        return (
            f"{self.first} minus {self.second}, {self.n} rows of {self.n_groups} conversations\n"
            f"  log loss  {self.log_loss:+.4f}   {verdict}\n"
            f"  accuracy  {self.accuracy:+.4f}\n"
            f"  left out: {self.n_only_first} rows only in {self.first}, "
            f"{self.n_only_second} only in {self.second}"
        )


def compare_runs(first: Run, second: Run, **options: Any) -> Comparison:
    """Compare two runs' out-of-fold predictions row by row.

    Parameters
    ----------
    first, second
        Runs with finished folds over the same rows.
    **options
        As for :func:`tiewise.compare`.

    Raises
    ------
    RunError
        When the runs share no row, or disagree about a row's label.
    """
    one, two = read_shared((first, second))
    options = {"groups": one["group"].to_numpy()} | options
    pair = (one["label"].to_numpy(int), one[PROBS].to_numpy(), two[PROBS].to_numpy())
    return Comparison(
        first=first.name,
        second=second.name,
        n=len(one),
        n_groups=int(one["group"].nunique()),
        n_only_first=len(read_oof(first)) - len(one),
        n_only_second=len(read_oof(second)) - len(one),
        log_loss=compare(*pair, **options),
        accuracy=compare(*pair, metric="accuracy", **options),
    )


def read_shared(runs: Sequence[Run]) -> list[pd.DataFrame]:
    """Return the out-of-fold predictions of several runs for the rows that all have predicted.

    Returns
    -------
    list of DataFrame
        One for each run, with the same ids in the same order, that of the first.

    Raises
    ------
    RunError
        When the runs share no row, or disagree about a row's label.
    """
    tables = [read_oof(run).set_index("id", drop=False).rename_axis(None) for run in runs]
    shared = tables[0].index
    for run, table in zip(runs[1:], tables[1:], strict=True):
        shared = shared[shared.isin(table.index)]
        if not len(shared):
            raise RunError(f"{runs[0].name} and {run.name} have predicted no row in common.")
    chosen = [table.loc[shared].reset_index(drop=True) for table in tables]
    for run, table in zip(runs[1:], chosen[1:], strict=True):
        if not chosen[0]["label"].equals(table["label"]):
            raise RunError(
                f"{runs[0].name} and {run.name} disagree about labels: they were fitted on other "
                "data."
            )
    return chosen


def score_predictions(data_path: Path, predictions_path: Path) -> RunScores:
    """Score a table of predictions against labelled pairs, joined by id.

    Parameters
    ----------
    data_path
        Labelled pairs of any known format.
    predictions_path
        A csv, parquet or jsonl file with the columns id, prob_a, prob_b, prob_tie.

    Raises
    ------
    ScoresError
        When a column is missing, an id stands twice, or a labelled row has no prediction.
    """
    dataset = Dataset(read_pairs(data_path), digest_file(data_path), (data_path.name,), {})
    table = deal_folds(dataset, DataConfig())
    predictions = _read_predictions(predictions_path)
    known = pd.Index(predictions["id"].astype(str))
    position = known.get_indexer(pd.Index(table["id"].astype(str)))
    if (position < 0).any():
        missing = table["id"][position < 0]
        raise ScoresError(
            f"{predictions_path}: {len(missing)} rows of {data_path} have no prediction, such as "
            f"id={missing.iloc[0]}. Predict every row, or leave them out of the data."
        )
    probs = predictions[PROBS].iloc[position].reset_index(drop=True)
    oof = pd.concat([table[["id", "fold", "label", "group"]], probs], axis=1)
    n_unused = len(predictions) - len(np.unique(position))
    return evaluate_tables(oof, table, counts={"n_unused_predictions": n_unused})


def _read_predictions(path: Path) -> pd.DataFrame:
    readers = {
        ".csv": lambda: pd.read_csv(path, dtype={"id": str}),
        ".parquet": lambda: pd.read_parquet(path),
        ".jsonl": lambda: pd.read_json(path, lines=True, dtype={"id": str}),
    }
    if path.suffix not in readers:
        raise ScoresError(f"{path}: predictions are read from {', '.join(readers)} files.")
    try:
        table = readers[path.suffix]()
    except (OSError, ValueError) as error:
        raise ScoresError(f"{path} cannot be read: {error}.") from error
    missing = [name for name in ["id", *PROBS] if name not in table.columns]
    if missing:
        found = ", ".join(map(str, table.columns))
        raise ScoresError(f"{path} lacks the columns {', '.join(missing)}; it has {found}.")
    repeated = table["id"][table["id"].duplicated()]
    if len(repeated):
        raise ScoresError(f"{path}: id={repeated.iloc[0]} stands {len(repeated) + 1} times.")
    return table
