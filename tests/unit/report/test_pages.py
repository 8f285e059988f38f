"""Values get into pages as text, and what is missing is named."""

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiewise.errors import RunError
from tiewise.report.drawing import house_style
from tiewise.report.pages import flatten, make_environment, split_interval

LEAVES = st.none() | st.integers() | st.text(max_size=20) | st.lists(st.text(max_size=5))


def test_without_jinja2_a_page_says_what_to_install(monkeypatch):
    """Plain words, no traceback about a module."""
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(RunError, match=r"need jinja2: pip install 'tiewise\[plot\]'"):
        make_environment()


def test_without_matplotlib_a_figure_says_what_to_install(monkeypatch):
    """The same for drawing."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with (
        pytest.raises(RunError, match=r"need matplotlib: pip install 'tiewise\[plot\]'"),
        house_style(),
    ):
        pass


@given(st.dictionaries(st.text("abc", min_size=1, max_size=3), LEAVES, max_size=4))
def test_flattening_loses_no_name(values):
    """A name for each value, each value one line."""
    flat = flatten({"section": values})
    assert set(flat) == {f"section.{name}" for name in values}
    assert not any("\n" in text for text in flat.values())


def test_nothing_is_called_none():
    """An empty list and a missing value read alike."""
    assert flatten({"a": None, "b": [], "c": False}) == {"a": "none", "b": "none", "c": "False"}


@pytest.mark.parametrize(
    ("cell", "parts"),
    [
        ("−0.120 [−0.200, −0.050]", ("−0.120", "[−0.200, −0.050]")),
        ("53.5% [51.3%, 55.7%]", ("53.5%", "[51.3%, 55.7%]")),
        ("0.602 [unknown]", ("0.602", "[unknown]")),
        ("gpt-4 [x]", ("gpt-4 [x]", "")),
        ("[0.1] x", ("[0.1] x", "")),
    ],
)
def test_an_interval_is_set_apart_from_its_number(cell, parts):
    """And a name with brackets is left alone."""
    assert split_interval(cell) == parts
