"""Find the first text that the user wrote in a prompt, and normalise it for comparisons.

A system text at the beginning of a prompt is not the user's: it may hold a clock, which makes every
prompt different, or long rules, which make all prompts alike. A prompt may also hold a whole
conversation as one text; then the user's first text in it counts.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import Any

import pandas as pd

SYSTEM_COLUMN = "system"
_SEPARATOR = "\n\n"

# Characters without a width: soft hyphen, joiners, marks of direction, variation selectors, byte
# order mark (most of Unicode's Default_Ignorable_Code_Point).
_INVISIBLE = (
    (0xAD, 0xAD),
    (0x34F, 0x34F),
    (0x61C, 0x61C),
    (0x180B, 0x180F),
    (0x200B, 0x200F),
    (0x202A, 0x202E),
    (0x2060, 0x206F),
    (0xFE00, 0xFE0F),
    (0xFEFF, 0xFEFF),
    (0xE0100, 0xE01EF),
)
_WITHOUT_INVISIBLE = {code: None for first, last in _INVISIBLE for code in range(first, last + 1)}

_ROLE = "(system|developer|user|assistant|model)"
_USER = ("user", "human", "[inst]", "<</sys>>")
_ASSISTANT = ("assistant", "ai", "bot", "model", "[/inst]")
_names = re.compile(r"(?:\A|\n)[ \t]*(human|user|system|assistant|ai|bot)[ \t]*:", re.IGNORECASE)
_markup = re.compile(
    rf"<\|im_start\|>{_ROLE}\s|<start_of_turn>{_ROLE}\s|<\|{_ROLE}\|>|(\[/?INST\]|<</?SYS>>)"
    rf"|<\|start_header_id\|>{_ROLE}<\|end_header_id\|>"
)
_start = re.compile(r"\A[\s\ufeff]*(?:<s>|<bos>|<\|begin_of_text\|>)?\s*")
_ends = re.compile(r"<s>|</s>|<end_of_turn>|<\|(?:im_end|eot_id|end|endoftext)\|>")


def first_texts(pairs: pd.DataFrame) -> list[str]:
    r"""Return the normalised first user text of each pair, n strings.

    `pairs` has the column ``prompt`` and, optionally, ``system``.

    >>> pairs = pd.DataFrame({"prompt": [["Be brief.\n\nHi  THERE "]], "system": ["Be brief."]})
    >>> first_texts(pairs)
    ['hi there']
    """
    return [normalise(text) for text in user_texts(pairs)]


def user_texts(pairs: pd.DataFrame) -> list[str]:
    """Return the first user text of each pair as it is written, n strings."""
    systems = pairs.get(SYSTEM_COLUMN, [None] * len(pairs))
    return [first_user_text(*cells) for cells in zip(pairs["prompt"], systems, strict=True)]


def first_user_text(prompt: Sequence[str | None], system: Any = None) -> str:
    r"""Return the first text of a prompt that the user wrote, empty when there is none.

    Turns without a visible character are passed over: a conversation that the assistant begins has
    none at first. `system` is the text at the beginning that the user did not write, if any. A turn
    is a whole conversation if it begins with the name of a speaker (``Human:``, ``User:``,
    ``System:``) and has the assistant's at the beginning of a line (``Assistant:``, ``AI:``,
    ``Bot:``), or if it begins with the markup of a chat template, such as ``<|im_start|>user``.

    >>> first_user_text(["Be brief.\n\nHi", "And?"], "Be brief.")
    'Hi'
    >>> first_user_text(["\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: And?\n\nAssistant:"])
    'Hi'
    """
    first_turn = split_system(prompt[0], system)[1] if len(prompt) else None
    for turn in (first_turn, *prompt[1:]):
        for text in [] if turn is None else (_user_texts(turn) or [turn]):
            if normalise(text):
                return text
    return ""


def _user_texts(turn: str) -> list[str]:
    """Return the user's texts of a turn that holds a whole conversation; none of another turn."""
    text = _start.sub("", turn)
    pattern = next((each for each in (_names, _markup) if each.match(text)), None)
    if pattern is None:
        return []
    marks = list(pattern.finditer(text))
    ends = [*(mark.start() for mark in marks[1:]), len(text)]
    roles = [str(mark[mark.lastindex or 0]).lower() for mark in marks]
    if pattern is _names and not set(_ASSISTANT) & set(roles):
        return []
    parts = zip(roles, marks, ends, strict=True)
    texts = [text[mark.end() : end] for role, mark, end in parts if role in _USER]
    return [_ends.sub("", each).strip() for each in texts]


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


def compose(text: str) -> str:
    r"""Return a text without invisible characters and with composed accents (Unicode's NFC).

    >>> compose("\ufeffcafe\u0301") == "caf\u00e9"
    True
    """
    if text.isascii():
        return text
    return unicodedata.normalize("NFC", text.translate(_WITHOUT_INVISIBLE))


def normalise(text: str) -> str:
    r"""Return a composed text in lower case and with single spaces.

    >>> normalise("Hi  THERE "), normalise("Hi\u00a0the\u200bre")
    ('hi there', 'hi there')
    """
    return fold(compose(text))


def fold(text: str) -> str:
    """Return a text in lower case and with single spaces."""
    return " ".join(text.casefold().split())
