"""Comparison of runs with one reference run, paired by row, on all rows and by slice.

The difference of log loss and of accuracy in each row is resampled by group. The p-values (of log
loss) are Holm-adjusted, once for the runs on all rows and once for all their slices; they say which
differences are clear.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Unpack

import numpy as np
import pandas as pd

from tiewise.data.labels import PROB_COLUMNS
from tiewise.errors import ScoresError
from tiewise.evaluation.intervals import (
    FEW_GROUPS,
    BootstrapOptions,
    FloatArray,
    Interval,
    Result,
    check_confidence,
    few_groups_mark,
    group_rows,
)
from tiewise.evaluation.metrics import check_labels
from tiewise.evaluation.scores import bootstrap_difference, paired_terms
from tiewise.evaluation.slices import (
    adjust_rows,
    bootstrap_slices,
    format_p,
    join_rows,
    slice_rows,
)

OVERALL = "all rows"


@dataclass(frozen=True)
class PairedDifference(Result):
    """Difference between one run and the reference on all rows or on one slice."""

    run: str
    family: str
    slice: str
    """Attribute by which the rows are sliced, and its value; "all rows" for all of them."""

    n: int
    n_groups: int
    log_loss: Interval
    accuracy: Interval
    """Scores of the run minus those of the reference: lower log loss means better."""

    p_value: float
    p_holm: float = float("nan")
    is_clear: bool = False
    """Whether the adjusted p-value is small enough, and a slice has enough prompt groups."""

    def __str__(self) -> str:
        verdict = ""
        if self.is_clear:
            verdict = ", better" if self.log_loss.value < 0 else ", worse"
        return (
            f"{self.n:7,}  log loss {self.log_loss:+.4f}  accuracy {self.accuracy:+.4f}  "
            f"{format_p(self.p_holm)}{verdict}{few_groups_mark(self.n_groups)}"
        )


@dataclass(frozen=True)
class PairedDifferences(Result):
    """Differences between every run and the reference: on all rows, then by slice."""

    reference: str
    differences: tuple[PairedDifference, ...]
    omitted: dict[str, str]
    """By attribute: why the rows could not be sliced by it."""

    left_out: dict[str, dict[str, int]] = field(default_factory=dict)
    """By run: number of rows without a label, only in the run, and only in the reference."""

    @property
    def overall(self) -> tuple[PairedDifference, ...]:
        """The differences on all rows."""
        return tuple(row for row in self.differences if row.family == OVERALL)

    def __str__(self) -> str:
        names = [
            row.run if row.family == OVERALL else f"{row.run}, {row.family}: {row.slice}"
            for row in self.differences
        ]
        width = max(map(len, names), default=0)
        lines = [f"difference to {self.reference}, paired; intervals by group, Holm-adjusted p"]
        lines += [
            f"{name:{width}}  {row}" for name, row in zip(names, self.differences, strict=True)
        ]
        for name, counts in self.left_out.items():
            if any(counts.values()):
                lines.append(
                    f"left out: {counts['only_run']:,} rows only in {name}, "
                    f"{counts['only_reference']:,} only in {self.reference}, "
                    f"{counts['unlabelled']:,} without a label"
                )
        return "\n".join(lines + [f"{name}: omitted, {why}" for name, why in self.omitted.items()])


def compare_many(
    runs: Mapping[str, pd.DataFrame],
    reference: pd.DataFrame,
    *,
    name: str = "the reference",
    pairs: pd.DataFrame | None = None,
    **options: Unpack[BootstrapOptions],
) -> PairedDifferences:
    """Compare every run with the reference on the rows that both predicted.

    Tables have `id, prob_a, prob_b, prob_tie`, the reference also `label` and `group`; with the
    `pairs` table the runs are compared on each slice too. ScoresError is raised if a run shares no
    labelled row with the reference or has other labels. Slices that hold all rows are left out.
    """
    omitted: dict[str, str] = {}
    left_out: dict[str, dict[str, int]] = {}
    found: list[PairedDifference] = []
    for run_name, run in runs.items():
        table, terms, left_out[run_name] = _paired_rows(run_name, run, name, reference)
        found.append(_compare_all(run_name, table, terms, options))
        slicings: dict[str, pd.Series] = {}
        if pairs is not None:
            slicings, omitted = slice_rows(join_rows(pairs, table))
            whole = [family for family, slices in slicings.items() if _is_one_part(slices)]
            omitted |= dict.fromkeys(whole, "all rows are in one part")
            slicings = {family: slicings[family] for family in slicings if family not in whole}
        grouped = group_rows(table["group"], terms)
        for family, slices in slicings.items():
            found += [
                PairedDifference(run_name, **about, log_loss=loss, accuracy=right, p_value=p[0])
                for about, (loss, right, _), p in bootstrap_slices(
                    family, slices, grouped, terms, is_share=False, **options
                )
            ]
    shown = {row.family for row in found}
    omitted = {family: why for family, why in omitted.items() if family not in shown}
    level = check_confidence(options.get("confidence_level", 0.95))
    parts = [
        adjust_rows([row for row in found if (row.family == OVERALL) == is_overall])
        for is_overall in (True, False)
    ]
    rows = [replace(row, is_clear=_is_clear(row, level)) for part in parts for row in part]
    return PairedDifferences(name, tuple(rows), omitted, left_out)


def _is_one_part(slices: pd.Series) -> bool:
    return bool(slices.notna().all() and slices.nunique() == 1)


def _is_clear(row: PairedDifference, confidence_level: float) -> bool:
    is_rough = row.family != OVERALL and row.n_groups < FEW_GROUPS
    return not is_rough and row.p_holm < 1 - confidence_level


def _compare_all(
    name: str, table: pd.DataFrame, terms: FloatArray, options: BootstrapOptions
) -> PairedDifference:
    """Return the difference on all rows, with the intervals of :func:`tiewise.compare`."""
    loss, right, counted = terms.T
    labels = check_labels(table["label"])
    (of_loss, n_groups), (of_right, _) = (
        bootstrap_difference(labels, term, counted, groups=table["group"], **options)
        for term in (loss, right)
    )
    return PairedDifference(
        name,
        OVERALL,
        OVERALL,
        n=len(table),
        n_groups=n_groups,
        log_loss=of_loss.intervals()[0],
        accuracy=of_right.intervals()[0].clip(-1, 1),
        p_value=float(of_loss.p_values(max(n_groups - 1, 1))[0]),
    )


def _paired_rows(
    name: str, run: pd.DataFrame, reference_name: str, reference: pd.DataFrame
) -> tuple[pd.DataFrame, FloatArray, dict[str, int]]:
    """Return the labelled rows of both, their terms (n, 3), and how many rows were left out.

    The terms are the difference of log loss, that of accuracy, and one.
    """
    tables = [table.set_index(table["id"].astype(str)) for table in (run, reference)]
    for table in tables:
        if not table.index.is_unique:
            first = table.index[table.index.duplicated()][0]
            raise ScoresError(
                f"run {name} or {reference_name} predicts id {first} more than once; expected once."
            )
    shared = tables[1].index[tables[1].index.isin(tables[0].index)]
    own, other = (table.loc[shared] for table in tables)
    if "label" in own and not own["label"].astype("Int64").equals(other["label"].astype("Int64")):
        raise ScoresError(
            f"{name} and {reference_name} have different labels. Compare runs of the same data."
        )
    is_labelled = other["label"].notna().to_numpy()
    if not is_labelled.any():
        raise ScoresError(
            f"{name} shares no labelled row with {reference_name}. Compare runs of the same data."
        )
    labels = check_labels(other["label"][is_labelled])
    probs = [table.loc[is_labelled, PROB_COLUMNS].to_numpy() for table in (own, other)]
    terms = [paired_terms(labels, *probs, metric=metric)[0] for metric in ("log_loss", "accuracy")]
    counts = {
        "only_run": len(run) - len(shared),
        "only_reference": len(reference) - len(shared),
        "unlabelled": int((~is_labelled).sum()),
    }
    rows = other[is_labelled].reset_index(drop=True)
    return rows, np.column_stack([*terms, np.ones(len(rows))]), counts
