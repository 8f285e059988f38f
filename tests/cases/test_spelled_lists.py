"""A list that became text is read if it is strict JSON, and refused by row if it is not."""

from __future__ import annotations

import functools
import json

import numpy as np
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

from tiewise.data.formats import read_pairs
from tiewise.errors import PairsError

FOLDER = "02-lists-through-csv"
QUESTIONS = ["Why is the sky blue?", "It's a test, isn't it?", 'Say "yes"']
GOOD, BAD = ["It scatters.", "It's one.", '"yes"'], ["No idea.", "It isn't.", "no\nor maybe"]


def said(role, content):
    return {"role": role, "content": content}


def as_duckdb(value):
    """Spell a value as DuckDB writes it to a csv file: strings have no quotes."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"'{key}': {as_duckdb(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(as_duckdb, value)) + "]"
    return str(value)


SPELLINGS = {
    "python": str,
    "python, reversed keys": lambda cell: str(
        [dict(reversed(item.items())) if isinstance(item, dict) else item for item in cell]
    ),
    "numpy": lambda cell: str(np.array(cell, dtype=object)),
    "numpy, repr": lambda cell: repr(np.array(cell, dtype=object)),
    "tuple": lambda cell: str(tuple(cell)),
    "duckdb": as_duckdb,
    "json, single quotes": lambda cell: json.dumps(cell).replace('"', "'"),
    "json, cut off": lambda cell: json.dumps(cell)[:-2] + "]",
}
TABLES = {
    "messages with prompt": {
        "prompt": QUESTIONS,
        "chosen": [[said("assistant", text)] for text in GOOD],
        "rejected": [[said("assistant", text)] for text in BAD],
    },
    "messages alone": {
        side: [
            [said("user", question), said("assistant", text)]
            for question, text in zip(QUESTIONS, texts, strict=True)
        ]
        for side, texts in (("chosen", GOOD), ("rejected", BAD))
    },
    "prompt alone": {
        "prompt": [[said("user", question)] for question in QUESTIONS],
        "chosen": GOOD,
        "rejected": BAD,
    },
    "rewardbench 2": {
        "id": ["1", "2", "3"],
        "prompt": QUESTIONS,
        "chosen": [[text, f"{text} Yes."] for text in GOOD],
        "rejected": [[text, f"{text} Or not.", "?"] for text in BAD],
        "subset": ["Ties", "Focus", "Ties"],
    },
    "arena": {
        "conversation_a": [[said("user", "Hi"), said("assistant", text)] for text in GOOD],
        "conversation_b": [[said("user", "Hi"), said("assistant", text)] for text in BAD],
        "winner": ["model_a", "tie", "model_b"],
    },
    "lists of turns": {
        "id": [1, 2, 3],
        "prompt": [[question] for question in QUESTIONS],
        "response_a": [[text] for text in GOOD],
        "response_b": [[text] for text in BAD],
        "winner": ["model_a", "tie", "model_b"],
    },
}


def through_csv(path, columns, spell):
    """Write lists as text to a csv file, in this spelling, and return its path."""
    table = pd.DataFrame(columns)
    for name in table:
        if isinstance(table[name][0], list):
            table[name] = table[name].map(spell)
    table.to_csv(path, index=False)
    return path


def test_handed_spellings_are_refused(case):
    """What pandas and datasets write for lists is refused, each row by its number."""
    for name in ("messages_pandas", "messages_datasets", "messages_noprompt", "rb2_repr"):
        path = case(f"{FOLDER}/{name}.csv")
        with pytest.raises(PairsError, match=r"10 rows cannot be read:\s+row 0.*JSON"):
            read_pairs(path)


def test_handed_json_is_read(case):
    """RewardBench 2 in a csv file of JSON lists is read as from a table of lists."""
    pairs = read_pairs(case(f"{FOLDER}/rb2_json.csv"))
    assert pairs["id"].tolist() == [f"{row}/0/{j}" for row in range(10) for j in range(3)]
    table = pd.read_csv(case(f"{FOLDER}/rb2_json.csv"))
    lists = table.assign(**{name: table[name].map(json.loads) for name in ("chosen", "rejected")})
    assert_frame_equal(pairs, read_pairs(lists.drop(columns="models")))
    assert pairs.attrs["unread"] == ["models"]  # in Python's spelling


def test_models_as_json_are_read(case):
    """The models of RewardBench 2 are read where their list is strict JSON too."""
    table = pd.read_csv(case(f"{FOLDER}/rb2_json.csv"))
    lists = [json.loads(cell.replace("'", '"')) for cell in table["models"]]
    pairs = read_pairs(table.assign(models=[json.dumps(cell) for cell in lists]))
    assert_frame_equal(pairs, read_pairs(table.assign(models=lists)))
    assert set(pairs["model_a"]) | set(pairs["model_b"]) == {"m0", "m1", "m2", "m3"}
    assert pairs.attrs["unread"] == []


@pytest.mark.parametrize("columns", TABLES.values(), ids=TABLES)
def test_json_lists_are_read(tmp_path, columns):
    """Strict JSON, with or without spaces and escapes, gives the table of the lists."""
    expected = read_pairs(pd.DataFrame(columns))
    for options in ({}, {"ensure_ascii": False}, {"indent": 1}, {"separators": (",", ":")}):
        path = through_csv(tmp_path / "t.csv", columns, functools.partial(json.dumps, **options))
        assert_frame_equal(read_pairs(path), expected)


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("columns", TABLES.values(), ids=TABLES)
def test_other_spellings_are_refused(tmp_path, columns, spelling):
    """Any other spelling is refused, never taken for text; ``["It's"]`` is JSON by chance."""
    path = through_csv(tmp_path / "t.csv", columns, SPELLINGS[spelling])
    with pytest.raises(PairsError, match=r"[23] rows cannot be read[\s\S]*row 0"):
        read_pairs(path)
    try:
        pairs = read_pairs(path, on_error="skip")
    except PairsError as error:
        assert "no row can be read" in str(error)  # noqa: PT017
        return
    expected = read_pairs(pd.DataFrame(columns))
    is_read = expected["id"].isin(pairs["id"])
    assert_frame_equal(pairs, expected[is_read].reset_index(drop=True))


@pytest.mark.parametrize("spelling", ["python", "numpy", "duckdb", "json, cut off"])
def test_one_spelled_message_is_refused(spelling):
    """A single cell of messages in a column of plain text is refused in its row."""
    spelled = SPELLINGS[spelling]([said("user", "Hi"), said("assistant", "Yo")])
    for name in ("prompt", "chosen", "rejected"):
        records = [{"prompt": "Hi", "chosen": "Hello", "rejected": "Yo"} for _ in range(3)]
        records[1][name] = spelled
        with pytest.raises(PairsError, match=r"1 row cannot be read:\s+row 1"):
            read_pairs(pd.DataFrame(records))
    for name in ("prompt", "response_a", "response_b"):
        record = {"id": 1, "prompt": "Hi", "response_a": "Hello", "response_b": "Yo"}
        records = [record | {"winner": "tie"}, record | {"winner": "tie", name: spelled}]
        with pytest.raises(PairsError, match=r"1 row cannot be read:\s+row 1"):
            read_pairs(pd.DataFrame(records))


TEXTS = [
    '["a", "b"]',
    "[1, 2]",
    "['a']",
    "[laughs]",
    '{"role": "cook"}',
    '[{"a": 1}]',
    "(no)",
    "[]",
]


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("names", [("chosen", "rejected"), ("response_a", "response_b")])
def test_brackets_in_plain_text_are_kept(text, names):
    """One answer in brackets among plain answers is text, in preferences and plain pairs."""
    first, second = names
    records = [
        {"id": row, "prompt": "Hi", first: "Hello", second: f"Yo {row}", "winner": "model_a"}
        for row in range(3)
    ]
    records[1][first] = text
    pairs = read_pairs(pd.DataFrame(records))
    assert sorted([*pairs["response_a"][1], *pairs["response_b"][1]]) == sorted([text, "Yo 1"])


@pytest.mark.parametrize(
    "answers", [["[1, 2]", "[3]"], ['[{"a": 1}]', '[{"b": "c"}]'], ["[-1]", "[[2]]"]]
)
def test_columns_of_data_are_text(answers):
    """Answers that are all JSON without texts or messages are neither turns nor responses."""
    chosen, rejected = answers
    table = pd.DataFrame([{"prompt": "Sort.", "chosen": chosen, "rejected": rejected}] * 3)
    pairs = read_pairs(table)
    assert {*pairs["response_a"][0], *pairs["response_b"][0]} == set(answers)
