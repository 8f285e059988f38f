"""Parse cells: the JSON text of a list of strings and nulls.

The grammar is flat, so items are read with the string scanner of the standard library. Nothing is
evaluated or recurses, and time is linear. Invalid JSON is refused; only lone surrogates, which
UTF-8 cannot hold, are repaired.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from json import JSONDecodeError

# Undocumented, but the same function in Python 3.11 to 3.14. `json.loads` has no option that
# refuses nested lists and numbers before it reads them.
from json.decoder import scanstring  # type: ignore[attr-defined]
from typing import NamedTuple

from tiewise.errors import ParseError

_skip_space = re.compile(r"[ \t\n\r]*+").match
_MAX_SHOWN = 40


class Cell(NamedTuple):
    """The turns of a cell, and whether a lone surrogate was replaced by U+FFFD."""

    turns: list[str | None]
    is_repaired: bool


def parse_turns(text: str) -> list[str | None]:
    r"""Read a JSON list of strings and nulls.

    Parameters
    ----------
    text
        The cell. Escaped surrogate pairs are joined, ``\/`` is read as ``/``, and a lone surrogate
        becomes U+FFFD, so that every turn can be encoded as UTF-8.

    Returns
    -------
    list of (str or None)
        One turn for each item of the list; None for a null.

    Raises
    ------
    ParseError
        When the text is anything else; the message names the first character that does not fit.

    Examples
    --------
    >>> parse_turns('["Hi", null, "\\ud83d\\ude00 and\\/or"]')
    ['Hi', None, '😀 and/or']
    >>> parse_turns("[Hi]")
    Traceback (most recent call last):
    tiewise.errors.ParseError: character 1 is 'Hi]'; expected a string or null
    """
    return parse_cell(text).turns


def parse_cell(text: str) -> Cell:
    r"""Read a cell as :func:`parse_turns` does, and return whether its text was repaired.

    >>> parse_cell('["half a pair: \\ud83d"]')
    Cell(turns=['half a pair: �'], is_repaired=True)
    """
    if not isinstance(text, str):
        raise ParseError(f"the cell is of type {type(text).__name__}; expected text")
    scanned = _scan_list(text)
    turns = [turn if turn is None else repair_text(turn) for turn in scanned]
    return Cell(turns, is_repaired=turns != scanned)


def repair_text(text: str) -> str:
    r"""Join surrogate pairs and replace each lone surrogate by U+FFFD; the result encodes as UTF-8.

    >>> repair_text("a\ud83d\ude00b\ud83dc")
    'a😀b�c'
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def join_turns(turns: Sequence[str | None]) -> str:
    """Join turns with line breaks; a missing turn is empty."""
    return "\n".join(turn or "" for turn in turns)


def count_characters(turns: Sequence[str | None]) -> int:
    """Count the characters of all turns."""
    return sum(len(turn or "") for turn in turns)


def _scan_list(text: str) -> list[str | None]:
    position = _after_space(text, 0)
    if not text.startswith("[", position):
        raise _unexpected(text, position, "a JSON list")
    turns: list[str | None] = []
    position = _after_space(text, position + 1)
    is_open = not text.startswith("]", position)
    while is_open:
        turn, position = _scan_item(text, position)
        turns.append(turn)
        position = _after_space(text, position)
        is_open = text.startswith(",", position)
        if is_open:
            position = _after_space(text, position + 1)
    if not text.startswith("]", position):
        raise _unexpected(text, position, "a comma or a closing bracket")
    position = _after_space(text, position + 1)
    if position != len(text):
        raise _unexpected(text, position, "the end of the text")
    return turns


def _scan_item(text: str, position: int) -> tuple[str | None, int]:
    if text.startswith("null", position):
        return None, position + 4
    if not text.startswith('"', position):
        raise _unexpected(text, position, "a string or null")
    try:
        return scanstring(text, position + 1, True)  # type: ignore[no-any-return]
    except JSONDecodeError as error:
        # Without "from None" the error would keep a reference to the whole text.
        raise ParseError(f"invalid JSON at character {error.pos}: {error.msg}") from None


def _after_space(text: str, position: int) -> int:
    match = _skip_space(text, position)
    return position if match is None else match.end()


def _unexpected(text: str, position: int, expected: str) -> ParseError:
    found = text[position : position + _MAX_SHOWN]
    shown = ascii(found) if found else "the end of the text"
    return ParseError(f"character {position} is {shown}; expected {expected}")
