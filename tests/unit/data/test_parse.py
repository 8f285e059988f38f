"""Any cell gives a list of turns or a ParseError."""

from __future__ import annotations

import builtins
import contextlib
import json
import sys
import time
import tracemalloc

import pytest
from hypothesis import example, given

from oracles import turns_by_eval, turns_by_json
from strategies import any_text, clean_text, hostile_cells, json_cells, json_values
from tiewise.data.parse import parse_cell, parse_turns, repair_text
from tiewise.errors import ParseError, TiewiseError


@given(cell=json_cells())
def test_json_lists_are_read(cell):
    """Every JSON text of a list of turns gives these turns."""
    text, turns = cell
    assert parse_turns(text) == turns


@given(text=hostile_cells())
@example(text='["\\ud83d", "\\ude00"]')
@example(text='["\ud83d\\ude00"]')
@example(text="[nullnull]")
@example(text="[null,]")
@example(text="[,]")
@example(text="[]]")
@example(text="\ufeff[]")
def test_any_text_agrees_with_json(text):
    """Text that json reads as turns gives the same turns; other text raises ParseError."""
    expected = turns_by_json(text)
    try:
        turns = parse_turns(text)
    except ParseError:
        assert expected is None
        return
    assert turns == expected
    "".join(turn or "" for turn in turns).encode()


@given(value=json_values())
def test_other_json_is_refused(value):
    """Numbers, objects, nested lists and NaN are refused."""
    text = json.dumps(value)
    if turns_by_json(text) is None:
        with pytest.raises(ParseError):
            parse_turns(text)


@given(text=any_text())
def test_repaired_text_encodes(text):
    """Repaired text encodes; repairing repaired or clean text does not change it."""
    repaired = repair_text(text)
    repaired.encode()
    assert repair_text(repaired) == repaired
    surrogates = [character for character in text if "\ud800" <= character <= "\udfff"]
    assert surrogates or repaired == text


@given(text=any_text())
@example(text="half \ud83d")
@example(text="whole \ud83d\ude00")
def test_repairs_are_reported(text):
    """A cell counts as repaired exactly when it has a lone surrogate."""
    cell = parse_cell(json.dumps([text]))
    joined = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
    has_lone = any("\ud800" <= character <= "\udfff" for character in joined)
    assert cell.is_repaired == has_lone
    assert (cell.turns == [joined]) != has_lone


@given(text=clean_text())
def test_plain_cells_match_the_notebook(text):
    """Cells without escapes give the strings of the notebook."""
    cell = json.dumps([text, "second"], ensure_ascii=False)
    assert parse_turns(cell) == turns_by_eval(cell)


def test_escaped_cells_differ_from_the_notebook():
    """The notebook splits escaped emoji, keeps the backslash in slashes, and empties null."""
    assert turns_by_eval('["\\ud83d\\ude00"]') == ["\ud83d\ude00"]
    assert parse_turns('["\\ud83d\\ude00"]') == ["\U0001f600"]
    assert turns_by_eval('["either\\\\/or"]') == ["either\\/or"]
    with pytest.warns(Warning, match="invalid escape"):
        assert turns_by_eval('["either\\/or"]') == ["either\\/or"]
    assert parse_turns('["either\\/or"]') == ["either/or"]
    assert turns_by_eval("[null]") == [""]
    assert parse_turns("[null]") == [None]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "NaN",
        '"text"',
        "{}",
        '["a"',
        '["a" "b"]',
        '["a",]',
        "['a']",
        "[None]",
        "[1]",
        "[1e999]",
        "[NaN]",
        "[-Infinity]",
        "[true]",
        '[["a"]]',
        '[{"a": 1}]',
        '["a"] ["b"]',
        '["a"]\u00a0',
        '\u2003["a"]',
        '["a"\u3000,"b"]',
        '["a",\x0c"b"]',
        '\ufeff["a"]',
        '["a\x00b"]',
        '["line\nbreak"]',
        '["\\x41"]',
        '["\\u+123"]',
        "[" + "1" * 5000 + "]",
    ],
)
def test_other_text_is_refused(text):
    """Text that is not a strict JSON list of turns raises a short ParseError."""
    with pytest.raises(ParseError) as caught:
        parse_turns(text)
    assert isinstance(caught.value, TiewiseError)
    assert len(str(caught.value)) < 200


def test_escaped_nul_is_accepted():
    """An escaped NUL is an ordinary character."""
    assert parse_turns('["a\\u0000b"]') == ["a\x00b"]


@pytest.mark.parametrize("cell", [None, 1, float("nan"), b'["a"]', ["a"]])
def test_other_types_are_refused(cell):
    """A missing cell, a number, bytes or a list raises ParseError with the type."""
    with pytest.raises(ParseError, match=type(cell).__name__):
        parse_turns(cell)


def test_nothing_is_executed(monkeypatch):
    """Code in a cell is text or refused; `eval`, `exec` and `__import__` are not called."""

    def refuse(*_):
        raise AssertionError

    with monkeypatch.context() as patched:
        patched.setattr(builtins, "eval", refuse)
        patched.setattr(builtins, "exec", refuse)
        patched.setattr(builtins, "__import__", refuse)
        code = "__import__('os').abort()"
        turns = parse_turns(json.dumps([code]))
        with pytest.raises(ParseError, match="expected a string"):
            parse_turns(f"[{code}]")
    assert turns == [code]


@pytest.mark.parametrize("limit", [1_000, 10_000_000])
@pytest.mark.parametrize("opening", ["[", '{"a":', '["a",['])
def test_deep_nesting_is_refused_at_any_recursion_limit(monkeypatch, limit, opening):
    """100,000 brackets are refused without recursion, also when recursion is allowed."""
    before = sys.getrecursionlimit()
    try:
        sys.setrecursionlimit(limit)
        with pytest.raises(ParseError):
            parse_turns(opening * 100_000)
    finally:
        sys.setrecursionlimit(before)


def seconds_to_parse(text: str) -> float:
    start = time.process_time()
    with contextlib.suppress(ParseError):
        parse_turns(text)
    return time.process_time() - start


UNITS = ["x", "é", "\\n", "\\ud83d", "\ud83d", '","', '",null,"', "[", " ", "\\u0041"]


@pytest.mark.parametrize("unit", UNITS)
def test_time_is_linear(unit):
    """16 times the text takes about 16 times as long, not 256 times."""
    short, long = (json_cell_of(unit, n) for n in (10_000, 160_000))
    fast, slow = (min(seconds_to_parse(cell) for _ in range(2)) for cell in (short, long))
    assert slow < 80 * fast + 0.05


@pytest.mark.parametrize("unit", UNITS)
def test_memory_is_linear(unit):
    """Four times the text takes no more than four times the memory."""
    least, most = (bytes_to_parse(json_cell_of(unit, n)) for n in (2_000, 8_000))
    assert most < 4.2 * least + 10_000


def bytes_to_parse(text: str) -> int:
    tracemalloc.start()
    try:
        with contextlib.suppress(ParseError):
            parse_turns(text)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def json_cell_of(unit: str, count: int) -> str:
    return f'["{unit * count}"]'


def test_ten_megabytes_take_seconds():
    """A cell of 10 MB is read in less than two seconds."""
    assert seconds_to_parse(json.dumps(["x" * 10_000_000])) < 2
