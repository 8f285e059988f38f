"""Sections of a report that compare slices of the data, models and runs.

Builders are as in :mod:`tiewise.report.sections`.
"""

from __future__ import annotations

import math

import pandas as pd

from tiewise.errors import ScoresError
from tiewise.evaluation.intervals import FEW_GROUPS
from tiewise.evaluation.leaderboard import Leaderboards, rank_models
from tiewise.evaluation.paired import PairedDifference
from tiewise.evaluation.slices import Slices, SliceScores, format_p
from tiewise.report import figures
from tiewise.report.content import NEEDS_TEXTS, Omission, Panel, ReportData, Section
from tiewise.report.text import label_text, show, show_difference

MAX_SLICES = 16  # shown per attribute
MAX_MODELS = 30
_MAX_NAMED = 3


def build_slices(data: ReportData) -> Section | Omission:
    """Score subsets of the pairs, and name those that differ from the rest."""
    slices = data.slices
    chosen, notes = _choose_slices(slices)
    if not chosen:
        return Omission("Slices", NEEDS_TEXTS if data.pairs is None else " ".join(notes))
    table = slices.to_frame()
    wanted = {(row.family, row.slice) for row in chosen}
    table = table[[key in wanted for key in zip(table["family"], table["slice"], strict=True)]]
    shown = {
        "slice": [slice_name(row) for row in chosen],
        "pairs": [f"{row.n:,}" for row in chosen],
        "log loss": [show(row.log_loss) for row in chosen],
        "difference to the rest": [show_difference(row.difference) for row in chosen],
        "p (Holm)": [_show_p(row.p_holm) for row in chosen],
        "accuracy": [show(row.accuracy, "accuracy") for row in chosen],
    }
    overall, text = data.scores.log_loss.value, _name_different(slices)
    alt = f"Log loss by slice. {text}"
    return Section(
        "slices",
        "Slices",
        text,
        [Panel("slices", lambda: figures.draw_slices(table, overall), alt)],
        "Log loss of each slice with its 95 % interval and number of pairs; dashed: all pairs. "
        "Filled: differs from all other pairs after Holm's correction. Intervals from fewer than "
        f"{FEW_GROUPS} prompt groups are rough, never filled, and may leave the figure.",
        pd.DataFrame(shown),
        notes=notes,
    )


def build_leaderboard(data: ReportData) -> Section | Omission:
    """Rank the models that the data name, by votes and by predictions."""
    title = "Leaderboard"
    if data.pairs is None:
        return Omission(title, NEEDS_TEXTS)
    try:
        boards = rank_models(data.pairs, data.oof)
    except ScoresError as error:
        return Omission(title, str(error).rstrip("."))
    models = boards.observed.models
    text = (
        f"Agreement of the order of {len(models)} models by votes with that by predictions "
        f"(Kendall's tau; 1: equal, 0: unrelated): {show(boards.agreement)}. With the lengths of "
        f"the responses controlled: {show(boards.agreement_controlled)}."
    )
    notes = []
    if boards.omitted:
        named = ", ".join(label_text(name) for name in boards.omitted)
        notes.append(f"Not ranked, as no chain of pairs connects them to these models: {named}.")
    if len(models) > MAX_MODELS:
        notes.append(f"Showing the {MAX_MODELS} strongest models by votes.")
    table = _tabulate_strengths(boards)
    return Section(
        "leaderboard",
        title,
        text,
        [Panel("leaderboard", lambda: figures.draw_leaderboard(table), text)],
        "Strength of each model: log odds of a win against an average model, with 95 % intervals. "
        "The predictions are probabilities, so their strengths differ less.",
        _show_strengths(boards),
        notes=notes,
    )


def build_runs(data: ReportData) -> Section | Omission:
    """Compare other runs in the artifacts folder with this run."""
    title = "Other runs"
    if not data.others:
        return Omission(title, "no other run here has the same data and folds")
    rows = data.differences.overall
    table = pd.DataFrame(
        [{"name": row.run, **vars(row.log_loss), "is_different": row.is_clear} for row in rows]
    )
    shown = {
        "run": [label_text(row.run) for row in rows],
        "pairs": [f"{row.n:,}" for row in rows],
        "log loss": [show_difference(row.log_loss) for row in rows],
        "accuracy": [show_difference(row.accuracy, "accuracy") for row in rows],
        "p (Holm)": [_show_p(row.p_holm) for row in rows],
    }
    text = describe_runs(rows)
    return Section(
        "runs",
        title,
        text,
        [Panel("runs", lambda: figures.draw_differences(table), text)],
        "Each other run minus this run, paired on the pairs that both predicted, with 95 % "
        "intervals. Left of zero: the other run is better. Filled: different after Holm's "
        "correction.",
        pd.DataFrame(shown),
        is_table_open=True,
    )


