"""Chatbot Arena data sets of every year and MT-bench are read."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

from tiewise.data.formats import read_pairs, write_pairs
from tiewise.errors import PairsError


def talk(*contents):
    """Return a conversation with alternating roles."""
    return [
        {"role": ("user", "assistant")[place % 2], "content": content}
        for place, content in enumerate(contents)
    ]


def blocks(*contents):
    """Return a conversation with content blocks, as in the 140k data set."""
    return [
        message
        | {
            "content": [
                {"type": "text", "text": message["content"], "image": None, "mimeType": None}
            ]
        }
        for message in talk(*contents)
    ]


ARENA_33K = [
    {
        "question_id": "58210e39b3fd4441a2bd4a518bb44c2d",
        "model_a": "chatglm-6b",
        "model_b": "koala-13b",
        "winner": "model_b",
        "judge": "arena_user_973",
        "conversation_a": talk("Hi", "你好", "And?", "…"),
        "conversation_b": talk("Hi", "Hello", "And?", "So."),
        "turn": 2,
        "anony": True,
        "language": "English",
        "tstamp": 1682351591.1322,
        "openai_moderation": {"flagged": False},
    },
    {
        "question_id": "2cb9a2f3b7e44d3c8d7f2b8c1e5b6a90",
        "model_a": "alpaca-13b",
        "model_b": "vicuna-13b",
        "winner": "tie (bothbad)",
        "judge": "arena_user_1",
        "conversation_a": talk("2+2?", "5"),
        "conversation_b": talk("2+2?", "6"),
        "turn": 1,
        "anony": True,
        "language": "NA",
        "tstamp": 1.0,
        "openai_moderation": {"flagged": False},
    },
]
ARENA_100K = [
    {name: record[name] for name in record if name not in ("judge", "openai_moderation")}
    | {"judge_hash": "f9b5", "is_code": False, "category_tag": {"math": True}}
    for record in ARENA_33K
]
ARENA_140K = [
    {
        "id": f"c4b9710c-8d64-4bee-a0b0-94637ae4cc6{order}",
        "model_a": "gemini-2.5-pro",
        "model_b": "claude-opus-4",
        "winner": winner,
        "evaluation_session_id": session,
        "evaluation_order": order,
        "conversation_a": blocks(asked, "one"),
        "conversation_b": [message | {"num_tokens": 3} for message in blocks(asked, "two")],
        "full_conversation": [{"user": blocks("x")[0]}],
        "language": "en",
        "is_code": False,
    }
    for order, (winner, session, asked) in enumerate(
        [("model_a", "s1", "Hi"), ("both_bad", "s1", "Go on"), ("tie", "s2", "Bye")]
    )
]
MT_BENCH = [
    {
        "question_id": 81,
        "model_a": "alpaca-13b",
        "model_b": "gpt-3.5-turbo",
        "winner": winner,
        "judge": "author_2",
        "conversation_a": talk("Write", "Aloha", "Rewrite", "A"),
        "conversation_b": talk("Write", "Hello", "Rewrite", "B"),
        "turn": turn,
    }
    for winner, turn in [("model_a", 1), ("tie", 2), ("model_a", 1)]
]
EVERY = {"33k": ARENA_33K, "100k": ARENA_100K, "140k": ARENA_140K, "mt_bench": MT_BENCH}


def test_arena_33k_is_read():
    """Turns, words, models and language; the word for both bad is kept with a tie."""
    pairs = read_pairs(pd.DataFrame(ARENA_33K))
    assert pairs.attrs["format"] == "arena"
    assert pairs["id"].tolist() == [record["question_id"] for record in ARENA_33K]
    assert pairs["prompt"].tolist() == [["Hi", "And?"], ["2+2?"]]
    assert pairs["response_a"].tolist() == [["你好", "…"], ["5"]]
    assert pairs["winner"].tolist() == ["model_b", "tie (bothbad)"]
    assert pairs["label"].tolist() == [1, 2]
    assert pairs["language"].tolist() == ["English", "NA"]


def test_arena_140k_is_read():
    """Content blocks are joined, and a session is one group."""
    pairs = read_pairs(pd.DataFrame(ARENA_140K))
    assert pairs["prompt"].tolist() == [["Hi"], ["Go on"], ["Bye"]]
    assert pairs["response_b"].tolist() == [["two"]] * 3
    assert pairs["winner"].tolist() == ["model_a", "both_bad", "tie"]
    assert pairs["session"].tolist() == ["s1", "s1", "s2"]
    assert pairs["group"][0] == pairs["group"][1] != pairs["group"][2]


def test_mt_bench_is_read():
    """A vote on the first turn is about the first exchange; ids are unique."""
    pairs = read_pairs(pd.DataFrame(MT_BENCH))
    assert pairs.attrs["format"] == "mt_bench"
    assert pairs["prompt"].tolist() == [["Write"], ["Write", "Rewrite"], ["Write"]]
    assert pairs["response_b"].tolist() == [["Hello"], ["Hello", "B"], ["Hello"]]
    assert pairs["id"].is_unique
    assert pairs["group"].nunique() == 1


@pytest.mark.parametrize("records", EVERY.values(), ids=EVERY)
def test_containers_give_equal_tables(tmp_path, records):
    """Parquet, JSON lines, a frame, and conversations as JSON text are read alike."""
    frame = pd.DataFrame(records)
    expected = read_pairs(frame)
    frame.to_parquet(tmp_path / "arena.parquet")
    (tmp_path / "arena.jsonl").write_text("\n".join(map(json.dumps, records)))
    as_text = frame.assign(
        **{name: frame[name].map(json.dumps) for name in ("conversation_a", "conversation_b")}
    )
    as_text.to_csv(tmp_path / "arena.csv", index=False)
    read_back = pd.read_parquet(tmp_path / "arena.parquet")
    assert isinstance(read_back["conversation_a"][0], np.ndarray)
    for source in (*sorted(tmp_path.iterdir()), read_back, as_text):
        assert_frame_equal(read_pairs(source), expected)


@pytest.mark.parametrize("records", EVERY.values(), ids=EVERY)
@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_read_write_read_is_identity(tmp_path, records, suffix):
    """A table that was read is written and read as the same table."""
    pairs = read_pairs(pd.DataFrame(records))
    write_pairs(pairs, tmp_path / f"pairs.{suffix}")
    assert_frame_equal(read_pairs(tmp_path / f"pairs.{suffix}"), pairs)


def test_unlabelled_needs_no_winner():
    """Pairs without votes are read for prediction."""
    frame = pd.DataFrame(ARENA_33K).drop(columns="winner")
    assert read_pairs(frame, labelled=False)["label"].isna().all()
    with pytest.raises(PairsError, match="no column names the winner"):
        read_pairs(frame)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"winner": "D"}, "winner is 'D'"),
        ({"winner": None}, "winner is missing"),
        (
            {"conversation_b": talk("Other", "x")},
            "differ between conversation_a and conversation_b",
        ),
        (
            {
                "conversation_a": [
                    *blocks("Hi"),
                    {"role": "assistant", "content": [{"type": "image", "image": "d"}]},
                ]
            },
            "of type image",
        ),
        ({"conversation_a": None}, "a conversation is None; expected a list of messages"),
        ({"question_id": None}, "id is missing"),
    ],
)
def test_wrong_row_is_refused(change, match):
    """One wrong pair is named, and can be skipped."""
    records = [ARENA_33K[1], ARENA_33K[0] | change]
    with pytest.raises(PairsError, match=rf"row 1.*{match}"):
        read_pairs(pd.DataFrame(records))
    assert len(read_pairs(pd.DataFrame(records), on_error="skip")) == 1


@pytest.mark.parametrize("turn", [0, 3, None, 1.5, True, [1], np.array([1, 2])])
def test_mt_bench_has_two_turns(turn):
    """A judgment of another turn is refused."""
    frame = pd.DataFrame([MT_BENCH[0] | {"turn": turn}]).astype({"turn": object})
    with pytest.raises(PairsError, match=r"turn is .*; expected 1 or 2"):
        read_pairs(frame)
