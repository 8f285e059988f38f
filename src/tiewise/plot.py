"""Figures of the predictions of a run, on matplotlib Axes: ``tw.plot.calibration("first")``.

They are those of the report. Each function draws on `ax`, or on new Axes of pyplot when it is None,
and returns them. A run is given as a run, its name, or the path of its folder, with `artifacts` as
in :func:`tiewise.open_run`. Figures that need predictions only also take a table, so those of any
judge can be drawn. Install matplotlib with ``pip install 'tiewise[plot]'``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from tiewise.api import Files, open_run
from tiewise.data.labels import PROB_COLUMNS, swap_probs
from tiewise.errors import ConfigError, ScoresError, missing_extra
from tiewise.evaluation.metrics import check_labels, check_probs, log_losses
from tiewise.evaluation.position import lead_of_first, measure_position_bias
from tiewise.report import figures, tables
from tiewise.runs.folder import RunFolder
from tiewise.runs.tables import read_folds, read_oof

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "calibration", "confusion_matrix", "length_bias", "log_loss", "position_bias", "slices",
]  # fmt: skip
AnyRun = str | Path | RunFolder
_ROW = 0.27  # inches of a row of a forest plot
_BOTH_ORDERS = [f"{name}_{order}" for order in ("given", "swapped") for name in PROB_COLUMNS]


def __dir__() -> list[str]:
    """Return the figures, for completion in a notebook."""
    return __all__


def log_loss(run: AnyRun, *, ax: Axes | None = None, artifacts: str | Path | None = None) -> Axes:
    """Draw the log loss of a run and of every reference, with intervals; lower is better.

    Parameters
    ----------
    run, artifacts
        As in :func:`tiewise.open_run`.
    ax
        Axes to draw on; None makes a figure.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    RunError
        If there is no such run, or no fold is finished.
    DeviceError
        If matplotlib is not installed.
    """
    table = tables.log_losses_of(open_run(run, artifacts).scores)
    return _draw(lambda axes: figures.draw_log_loss(table, axes), ax, n_rows=len(table))


def calibration(
    source: AnyRun | pd.DataFrame,
    *,
    ax: Axes | None = None,
    artifacts: str | Path | None = None,
) -> Axes:
    """Draw reliability diagrams of the three outcomes: predicted probability, and share of pairs.

    Pairs are in bins of equal size; shares have 95 % intervals. Dashed: perfect calibration.

    Parameters
    ----------
    source
        A run, its name or its path; or a table with ``label`` (0 A, 1 B, 2 tie), ``prob_a``,
        ``prob_b``, ``prob_tie`` and optionally ``group``, such as :func:`tiewise.read_oof` returns.
    ax, artifacts
        As in :func:`log_loss`.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    RunError, DeviceError
        As in :func:`log_loss`.
    ScoresError
        If the table has other columns, or probabilities or labels are invalid.
    """
    table = tables.reliability(_read_rows(source, artifacts))

    def draw(axes: Axes) -> Axes:
        for outcome in tables.OUTCOMES:
            figures.draw_reliability(table, outcome, axes)
        axes.set_title("")
        axes.legend()
        return axes

    return _draw(draw, ax)


def confusion_matrix(
    source: AnyRun | pd.DataFrame,
    *,
    ax: Axes | None = None,
    artifacts: str | Path | None = None,
) -> Axes:
    """Draw the labels (rows) against the most probable outcome (columns): shares and counts.

    Parameters
    ----------
    source, ax, artifacts
        As in :func:`calibration`.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    RunError, DeviceError, ScoresError
        As in :func:`calibration`.
    """
    table = tables.confusion(_read_rows(source, artifacts))
    return _draw(lambda axes: figures.draw_confusion(table, axes), ax)


def position_bias(
    source: AnyRun | pd.DataFrame,
    *,
    ax: Axes | None = None,
    artifacts: str | Path | None = None,
) -> Axes:
    """Draw how far a pair favours the response shown first, and the mean with its interval.

    The lead of the first response is P(first wins) - P(second wins), averaged over both orders of
    the pair: 0 without position bias, in [-1, 1].

    Parameters
    ----------
    source
        As in :func:`calibration`; a table needs ``prob_*_given`` and ``prob_*_swapped`` too.
    ax, artifacts
        As in :func:`log_loss`.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    RunError, DeviceError, ScoresError
        As in :func:`calibration`; also if only one order was scored.
    """
    rows = _read_rows(source, artifacts)
    if missing := [name for name in _BOTH_ORDERS if name not in rows]:
        raise ScoresError(
            f"there is no column {missing[0]}: only one order of the responses was scored, and "
            "position bias needs both. Fit with --swap; the feature model has no position bias."
        )
    rows = rows[rows[_BOTH_ORDERS].notna().all(axis=1)]
    given, permuted = np.split(rows[_BOTH_ORDERS].to_numpy(np.float64), 2, axis=1)
    # The table has both orders in A and B of the pair.
    swapped = swap_probs(permuted)
    mean = measure_position_bias(given, swapped, groups=rows["group"]).bias_before
    leads = lead_of_first(given, swapped)
    return _draw(lambda axes: figures.draw_position_bias(leads, mean, axes), ax)


def length_bias(
    run: AnyRun, *, ax: Axes | None = None, artifacts: str | Path | None = None
) -> Axes:
    """Draw the lead of A in votes and in predictions, by the relative length of the responses.

    Where both agree, the model weighs length as people do. A lead is the share of A minus the share
    of B, in [-1, 1].

    Parameters
    ----------
    run, ax, artifacts
        As in :func:`log_loss`.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    RunError, DeviceError
        As in :func:`log_loss`.
    """
    rows = _read_rows(run, artifacts)
    table = tables.length_gap(rows, read_folds(run, artifacts))
    return _draw(lambda axes: figures.draw_length_lead(table, axes), ax)


def slices(
    run: AnyRun,
    *,
    by: Sequence[str] = (),
    data: Files = (),
    ax: Axes | None = None,
    artifacts: str | Path | None = None,
) -> Axes:
    """Draw the log loss of slices of the data, such as one language; dashed: all pairs.

    Filled markers differ from all other pairs after Holm's correction. Intervals from few prompt
    groups may leave the figure.

    Parameters
    ----------
    run, ax, artifacts
        As in :func:`log_loss`.
    by
        Attributes by which to slice, such as ``["language", "turns"]``; all of them when empty.
    data
        Where the run's data are now, if not where they were.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    RunError, DeviceError
        As in :func:`log_loss`; also if the data are not those of the run.
    ConfigError
        If the data cannot be sliced by an attribute in `by`.
    """
    opened = open_run(run, artifacts)
    table = opened.slices(data=data).to_frame()
    known = list(dict.fromkeys(table["family"]))
    if unknown := [name for name in by if name not in known]:
        raise ConfigError(f"by is {unknown[0]!r}; expected some of {', '.join(known)}.")
    table = table[table["family"].isin(list(by) or known)]
    rows = _read_rows(opened, artifacts)
    overall = float(log_losses(rows["label"].to_numpy(int), tables.probs_of(rows)).mean())
    n_rows = len(table) + 2 * table["family"].nunique()
    return _draw(lambda axes: figures.draw_slices(table, overall, axes), ax, n_rows=n_rows)


def _read_rows(source: AnyRun | pd.DataFrame, artifacts: str | Path | None) -> pd.DataFrame:
    """Return the labelled rows of a run's predictions or of a table, with a group each."""
    if not isinstance(source, pd.DataFrame):
        table = read_oof(source, artifacts)
    elif "label" not in source:
        listed = ", ".join(map(str, source.columns))
        raise ScoresError(f"columns of the table are {listed}; label is missing.")
    else:
        table = source.assign(
            **dict(zip(PROB_COLUMNS, check_probs(source, len(source)).T, strict=True))
        )
        if "group" not in table:
            table["group"] = range(len(table))
    rows = table[table["label"].notna()].reset_index(drop=True)
    if rows.empty:
        raise ScoresError("there is no row with a label; a figure needs labels.")
    check_labels(rows["label"])
    return rows


def _draw(draw: Callable[[Axes], Axes], ax: Axes | None, *, n_rows: int | None = None) -> Axes:
    """Draw on `ax`, or on the Axes of a new figure that has room for `n_rows` rows."""
    try:
        import matplotlib.pyplot as plt
    except ModuleNotFoundError as error:
        raise missing_extra("tw.plot", error, "plot") from error
    with plt.rc_context({"text.parse_math": False}):  # names in the data are no formulas
        if ax is None:
            size = (4.8, 4.0) if n_rows is None else (6.4, 0.8 + _ROW * n_rows)
            ax = plt.subplots(figsize=size, layout="constrained")[1]
        return draw(ax)
