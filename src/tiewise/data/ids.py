"""Ids of rows: one rule for the types and spellings that files give them.

A database or a spreadsheet writes the id 1 as 1, 1.0, "1" or 1e0. Types that only look like ids,
and numbers that were rounded on their way, are refused, because different rows may share them.
"""

from __future__ import annotations

import decimal
import numbers
import re
import uuid
from typing import Any

import numpy as np

from tiewise.data.parse import repair_text
from tiewise.errors import PairsError

ID_COLUMNS = ("id", "question_id")
_LARGEST = 2**53
_is_plain = re.compile(r"0|-?[1-9][0-9]{0,17}").fullmatch
_is_number = re.compile(
    r"-?(?:0(?:\.0*|,0{1,2})?|[1-9][0-9]*(?:\.[0-9]*|,0{1,2})?|[1-9](?:\.[0-9]*)?[eE]\+?[0-9]{1,2})"
).fullmatch
# A comma before one or two zeros is a decimal comma; before three it may separate thousands.
# Excel shows six digits of a long number, and so does the format %g of C.
_is_rounded = re.compile(r"-?[1-9][.,][0-9]{5,}[eE]\+[0-9]+").fullmatch
_MAX_SHOWN = 40


def read_id(value: Any) -> str:
    """Return an id as text; PairsError for a type other than text and whole or decimal numbers.

    A float of 2**53 or more (float32: 2**24) is refused, and so is text such as ``1.23457E+15``.

    >>> [read_id(value) for value in (7, "007", 7.0, decimal.Decimal("1E+3"))]
    ['7', '007', '7.0', '1000']
    """
    if isinstance(value, str):
        if _is_rounded(value):
            raise _refused(value, "a rounded number; write every digit")
        return repair_text(value)
    if isinstance(value, uuid.UUID):
        return str(value)
    if isinstance(value, bool | np.bool_) or not isinstance(value, numbers.Real | decimal.Decimal):
        raise _refused(value, f"of type {type(value).__name__}; expected a number or text")
    if isinstance(value, decimal.Decimal):
        return f"{value:f}"
    if not isinstance(value, numbers.Integral) and not abs(float(value)) < _limit_of(value):
        raise _refused(value, "a float that cannot hold every digit; write integers or text")
    return str(value)


def as_integer(word: str) -> int | None:
    """Return the integer that the text of an id spells, also as a float, or None.

    >>> [as_integer(word) for word in ("7", "7.0", "1e3", "007", "7.5", "0e12")]
    [7, 7, 1000, None, None, None]
    """
    if _is_plain(word):
        return int(word)
    if not _is_number(word):
        return None
    number = decimal.Decimal(word.replace(",", "."))
    is_whole = abs(number) < _LARGEST and number == number.to_integral_value()
    return int(number) if is_whole else None


def is_plain(word: str) -> bool:
    """Return whether the text of an id is an integer without a point or an exponent."""
    return _is_plain(word) is not None


def id_key(value: object) -> str:
    """Return the text by which ids of two tables are compared: that of the integer if it is one.

    >>> id_key(7), id_key("7.0"), id_key("a3f")
    ('7', '7', 'a3f')
    """
    number = as_integer(str(value))
    return str(value) if number is None else str(number)


def _limit_of(value: object) -> int:
    """Return the first integer that is also the rounded value of another one."""
    return 2 ** (np.finfo(value).nmant + 1) if isinstance(value, np.floating) else _LARGEST


def _refused(value: object, why: str) -> PairsError:
    return PairsError(f"id is {str(value)[:_MAX_SHOWN]!r}, {why}")
