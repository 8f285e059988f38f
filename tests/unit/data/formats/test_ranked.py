"""Formats with degrees of preference: AlpacaEval, HelpSteer3, NeMo RL, and TRL's margin."""

from __future__ import annotations

import json
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal

from tiewise.data.formats import read_chunks, read_pairs
from tiewise.data.labels import PROB_COLUMNS
from tiewise.data.targets import make_targets
from tiewise.errors import PairsError

ALPACA = {"instruction": "Sky?", "output_1": "blue", "output_2": "red"}
STEER = {
    "context": [{"role": "user", "content": "Sky?"}],
    "response1": "blue",
    "response2": "red",
    "domain": "stem",
    "language": "english",
}


def says(text):
    """Return the message of an answer."""
    return [{"role": "assistant", "content": text}]


def ranked(*ranks, **more):
    """Return a record with a completion of each rank, whose text names its place and rank."""
    completions = [
        {"rank": rank, "completion": says(f"{place}: {rank}")} for place, rank in enumerate(ranks)
    ]
    return {"context": STEER["context"], "completions": completions} | more


@pytest.mark.parametrize(
    ("preference", "label", "probs"),
    [
        (1, 0, [1, 0, 0]),
        (2, 1, [0, 1, 0]),
        (1.5, 2, [0, 0, 1]),
        (0, 2, [0, 0, 1]),
        ("1.25", 0, [0.75, 0.25, 0]),
        (1.75, 1, [0.25, 0.75, 0]),
    ],
)
def test_alpaca_preference_is_read(preference, label, probs):
    """1 and 2 are A and B, 0 and 1.5 a tie, and a number between them is 1 + P(B)."""
    pairs = read_pairs(pd.DataFrame([ALPACA | {"preference": preference}]))
    assert pairs.attrs["format"] == "alpaca_eval"
    assert pairs["label"].tolist() == [label]
    assert pairs[PROB_COLUMNS].to_numpy().tolist() == [probs]
    assert pairs.loc[0, ["prompt", "response_a", "response_b"]].tolist() == [
        ["Sky?"], ["blue"], ["red"],
    ]  # fmt: skip


def test_alpaca_columns_are_read():
    """Generators are models, the data set is the source, and the input follows the instruction."""
    record = ALPACA | {"input": "Now.", "generator_1": "m", "generator_2": "n", "dataset": "koala"}
    pairs = read_pairs(pd.DataFrame([record | {"preference": 2, "annotator": "x"}]))
    assert pairs["prompt"].tolist() == [["Sky?\n\nNow."]]
    assert pairs.loc[0, ["model_a", "model_b", "source"]].tolist() == ["m", "n", "koala"]
    assert pairs.attrs["unread"] == ["annotator"]
    assert pairs["id"].tolist() == [0]


@pytest.mark.parametrize(
    ("preference", "message"),
    [(3, "preference is 3"), (-1, "preference is -1"), (None, "missing"), ("x", "preference is")],
)
def test_other_preferences_are_refused(preference, message):
    """Failed annotations are refused by row, and read where winners are optional."""
    table = pd.DataFrame([ALPACA | {"preference": preference}], dtype=object)
    with pytest.raises(PairsError, match=f"row 0: .*{message}"):
        read_pairs(table)
    assert read_pairs(table, labelled=False)["label"].isna().all()
    assert read_pairs(table.drop(columns="preference"), labelled=False).shape[0] == 1
    with pytest.raises(PairsError, match=r"no column names the winner; expected .*preference"):
        read_pairs(table.drop(columns="preference"))


@pytest.mark.parametrize("value", range(-3, 4))
@pytest.mark.parametrize("kind", [int, float, str])
def test_helpsteer_is_winner_and_weight(value, kind):
    """The sign is the winner, the size the weight; a tie has the weight 1."""
    pairs = read_pairs(pd.DataFrame([STEER | {"overall_preference": kind(value)}]))
    assert pairs.attrs["format"] == "helpsteer3"
    assert pairs["label"].tolist() == [0 if value < 0 else 1 if value > 0 else 2]
    assert pairs["weight"].tolist() == [abs(value) or 1]
    assert pairs.loc[0, ["source", "language"]].tolist() == ["stem", "english"]


