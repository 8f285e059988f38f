"""Figures of the report: matplotlib drawings, saved as SVG and adapted to the page.

Every ``draw_*`` draws on `axes`, or on new ones if None, and returns them. A figure has one panel,
narrow enough to be read on a phone: the page arranges several next to each other. Text remains
text, so that it can be searched. The colours are those of Okabe and Ito (2008), Color Universal
Design; in the page each is a CSS variable, so that one drawing fits light, dark and paper.
"""

from __future__ import annotations

import html
import io
import re
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from tiewise.errors import RunError
from tiewise.evaluation.intervals import FEW_GROUPS, FloatArray, Interval
from tiewise.report.text import label_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK, MUTED, LINE, PAPER = "#1b1f24", "#66707b", "#dde2e8", "#ffffff"
BLUE, VERMILLION, GREEN = "#0072b2", "#d55e00", "#009e73"
PURPLE, ORANGE, SKY = "#cc79a7", "#e69f00", "#56b4e9"
VARIABLES = {
    INK: "--ink", MUTED: "--muted", LINE: "--line", PAPER: "--paper", BLUE: "--blue",
    VERMILLION: "--vermillion", GREEN: "--green", PURPLE: "--purple", ORANGE: "--orange",
    SKY: "--sky",
}  # fmt: skip
_SERIES = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY)
_MARKERS = ("o", "s", "^", "D", "v", "P")
_STYLE_PATH = Path(__file__).with_name("templates") / "figures.mplstyle"
_WIDTH = 4.2  # inches: about the width of a phone in portrait
_REM_PER_INCH = 7.0  # in the page: letters of 13 pixels at most
_MAX_LABEL = 25  # characters of a name at an axis
_LOG_LOSS = "log loss (lower is better)"
_OUTCOME_TITLES = {"A": "A preferred", "B": "B preferred", "tie": "tie"}
_DASHED: dict[str, Any] = {"color": MUTED, "linewidth": 0.8, "linestyle": (0, (4, 3))}


def to_svg(draw: Callable[[], Axes], *, name: str = "figure") -> bytes:
    """Call a drawing function in the style of the report and return its figure as an SVG file.

    Equal figures give equal bytes. The user's own matplotlib settings neither matter nor change.
    """
    try:
        import matplotlib as mpl
    except ImportError as error:
        raise RunError("Figures need matplotlib: run pip install 'tiewise[plot]'.") from error
    target = io.BytesIO()
    with mpl.rc_context(fname=_STYLE_PATH), warnings.catch_warnings():
        # The font lacks some scripts; a browser shows their letters with another font.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        mpl.rcParams["svg.hashsalt"] = name  # so that ids differ between the figures of a page
        metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure: Any = draw().figure  # for its type also a SubFigure, which has no savefig
        figure.savefig(target, format="svg", metadata=metadata)
    return target.getvalue()


def embed_svg(svg: bytes, *, alt: str) -> str:
    """Return the SVG file of a figure as an element of an HTML page, described by `alt`.

    The element has a largest width and no size, so that CSS scales it, and CSS variables in place
    of colours.
    """
    text = svg.decode()
    start, inner = text[text.index("<svg") :].split(">", 1)
    width = float(re.search(r' width="([\d.]+)pt"', start)[1]) / 72  # type: ignore[index]
    start = re.sub(r' (?:width|height|version)="[^"]*"', "", start)
    inner = re.sub(r"<metadata>.*?</metadata>", "", inner, flags=re.DOTALL)
    inner = re.sub(r'<g id="[^"]*"', "<g", inner)  # not referenced, and repeated between figures
    for color, variable in VARIABLES.items():
        inner = inner.replace(f": {color}", f": var({variable})")
    style = f"max-width:{width * _REM_PER_INCH:.1f}rem"
    return f'{start} role="img" aria-label="{html.escape(alt)}" style="{style}">{inner}'


