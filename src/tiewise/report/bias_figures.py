"""Figures of what a model might lean on instead of reading: length, and who stands first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from tiewise.evaluation.intervals import Interval
from tiewise.report.drawing import (
    BLUE,
    INK,
    MUTED,
    VERMILLION,
    draw_whiskers,
    legend_above,
    new_figure,
    rule,
    styled,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@styled
def draw_length_gap(table: pd.DataFrame) -> Figure:
    """Draw votes, predictions and log loss by how much longer A is than B.

    Parameters
    ----------
    table
        As :func:`tiewise.report.bias_tables.length_gap` returns it.
    """
    figure = new_figure(3.0)
    lead, loss = figure.subplots(1, 2)
    lead.axhline(0, color=MUTED, linewidth=0.7)
    _draw_by_ratio(lead, table, "observed lead", "votes", color=INK, marker="o", offset=-0.012)
    _draw_by_ratio(lead, table, "predicted lead", "model", color=BLUE, marker="s", offset=0.012)
    lead.set_ylabel("lead of A (share of A minus share of B)")
    others = [name for name in table["quantity"].unique() if name.startswith("log loss of ")]
    for name, marker in zip(others, ("D", "v", "^"), strict=False):
        label = name.removeprefix("log loss of ")
        _draw_by_ratio(loss, table, name, label, color=MUTED, marker=marker, offset=-0.012)
    _draw_by_ratio(loss, table, "log loss", "model", color=BLUE, marker="s", offset=0.012)
    loss.set_ylabel("log loss (nats a pair)")
    for axes in (lead, loss):
        axes.set_xlabel("length of A over length of B")
        legend_above(axes)
        _ratio_ticks(axes, table["ratio"])
        rule(axes, "y")
    return figure


@styled
def draw_positions(table: pd.DataFrame, bias: Interval) -> Figure:
    """Draw each row's prediction in one order against that in the other.

    Parameters
    ----------
    table
        As :func:`tiewise.report.bias_tables.both_orders` returns it.
    bias
        Mean of the lead of the response shown first, in [-1, 1].
    """
    figure = new_figure(3.1)
    scatter, histogram = figure.subplots(1, 2)
    scatter.plot([-1, 1], [-1, 1], color=MUTED, linewidth=0.8, linestyle=(0, (4, 3)))
    is_flipped = table["is_flipped"].to_numpy(bool)
    kinds = ((~is_flipped, BLUE, "o", "same outcome"), (is_flipped, VERMILLION, "s", "flipped"))
    for chosen, color, marker, label in kinds:
        rows, alpha = table[chosen], float(np.clip(60 / np.sqrt(len(table) + 1), 0.12, 0.7))
        # Dots by the thousand are one picture: as shapes they would weigh megabytes.
        scatter.plot(
            rows["given"], rows["swapped"], marker, color=color, alpha=alpha, markersize=2.6,
            markeredgewidth=0, rasterized=True,
        )  # fmt: skip
        scatter.plot([], [], marker, color=color, markersize=4, label=f"{label}: {len(rows):,}")
    most = float(np.clip(1.15 * table[["given", "swapped"]].abs().max().max(), 0.1, 1.02))
    limits = (-most, most)
    scatter.set(xlim=limits, ylim=limits, aspect="equal", xlabel="P(A) − P(B), order as given")
    scatter.set_ylabel("P(A) − P(B), order swapped")
    legend_above(scatter)
    rule(scatter, "both")
    _draw_first_lead(histogram, (table["given"] - table["swapped"]) / 2, bias)
    return figure


def _draw_first_lead(axes: Axes, leads: pd.Series, bias: Interval) -> None:
    most = max(0.05, float(leads.abs().max()))
    axes.hist(leads, bins=np.linspace(-most, most, 42).tolist(), color=BLUE, alpha=0.55)
    axes.axvline(0, color=MUTED, linewidth=0.8)
    axes.axvline(bias.value, color=VERMILLION, linewidth=1.4)
    if np.isfinite(bias.low):
        axes.axvspan(bias.low, bias.high, color=VERMILLION, alpha=0.25, linewidth=0)
    axes.set_title(f"mean {bias:+.3f}".replace("-", "−"), color=VERMILLION)
    axes.set(xlabel="lead for standing first", ylabel="pairs")
    rule(axes, "y")


def _draw_by_ratio(
    axes: Axes, table: pd.DataFrame, quantity: str, label: str, *, offset: float, **style: Any
) -> None:
    points = table[table["quantity"] == quantity].sort_values("ratio")
    width = np.ptp(table["ratio"].to_numpy()) or 1.0
    at = points["ratio"] + offset * width
    axes.plot(at, points["value"], color=style["color"], linewidth=0.8, alpha=0.5)
    draw_whiskers(axes, points, at, is_horizontal=False, label=label, **style)


def _ratio_ticks(axes: Axes, ratios: pd.Series) -> None:
    """Name powers of two as people say them: ¼, ½, as long, 2, 4 times."""
    most = int(np.ceil(ratios.abs().max()))
    step = max(1, -(-most // 3))
    powers = np.arange(-(most // step) * step, most + 1, step)
    axes.set_xticks(powers, [f"{2**p}×" if p >= 0 else f"1/{2**-p}" for p in powers.tolist()])
