"""Runs held against one another on the rows that they have in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from tiewise.assessment.judged import Judged
from tiewise.errors import RunError
from tiewise.evaluation.intervals import Interval, few_groups_mark
from tiewise.evaluation.paired import PairedDifferences, compare_many
from tiewise.evaluation.scores import compare
from tiewise.pairs.labels import PROB_COLUMNS
from tiewise.runs.folder import Run
from tiewise.runs.tables import read_oof


@dataclass(frozen=True)
class Comparison:
    """Two runs on the rows that both have predicted; differences are the first minus the second.

    n, n_groups
        Rows compared, and the conversations they come from.
    n_only_first, n_only_second, n_unlabelled
        Rows that only one of the two has predicted, and rows that nobody has judged; they are left
        out.
    log_loss, accuracy
        Paired differences with intervals.
    """

    first: str
    second: str
    n: int
    n_groups: int
    n_only_first: int
    n_only_second: int
    n_unlabelled: int
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
            f"{self.first} minus {self.second}, {self.n} rows of {self.n_groups} conversations"
            f"{few_groups_mark(self.n_groups)}\n"
            f"  log loss  {self.log_loss:+.4f}   {verdict}\n"
            f"  accuracy  {self.accuracy:+.4f}\n"
            f"  left out: {self.n_only_first} rows only in {self.first}, "
            f"{self.n_only_second} only in {self.second}, {self.n_unlabelled} without a label"
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
        When the runs share no labelled row, or disagree about a row's label.
    """
    shared = read_shared((first, second))
    is_labelled = shared[0]["label"].notna().to_numpy()
    if not is_labelled.any():
        raise RunError(f"{first.name} and {second.name} share no labelled row.")
    one, two = (table[is_labelled] for table in shared)
    options = {"groups": one["group"].to_numpy()} | options
    pair = (one["label"].to_numpy(int), one[PROB_COLUMNS].to_numpy(), two[PROB_COLUMNS].to_numpy())
    return Comparison(
        first=first.name,
        second=second.name,
        n=len(one),
        n_groups=int(one["group"].nunique()),
        n_only_first=len(read_oof(first)) - len(shared[0]),
        n_only_second=len(read_oof(second)) - len(shared[0]),
        n_unlabelled=int((~is_labelled).sum()),
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
    return share_rows([(run.name, read_oof(run)) for run in runs])


def share_rows(named: Sequence[tuple[str, pd.DataFrame]]) -> list[pd.DataFrame]:
    """Return tables of predictions, given with their names, cut as :func:`read_shared` does."""
    tables = [table.set_index("id", drop=False).rename_axis(None) for _, table in named]
    names = [name for name, _ in named]
    shared = tables[0].index
    for name, table in zip(names[1:], tables[1:], strict=True):
        shared = shared[shared.isin(table.index)]
        if not len(shared):
            raise RunError(f"{names[0]} and {name} have predicted no row in common.")
    chosen = [table.loc[shared].reset_index(drop=True) for table in tables]
    for name, table in zip(names[1:], chosen[1:], strict=True):
        if not chosen[0]["label"].equals(table["label"]):
            raise RunError(
                f"{names[0]} and {name} disagree about labels: they were fitted on other data."
            )
    return chosen


def compare_with_reference(
    judged: Sequence[Judged], reference: Judged, *, is_by_slice: bool = False, **options: Any
) -> PairedDifferences:
    """Compare many with one, each on the rows that it and the reference have predicted.

    Parameters
    ----------
    judged, reference
        Predictions of the same data.
    is_by_slice
        Also compare them on each slice of the rows, for which the reference's texts are needed.
    **options
        As for :func:`tiewise.compare`.

    Raises
    ------
    RunError
        When one is named twice, shares no row with the reference, or disagrees about a label; when
        slices are asked for and there are no texts.
    """
    tables = {one.name: one.oof for one in judged}
    if len({*tables, reference.name}) <= len(judged):
        raise RunError("A run is named twice; name each run once, the reference last.")
    left_out = {}
    for name, table in tables.items():
        n = len(share_rows([(name, table), (reference.name, reference.oof)])[0])
        left_out[name] = (len(table) - n, len(reference.oof) - n)
    texts = reference.texts() if is_by_slice else None
    found = compare_many(tables, reference.oof, pairs=texts, **options)
    return replace(found, reference=reference.name, left_out=left_out)
