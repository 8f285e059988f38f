"""Read the cells of one record: turns, conversations, words, numbers.

One exchange of a conversation is all neighbouring messages on the user's side (also `system` and
`developer`) and the assistant's answer; messages of one side are joined by an empty line. The text
of the system messages that open a conversation is returned apart, too. Content is text or blocks of
text. Any other block is an error, and so is any other key that holds text, such as `tool_calls`, so
that no part of a response is lost.
"""

from __future__ import annotations

import math
import numbers
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import takewhile
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from tiewise.data.formats.sources import parse_json
from tiewise.data.parse import Cell, parse_cell, repair_text
from tiewise.errors import PairsError, TiewiseError

Record = Mapping[str, Any]
Row = dict[str, Any]
"""One pair: columns of a pairs table, and `is_repaired`."""

Message = dict[str, Any]
Turns = list[str | None]

_is_decimal_comma = re.compile(r"\s*[+-]?\d+,\d+\s*").fullmatch
_has_thousands = re.compile(r"\s*[+-]?[1-9]\d{0,2}(,\d{3})+\s*").fullmatch
_MAX_SHOWN = 40
_SYSTEM_ROLES = ("system", "developer")
_SIDES = {"user": 0, **dict.fromkeys(_SYSTEM_ROLES, 0), "assistant": 1}
_SPEAKERS = {"Human": "user", "Assistant": "assistant"}
_split_speakers = re.compile(r"(?:\A|(?:\r?\n){2})(Human|Assistant): ?").split
_begins_with_object = re.compile(r"(?:array\(|\[|\()*\s*\{").match
_finds_keys = [
    [re.compile(rf"""[{{,]\s*['"]?{key}['"]?\s*:""").search for key in keys]
    for keys in (("role", "content"), ("from", "value"))
]
_MEDIA = ("image", "image_url", "audio", "video", "file")


def is_missing(value: Any) -> bool:
    """Return whether a cell holds nothing: None, NaN, <NA> or the empty string."""
    if isinstance(value, str):
        return not value
    return value is None or (pd.api.types.is_scalar(value) and bool(pd.isna(value)))


def as_word(value: object) -> str | None:
    """Return text or a number as text that encodes to UTF-8, or None where it is missing."""
    if is_missing(value):
        return None
    if not isinstance(value, str | numbers.Number | np.bool_):
        raise PairsError(f"found {shown(value)} of type {type(value).__name__}; expected text")
    return repair_text(str(value))


def as_turn(value: object, what: str) -> str | None:
    """Return text as it is and a missing value as None; the empty string is not missing."""
    if isinstance(value, str):
        return value
    if is_missing(value):
        return None
    raise PairsError(f"{what} is {shown(value)}; expected text or null")


def as_number(record: Record, name: str) -> float:
    """Return a cell as a finite number."""
    number = parse_number(record[name])
    if number is None:
        raise PairsError(f"{name} is {shown(record[name])}; expected a number")
    return number


def parse_number(value: Any) -> float | None:
    """Return a cell of any numeric type, or its text, as a finite number, and None for others.

    A decimal comma is read where the comma cannot separate thousands.

    >>> [parse_number(value) for value in ("0,25", "1.00", True, "1,000", "1_0", b"1")]
    [0.25, 1.0, 1.0, None, None, None]
    """
    if isinstance(value, str):
        if _is_decimal_comma(value) and not _has_thousands(value):
            value = value.replace(",", ".")
        elif "_" in value:
            return None
    elif not isinstance(value, numbers.Number | np.bool_):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def shown(value: object) -> str:
    """Return a value as messages show it: short and on one line."""
    text = str(value) if isinstance(value, numbers.Number) else ascii(value)
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}…"


def is_list(value: object) -> bool:
    """Return whether a cell is a list in any of the types that tables use for one."""
    return isinstance(value, list | tuple | np.ndarray)


