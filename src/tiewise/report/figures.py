"""The report's figures: each takes a table and returns a matplotlib Figure.

Every value carries its interval, every axis its name and unit.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from tiewise.evaluation.intervals import FEW_GROUPS, Interval
from tiewise.report.drawing import (
    BLUE,
    GREEN,
    LINE,
    MARKERS,
    MUTED,
    PAPER,
    SERIES,
    VERMILLION,
    draw_whiskers,
    legend_above,
    new_figure,
    rule,
    styled,
)
from tiewise.report.excerpts import label_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_OUTCOMES = {"A": (BLUE, "o"), "B": (VERMILLION, "s"), "tie": (GREEN, "^")}
_Places = npt.NDArray[np.float64]
_LABEL = 28
"""Characters of a name beside an axis."""

_RUN = {"color": BLUE, "markerfacecolor": BLUE, "marker": "o"}
_REFERENCE = {"color": MUTED, "markerfacecolor": PAPER, "marker": "D"}


@styled
def draw_headline(table: pd.DataFrame) -> Figure:
    """Draw the log loss of the run beside the references.

    Parameters
    ----------
    table
        ``name, value, low, high, is_run``, a line a predictor, from the top.
    """
    figure = new_figure(0.5 + 0.42 * len(table))
    axes = figure.subplots()
    places = np.arange(len(table))[::-1]
    is_run = table["is_run"].to_numpy(bool)
    for chosen, style in ((is_run, _RUN), (~is_run, _REFERENCE)):
        draw_whiskers(axes, table[chosen], places[chosen], is_horizontal=True, **style)
    columns = (table[name] for name in ("name", "value", "low", "high"))
    labels = [
        f"{label_text(name, _LABEL)}\u2003{Interval(*ends):.3f}"
        for name, *ends in zip(*columns, strict=True)
    ]
    axes.set_yticks(places, labels)
    axes.set_ylim(-0.6, len(table) - 0.4)
    axes.set_xlabel("log loss (nats a pair; lower is better)")
    rule(axes, "x")
    return figure


@styled
def draw_reliability(table: pd.DataFrame) -> Figure:
    """Draw what was foretold against what happened, a panel per outcome.

    Parameters
    ----------
    table
        As :func:`tiewise.report.diagnostics.reliability` returns it.
    """
    figure = new_figure(2.75)
    panels = figure.subplots(1, 3, sharex=True, sharey=True)
    most = min(1.0, table[["predicted", "value", "high"]].max().max() * 1.06)
    for axes, (outcome, (color, marker)) in zip(panels, _OUTCOMES.items(), strict=True):
        points = table[table["outcome"] == outcome].sort_values("predicted")
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=0.8, linestyle=(0, (4, 3)))
        axes.plot(points["predicted"], points["value"], color=color, linewidth=0.8, alpha=0.5)
        draw_whiskers(
            axes, points, points["predicted"], is_horizontal=False, color=color, marker=marker
        )
        axes.set(xlim=(0, most), ylim=(0, most), aspect="equal", xlabel="probability foretold")
        axes.set_title("tie" if outcome == "tie" else f"{outcome} preferred")
        axes.tick_params(labelleft=True, labelbottom=True)
        rule(axes, "both")
    panels[0].set_ylabel("share of pairs")
    return figure


@styled
def draw_confusion(table: pd.DataFrame) -> Figure:
    """Draw what people chose against what the model held likeliest: shares of a row, and counts.

    Parameters
    ----------
    table
        As :func:`tiewise.report.diagnostics.confusion` returns it.
    """
    from matplotlib.patches import Rectangle

    figure = new_figure(2.3)
    axes = figure.subplots()
    counts = table.to_numpy()
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    for row, column in np.ndindex(3, 3):
        share = shares[row, column]
        corner, size = (column - 0.48, row - 0.46), (0.96, 0.92)
        axes.add_patch(Rectangle(corner, *size, facecolor=BLUE, alpha=0.75 * share, linewidth=0))
        axes.add_patch(Rectangle(corner, *size, facecolor="none", edgecolor=LINE, linewidth=0.7))
        weight = "bold" if row == column else "normal"
        text = f"{share:.0%}\n{counts[row, column]:,}"
        axes.text(column, row, text, ha="center", va="center", weight=weight, linespacing=1.5)
    names = list(table.columns)
    axes.set_xticks(range(3), names)
    axes.set_yticks(
        range(3), [f"{name}\n{n:,}" for name, n in zip(names, counts.sum(1), strict=True)]
    )
    axes.set(xlim=(-0.5, 2.5), ylim=(2.5, -0.5), xlabel="likeliest by the model")
    axes.set_ylabel("chosen by people")
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    return figure


@styled
def draw_learning(
    histories: Mapping[int, pd.DataFrame],
    held_out: Mapping[int, Interval],
) -> Figure:
    """Draw the training loss of each fold as rows go by, and what its held-out rows cost.

    Parameters
    ----------
    histories
        For each fold, what :func:`tiewise.report.diagnostics.read_history` returns.
    held_out
        For each finished fold, the log loss of its held-out rows.
    """
    from matplotlib.ticker import MaxNLocator

    figure = new_figure(3.0)
    axes = figure.subplots()
    most = max(history["rows"].sum() for history in histories.values())
    for position, (fold, history) in enumerate(histories.items()):
        color, marker = SERIES[position % len(SERIES)], MARKERS[position % len(MARKERS)]
        rows, smooth = history["rows"].cumsum(), _smoothed(history["loss"])
        axes.plot(rows, history["loss"], color=color, linewidth=0.6, alpha=0.25)
        axes.plot(rows, smooth, color=color, linewidth=1.5, label=f"fold {fold}")
        if fold in held_out:
            point = pd.DataFrame([held_out[fold].to_dict()])
            at = [most * (1.04 + 0.025 * position)]
            draw_whiskers(axes, point, at, is_horizontal=False, color=color, marker=marker)
    axes.axvline(most * 1.015, color=LINE, linewidth=0.7)
    axes.set(xlabel="rows seen in training", ylabel="log loss (nats a row)", xlim=(0, None))
    axes.xaxis.set_major_locator(MaxNLocator(8))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    right = most * (1.05 + 0.025 * len(histories))
    axes.text(right, 0.02, "held out", color=MUTED, rotation=90, transform=_across(axes))
    rule(axes, "y")
    legend_above(axes, n_columns=6)
    return figure


@styled
def draw_slices(table: pd.DataFrame, overall: float) -> Figure:
    """Draw the log loss of each slice, dot and whisker, under the name of what it is cut by.

    Parameters
    ----------
    table
        ``family, slice, n, n_groups, value, low, high, is_different``, a line a slice, from the
        top.
    overall
        Log loss of all rows.
    """
    places, headers = _places(table["family"])
    figure = new_figure(0.6 + 0.19 * (places.max() + 1))
    axes = figure.subplots()
    axes.axvline(overall, color=MUTED, linewidth=0.8, linestyle=(0, (4, 3)))
    is_different = table["is_different"].to_numpy(bool)
    for chosen, fill in ((is_different, BLUE), (~is_different, PAPER)):
        style = {"color": BLUE, "markerfacecolor": fill}
        draw_whiskers(axes, table[chosen], places[chosen], is_horizontal=True, **style)
    counts = zip(table["slice"], table["n"], strict=True)
    labels = [f"{label_text(name, _LABEL)} ({n:,})" for name, n in counts]
    _name_beside(axes, places, labels, headers)
    axes.set(ylim=(places.max() + 0.8, -0.8), xlabel="log loss (nats a pair; lower is better)")
    axes.set_xlim(_limits(table))
    rule(axes, "x")
    return figure


def _limits(table: pd.DataFrame) -> tuple[float, float]:
    """Span all values, and the intervals that are worth showing whole."""
    sure = table[table["n_groups"] >= FEW_GROUPS]
    ends = [table["value"], sure["low"], sure["high"]]
    least, most = min(end.min() for end in ends), max(end.max() for end in ends)
    margin = 0.04 * (most - least) or 0.1
    return least - margin, most + margin


def _name_beside(axes: Axes, places: _Places, labels: list[str], headers: dict[str, float]) -> None:
    axes.set_yticks([*places, *headers.values()], [*labels, *headers])
    for tick in axes.yaxis.get_major_ticks()[len(places) :]:
        tick.label1.set_fontweight("bold")
        tick.tick1line.set_visible(False)


def _smoothed(loss: pd.Series) -> pd.Series:
    return loss.ewm(span=max(2, len(loss) // 12)).mean()


def _places(families: pd.Series) -> tuple[_Places, dict[str, float]]:
    """Place slices below one another with a line above each family for its name."""
    places: list[float] = []
    headers: dict[str, float] = {}
    place = -1.0
    for position, family in enumerate(families):
        if position == 0 or family != families.iloc[position - 1]:
            place += 1.0 if not headers else 1.4
            headers[str(family)] = place
        place += 1.0
        places.append(place)
    return np.array(places), headers


def _across(axes: Axes) -> Any:
    """Measure along the data horizontally, along the height of the axes vertically."""
    return axes.get_xaxis_transform()
