"""Texts by strangers are shown short, visible and inert."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strategies import any_text
from tiewise.report.excerpts import (
    bound_lines,
    escape_markdown,
    excerpt,
    label_text,
    shorten,
    show_controls,
)

ALLOWED = {"\n", "\t", "\u200d"}


@given(any_text(), st.integers(40, 100))
def test_a_short_text_is_left_as_it_is(text, limit):
    """What fits is not touched."""
    assert shorten(text, limit) == text


@given(st.text(min_size=50, max_size=300), st.integers(1, 49))
def test_a_long_text_keeps_both_ends_and_says_how_much_is_missing(text, limit):
    """Head and tail are the text's own, and the count adds up to its length."""
    shown = shorten(text, limit)
    head, _, rest = shown.partition(" [… ")
    assert text.startswith(head) or " [… " in text
    assert shown.endswith(text[len(text) - limit // 4 :])
    assert f"{len(text) - limit} characters left out" in shown or "," in rest


@given(any_text(200))
def test_nothing_invisible_is_left_and_what_is_shown_encodes(text):
    """Controls, direction marks and lone surrogates become visible; UTF-8 takes the rest."""
    shown = show_controls(text)
    hidden = [c for c in shown if unicodedata.category(c) in {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}]
    assert set(hidden) <= ALLOWED
    shown.encode()


@given(any_text(200))
def test_making_visible_twice_changes_nothing_more(text):
    """It is idempotent."""
    assert show_controls(show_controls(text)) == show_controls(text)


def test_a_heap_of_marks_on_one_letter_is_cut_down():
    """Zalgo does not climb out of its line."""
    assert len(show_controls("a" + "\u0301" * 500)) == 4


@pytest.mark.parametrize("text", ["Grüße, 日本語, नमस्ते, 👩‍👩‍👧", "tabs\tand\nlines"])
def test_ordinary_writing_is_untouched(text):
    """People's scripts and emoji are not controls."""
    assert show_controls(text) == text


def test_a_name_from_data_is_one_short_line():
    """Line breaks and length cannot break a table."""
    assert label_text("a\n\nb") == "a b"
    assert label_text("  ") == "(empty)"
    assert len(label_text("x" * 10**6)) == 60


@given(any_text(80))
def test_escaped_markdown_holds_no_tag_no_cell_and_no_line(text):
    """Every bar, bracket, backtick and angle bracket is disarmed."""
    escaped = escape_markdown(text)
    assert "<" not in escaped
    assert "\n" not in escaped
    bare = escaped.replace("\\\\", "")
    for mark in "|[]`*_":
        assert mark not in bare.replace(f"\\{mark}", "")


@pytest.mark.parametrize("text", ["http://evil.example", "www.evil.example", "a@evil.example"])
def test_a_bare_address_makes_no_link(text):
    """What Markdown would link by itself is broken by a backslash."""
    assert "\\" in escape_markdown(text)


@given(st.text(alphabet="ab\n", max_size=80), st.integers(1, 40))
def test_lines_kept_and_lines_left_out_add_up(text, limit):
    """The beginning stands, and the rest is counted."""
    lines, shown = text.split("\n"), bound_lines(text, limit).split("\n")
    assert shown[:limit] == lines[:limit]
    if len(lines) > limit:
        assert shown[limit:] == [f"[… {len(lines) - limit} lines left out …]"]


def test_an_excerpt_is_not_taller_than_a_screen():
    """A thousand empty lines are forty and a count."""
    assert excerpt("\n" * 1_000, 2_000).count("\n") == 40


def test_an_excerpt_is_short_even_of_a_huge_text():
    """A megabyte of control characters is a few lines."""
    assert len(excerpt("\x00\u202e" * 10**6, 1_000)) < 9_000