def has_brackets(cell: object) -> bool:
    """Return whether a cell is a list, or text in the brackets of one."""
    if not isinstance(cell, str):
        return is_list(cell)
    text = cell.strip()
    return text.startswith("[") and text.endswith("]")


def holds_text(value: Any) -> bool:
    """Return whether a value holds more than nulls, numbers and times."""
    if isinstance(value, dict):
        return any(map(holds_text, value.values()))
    if is_list(value):
        return any(map(holds_text, value))
    return bool(value) if isinstance(value, str | bytes) else not pd.api.types.is_scalar(value)


def join_texts(texts: Turns) -> str | None:
    """Join the texts that are not missing by an empty line; None if all are."""
    known = [text for text in texts if text is not None]
    return "\n\n".join(known) if known else None


def spells_messages(text: str) -> bool:
    """Return whether a text begins with messages as JSON, Python, NumPy or a database writes them.

    >>> spells_messages("[{'content': 'Hi', 'role': 'user'}]"), spells_messages('[{"a": 1}]')
    (True, False)
    """
    return _begins_with_object(text.lstrip()) is not None and any(
        all(find(text) for find in finds) for finds in _finds_keys
    )


def json_cell(record: Record, name: str) -> Cell:
    """Return the turns of a cell that is a list of turns or its JSON text."""
    value = record[name]
    try:
        return parse_cell(value) if isinstance(value, str) else list_cell(value)
    except TiewiseError as error:
        raise PairsError(f"{name}: {error}") from None


def plain_cell(record: Record, name: str) -> Cell:
    """Return the one turn of a cell that is plain text; a null is a missing turn."""
    text = as_turn(record[name], name)
    if text is not None and spells_messages(text):
        raise PairsError(f"{name} is {shown(text)}, a list of messages; expected plain text")
    return list_cell([text])


def list_cell(value: Any) -> Cell:
    """Return the turns of a list of strings and nulls."""
    if not is_list(value):
        raise PairsError(f"found {shown(value)}; expected a list of turns")
    turns = [as_turn(turn, "a turn") for turn in value]
    repaired = [turn if turn is None else repair_text(turn) for turn in turns]
    return Cell(repaired, is_repaired=repaired != turns)


class Exchanges(NamedTuple):
    """The two sides of a conversation, equally long."""

    prompt: Turns
    response: Turns
    is_repaired: bool
    system: str | None = None
    """The system text with which the first turn of the prompt begins."""


def read_messages(cell: Any) -> list[Message]:
    """Return the messages of a cell: a list of them, or JSON text of such a list."""
    if isinstance(cell, str):
        try:
            cell = parse_json(cell)
        except ValueError as error:
            raise PairsError(
                f"a conversation is {shown(cell)}; expected messages as JSON, as json.dumps writes "
                f"them ({error})"
            ) from None
    if not is_list(cell):
        raise PairsError(f"a conversation is {shown(cell)}; expected a list of messages")
    for message in cell:
        if not isinstance(message, dict) or not {"role", "content"} <= set(message):
            raise PairsError(f"a message is {shown(message)}; expected a role and a content")
        _refuse_more_keys("message", message, ("role", "content"))
    return list(cell)


def split_messages(messages: Iterable[Message]) -> Exchanges:
    """Split a conversation into the user's turns and the assistant's."""
    messages = list(messages)
    exchanges: list[tuple[Turns, Turns]] = []
    last_side = 1
    for message in messages:
        side = _side_of(message)
        if not exchanges or (side == 0 and last_side == 1):
            exchanges.append(([], []))
        exchanges[-1][side].append(_text_of(message["content"]))
        last_side = side
    prompt, response = (
        list_cell([join_texts(exchange[side]) for exchange in exchanges]) for side in (0, 1)
    )
    leading = takewhile(lambda message: message["role"] in _SYSTEM_ROLES, messages)
    system = list_cell([join_texts([_text_of(message["content"]) for message in leading])]).turns[0]
    is_repaired = prompt.is_repaired or response.is_repaired
    return Exchanges(prompt.turns, response.turns, is_repaired, system or None)