def draw_log_loss(table: pd.DataFrame, axes: Axes | None = None) -> Axes:
    """Draw the log loss of the run and of the references: ``name, value, low, high, is_run``."""
    axes = axes or _new_axes(0.6 + 0.3 * len(table))
    places = np.arange(len(table))[::-1]
    is_run = table["is_run"].to_numpy(bool)
    for chosen, color, fill, marker in ((is_run, BLUE, BLUE, "o"), (~is_run, MUTED, PAPER, "D")):
        style = {"color": color, "markerfacecolor": fill, "marker": marker}
        _draw_intervals(axes, table[chosen], places[chosen], is_horizontal=True, **style)
    axes.set_yticks(places, [label_text(name, _MAX_LABEL) for name in table["name"]])
    axes.set_ylim(-0.6, len(table) - 0.4)
    axes.set_xlabel(_LOG_LOSS)
    axes.grid(axis="x")
    return axes


def draw_reliability(table: pd.DataFrame, outcome: str, axes: Axes | None = None) -> Axes:
    """Draw the reliability diagram of A, B or tie from :func:`tiewise.report.tables.reliability`.

    The diagrams of one table have the same limits, so that they can be compared.
    """
    axes = axes or _new_axes(2.6, width=2.6)
    place = list(_OUTCOME_TITLES).index(outcome)
    limit = min(1.0, table[["predicted", "value", "high"]].max().max() * 1.06)
    points = table[table["outcome"] == outcome].sort_values("predicted")
    axes.plot([0, 1], [0, 1], **_DASHED)
    style = {"color": _SERIES[place], "marker": _MARKERS[place]}
    _draw_line(axes, points, points["predicted"], label=_OUTCOME_TITLES[outcome], **style)
    axes.set(xlim=(0, limit), ylim=(0, limit), aspect="equal")
    axes.set(xlabel="predicted probability", ylabel="share of pairs")
    axes.set_title(_OUTCOME_TITLES[outcome])
    axes.grid()
    return axes


def draw_confusion(table: pd.DataFrame, axes: Axes | None = None) -> Axes:
    """Draw shares of each row and counts of :func:`tiewise.report.tables.confusion`."""
    from matplotlib.patches import Rectangle

    axes = axes or _new_axes(2.4, width=3.4)
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
    totals = [f"{name}\n{n:,}" for name, n in zip(names, counts.sum(1), strict=True)]
    axes.set_yticks(range(3), totals)
    axes.set(xlim=(-0.5, 2.5), ylim=(2.5, -0.5), xlabel="most probable", ylabel="label")
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    return axes


def draw_position_bias(leads: FloatArray, mean: Interval, axes: Axes | None = None) -> Axes:
    """Draw the leads (n,) of the response shown first, in [-1, 1], and their mean."""
    axes = axes or _new_axes(2.8)
    limit = max(0.1, float(abs(leads).max()))
    axes.hist(leads, bins=40, range=(-limit, limit), color=BLUE, alpha=0.75, zorder=2)
    axes.axvline(0, **_DASHED)
    axes.axvspan(mean.low, mean.high, color=VERMILLION, alpha=0.25, linewidth=0)
    axes.axvline(mean.value, color=VERMILLION, linewidth=1.5, label=f"mean {mean:.3f}")
    axes.set(xlabel="lead of the first response, both orders averaged", ylabel="pairs")
    axes.grid(axis="y")
    _legend_above(axes)
    return axes


