"""The report's section on parts of the data: where the run does better or worse than elsewhere."""

from __future__ import annotations

import pandas as pd

from tiewise.evaluation.intervals import FEW_GROUPS
from tiewise.evaluation.slices import Slices, SliceScores, evaluate_slices
from tiewise.report import figures
from tiewise.report.excerpts import label_text
from tiewise.report.sections import Omission, Picture, ReportData, Section, Table, negated, show

MAX_SLICES = 16
"""Of one family, the largest slices are shown."""

_NAMED = 3


def build_slices(material: ReportData) -> Section | Omission:
    """Say where the run does better or worse than elsewhere."""
    known = material.folds if material.pairs is None else material.pairs
    slices = evaluate_slices(known, material.oof)
    title = "Where it does better and worse"
    if not slices.rows:
        return Omission(title, "it needs the texts: give the data the run was made with (--data)")
    rows, notes = _choose(slices)
    table = slices.to_frame()
    table = table[[(f, s) in rows for f, s in zip(table["family"], table["slice"], strict=True)]]
    overall = material.scores.scores.log_loss.value
    picture = Picture(
        "slices",
        "Log loss by slice: "
        + ", ".join(f"{_named(row)} {row.log_loss.value:.3f}" for row in rows.values()),
        "Log loss of each slice with its 95 % interval and its number of pairs; dashed: all pairs. "
        "Filled: differs from all other pairs, corrected for the number of slices looked at. "
        f"Whiskers of fewer than {FEW_GROUPS} conversations are rough and may leave the figure.",
        lambda: figures.draw_slices(table, overall),
    )
    return Section(
        "slices",
        title,
        _summarise(slices),
        picture=picture if rows else None,
        tables=[_tabulate(list(rows.values()))] if rows else [],
        notes=notes,
    )


def _choose(slices: Slices) -> tuple[dict[tuple[str, str], SliceScores], list[str]]:
    """Choose the slices to show, and name what is not shown."""
    notes = [f"Not cut by {family}: {reason}." for family, reason in slices.omitted.items()]
    chosen: dict[tuple[str, str], SliceScores] = {}
    for family in dict.fromkeys(row.family for row in slices.rows):
        members = [row for row in slices.rows if row.family == family]
        if len(members) == 1:
            notes.append(f"Not cut by {family}: all pairs are «{label_text(members[0].slice)}».")
            continue
        largest = sorted(members, key=lambda row: -row.n)[:MAX_SLICES]
        if len(largest) < len(members):
            notes.append(f"Of {len(members):,} slices by {family} the {MAX_SLICES} largest stand.")
        chosen |= {(row.family, row.slice): row for row in members if row in largest}
    return chosen, notes


def _summarise(slices: Slices) -> str:
    table = slices.to_frame()
    different = [
        row for row, differs in zip(slices.rows, table["is_different"], strict=True) if differs
    ]
    counted = f"{len(different)} of {len(table)} slices differ from the rest by more than chance"
    if not different:
        return f"{counted}."
    widest: dict[str, SliceScores] = {}
    # Of a family of two, one slice says it all: the smaller, since the larger is nearly everything.
    for row in sorted(different, key=lambda row: (-round(abs(row.difference.value), 9), row.n)):
        widest.setdefault(row.family, row)
    named = "; ".join(f"{_named(row)} {_gap(row)}" for row in list(widest.values())[:_NAMED])
    return f"{counted}, the most: {named}."


def _named(row: SliceScores) -> str:
    return f"{row.family}: {label_text(row.slice)}"


def _gap(row: SliceScores) -> str:
    if row.difference.value > 0:
        return f"worse by {show(row.difference)}"
    return f"better by {show(negated(row.difference))}"


def _tabulate(rows: list[SliceScores]) -> Table:
    cells = [
        [
            _named(row),
            f"{row.n:,}",
            show(row.log_loss),
            show(row.difference),
            "" if pd.isna(row.p_holm) else f"{row.p_holm:.3f}",
            show(row.accuracy, "accuracy"),
        ]
        for row in rows
    ]
    columns = ["slice", "pairs", "log loss", "difference to the rest", "p (Holm)", "accuracy"]
    return Table("Slices", columns, cells)