def test_helpsteer_context_is_a_conversation(tmp_path):
    """Earlier exchanges are turns of all texts, with their system text, in JSON as in lists."""
    context = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Sky?"},
        {"role": "assistant", "content": "blue"},
        {"role": "user", "content": "Sure?"},
    ]
    record = STEER | {"context": context, "overall_preference": 2}
    pairs = read_pairs(pd.DataFrame([record]))
    assert pairs["prompt"].tolist() == [["Be brief.\n\nSky?", "Sure?"]]
    assert pairs["response_a"].tolist() == [["blue", "blue"]]
    assert pairs["response_b"].tolist() == [["blue", "red"]]
    assert pairs["system"].tolist() == ["Be brief."]
    pd.DataFrame([record | {"context": json.dumps(context)}]).to_csv(tmp_path / "t.csv")
    pd.DataFrame([record]).to_parquet(tmp_path / "t.parquet")
    for path in (tmp_path / "t.csv", tmp_path / "t.parquet"):
        assert_frame_equal(read_pairs(path), pairs)
    plain = read_pairs(pd.DataFrame([record | {"context": "Sky?"}]))
    assert plain["prompt"].tolist() == [["Sky?"]]


@pytest.mark.parametrize("value", [-4, 1.5, "better"])
def test_other_degrees_are_refused(value):
    """A value outside the scale is refused by row."""
    with pytest.raises(PairsError, match="row 0: overall_preference is"):
        read_pairs(pd.DataFrame([STEER | {"overall_preference": value}]))


@given(ranks=st.lists(st.integers(0, 3), min_size=1, max_size=5), as_json=st.booleans())
def test_each_two_ranks_are_a_pair(ranks, as_json):
    """Pairs are those of different rank, the lower wins, and the weights of a prompt sum to 1."""
    record = ranked(*ranks)
    if as_json:
        record = {name: json.dumps(cell) for name, cell in record.items()}
    table = pd.DataFrame([record])
    expected = [
        pair for pair in combinations(range(len(ranks)), 2) if ranks[pair[0]] != ranks[pair[1]]
    ]
    if not expected:
        with pytest.raises(PairsError, match="row 0: completions has the ranks"):
            read_pairs(table)
        return
    pairs = read_pairs(table)
    assert pairs.attrs["format"] == "nemo_rl"
    assert pairs["id"].is_unique
    assert len(pairs) == len(expected)
    assert pairs["weight"].sum() == pytest.approx(1)
    for row in pairs.to_dict("records"):
        texts = [row["response_a"][0], row["response_b"][0]]
        winner, loser = texts if row["label"] == 0 else texts[::-1]
        assert int(winner[-1]) < int(loser[-1])
        assert tuple(sorted(int(text[0]) for text in texts)) in expected


def test_ranked_ids_name_the_places():
    """An id is that of the record, or its row number, with the places of better and worse."""
    table = pd.DataFrame([ranked(0, 1), ranked(2, 0, 1)])
    found = read_pairs(table)
    assert found["id"].tolist() == ["0/0/1", "1/1/0", "1/2/0", "1/1/2"]
    named = read_pairs(table.assign(id=[7.0, 8.0]))
    assert named["id"].tolist()[:2] == ["7/0/1", "8/1/0"]
    chunks = pd.concat([parse() for parse in read_chunks(table, size=1)], ignore_index=True)
    assert_frame_equal(chunks, found)


def test_position_does_not_tell_the_rank():
    """The better completion comes first in such files, and is A in about half of the pairs."""
    records = [
        {"context": f"Question {n}?", "completions": ranked(0, 1)["completions"]}
        for n in range(400)
    ]
    share = (read_pairs(pd.DataFrame(records))["label"] == 0).mean()
    assert 0.4 < share < 0.6


@pytest.mark.parametrize(
    "completions", ["x", 3, ["x"], [{"rank": 1}], [{"rank": "a", "completion": "x"}]]
)
def test_wrong_completions_are_refused(completions):
    """What is no list of completions is refused by row."""
    with pytest.raises(PairsError, match="row 0: "):
        read_pairs(pd.DataFrame([{"context": "Sky?", "completions": completions}]))


TRL = {"prompt": "Sky?", "chosen": "blue", "rejected": "red"}


def test_margin_is_a_weight():
    """TRL's margin is the weight, which the loss multiplies; the table says so."""
    table = pd.DataFrame([TRL, TRL, TRL]).assign(margin=[0.5, 3, 0])
    pairs = read_pairs(table)
    assert pairs["weight"].tolist() == [0.5, 3, 0]
    np.testing.assert_array_equal(make_targets(pairs).weights, [0.5, 3, 0])
    assert pairs.attrs["unread"] == []
    assert any("margin is read as the weight" in note for note in pairs.attrs["notes"])
    both = read_pairs(table.assign(weight=2))
    assert both["weight"].tolist() == [2, 2, 2]


def test_negative_margin_is_refused():
    """A negative margin says that the rejected response is the better one."""
    with pytest.raises(
        PairsError, match="row 0: margin is -1: the rejected response is the better"
    ):
        read_pairs(pd.DataFrame([TRL | {"margin": -1}]))