def draw_learning(
    histories: Mapping[int, pd.DataFrame],
    held_out: Mapping[int, Interval],
    axes: Axes | None = None,
) -> Axes:
    """Draw the training loss of each fold over rows, and the log loss of its held-out rows."""
    axes = axes or _new_axes(2.8)
    most = max(history["rows"].sum() for history in histories.values())
    for position, (fold, history) in enumerate(histories.items()):
        color, marker = _SERIES[position % len(_SERIES)], _MARKERS[position % len(_MARKERS)]
        rows, loss = history["rows"].cumsum(), history["loss"]
        smooth = loss.ewm(span=max(2, len(loss) // 12)).mean()
        axes.plot(rows, loss, color=color, linewidth=0.6, alpha=0.25)
        axes.plot(rows, smooth, color=color, linewidth=1.5, label=f"fold {fold}")
        if fold in held_out:
            point = pd.DataFrame([held_out[fold].to_dict()])
            at = [most * (1.04 + 0.025 * position)]
            _draw_intervals(axes, point, at, color=color, marker=marker)
    axes.axvline(most * 1.015, color=LINE, linewidth=0.7)
    axes.set(xlabel="training rows", ylabel="log loss (nats per row)", xlim=(0, None))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    right = most * (1.06 + 0.025 * len(histories))
    transform = axes.get_xaxis_transform()  # data horizontally, share of the axes vertically
    axes.text(right, 0.02, "held out", color=MUTED, rotation=90, transform=transform)
    axes.grid(axis="y")
    _legend_above(axes)
    return axes


def draw_slices(table: pd.DataFrame, overall: float, axes: Axes | None = None) -> Axes:
    """Draw the log loss of each slice (``Slices.to_frame``); `overall` is that of all rows."""
    families, headers = pd.factorize(table["family"])
    places = 1 + np.arange(len(table)) + 1.4 * families
    firsts = np.unique(families, return_index=True)[1]
    axes = axes or _new_axes(0.6 + 0.19 * (places.max() + 1))
    axes.axvline(overall, **_DASHED)
    is_different = table["is_different"].to_numpy(bool)
    for chosen, fill in ((is_different, BLUE), (~is_different, PAPER)):
        style = {"color": BLUE, "markerfacecolor": fill}
        _draw_intervals(axes, table[chosen], places[chosen], is_horizontal=True, **style)
    counts = zip(table["slice"], table["n"], strict=True)
    labels = [f"{label_text(name, _MAX_LABEL)} ({n:,})" for name, n in counts]
    axes.set_yticks([*places, *places[firsts] - 1], [*labels, *headers])
    for tick in axes.yaxis.get_major_ticks()[len(places) :]:
        tick.label1.set_fontweight("bold")
        tick.tick1line.set_visible(False)
    axes.set(ylim=(places.max() + 0.8, -0.8), xlabel=_LOG_LOSS)
    axes.set_xlim(_slice_limits(table))
    axes.grid(axis="x")
    return axes


def draw_length_lead(table: pd.DataFrame, axes: Axes | None = None) -> Axes:
    """Draw votes and predictions by length from :func:`tiewise.report.tables.length_gap`."""
    axes = axes or _new_axes(2.7, width=3.3)
    axes.axhline(0, color=MUTED, linewidth=0.7)
    _draw_by_length(axes, table, "observed lead", label="votes", color=INK, marker="o")
    _draw_by_length(axes, table, "predicted lead", label="model", color=BLUE, marker="s")
    axes.set_ylabel("lead of A (share of A − share of B)")
    _finish_by_length(axes)
    return axes


def draw_length_loss(table: pd.DataFrame, axes: Axes | None = None) -> Axes:
    """Draw the log loss by length from :func:`tiewise.report.tables.length_gap`."""
    axes = axes or _new_axes(2.7, width=3.3)
    prefix = "log loss of "
    for name in table["quantity"].unique():
        if name.startswith(prefix):
            label = name.removeprefix(prefix)
            _draw_by_length(axes, table, name, label=label, color=MUTED, marker="D")
    _draw_by_length(axes, table, "log loss", label="model", color=BLUE, marker="s")
    axes.set_ylabel("log loss (nats per pair)")
    _finish_by_length(axes)
    return axes


def draw_leaderboard(table: pd.DataFrame, axes: Axes | None = None) -> Axes:
    """Draw strengths of models: ``model, by, value, low, high``; `by` is votes or predictions."""
    models = list(dict.fromkeys(table["model"]))
    axes = axes or _new_axes(0.85 + 0.27 * len(models))
    for by, color, marker, shift in (("votes", INK, "o", -0.13), ("predictions", BLUE, "s", 0.13)):
        rows = table[table["by"] == by]
        at = rows["model"].map(models.index).to_numpy() + shift
        style = {"color": color, "marker": marker, "label": by}
        _draw_intervals(axes, rows, at, is_horizontal=True, **style)
    axes.set_yticks(range(len(models)), [label_text(name, _MAX_LABEL) for name in models])
    axes.set(ylim=(len(models) - 0.4, -0.6), xlabel="strength (log odds)")
    axes.grid(axis="x")
    _legend_above(axes)
    return axes


def draw_differences(table: pd.DataFrame, axes: Axes | None = None) -> Axes:
    """Draw differences of log loss to a run: ``name, value, low, high, is_different``."""
    axes = axes or _new_axes(0.7 + 0.27 * len(table))
    axes.axvline(0, **_DASHED)
    places = np.arange(len(table))
    is_different = table["is_different"].to_numpy(bool)
    for chosen, fill in ((is_different, BLUE), (~is_different, PAPER)):
        style = {"color": BLUE, "markerfacecolor": fill}
        _draw_intervals(axes, table[chosen], places[chosen], is_horizontal=True, **style)
    axes.set_yticks(places, [label_text(name, _MAX_LABEL) for name in table["name"]])
    axes.set(ylim=(len(table) - 0.4, -0.6), xlabel="difference of log loss (nats per pair)")
    axes.grid(axis="x")
    return axes


def _draw_by_length(axes: Axes, table: pd.DataFrame, quantity: str, **style: Any) -> None:
    points = table[table["quantity"] == quantity].sort_values("ratio")
    # The lines of the model and of the others do not overlap.
    at = points["ratio"] * (1.02 if style["label"] == "model" else 0.98)
    _draw_line(axes, points, at, **style)


def _finish_by_length(axes: Axes) -> None:
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(lambda x, _: f"{x:g}×" if x >= 1 else f"1/{1 / x:g}×")
    axes.set_xlabel("length of A over length of B")
    _legend_above(axes)
    axes.grid(axis="y")


def _new_axes(height: float, *, width: float = _WIDTH) -> Axes:
    """Return the axes of a new figure, which pyplot does not show by itself; sizes in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height)).subplots()


def _draw_intervals(
    axes: Axes, table: pd.DataFrame, at: Any, *, is_horizontal: bool = False, **style: Any
) -> None:
    """Draw points with intervals; `at` (n,) is their position along the other axis."""
    value = table["value"].to_numpy(float)
    ends = abs(table[["low", "high"]].to_numpy(float).T - value)
    options = {"linestyle": "none", "elinewidth": 1.3, "marker": "o", **style}
    if is_horizontal:
        axes.errorbar(value, at, xerr=ends, **options)
    else:
        axes.errorbar(at, value, yerr=ends, **options)


def _draw_line(axes: Axes, points: pd.DataFrame, at: pd.Series, **style: Any) -> None:
    axes.plot(at, points["value"], color=style["color"], linewidth=0.8, alpha=0.5)
    _draw_intervals(axes, points, at, **style)


def _legend_above(axes: Axes, n_columns: int = 3) -> None:
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=n_columns)


def _slice_limits(table: pd.DataFrame) -> tuple[float, float]:
    """Return limits that show all values, and the intervals of slices with enough groups."""
    sure = table[table["n_groups"] >= FEW_GROUPS]
    ends = [table["value"], sure["low"], sure["high"]]
    least, most = min(end.min() for end in ends), max(end.max() for end in ends)
    margin = 0.04 * (most - least) or 0.1
    return least - margin, most + margin
