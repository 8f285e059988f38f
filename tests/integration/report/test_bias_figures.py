"""Figures of length and of order show each row's or bin's number."""

import numpy as np
import pandas as pd
import pytest

from run_folders import simulated_tables
from tiewise.evaluation.intervals import Interval
from tiewise.report.bias_figures import draw_length_gap, draw_positions
from tiewise.report.bias_tables import both_orders, length_gap
from tiewise.report.drawing import to_svg


@pytest.fixture(scope="module")
def tables():
    return simulated_tables(300)


def test_votes_and_model_stand_side_by_side(tables):
    """Both panels name what they show and its unit."""
    _, folds, oof = tables
    uniform = {"length only": np.full((len(oof), 3), 1 / 3)}
    lead, loss = draw_length_gap(length_gap(oof, folds, uniform)).axes
    named = [[text.get_text() for text in axes.get_legend().get_texts()] for axes in (lead, loss)]
    assert named == [["votes", "model"], ["length only", "model"]]
    assert "nats" in loss.get_ylabel()


def test_equal_lengths_everywhere_can_be_drawn(tables):
    """One bin, no width: no division by it."""
    _, folds, oof = tables
    even = folds.assign(n_chars_a=5, n_chars_b=5)
    assert draw_length_gap(length_gap(oof, even)).axes


def test_every_pair_is_a_dot_and_the_flips_are_counted(tables):
    """The legend adds up to the rows."""
    table = both_orders(tables[2])
    scatter, histogram = draw_positions(table, Interval(0.05, 0.04, 0.06)).axes
    drawn = sum(len(line.get_xdata()) for line in scatter.lines if line.get_rasterized())
    assert drawn == len(table)
    counts = [int(text.get_text().split(": ")[1]) for text in scatter.get_legend().get_texts()]
    assert counts == [(~table["is_flipped"]).sum(), table["is_flipped"].sum()]
    assert "+0.050" in histogram.get_title(loc="left")


def test_dots_by_the_thousand_weigh_as_much_as_a_picture(tables):
    """The size of the figure does not grow with the rows."""
    table = both_orders(tables[2])
    many = pd.concat([table] * 100, ignore_index=True)
    figure = draw_positions(many, Interval(0.05, 0.04, 0.06))
    assert len(to_svg(figure)) < 300_000


def test_a_model_without_any_bias_can_be_drawn():
    """All on the diagonal, no width of the histogram."""
    table = pd.DataFrame({"given": [0.1, 0.2], "swapped": [0.1, 0.2], "is_flipped": [False] * 2})
    assert draw_positions(table, Interval(0.0, np.nan, np.nan)).axes
