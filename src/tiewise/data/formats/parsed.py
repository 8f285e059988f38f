"""Records as files hold them, before their format is known."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from tiewise.errors import PairsError

NOT_UTF8 = "is not UTF-8; convert the file to UTF-8"
_MAX_SHOWN = 10


class ParsedRecord(NamedTuple):
    """A record, and the reason why it cannot be read, if there is one."""

    values: dict[str, Any]
    problem: str | None = None


Opened = tuple[tuple[str, ...], Iterator[ParsedRecord]]
"""Columns, and records with exactly these columns."""


def check_columns(where: object, columns: Sequence[str]) -> tuple[str, ...]:
    """Return the columns; PairsError if one occurs twice or holds a zero byte."""
    if any("\x00" in name for name in columns):
        raise PairsError(f"{where} looks like UTF-16 without a byte order mark; write UTF-8")
    repeated = sorted(name for name, n in Counter(columns).items() if n > 1)
    if repeated:
        raise PairsError(f"{where}: the columns {', '.join(repeated[:_MAX_SHOWN])} occur twice")
    return tuple(columns)