def join_messages(prompt: Turns, response: Turns) -> list[Message]:
    """Make a conversation of two equally long sides; a missing turn becomes an empty message."""
    messages = []
    for user, assistant in zip(prompt, response, strict=True):
        messages.append({"role": "user", "content": user or ""})
        messages.append({"role": "assistant", "content": assistant or ""})
    return messages


def read_transcript(text: str) -> list[Message] | None:
    """Return the messages of text written "Human: … Assistant: …", and None for other text."""
    start, *parts = _split_speakers(text)
    if start.strip() or not parts:
        return None
    return [
        {"role": _SPEAKERS[speaker], "content": content}
        for speaker, content in zip(parts[::2], parts[1::2], strict=True)
    ]


def find_shared_end(texts: Sequence[str]) -> int:
    """Return where the beginning that two texts share ends: before a space, or at 0.

    >>> find_shared_end(["The sky is blue.", "The sky is bright."])
    10
    """
    shared = takewhile(lambda pair: pair[0] == pair[1], zip(*texts, strict=False))
    return max((i for i, (character, _) in enumerate(shared) if character.isspace()), default=0)


def common_prompt(names: Sequence[str], sides: Sequence[Exchanges]) -> Row:
    """Return prompt and system text of two conversations, which must have the same ones."""
    for what, first, second in (
        ("user's turns", sides[0].prompt, sides[1].prompt),
        ("system messages", sides[0].system, sides[1].system),
    ):
        if first != second:
            raise PairsError(f"the {what} differ between {names[0]} and {names[1]}")
    system = sides[0].system
    return {"prompt": sides[0].prompt} | ({} if system is None else {"system": system})


def read_words(record: Record, names: Mapping[str, str]) -> Row:
    """Return columns of words under our names; `names` maps theirs to ours."""
    return {ours: as_word(record[theirs]) for theirs, ours in names.items() if theirs in record}


def read_weight(record: Record) -> Row:
    """Return the column `weight` of a record that has one."""
    if "weight" not in record:
        return {}
    weight = as_number(record, "weight")
    if weight < 0:
        raise PairsError(f"weight is {weight:g}; expected 0 or more")
    return {"weight": weight}


def _side_of(message: Message) -> int:
    role = message["role"]
    if not isinstance(role, str) or role not in _SIDES:
        raise PairsError(f"a message's role is {shown(role)}; expected one of {', '.join(_SIDES)}")
    return _SIDES[role]


def _text_of(content: Any) -> str | None:
    if isinstance(content, str) or is_missing(content):
        return as_turn(content, "content")
    blocks = [content] if isinstance(content, dict) else content
    if not is_list(blocks):
        raise PairsError(f"a message's content is {shown(content)}; expected text or blocks")
    return join_texts([_text_of_block(block) for block in blocks])


def _text_of_block(block: Any) -> str | None:
    if not isinstance(block, dict):
        raise PairsError(f"a block is {shown(block)}; expected a type and a text")
    kind = block.get("type", "text")
    media = next((name for name in _MEDIA if not is_missing(block.get(name))), None)
    if kind != "text" or media is not None:
        raise PairsError(f"a message holds a block of type {media or kind}; expected text alone")
    _refuse_more_keys("block", block, ("type", "text"))
    return as_turn(block.get("text"), "a block's text")


def _refuse_more_keys(what: str, part: Mapping[str, Any], known: Sequence[str]) -> None:
    """Refuse a message or block that holds text under a key that is not read."""
    for key, value in part.items():
        if key not in known and holds_text(value):
            raise PairsError(
                f"the key {key} of a {what} is {shown(value)}; expected {' and '.join(known)} "
                f"alone. Move its text to {known[-1]}, or remove the key"
            )
