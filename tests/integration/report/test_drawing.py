"""A figure becomes a picture that follows its page, and the same bytes each time."""

import re
import warnings
from xml.etree import ElementTree

import matplotlib as mpl

from tiewise.report.drawing import (
    BLUE,
    VARIABLES,
    embed_svg,
    house_style,
    new_figure,
    styled,
    to_svg,
)

HOSTILE = '</svg><script>alert(1)</script><img src=x onerror="alert(1)">'


@styled
def draw(label="label", color=BLUE):
    figure = new_figure(2)
    axes = figure.subplots()
    axes.plot([0, 1, 2], [1, 0, 2], color=color, marker="o", label=label)
    axes.set_xlabel(label)
    axes.legend()
    return figure


def test_colours_are_those_of_the_page():
    """No colour of the palette is left as a number: light, dark and paper decide."""
    svg = embed_svg(to_svg(draw()), name="figure", alt="")
    assert "var(--blue)" in svg
    assert not any(colour in svg for colour in VARIABLES)


def test_ids_bear_the_figures_name_and_references_follow():
    """Two figures in one page do not borrow each other's clips."""
    svg = embed_svg(to_svg(draw()), name="first", alt="")
    ids = re.findall(r'\bid="([^"]*)"', svg)
    assert ids
    assert all(name.startswith("first-") for name in ids)
    used = re.findall(r'(?:href="#|url\(#)([^")]*)', svg)
    assert used
    assert set(used) <= set(ids)


def test_a_label_from_data_stays_text():
    """Markup in a name arrives escaped, and is all there."""
    svg = embed_svg(to_svg(draw(HOSTILE)), name="figure", alt=HOSTILE)
    root = ElementTree.fromstring(svg)
    assert root.attrib["aria-label"] == HOSTILE
    assert HOSTILE in [element.text for element in root.iter()]
    assert not [element for element in root.iter() if element.tag.endswith(("script", "img"))]


def test_a_picture_says_what_it_is_and_leaves_its_size_to_the_page():
    """A role, words, a box to scale and no width."""
    root = ElementTree.fromstring(embed_svg(to_svg(draw()), name="figure", alt="What it shows"))
    assert root.attrib["role"] == "img"
    assert root.attrib["aria-label"] == "What it shows"
    assert "viewBox" in root.attrib
    assert not {"width", "height"} & set(root.attrib)


def test_the_same_figure_is_the_same_bytes():
    """No date, no version, no random ids."""
    assert to_svg(draw()) == to_svg(draw())


def test_a_saved_figure_has_its_own_colours_and_size():
    """Programs that know no CSS variables show it as well."""
    svg = to_svg(draw()).decode()
    assert BLUE in svg
    assert "var(--" not in svg
    assert re.search(r'<svg [^>]*width="', svg)


def test_a_dollar_is_a_dollar():
    """Names are never read as formulas."""
    assert "$\\frac{" in embed_svg(to_svg(draw("$\\frac{")), name="figure", alt="")


def test_the_users_own_settings_neither_matter_nor_change():
    """Drawing leaves no trace, and takes no notice of a style set before."""
    expected = to_svg(draw())
    with mpl.rc_context({"axes.facecolor": "red", "font.size": 30}):
        before = dict(mpl.rcParams)
        assert to_svg(draw()) == expected
        assert dict(mpl.rcParams) == before


def test_the_house_style_warns_of_nothing():
    """Every setting is one that this matplotlib knows."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with house_style():
            assert mpl.rcParams["svg.fonttype"] == "none"
