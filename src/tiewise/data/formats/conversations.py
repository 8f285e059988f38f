"""Messages to turns and back: what the user said, and what the assistant answered.

A conversation is a list of messages with a ``role`` and a ``content``. Its turns are exchanges:
everything said on the user's side (``system`` and ``developer`` messages count there, since they
too are what the assistant answers to) up to the assistant's answer. Neighbouring messages of one
side are joined by an empty line. Content may be text or blocks of text; an image, or anything else
that is not text, is refused by name rather than left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from tiewise.data.formats.cells import is_missing, shown
from tiewise.data.formats.sources import parse_json
from tiewise.data.parse import repair_text
from tiewise.errors import PairsError

Message = dict[str, Any]
Turns = list[str | None]

_SIDES = {"user": 0, "system": 0, "developer": 0, "assistant": 1}
_SPEAKERS = {"Human": "user", "Assistant": "assistant"}
_speaker = re.compile(r"(?:\A|\n\n)(Human|Assistant): ?")
_BETWEEN = "\n\n"
_MEDIA = ("image", "image_url", "audio", "video", "file")


class Exchanges(NamedTuple):
    """The two sides of a conversation, equally long."""

    prompt: Turns
    response: Turns
    is_repaired: bool


def read_messages(cell: object) -> list[Message]:
    """Return the messages of a cell: a list of them, or JSON text of such a list."""
    if isinstance(cell, str):
        try:
            cell = parse_json(cell)
        except ValueError as error:
            raise PairsError(f"the conversation {error}") from None
    if not isinstance(cell, list | tuple | np.ndarray):
        raise PairsError(f"a conversation is a list of messages, found {shown(cell)}")
    for message in cell:
        if not isinstance(message, dict) or "role" not in message or "content" not in message:
            raise PairsError(f"a message has a role and a content, found {shown(message)}")
    return list(cell)


def split_messages(messages: Iterable[Message]) -> Exchanges:
    """Split a conversation into the user's turns and the assistant's."""
    exchanges: list[tuple[list[str | None], list[str | None]]] = []
    last_side = 1
    for message in messages:
        side = _side_of(message)
        if not exchanges or (side == 0 and last_side == 1):
            exchanges.append(([], []))
        exchanges[-1][side].append(_text_of(message["content"]))
        last_side = side
    found = [[_joined(exchange[side]) for exchange in exchanges] for side in (0, 1)]
    prompt, response = ([_repaired(turn) for turn in side] for side in found)
    return Exchanges(prompt, response, is_repaired=[prompt, response] != found)


def join_messages(prompt: Turns, response: Turns) -> list[Message]:
    """Make a conversation of two equally long sides; a missing turn becomes an empty message."""
    messages = []
    for user, assistant in zip(prompt, response, strict=True):
        messages.append({"role": "user", "content": user or ""})
        messages.append({"role": "assistant", "content": assistant or ""})
    return messages


def read_transcript(text: str) -> list[Message] | None:
    """Return the messages of text that is written «Human: … Assistant: …», None for other text."""
    parts = _speaker.split(text)
    if parts[0].strip() or len(parts) < 3:
        return None
    speakers, contents = parts[1::2], parts[2::2]
    return [
        {"role": _SPEAKERS[speaker], "content": content}
        for speaker, content in zip(speakers, contents, strict=True)
    ]


def common_prompt(name_a: str, side_a: Exchanges, name_b: str, side_b: Exchanges) -> Turns:
    """Return the user's turns of two conversations, which must be the same."""
    if side_a.prompt != side_b.prompt:
        raise PairsError(f"the user's turns differ between {name_a} and {name_b}")
    return side_a.prompt


def _side_of(message: Message) -> int:
    role = message["role"]
    if not isinstance(role, str) or role not in _SIDES:
        raise PairsError(f"a message's role is one of {', '.join(_SIDES)}, found {shown(role)}")
    return _SIDES[role]


def _text_of(content: object) -> str | None:
    if isinstance(content, str) or is_missing(content):
        return content if isinstance(content, str) else None
    blocks = [content] if isinstance(content, dict) else content
    if not isinstance(blocks, list | tuple | np.ndarray):
        raise PairsError(f"a message's content is text or blocks of text, found {shown(content)}")
    return _joined([_text_of_block(block) for block in blocks])


def _text_of_block(block: Any) -> str | None:
    if not isinstance(block, dict):
        raise PairsError(f"a block has a type and a text, found {shown(block)}")
    kind = block.get("type", "text")
    other = next((name for name in _MEDIA if not is_missing(block.get(name))), None)
    if kind != "text" or other is not None:
        raise PairsError(f"a message holds a block of type {other or kind}; only text can be read")
    text = block.get("text")
    if not (isinstance(text, str) or is_missing(text)):
        raise PairsError(f"a block's text is text, found {shown(text)}")
    return text


def _repaired(turn: str | None) -> str | None:
    return turn if turn is None else repair_text(turn)


def _joined(texts: Sequence[str | None]) -> str | None:
    known = [text for text in texts if text is not None]
    return _BETWEEN.join(known) if known else None
