"""Find the first text that the user wrote in a prompt, and normalise it for comparisons.

A system text at the beginning of a prompt is not the user's: it may hold a clock, which makes every
prompt different, or long rules, which make all prompts alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

SYSTEM_COLUMN = "system"
_SEPARATOR = "\n\n"


def first_texts(pairs: pd.DataFrame) -> list[str]:
    r"""Return the normalised first user text of each pair, n strings.

    `pairs` has the column ``prompt`` and, optionally, ``system``.

    >>> pairs = pd.DataFrame({"prompt": [["Be brief.\n\nHi  THERE "]], "system": ["Be brief."]})
    >>> first_texts(pairs)
    ['hi there']
    """
    systems = pairs.get(SYSTEM_COLUMN, [None] * len(pairs))
    return [
        normalise(first_user_text(*cells)) for cells in zip(pairs["prompt"], systems, strict=True)
    ]


def first_user_text(prompt: Sequence[str | None], system: Any = None) -> str:
    r"""Return the first text of a prompt that the user wrote, empty when there is none.

    `system` is the text at the beginning of the first turn that the user did not write, if any.

    >>> first_user_text(["Be brief.\n\nHi", "And?"], "Be brief.")
    'Hi'
    """
    first_turn = prompt[0] if len(prompt) else None
    return split_system(first_turn or "", system)[1] or ""


def split_system(turn: str | None, system: Any) -> tuple[str | None, str | None]:
    r"""Split a first turn into its system text and the user's text, each None where missing.

    >>> split_system("Be brief.\n\nHi", "Be brief."), split_system("Hi", None)
    (('Be brief.', 'Hi'), (None, 'Hi'))
    """
    if pd.isna(system) or not begins_with_system(turn, system):
        return None, turn
    return system, None if turn == system else (turn or "").removeprefix(system + _SEPARATOR)


def begins_with_system(turn: str | None, system: str) -> bool:
    """Return whether a turn is the system text, or has it first, followed by an empty line."""
    return turn is not None and (turn == system or turn.startswith(system + _SEPARATOR))


def normalise(text: str) -> str:
    """Return a text in lower case with single spaces.

    >>> normalise("Hi  THERE ")
    'hi there'
    """
    return " ".join(text.casefold().split())
