"""Figures show what their tables say, whatever the names in them."""

import numpy as np
import pandas as pd
import pytest

from tiewise.evaluation.intervals import Interval
from tiewise.report.drawing import to_svg
from tiewise.report.figures import (
    draw_confusion,
    draw_headline,
    draw_learning,
    draw_reliability,
    draw_slices,
)

HOSTILE = ["$\\frac{", "</svg><script>", "a\x00b", "日本語", "x" * 200]


def headline(names):
    line = {"value": 0.9, "low": 0.8, "high": 1.0, "is_run": False}
    return pd.DataFrame([{"name": name, **line} for name in names]).assign(
        is_run=[True, *[False] * (len(names) - 1)]
    )


def slices(n=4):
    return pd.DataFrame(
        {
            "family": ["turns"] * (n // 2) + ["language"] * (n - n // 2),
            "slice": [f"slice {k}" for k in range(n)],
            "n": [100] * n,
            "n_groups": [50] * n,
            "value": np.linspace(0.6, 0.9, n),
            "low": np.linspace(0.5, 0.8, n),
            "high": np.linspace(0.7, 1.0, n),
            "is_different": [k % 2 == 0 for k in range(n)],
        }
    )


def texts_of(figure):
    axes = figure.axes[0]
    return [label.get_text() for label in axes.get_yticklabels()]


def test_the_headline_says_each_value_with_its_interval():
    """Nobody has to read a dot off an axis."""
    figure = draw_headline(headline(["this run", "uniform"]))
    assert [text.split("\u2003") for text in texts_of(figure)] == [
        ["this run", "0.900 [0.800, 1.000]"],
        ["uniform", "0.900 [0.800, 1.000]"],
    ]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_from_data_is_drawn_as_it_is(name):
    """A dollar is no formula, and nothing fails."""
    figure = draw_headline(headline(["this run", name.replace("\x00", "␀")]))
    assert name[:3].replace("\x00", "␀") in texts_of(figure)[1]
    assert to_svg(figure)


def test_each_outcome_has_a_panel_with_its_points():
    """A, B and tie, told apart by place, colour and marker."""
    line = {"bin": 0, "n": 10, "predicted": 0.3, "value": 0.4, "low": 0.3, "high": 0.5}
    table = pd.DataFrame([{"outcome": name, **line} for name in ("A", "B", "tie")])
    figure = draw_reliability(table)
    assert [axes.get_title(loc="left") for axes in figure.axes] == [
        "A preferred",
        "B preferred",
        "tie",
    ]


def test_a_class_that_never_occurs_leaves_an_empty_row():
    """No share is divided by nothing."""
    table = pd.DataFrame([[3, 1, 0], [2, 5, 0], [0, 0, 0]], index=list("ABt"), columns=list("ABt"))
    shown = [text.get_text() for text in draw_confusion(table).axes[0].texts]
    assert shown[0] == "75%\n3"
    assert shown[6:] == ["0%\n0"] * 3


def test_every_fold_has_a_line_and_a_marker():
    """Held-out losses stand beside the training they followed."""
    history = pd.DataFrame({"rows": [10, 10, 10], "loss": [1.0, 0.9, 0.8]})
    figure = draw_learning({0: history, 3: history}, {0: Interval(0.9, 0.8, 1.0)})
    labels = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert labels == ["fold 0", "fold 3"]
    assert len(figure.axes[0].containers) == 1


def test_slices_stand_under_their_family_from_the_top():
    """Names and counts in the order of the table, families in bold between them."""
    axes = draw_slices(slices(), 0.7).axes[0]
    places = dict(zip(texts_of(axes.figure), axes.get_yticks(), strict=True))
    ordered = sorted(places, key=places.get)
    assert ordered == [
        *("turns", "slice 0 (100)", "slice 1 (100)"),
        *("language", "slice 2 (100)", "slice 3 (100)"),
    ]
    assert axes.yaxis_inverted()


def test_a_value_without_an_interval_is_still_drawn():
    """One group has a value and no interval."""
    table = slices().assign(low=np.nan, high=np.nan)
    assert to_svg(draw_slices(table, 0.7))


def test_the_whisker_of_a_tiny_slice_does_not_flatten_the_others():
    """Its value is in the figure, the ends of its interval need not be."""
    table = slices()
    table.loc[0, ["n_groups", "low", "high"]] = [3, -50.0, 50.0]
    least, most = draw_slices(table, 0.7).axes[0].get_xlim()
    assert least < table["value"].min()
    assert most < 2
