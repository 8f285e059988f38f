"""Lists of messages are converted to turns and back."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given

from strategies import any_text, conversations
from tiewise.data.formats.cells import (
    join_messages,
    read_messages,
    read_transcript,
    split_messages,
)
from tiewise.errors import PairsError


def said(*contents, roles=("user", "assistant")):
    """Return messages with alternating roles."""
    return [
        {"role": roles[place % len(roles)], "content": content}
        for place, content in enumerate(contents)
    ]


@given(sides=conversations())
def test_split_inverts_join(sides):
    """A conversation made of turns is split into the same turns."""
    exchanges = split_messages(join_messages(*sides))
    assert (exchanges.prompt, exchanges.response) == sides
    assert not exchanges.is_repaired


@given(sides=conversations())
def test_blocks_equal_plain_text(sides):
    """Content blocks, as lists, arrays or JSON text, are read like plain text."""
    messages = join_messages(*sides)
    blocks = [
        message | {"content": [{"type": "text", "text": message["content"], "image": None}]}
        for message in messages
    ]
    arrays = np.array([b | {"content": np.array(b["content"], object)} for b in blocks], object)
    for cell in (blocks, arrays, tuple(blocks), json.dumps(blocks)):
        assert split_messages(read_messages(cell)) == split_messages(messages)


@given(content=any_text())
def test_turns_encode_to_utf8(content):
    """Lone surrogates in a message are repaired, and the flag says so."""
    exchanges = split_messages(said(content))
    exchanges.prompt[0].encode()
    assert exchanges.is_repaired == (exchanges.prompt != [content])


def test_system_message_joins_user_turn():
    """It comes before the user's first turn; neighbouring messages of one side are one turn."""
    messages = [
        *said("Be brief.", "Hi", roles=("system", "user")),
        *said("Hello", "there", roles=("assistant",)),
        *said("Bye"),
    ]
    exchanges = split_messages(messages)
    assert exchanges.prompt == ["Be brief.\n\nHi", "Bye"]
    assert exchanges.response == ["Hello\n\nthere", None]


def test_missing_messages_are_none():
    """No answer, no question and null content are None, not the empty string."""
    assert split_messages(said("Hi"))[:2] == (["Hi"], [None])
    assert split_messages(said("Hi", roles=("assistant",)))[:2] == ([None], ["Hi"])
    assert split_messages(said(None, ""))[:2] == ([None], [""])
    assert split_messages(said([], [{"type": "text", "text": None}]))[:2] == ([None], [None])
    assert split_messages([])[:2] == ([], [])


def test_text_blocks_are_joined():
    """Two blocks of one message are one turn."""
    blocks = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    assert split_messages(said(blocks)).prompt == ["one\n\ntwo"]
    assert split_messages(said(blocks[0])).prompt == ["one"]


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ([{"type": "image", "image": "data:"}], "a block of type image; expected text"),
        ([{"type": "text", "text": "x", "image": "data:"}], "a block of type image; expected text"),
        ([{"type": "image_url", "image_url": {"url": "u"}}], "of type image_url"),
        ([{"type": "tool_use"}], "of type tool_use"),
        (["text"], "a block is .*; expected a type and a text"),
        ([{"type": "text", "text": 3}], "a block's text is 3; expected text"),
        (3, "content is 3; expected text or blocks"),
    ],
)
def test_content_must_be_text(content, match):
    """An image or any other block is refused by its type."""
    with pytest.raises(PairsError, match=match):
        split_messages(said(content))


@pytest.mark.parametrize("role", ["tool", "function", "User", None, 1, ["user"]])
def test_unknown_roles_are_refused(role):
    """Only roles with a known side are read."""
    with pytest.raises(PairsError, match=r"role is .*; expected one of user, system"):
        split_messages([{"role": role, "content": "x"}])


@pytest.mark.parametrize("cell", [None, 3, "Hi", "[" * 100_000, "[1]", [1], [{"role": "user"}], {}])
def test_conversation_must_be_messages(cell):
    """A cell is a list of messages or JSON of one; deep nesting is refused."""
    with pytest.raises(PairsError, match=r"conversation|message"):
        read_messages(cell)


def test_transcripts_are_read():
    """Text written "Human: … Assistant: …" has turns; other text has none."""
    text = "\n\nHuman: Hi\n\nAssistant: Hello\n\nstill me\n\nHuman: Bye\n\nAssistant:"
    exchanges = split_messages(read_transcript(text))
    assert exchanges.prompt == ["Hi", "Bye"]
    assert exchanges.response == ["Hello\n\nstill me", ""]
    for other in ("", "Hi", "I asked a Human: what?", "intro\n\nHuman: Hi"):
        assert read_transcript(other) is None
