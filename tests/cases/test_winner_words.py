"""Known words for a winner are kept, and count as a label."""

from __future__ import annotations

import pandas as pd
import pytest

from tiewise.data.formats import read_pairs
from tiewise.errors import PairsError


def test_inconsistent_ties_are_ties(case, tiewise, tmp_path):
    """The word of MT-bench's GPT-4 votes is kept through convert and audit, and is a tie."""
    path = case("08-tie-inconsistent/gpt4_pair.jsonl")
    done = tiewise("convert", path, "--out", "o.parquet")
    assert done.status == 0, done.text
    pairs = read_pairs(tmp_path / "o.parquet")
    written = pd.read_json(path, lines=True)["winner"].tolist()
    assert pairs["winner"].tolist() == written
    assert (pairs["label"] == 2).tolist() == [word.startswith("tie") for word in written]
    assert written.count("tie (inconsistent)") == 3
    assert "tie (inconsistent)  3" in tiewise("audit", "o.parquet").output


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_word_survives_other_formats(tmp_path, suffix):
    """The word is known in plain text, in lists of turns and in an arena file."""
    texts = {"prompt": ["Sky?"], "response_a": ["blue"], "response_b": ["green"]}
    talk = [{"role": "user", "content": "Sky?"}, {"role": "assistant", "content": "blue"}]
    arena = {"conversation_a": [talk], "conversation_b": [talk]}
    lists = {name: [cell] for name, cell in texts.items()}
    for columns in (texts, lists, arena):
        table = pd.DataFrame({"id": [1], **columns, "winner": ["tie (inconsistent)"]})
        pairs = read_pairs(table)
        assert pairs.loc[0, ["winner", "label"]].tolist() == ["tie (inconsistent)", 2]


def test_word_and_one_hot_tie_agree():
    """The word next to a one-hot tie is no contradiction; next to another winner it is."""
    texts = {"id": [1], "prompt": ["Sky?"], "response_a": ["blue"], "response_b": ["green"]}
    tie = {"winner_model_a": [0], "winner_model_b": [0], "winner_tie": [1]}
    table = pd.DataFrame(texts | tie | {"winner": ["tie (inconsistent)"]})
    assert read_pairs(table)["winner"].tolist() == ["tie (inconsistent)"]
    with pytest.raises(PairsError, match="name tie and model_a as winners"):
        read_pairs(table.assign(winner_tie=0, winner_model_a=1))


@pytest.mark.parametrize("word", ["inconsistent", "tie (unknown)", "ties", "error"])
def test_other_words_are_refused(word):
    """A word that is not known is refused by row, and the message lists the known ones."""
    texts = {"id": [1], "prompt": ["Sky?"], "response_a": ["blue"], "response_b": ["green"]}
    with pytest.raises(PairsError, match=r"row 0.*tie \(inconsistent\)"):
        read_pairs(pd.DataFrame(texts | {"winner": [word]}))
