"""Figures show the values of their tables, whatever the names in them."""

import re
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from run_folders import simulated_tables
from tiewise.evaluation.intervals import Interval
from tiewise.report import figures, tables
from tiewise.report.figures import BLUE, VARIABLES, embed_svg, to_svg

HOSTILE = '</svg><script>alert(1)</script><img src=x onerror="alert(1)">'
NAMES = ["$\\frac{", "</svg><script>", "日本語", "x" * 200]


def log_losses(names):
    line = {"value": 0.9, "low": 0.8, "high": 1.0, "is_run": False}
    return pd.DataFrame([{"name": name, **line} for name in names]).assign(
        is_run=[True, *[False] * (len(names) - 1)]
    )


def slices():
    return pd.DataFrame(
        {
            "family": ["turns"] * 2 + ["language"] * 2,
            "slice": [f"slice {k}" for k in range(4)],
            "n": [100] * 4,
            "n_groups": [50] * 4,
            "value": np.linspace(0.6, 0.9, 4),
            "low": np.linspace(0.5, 0.8, 4),
            "high": np.linspace(0.7, 1.0, 4),
            "is_different": [True, False] * 2,
        }
    )


def draw(label="label"):
    return figures.draw_log_loss(log_losses([label, "uniform"]))


def tick_labels(axes):
    return [label.get_text() for label in axes.get_yticklabels()]


