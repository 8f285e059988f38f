"""The public figures draw the numbers of a run or of a table, on Axes of the caller."""

from __future__ import annotations

import sys

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes

import tiewise as tw
from run_folders import simulated_run
from tiewise.report import tables

PROBS = ["prob_a", "prob_b", "prob_tie"]


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory):
    """Return a folder with a run of simulated pairs that was scored in both orders."""
    folder = tmp_path_factory.mktemp("artifacts")
    simulated_run(folder, 300)
    return folder


@pytest.fixture(autouse=True)
def close_figures():
    """Close the figures of a test."""
    yield
    plt.close("all")


OF_TABLES = ("calibration", "confusion_matrix", "position_bias")
OF_RUNS = ("log_loss", "length_bias", "slices")


def test_only_figures_are_listed():
    """Completion in a notebook offers the figures, not the imports of the module."""
    assert sorted(dir(tw.plot)) == sorted([*OF_TABLES, *OF_RUNS])


@pytest.mark.parametrize("name", [*OF_TABLES, *OF_RUNS])
def test_figure_is_drawn_on_axes(artifacts, name):
    """The Axes of the caller are drawn on and returned; without any, pyplot has a new figure."""
    draw = getattr(tw.plot, name)
    ours = plt.figure().subplots()
    assert draw("simulated", ax=ours, artifacts=artifacts) is ours
    assert ours.has_data() or ours.texts
    new = draw(tw.open_run("simulated", artifacts))
    assert isinstance(new, Axes)
    assert new is plt.gca()
    new.figure.canvas.draw()


@pytest.mark.parametrize("name", OF_TABLES)
def test_table_draws_as_run(artifacts, name):
    """A table of predictions in any order of its columns gives the figure of the run."""
    draw = getattr(tw.plot, name)
    table = tw.read_oof("simulated", artifacts)
    by_table, by_run = draw(table[table.columns[::-1]]), draw("simulated", artifacts=artifacts)
    assert len(by_table.lines) == len(by_run.lines)
    for one, other in zip(by_table.lines, by_run.lines, strict=True):
        np.testing.assert_array_equal(one.get_xydata(), other.get_xydata())
    texts = [[text.get_text() for text in axes.texts] for axes in (by_table, by_run)]
    assert texts[0] == texts[1]


def test_calibration_has_all_outcomes(artifacts):
    """One line for each outcome has the points of the table of the report."""
    axes = tw.plot.calibration("simulated", artifacts=artifacts)
    legend = [text.get_text() for text in axes.get_legend().get_texts()]
    assert legend == ["A preferred", "B preferred", "tie"]
    table = tables.reliability(tw.read_oof("simulated", artifacts))
    drawn = {tuple(point) for line in axes.lines for point in line.get_xydata().round(9)}
    assert set(map(tuple, table[["predicted", "value"]].to_numpy().round(9))) <= drawn


def test_position_bias_is_mean_lead(artifacts):
    """The line marked as the mean is at the public position bias of the two orders."""
    table = tw.read_oof("simulated", artifacts)
    given = table[[f"{name}_given" for name in PROBS]].to_numpy()
    swapped = tw.swap_probs(table[[f"{name}_swapped" for name in PROBS]].to_numpy())
    bias = tw.position_bias(given, swapped, groups=table["group"])
    axes = tw.plot.position_bias(table)
    assert float(axes.lines[1].get_xdata()[0]) == pytest.approx(float(bias))
    assert sum(patch.get_height() for patch in axes.patches[:40]) == len(table)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (PROBS, "label is missing"),
        (["label", "prob_a", "prob_b"], "prob_tie is missing"),
    ],
)
def test_incomplete_table_is_refused(columns, message):
    """The message names the missing column."""
    table = pd.DataFrame([[0.2] * len(columns)], columns=columns)
    with pytest.raises(tw.ScoresError, match=message):
        tw.plot.calibration(table)


def test_one_order_has_no_position_bias(artifacts):
    """Predictions of one order are refused, and the message says why."""
    table = tw.read_oof("simulated", artifacts)[["label", *PROBS]]
    with pytest.raises(tw.ScoresError, match="only one order of the responses was scored"):
        tw.plot.position_bias(table)


def test_unlabelled_table_is_refused(artifacts):
    """Without labels nothing is drawn."""
    table = tw.read_oof("simulated", artifacts).assign(label=pd.NA)
    with pytest.raises(tw.ScoresError, match="no row with a label"):
        tw.plot.confusion_matrix(table)


def test_slices_are_chosen_by_attribute(artifacts):
    """Only the attributes named are drawn; the message for another lists those that there are."""
    axes = tw.plot.slices("simulated", by=["truncated"], artifacts=artifacts)
    labels = [label.get_text().split(" (")[0] for label in axes.get_yticklabels()]
    assert sorted(labels) == ["truncated", "truncated", "whole"]
    with pytest.raises(tw.ConfigError, match=r"by is 'mood'; expected some of .*truncated"):
        tw.plot.slices("simulated", by=["mood"], artifacts=artifacts)


def test_names_are_no_formulas(artifacts, monkeypatch):
    """Names of slices with dollar signs are drawn as they are."""
    frame = tw.open_run("simulated", artifacts).slices().to_frame().assign(slice=r"$\frac{")
    monkeypatch.setattr("tiewise.evaluation.slices.Slices.to_frame", lambda _: frame)
    axes = tw.plot.slices("simulated", artifacts=artifacts)
    axes.figure.canvas.draw()
    assert axes.get_yticklabels()[0].get_text().startswith(r"$\frac{")


def test_missing_matplotlib_is_named(artifacts, monkeypatch):
    """Without matplotlib the error names the extra that installs it."""
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(tw.DeviceError, match=r"pip install 'tiewise\[plot\]'"):
        tw.plot.calibration("simulated", artifacts=artifacts)
