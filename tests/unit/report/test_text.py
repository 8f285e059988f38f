"""Texts from data files are shown short and with visible control characters."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strategies import any_text
from tiewise.report.text import escape_markdown, excerpt, flatten, label_text, show_controls

ALLOWED = {"\n", "\t", "\u200d"}
VALUES = st.none() | st.integers() | st.text(max_size=20) | st.lists(st.text(max_size=5))


@given(st.text("abc", max_size=40), st.integers(40, 100))
def test_short_text_is_unchanged(text, limit):
    """A text within the limit is shown as it is."""
    assert excerpt(text, limit) == text


@given(st.text("abc", min_size=50, max_size=300), st.integers(1, 49))
def test_long_text_keeps_both_ends(text, limit):
    """The excerpt has the beginning, the end and the number of characters between them."""
    head, _, rest = excerpt(text, limit).partition(" [… ")
    count, _, tail = rest.partition(" characters left out …] ")
    assert text.startswith(head)
    assert text.endswith(tail)
    assert len(head) + int(count.replace(",", "")) + len(tail) == len(text)


@given(st.text(alphabet="ab\n", max_size=200))
def test_lines_are_counted(text):
    """The excerpt has the first 40 lines and the number of the others."""
    lines, shown = text.split("\n"), excerpt(text, 10**6).split("\n")
    assert shown[:40] == lines[:40]
    assert shown[40:] == ([f"[… {len(lines) - 40} lines left out …]"] if len(lines) > 40 else [])


def test_excerpt_of_huge_text_is_short():
    """A megabyte of control characters becomes a few lines."""
    assert len(excerpt("\x00\u202e" * 10**6, 1_000)) < 9_000


@given(any_text(200))
def test_hidden_characters_become_visible(text):
    """No control, direction mark or lone surrogate is left, and the result is valid UTF-8."""
    shown = show_controls(text)
    hidden = [c for c in shown if unicodedata.category(c) in {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}]
    assert set(hidden) <= ALLOWED
    shown.encode()


@given(any_text(200))
def test_show_controls_is_idempotent(text):
    """Applying it twice is the same as once."""
    assert show_controls(show_controls(text)) == show_controls(text)


def test_stacked_accents_are_limited():
    """At most three combining marks stay on a letter."""
    assert len(show_controls("a" + "\u0301" * 500)) == 4


@pytest.mark.parametrize("text", ["Grüße, 日本語, नमस्ते, 👩‍👩‍👧", "tabs\tand\nlines"])
def test_ordinary_writing_is_unchanged(text):
    """Scripts and emoji are not control characters."""
    assert show_controls(text) == text


def test_label_is_one_short_line():
    """Line breaks and long names do not break a table."""
    assert label_text("a\n\nb") == "a b"
    assert label_text("  ") == "(empty)"
    assert len(label_text("x" * 10**6)) == 60


@given(any_text(80))
def test_escaped_markdown_has_no_markup(text):
    """Every bar, bracket, backtick and angle bracket is escaped, and there is one line."""
    escaped = escape_markdown(text)
    assert "<" not in escaped
    assert "\n" not in escaped
    bare = escaped.replace("\\\\", "")
    for mark in "|[]`*_":
        assert mark not in bare.replace(f"\\{mark}", "")


@pytest.mark.parametrize("text", ["http://evil.example", "www.evil.example", "a@evil.example"])
def test_bare_address_is_no_link(text):
    """A backslash breaks what Markdown would turn into a link."""
    assert "\\" in escape_markdown(text)


@given(st.dictionaries(st.text("abc", min_size=1, max_size=3), VALUES, max_size=4))
def test_flatten_keeps_every_name(values):
    """Each value has a dotted name and one line of text."""
    flat = flatten({"section": values})
    assert set(flat) == {f"section.{name}" for name in values}
    assert not any("\n" in text for text in flat.values())


def test_empty_values_are_none():
    """An empty list and a missing value are shown alike; False is a value."""
    assert flatten({"a": None, "b": [], "c": False}) == {"a": "none", "b": "none", "c": "False"}