def legend(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


def test_colours_become_css_variables():
    """The page decides how a figure looks in light mode, in dark mode and on paper."""
    svg = embed_svg(to_svg(draw), alt="")
    assert "var(--blue)" in svg
    assert not any(color in svg for color in VARIABLES)


def test_saved_file_has_colours_and_size():
    """Programs that know no CSS variables show it as well."""
    svg = to_svg(draw).decode()
    assert BLUE in svg
    assert "var(--" not in svg
    assert re.search(r'<svg [^>]*width="', svg)


def test_ids_differ_between_figures():
    """Two figures on one page do not use each other's clip paths, and references resolve."""
    first, second = (embed_svg(to_svg(draw, name=name), alt="") for name in ("a", "b"))
    ids = [set(re.findall(r'\bid="([^"]*)"', svg)) for svg in (first, second)]
    assert ids[0]
    assert not ids[0] & ids[1]
    used = re.findall(r'(?:href="#|url\(#)([^")]*)', first)
    assert used
    assert set(used) <= ids[0]


def test_hostile_label_stays_text():
    """Markup in a name or a description arrives escaped and complete."""
    root = ElementTree.fromstring(embed_svg(to_svg(lambda: draw(HOSTILE[:25])), alt=HOSTILE))
    assert root.attrib["aria-label"] == HOSTILE
    assert any(HOSTILE[:25] in (element.text or "") for element in root.iter())
    assert not [element for element in root.iter() if element.tag.endswith(("script", "img"))]


def test_element_has_role_and_no_size():
    """CSS scales the figure; the description is for screen readers."""
    root = ElementTree.fromstring(embed_svg(to_svg(draw), alt="Description"))
    assert (root.attrib["role"], root.attrib["aria-label"]) == ("img", "Description")
    assert "viewBox" in root.attrib
    assert not {"width", "height"} & set(root.attrib)


def test_same_figure_gives_same_bytes():
    """There is no date, no version and no random id in the file."""
    assert to_svg(draw) == to_svg(draw)


def test_user_settings_are_left_alone():
    """The user's matplotlib style neither matters nor changes."""
    expected = to_svg(draw)
    with mpl.rc_context({"axes.facecolor": "red", "font.size": 30}):
        before = dict(mpl.rcParams)
        assert to_svg(draw) == expected
        assert dict(mpl.rcParams) == before


@pytest.mark.parametrize("name", NAMES)
def test_name_is_drawn_as_it_is(name):
    """A dollar starts no formula, and no name makes drawing fail."""
    root = ElementTree.fromstring(to_svg(lambda: draw(name)))
    assert any(name[:20] in (element.text or "") for element in root.iter())


def test_given_axes_are_used():
    """A drawing can be a part of the user's own figure."""
    axes = Figure().subplots()
    assert figures.draw_log_loss(log_losses(["this run", "uniform"]), axes) is axes
    assert tick_labels(axes) == ["this run", "uniform"]


def test_reliability_diagrams_are_comparable():
    """The diagrams of A, B and tie have titles and the same limits."""
    table = tables.reliability(simulated_tables(100)[2])
    drawn = [figures.draw_reliability(table, outcome) for outcome in tables.OUTCOMES]
    titles = [axes.get_title() or axes.get_title(loc="left") for axes in drawn]
    assert titles == ["A preferred", "B preferred", "tie"]
    assert len({axes.get_xlim() + axes.get_ylim() for axes in drawn}) == 1


def test_element_has_a_largest_width():
    """On a wide screen the letters of a figure are not larger than those of the text."""
    root = ElementTree.fromstring(embed_svg(to_svg(draw), alt=""))
    assert root.attrib["style"] == "max-width:29.4rem"


def test_absent_class_has_an_empty_row():
    """A class without rows has shares of 0 %."""
    table = pd.DataFrame([[3, 1, 0], [2, 5, 0], [0, 0, 0]], index=list("ABt"), columns=list("ABt"))
    shown = [text.get_text() for text in figures.draw_confusion(table).texts]
    assert shown[0] == "75%\n3"
    assert shown[6:] == ["0%\n0"] * 3


def test_each_fold_has_a_line():
    """A finished fold also has a marker for its held-out log loss."""
    history = pd.DataFrame({"rows": [10, 10, 10], "loss": [1.0, 0.9, 0.8]})
    axes = figures.draw_learning({0: history, 3: history}, {0: Interval(0.9, 0.8, 1.0)})
    assert legend(axes) == ["fold 0", "fold 3"]
    assert len(axes.containers) == 1


def test_slices_are_below_their_attribute():
    """Names and counts are in the order of the table, with a header per attribute."""
    axes = figures.draw_slices(slices(), 0.7)
    places = dict(zip(tick_labels(axes), axes.get_yticks(), strict=True))
    assert sorted(places, key=places.get) == [
        *("turns", "slice 0 (100)", "slice 1 (100)"),
        *("language", "slice 2 (100)", "slice 3 (100)"),
    ]
    assert axes.yaxis_inverted()


def test_value_without_interval_is_drawn():
    """A single group has a value and no interval."""
    table = slices().assign(low=np.nan, high=np.nan)
    assert to_svg(lambda: figures.draw_slices(table, 0.7))


def test_wide_interval_does_not_set_limits():
    """The value of a tiny slice is in the figure; the ends of its interval need not be."""
    table = slices()
    table.loc[0, ["n_groups", "low", "high"]] = [3, -50.0, 50.0]
    least, most = figures.draw_slices(table, 0.7).get_xlim()
    assert least < table["value"].min()
    assert most < 2


def test_length_panels_have_legends():
    """Both panels name their lines, and the second its unit."""
    _, folds, oof = simulated_tables(300)
    uniform = {"length only": np.full((len(oof), 3), 1 / 3)}
    table = tables.length_gap(oof, folds, uniform)
    lead, loss = figures.draw_length_lead(table), figures.draw_length_loss(table)
    assert [legend(lead), legend(loss)] == [["votes", "model"], ["length only", "model"]]
    assert "nats" in loss.get_ylabel()


def test_equal_lengths_can_be_drawn():
    """All pairs are in one bin."""
    _, folds, oof = simulated_tables(100)
    table = tables.length_gap(oof, folds.assign(n_chars_a=5, n_chars_b=5))
    assert to_svg(lambda: figures.draw_length_lead(table))
    assert to_svg(lambda: figures.draw_length_loss(table))