def describe_runs(rows: tuple[PairedDifference, ...]) -> str:
    """Name the other runs that are clearly better, and count the others."""
    better = better_runs(rows)
    n_worse = sum(row.is_clear and row.log_loss.value > 0 for row in rows)
    n_runs = f"{len(rows)} other run{'s have' if len(rows) != 1 else ' has'}"
    text = (
        f"{n_runs} the same data and folds. Clearly better than this run: {len(better)}; clearly "
        f"worse: {n_worse}."
    )
    if not better:
        return text
    named = [
        f"{label_text(row.run)} {show_difference(row.log_loss)}" for row in better[:_MAX_NAMED]
    ]
    return f"{text} The best, by log loss: {'; '.join(named)}."


def better_runs(rows: tuple[PairedDifference, ...]) -> list[PairedDifference]:
    """Return the other runs that are clearly better, the best first."""
    found = [row for row in rows if row.is_clear and row.log_loss.value < 0]
    return sorted(found, key=lambda row: row.log_loss.value)


def slice_name(row: SliceScores) -> str:
    """Return the attribute and the value of a slice."""
    return f"{row.family}: {label_text(row.slice)}"


def _show_p(p_value: float) -> str:
    return "" if math.isnan(p_value) else format_p(p_value).removeprefix("p ")


def _choose_slices(slices: Slices) -> tuple[list[SliceScores], list[str]]:
    """Return the slices to show, and notes on those that are left out."""
    notes = [f"Not sliced by {family}: {reason}." for family, reason in slices.omitted.items()]
    chosen: list[SliceScores] = []
    for family in dict.fromkeys(row.family for row in slices.rows):
        members = [row for row in slices.rows if row.family == family]
        if len(members) == 1:
            notes.append(f'Not sliced by {family}: all pairs are "{label_text(members[0].slice)}".')
            continue
        largest = sorted(members, key=lambda row: -row.n)[:MAX_SLICES]
        if len(largest) < len(members):
            notes.append(
                f"Showing the {MAX_SLICES} largest of {len(members):,} slices by {family}."
            )
        chosen += [row for row in members if row in largest]
    return chosen, notes


def _name_different(slices: Slices) -> str:
    is_different = slices.to_frame()["is_different"]
    different = [row for row, differs in zip(slices.rows, is_different, strict=True) if differs]
    text = f"{len(different)} of {len(slices.rows)} slices differ significantly from the rest"
    largest: dict[str, SliceScores] = {}
    # Two slices of one attribute differ equally from each other: the smaller one is named.
    for row in sorted(different, key=lambda row: (-round(abs(row.difference.value), 9), row.n)):
        largest.setdefault(row.family, row)
    named = [
        f"{slice_name(row)} {show_difference(row.difference)}"
        for row in list(largest.values())[:_MAX_NAMED]
    ]
    return f"{text}, most of all in log loss {'; '.join(named)}." if named else f"{text}."


def _tabulate_strengths(boards: Leaderboards) -> pd.DataFrame:
    """Return ``model, by, value, low, high`` of the strongest models by votes."""
    models = boards.observed.models[:MAX_MODELS]
    lines = []
    for by, board in (("votes", boards.observed), ("predictions", boards.predicted)):
        strengths = dict(zip(board.models, board.strengths, strict=True))
        lines += [{"model": name, "by": by, **vars(strengths[name])} for name in models]
    return pd.DataFrame(lines)


def _show_strengths(boards: Leaderboards) -> pd.DataFrame:
    """Return the four strengths of each model as texts, the strongest by votes first."""
    models = boards.observed.models[:MAX_MODELS]
    columns = {
        "votes": boards.observed,
        "predictions": boards.predicted,
        "votes, length controlled": boards.observed_controlled,
        "predictions, length controlled": boards.predicted_controlled,
    }
    shown = {"model": [label_text(name) for name in models]}
    for name, board in columns.items():
        strengths = dict(zip(board.models, board.strengths, strict=True))
        shown[name] = [show_difference(strengths[model]) for model in models]
    return pd.DataFrame(shown)
