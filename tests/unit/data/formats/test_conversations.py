"""Messages become turns, and what is not text is refused by name."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given

from strategies import any_text, conversations
from tiewise.data.formats.conversations import (
    join_messages,
    read_messages,
    read_transcript,
    split_messages,
)
from tiewise.errors import PairsError


def said(*contents, roles=("user", "assistant")):
    """Give messages whose roles alternate."""
    return [
        {"role": roles[place % len(roles)], "content": content}
        for place, content in enumerate(contents)
    ]


@given(sides=conversations())
def test_splitting_undoes_joining(sides):
    """The turns of a conversation made of turns are those turns."""
    exchanges = split_messages(join_messages(*sides))
    assert (exchanges.prompt, exchanges.response) == sides
    assert not exchanges.is_repaired


@given(sides=conversations())
def test_blocks_and_text_are_the_same_content(sides):
    """Content blocks, as lists, arrays or JSON text, say what plain text says."""
    messages = join_messages(*sides)
    blocks = [
        message | {"content": [{"type": "text", "text": message["content"], "image": None}]}
        for message in messages
    ]
    arrays = np.array([b | {"content": np.array(b["content"], object)} for b in blocks], object)
    for cell in (blocks, arrays, tuple(blocks), json.dumps(blocks)):
        assert split_messages(read_messages(cell)) == split_messages(messages)


@given(content=any_text())
def test_every_turn_encodes(content):
    """Lone surrogates in a message are mended and said to be."""
    exchanges = split_messages(said(content))
    exchanges.prompt[0].encode()
    assert exchanges.is_repaired == (exchanges.prompt != [content])


def test_a_system_message_is_part_of_what_was_asked():
    """It stands before the user's first turn; several messages of one side are one turn."""
    messages = [
        *said("Be brief.", "Hi", roles=("system", "user")),
        *said("Hello", "there", roles=("assistant",)),
        *said("Bye"),
    ]
    exchanges = split_messages(messages)
    assert exchanges.prompt == ["Be brief.\n\nHi", "Bye"]
    assert exchanges.response == ["Hello\n\nthere", None]


def test_missing_messages_are_missing_turns():
    """No answer, no question and null content are None, not the empty string."""
    assert split_messages(said("Hi"))[:2] == (["Hi"], [None])
    assert split_messages(said("Hi", roles=("assistant",)))[:2] == ([None], ["Hi"])
    assert split_messages(said(None, ""))[:2] == ([None], [""])
    assert split_messages(said([], [{"type": "text", "text": None}]))[:2] == ([None], [None])
    assert split_messages([])[:2] == ([], [])


def test_blocks_of_text_are_joined():
    """Two blocks of one message are one turn."""
    blocks = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    assert split_messages(said(blocks)).prompt == ["one\n\ntwo"]
    assert split_messages(said(blocks[0])).prompt == ["one"]


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ([{"type": "image", "image": "data:"}], "a block of type image; only text"),
        ([{"type": "text", "text": "x", "image": "data:"}], "a block of type image; only text"),
        ([{"type": "image_url", "image_url": {"url": "u"}}], "of type image_url"),
        ([{"type": "tool_use"}], "of type tool_use"),
        (["text"], "a block has a type and a text"),
        ([{"type": "text", "text": 3}], "a block's text is text"),
        (3, "content is text or blocks"),
    ],
)
def test_what_is_not_text_is_refused_by_name(content, match):
    """An image is never left out in silence."""
    with pytest.raises(PairsError, match=match):
        split_messages(said(content))


@pytest.mark.parametrize("role", ["tool", "function", "User", None, 1, ["user"]])
def test_unknown_roles_are_refused(role):
    """Only roles whose side is known are read."""
    with pytest.raises(PairsError, match="role is one of user, system, developer, assistant"):
        split_messages([{"role": role, "content": "x"}])


@pytest.mark.parametrize("cell", [None, 3, "Hi", "[" * 100_000, "[1]", [1], [{"role": "user"}], {}])
def test_what_is_no_conversation_is_refused(cell):
    """A cell is a list of messages or JSON of one; nothing recurses."""
    with pytest.raises(PairsError, match=r"conversation|message"):
        read_messages(cell)


def test_transcripts_are_conversations():
    """Text written «Human: … Assistant: …» has turns; other text has none."""
    text = "\n\nHuman: Hi\n\nAssistant: Hello\n\nstill me\n\nHuman: Bye\n\nAssistant:"
    exchanges = split_messages(read_transcript(text))
    assert exchanges.prompt == ["Hi", "Bye"]
    assert exchanges.response == ["Hello\n\nstill me", ""]
    for other in ("", "Hi", "I asked a Human: what?", "intro\n\nHuman: Hi"):
        assert read_transcript(other) is None
