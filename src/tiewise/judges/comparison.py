"""Comparison of runs, or of predictions of any judge, on the rows that both predicted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from tiewise.errors import RunError
from tiewise.evaluation.paired import PairedDifferences, compare_many
from tiewise.judges.labelled_predictions import LabelledPredictions, load_run_predictions
from tiewise.runs.folder import RunFolder
from tiewise.runs.tables import read_oof


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


def read_shared(runs: Sequence[RunFolder]) -> list[pd.DataFrame]:
    """Return the predictions of several runs for the rows that all predicted, in one order.

    RunError is raised when they share no row, or their labels differ.
    """
    tables = [read_oof(run).set_index("id", drop=False).rename_axis(None) for run in runs]
    shared = tables[0].index
    for run, table in zip(runs[1:], tables[1:], strict=True):
        shared = shared[shared.isin(table.index)]
        if not len(shared):
            raise RunError(
                f"{runs[0].name} and {run.name} have no row in common. Name runs of the same data."
            )
    chosen = [table.loc[shared].reset_index(drop=True) for table in tables]
    for run, table in zip(runs[1:], chosen[1:], strict=True):
        if not chosen[0]["label"].equals(table["label"]):
            raise RunError(
                f"{runs[0].name} and {run.name} have different labels. Name runs of the same data."
            )
    return chosen
