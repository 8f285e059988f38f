"""Runs held against one another on the rows that they have in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from tiewise.errors import RunError
from tiewise.intervals import Interval, few_groups_mark
from tiewise.judged import Judged
from tiewise.paired import PairedDifferences, compare_many
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
            f"{self.first} minus {self.second}, {self.n} rows of {self.n_groups} conversations"
            f"{few_groups_mark(self.n_groups)}\n"
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
    tables = [read_oof(run).set_index("id") for run in (first, second)]
    one, two = _shared_rows(first.name, tables[0], second.name, tables[1])
    shared = one.index
    options = {"groups": one["group"].to_numpy()} | options
    pair = (one["label"].to_numpy(int), one[PROBS].to_numpy(), two[PROBS].to_numpy())
    return Comparison(
        first=first.name,
        second=second.name,
        n=len(shared),
        n_groups=int(one["group"].nunique()),
        n_only_first=len(tables[0]) - len(shared),
        n_only_second=len(tables[1]) - len(shared),
        log_loss=compare(*pair, **options),
        accuracy=compare(*pair, metric="accuracy", **options),
    )


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
        own, other = table.set_index("id"), reference.oof.set_index("id")
        shared, _ = _shared_rows(name, own, reference.name, other)
        left_out[name] = (len(own) - len(shared), len(other) - len(shared))
    texts = reference.texts() if is_by_slice else None
    found = compare_many(tables, reference.oof, pairs=texts, **options)
    return replace(found, reference=reference.name, left_out=left_out)


def _shared_rows(
    name: str, table: pd.DataFrame, other_name: str, other: pd.DataFrame
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the rows of both that both have, by id; labels must be the same."""
    shared = table.index.intersection(other.index)
    one, two = table.loc[shared], other.loc[shared]
    if not len(shared):
        raise RunError(f"{name} and {other_name} have predicted no row in common.")
    if not one["label"].equals(two["label"]):
        raise RunError(
            f"{name} and {other_name} disagree about labels: they were fitted on other data."
        )
    return one, two
