"""Data sets of the library ``datasets`` are read."""

from __future__ import annotations

import pandas as pd
import pytest
from datasets import Dataset, DatasetDict
from pandas.testing import assert_frame_equal

from tiewise.data.formats import read_pairs
from tiewise.errors import PairsError

RECORDS = [
    {
        "id": "c4b9710c",
        "model_a": "m",
        "model_b": "n",
        "winner": winner,
        "evaluation_session_id": "s1",
        "conversation_a": [
            {"role": "user", "content": [{"type": "text", "text": "Hi", "image": None}]},
            {"role": "assistant", "content": [{"type": "text", "text": "😀", "image": None}]},
        ],
        "conversation_b": [
            {"role": "user", "content": [{"type": "text", "text": "Hi", "image": None}]},
            {"role": "assistant", "content": [{"type": "text", "text": None, "image": None}]},
        ],
    }
    for winner in ("model_a", "both_bad")
]


def test_dataset_and_its_files_agree(tmp_path):
    """A Dataset, and the parquet and JSON files it writes, give the same pairs."""
    dataset = Dataset.from_list(RECORDS)
    dataset.to_parquet(tmp_path / "arena.parquet")
    dataset.to_json(tmp_path / "arena.jsonl")
    pairs = read_pairs(dataset)
    assert pairs["response_a"].tolist() == [["😀"], ["😀"]]
    assert pairs["response_b"].tolist() == [[None], [None]]
    assert pairs["winner"].tolist() == ["model_a", "both_bad"]
    for path in tmp_path.iterdir():
        assert_frame_equal(read_pairs(path), pairs)


def test_preference_dataset_is_read():
    """TRL's own columns need no format."""
    messages = {name: [{"role": "assistant", "content": name}] for name in ("chosen", "rejected")}
    record = {"prompt": [{"role": "user", "content": "Sky?"}], **messages}
    pairs = read_pairs(Dataset.from_list([record]))
    assert pairs.attrs["format"] == "preference"
    assert pairs["prompt"].tolist() == [["Sky?"]]


def test_several_splits_are_refused():
    """The message names the splits."""
    splits = DatasetDict({"train": Dataset.from_list(RECORDS)})
    with pytest.raises(PairsError, match="the splits train"):
        read_pairs(splits)


TEXTS = {"id": 7, "prompt": "Sky?"}
ANSWER = {"role": "assistant", "content": "blue"}
MORE = {
    "kaggle": TEXTS
    | {"prompt": ["Sky?", None], "response_a": ["blue"], "response_b": [None]}
    | {"winner_model_a": 0, "winner_model_b": 0, "winner_tie": 1},
    "wsdm": TEXTS | {"response_a": "blue", "response_b": "null", "winner": "model_b"},
    "mt_bench": {name: RECORDS[0][name] for name in ("conversation_a", "conversation_b", "winner")}
    | {"question_id": 81, "judge": "author_2", "turn": 1},
    "rewardbench": TEXTS
    | {"chosen": ["blue", "azure"], "rejected": ["red"], "subset": "Ties", "models": ["m"] * 3},
    "alpaca_eval": {
        "instruction": "Sky?",
        "output_1": "blue",
        "output_2": "red",
        "preference": 1.5,
    },
    "helpsteer3": {"context": [{"role": "user", "content": "Sky?"}], "response1": "blue"}
    | {"response2": "red", "domain": "stem", "language": "english", "overall_preference": -2},
    "nemo_rl": {"context": [{"role": "user", "content": "Sky?"}]}
    | {"completions": [{"rank": n, "completion": [ANSWER]} for n in range(3)]},
}


@pytest.mark.parametrize("name", MORE)
def test_dataset_equals_frame(name):
    """The columns identify the format, in a Dataset as in a frame."""
    dataset = Dataset.from_list([MORE[name]])
    pairs = read_pairs(dataset)
    assert pairs.attrs["format"] == name
    assert_frame_equal(pairs, read_pairs(pd.DataFrame([MORE[name]])))
