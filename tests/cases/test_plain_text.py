"""Texts decide between lists of turns and plain text, however the winner is written."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from tiewise.data.formats import read_pairs
from tiewise.errors import PairsError

WINNERS = {
    "one-hot": {
        "winner_model_a": [1, 0, 0],
        "winner_model_b": [0, 1, 0],
        "winner_tie": [0, 0, 1],
    },
    "word": {"winner": ["model_a", "model_b", "tie"]},
    "probabilities": {"prob_a": [0.8, 0, 0], "prob_b": [0.1, 1, 0], "prob_tie": [0.1, 0, 1]},
}


def frame(winners, **texts):
    """Return three pairs with a winner of this spelling."""
    columns = {
        "prompt": ["Sky?", "Why?", "Name a list."],
        "response_a": ["blue", "It rains.", "[1, 2]"],
        "response_b": ["green", "", "No."],
    }
    return pd.DataFrame({"id": range(3), **columns, **texts, **WINNERS[winners]})


def test_plain_one_hot_is_read(case, tiewise):
    """All ten rows of a plain csv with one-hot winners are read."""
    path = case("17-plain-text-one-hot/plain.csv")
    pairs = read_pairs(path)
    table = pd.read_csv(path)
    assert pairs["response_b"].tolist() == [[text] for text in table["response_b"]]
    assert pairs["label"].tolist() == [0, 1, 2, 0, 1, 2, 0, 1, 2, 0]
    assert tiewise("audit", path).status == 0


@pytest.mark.parametrize("winners", WINNERS)
@pytest.mark.parametrize("suffix", ["csv", "parquet", "jsonl"])
def test_winner_spelling_has_no_effect(tmp_path, winners, suffix):
    """Plain text stays plain text, and lists stay lists, with each spelling of the winner."""
    plain = frame(winners)
    names = ["prompt", "response_a", "response_b"]
    lists = plain.assign(**{name: [json.dumps([text]) for text in plain[name]] for name in names})
    for number, table in enumerate((plain, lists)):
        path = tmp_path / f"{number}.{suffix}"
        if suffix == "csv":
            table.to_csv(path, index=False)
        elif suffix == "parquet":
            table.to_parquet(path)
        else:
            table.to_json(path, orient="records", lines=True)
        pairs = read_pairs(path)
        if winners != "probabilities":  # soft labels name no winner
            assert pairs["label"].tolist() == [0, 1, 2]
        for name in names:
            assert pairs[name].tolist() == [[text] for text in plain[name]]


@pytest.mark.parametrize("winners", WINNERS)
@pytest.mark.parametrize("spell", [json.dumps, str])
def test_lists_next_to_plain_text_are_refused(winners, spell):
    """Responses that are all lists next to plain prompts are refused by row, not taken as text."""
    responses = {name: [spell(["x"]), spell(["y", "z"]), spell(["x"])] for name in ("a", "b")}
    table = frame(winners, **{f"response_{side}": cells for side, cells in responses.items()})
    with pytest.raises(PairsError, match=r"3 rows cannot be read[\s\S]*row 0 \(id=0\)"):
        read_pairs(table)
    table["response_b"] = "a text"
    with pytest.raises(PairsError, match=r"3 rows cannot be read[\s\S]*row 0 \(id=0\)"):
        read_pairs(table)
