r"""A cell's text to its turns: strict JSON, flat, linear, and nothing is ever run.

The cells of an arena file are JSON lists of strings and nulls. The grammar is flat, so this module
walks it item by item over the C string scanner of the standard library instead of calling
``json.loads``: nothing recurses (a hundred thousand brackets are refused at the second one,
whatever the recursion limit), no number is ever converted, and time is linear in the text.

What JSON refuses is refused, raw control characters inside strings and a byte order mark included.
One thing is mended: a surrogate without its other half, which JSON may spell and UTF-8 may not,
becomes U+FFFD. :func:`parse_cell` says whether that happened.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from json import JSONDecodeError
from json.decoder import scanstring  # type: ignore[attr-defined]
from typing import NamedTuple

from tiewise.errors import ParseError

_skip_space = re.compile(r"[ \t\n\r]*+").match
_SHOWN = 40


class Cell(NamedTuple):
    """A parsed cell."""

    turns: list[str | None]
    """The turns in order; null is None."""

    is_repaired: bool
    """Whether a lone surrogate was replaced by U+FFFD."""


def parse_turns(text: str) -> list[str | None]:
    r"""Read a JSON list of strings and nulls.

    Parameters
    ----------
    text
        The cell. Escaped surrogate pairs are joined, ``\/`` is ``/``, lone surrogates become
        U+FFFD, so every turn encodes to UTF-8.

    Returns
    -------
    list of (str or None)
        The turns, as many as the list has items. A null stays None: a missing turn is neither
        the empty string nor the word "null".

    Raises
    ------
    ParseError
        For anything else, at the first character that does not fit.

    Examples
    --------
    >>> parse_turns('["Hi", null, "\\ud83d\\ude00 and\\/or"]')
    ['Hi', None, '😀 and/or']
    >>> parse_turns("['Hi']")
    Traceback (most recent call last):
    tiewise.errors.ParseError: expected a string or null at character 1, found "'Hi']"
    """
    return parse_cell(text).turns


def parse_cell(text: str) -> Cell:
    r"""Read a JSON list of strings and nulls, and say whether its text had to be repaired.

    Parameters
    ----------
    text
        As for :func:`parse_turns`.

    Returns
    -------
    Cell
        ``turns`` as :func:`parse_turns` returns them, and ``is_repaired``.

    Raises
    ------
    ParseError
        As for :func:`parse_turns`.

    Examples
    --------
    >>> parse_cell('["half a pair: \\ud83d"]')
    Cell(turns=['half a pair: �'], is_repaired=True)
    """
    _check_is_text(text)
    scanned = _scan_list(text)
    turns = [turn if turn is None else repair_text(turn) for turn in scanned]
    return Cell(turns, is_repaired=turns != scanned)


def repair_text(text: str) -> str:
    r"""Join surrogate pairs and replace lone surrogates by U+FFFD; other text is returned as is.

    Parameters
    ----------
    text
        Any string, also one that no encoding accepts.

    Returns
    -------
    str
        Text that encodes to UTF-8.

    Examples
    --------
    >>> repair_text("a\ud83d\ude00b\ud83dc")
    'a😀b�c'
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def join_turns(turns: Sequence[str | None]) -> str:
    """Join turns with line breaks; a missing turn is empty.

    Examples
    --------
    >>> join_turns(["a", None, "b"]).splitlines()
    ['a', '', 'b']
    """
    return "\n".join(turn or "" for turn in turns)


def count_characters(turns: Sequence[str | None]) -> int:
    """Count the characters of all turns.

    Examples
    --------
    >>> count_characters(["ab", None, "c"])
    3
    """
    return sum(len(turn or "") for turn in turns)


def _check_is_text(cell: object) -> None:
    if not isinstance(cell, str):
        raise ParseError(f"expected text that holds a JSON list, found {type(cell).__name__}")


def _scan_list(text: str) -> list[str | None]:
    position = _after_space(text, 0)
    if not text.startswith("[", position):
        raise _unexpected("a JSON list", text, position)
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
        raise _unexpected("a comma or the end of the list", text, position)
    _expect_end(text, position + 1)
    return turns


def _scan_item(text: str, position: int) -> tuple[str | None, int]:
    if text.startswith("null", position):
        return None, position + 4
    if not text.startswith('"', position):
        raise _unexpected("a string or null", text, position)
    try:
        return scanstring(text, position + 1, True)  # type: ignore[no-any-return]
    except JSONDecodeError as error:
        # The cause would keep the whole text alive for as long as somebody keeps the error.
        raise ParseError(f"{error.msg} (character {error.pos})") from None


def _expect_end(text: str, position: int) -> None:
    position = _after_space(text, position)
    if position != len(text):
        raise _unexpected("nothing after the list", text, position)


def _after_space(text: str, position: int) -> int:
    match = _skip_space(text, position)
    return position if match is None else match.end()


def _unexpected(expected: str, text: str, position: int) -> ParseError:
    found = text[position : position + _SHOWN]
    shown = ascii(found) if found else "the end of the text"
    return ParseError(f"expected {expected} at character {position}, found {shown}")
