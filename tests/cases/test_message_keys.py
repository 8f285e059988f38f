"""Each key of a message that holds text is read, or its row is refused with the key named."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiewise.data.formats import read_pairs
from tiewise.errors import PairsError

USER, ASSISTANT = ({"role": role, "content": "x"} for role in ("user", "assistant"))
CALL = {"type": "function", "function": {"name": "look_up", "arguments": '{"q": "sky"}'}}
KEYS = {
    "tool_calls": [CALL],
    "function_call": {"name": "look_up", "arguments": "{}"},
    "reasoning_content": "Because it scatters.",
    "reasoning": "Because it scatters.",
    "thinking": "Hm.",
    "attachments": ["a.pdf"],
    "refusal": "I cannot help.",
    "audio": {"id": "a1", "data": b"RIFF"},
    "name": "Bob",
    "tool_call_id": "c1",
    "annotations": [{"type": "url_citation", "url": "u"}],
    "images": np.array(["i.png"], object),
    "prefix": object(),
}
NOTHING = [None, "", [], {}, float("nan"), {"name": None, "arguments": None}, [None], np.array([])]


def records(user, assistant):
    """Return one record of each format of messages, with these messages."""
    other = {"role": "assistant", "content": "another"}
    arena = {"conversation_a": [user, assistant], "conversation_b": [user, other]}
    return {
        "preference": {"prompt": [user], "chosen": [assistant], "rejected": [other]},
        "no prompt": {"chosen": [user, other], "rejected": [user, assistant]},
        "arena": arena | {"winner": "tie"},
        "mt_bench": arena | {"winner": "tie", "question_id": 1, "judge": "j", "turn": 1},
    }


def test_handed_files_are_refused(case):
    """Each row is refused, and the message names the key."""
    for file, key in (
        ("tool_calls", "tool_calls"),
        ("reasoning", "reasoning_content"),
        ("attachments", "attachments"),
    ):
        path = case(f"03-tool-calls/{file}.jsonl")
        with pytest.raises(PairsError, match=rf"10 rows cannot be read:\s+row 0.*{key}"):
            read_pairs(path)
        with pytest.raises(PairsError, match="no row can be read"):
            read_pairs(path, on_error="skip")


def test_audit_names_the_key(case, tiewise):
    """The command prints the key of the rows that it leaves out."""
    assert "tool_calls" in tiewise("audit", case("03-tool-calls/tool_calls.jsonl")).text


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("side", ["user", "assistant"])
def test_keys_with_text_are_refused(key, side):
    """On both sides, in every format of messages, with and without content."""
    for content in ("x", None, ""):
        messages = {"user": USER, "assistant": ASSISTANT}
        messages[side] = messages[side] | {"content": content, key: KEYS[key]}
        for name, record in records(**messages).items():
            with pytest.raises(PairsError, match=rf"row 0.*\b{key}\b"):
                read_pairs(pd.DataFrame([record]))
            if isinstance(KEYS[key], np.ndarray | dict) or type(KEYS[key]) is object:
                continue
            spelled = {
                column: json.dumps(cell) if isinstance(cell, list) else cell
                for column, cell in record.items()
            }
            with pytest.raises(PairsError, match=rf"row 0.*\b{key}\b"):
                read_pairs(pd.DataFrame([spelled]))
            assert name


@pytest.mark.parametrize("value", [*NOTHING, 7, 0.5, True, pd.Timestamp(0)])
def test_keys_without_text_are_ignored(value):
    """Nulls and empty values, as parquet fills them in, and numbers hold no text."""
    extra = dict.fromkeys((*KEYS, "num_tokens"), value)
    plain, further = records(USER, ASSISTANT), records(USER | extra, ASSISTANT | extra)
    for name, record in plain.items():
        read, expected = (read_pairs(pd.DataFrame([each])) for each in (further[name], record))
        pd.testing.assert_frame_equal(read, expected)


def test_keys_of_blocks_are_looked_at():
    """A text block with a further text is refused; null further keys are ignored."""
    block = {"type": "text", "text": "x", "mimeType": None}
    for further, is_read in (({}, True), ({"content": "y"}, False), ({"citations": ["u"]}, False)):
        message = {"role": "assistant", "content": [block | further]}
        table = pd.DataFrame([records(USER, message)["arena"]])
        if is_read:
            assert read_pairs(table)["response_a"].tolist() == [["x"]]
        else:
            with pytest.raises(PairsError, match=rf"row 0.*{next(iter(further))}"):
                read_pairs(table)


BLANK = st.sampled_from([None, "", " ", "\n", []])


@given(first=BLANK, second=BLANK, is_shared=st.booleans())
def test_two_empty_responses_are_refused(first, second, is_shared):
    """No winner is drawn between two responses without text, after an earlier answer too."""
    before = [ASSISTANT, {"role": "user", "content": "And?"}] if is_shared else []
    chosen, rejected = (
        [*before, {"role": "assistant", "content": content}] for content in (first, second)
    )
    record = {"prompt": [USER], "chosen": chosen, "rejected": rejected}
    with pytest.raises(PairsError, match=r"row 0: both responses are empty"):
        read_pairs(pd.DataFrame([record]))


def test_empty_texts_are_refused():
    """So are two empty plain texts, transcripts that end early, and RewardBench 2's."""
    texts = {"prompt": "Sky?", "chosen": "", "rejected": " "}
    transcript = dict.fromkeys(("chosen", "rejected"), "\n\nHuman: Hi\n\nAssistant:")
    bench = {"id": "1", "prompt": "Sky?", "chosen": [""], "rejected": ["", "x"], "subset": "s"}
    for record in (texts, transcript, bench):
        with pytest.raises(PairsError, match=r"row 0.*both responses are empty"):
            read_pairs(pd.DataFrame([record]))
    one = read_pairs(pd.DataFrame([texts | {"chosen": "blue"}]))
    assert sorted([one["response_a"][0], one["response_b"][0]]) == [[" "], ["blue"]]
