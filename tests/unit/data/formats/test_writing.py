"""Files that are written: what a csv states, sums of probabilities, and preferences."""

import csv
import json

import pandas as pd
import pytest

from tiewise.data.formats import read_pairs, write_pairs, write_preference, write_submission
from tiewise.data.pairs import build_pairs
from tiewise.errors import PairsError

TEXTS = ["prompt", "response_a", "response_b"]
KAGGLE = ["id", *TEXTS, "winner_model_a", "winner_model_b", "winner_tie"]


def table(**columns):
    """Return two pairs, won by A and by B, with these further columns."""
    texts = {"prompt": [["é?"], ["q"]], "response_a": [["a"]] * 2, "response_b": [["b"]] * 2}
    return build_pairs({"id": [1, 2], **texts, "label": [0, 1]} | columns)


@pytest.mark.parametrize(
    ("columns", "more"),
    [
        ({}, []),
        ({"winner": ["model_a", None]}, []),
        ({"label": [0, 2], "winner": ["model_a", "both_bad"]}, ["winner"]),
        ({"language": [None, "en"]}, ["language"]),
        ({"source": ["s", None], "group": ["g", "h"]}, ["source", "group"]),
        ({"group": ["g", "g"]}, ["group"]),
        ({"weight": [1.0, 2.0]}, ["weight"]),
        ({"session": ["s", "s"]}, ["session"]),
    ],
)
def test_csv_states_what_does_not_follow(tmp_path, columns, more):
    """The Kaggle columns come first; others are written where they hold more than those."""
    pairs = table(**columns)
    write_pairs(pairs, tmp_path / "t.csv")
    header, first, _ = (tmp_path / "t.csv").read_text(encoding="utf-8").splitlines()
    assert header.split(",") == [*KAGGLE, *more]
    assert first.startswith('1,"[""é?""]","[""a""]","[""b""]",1,0,0')
    read = read_pairs(tmp_path / "t.csv")
    read.attrs = {}
    pd.testing.assert_frame_equal(read, pairs)


@pytest.mark.parametrize("side", ["a", "b"])
def test_one_models_names_are_written(tmp_path, side):
    """A column of models is written where one of its names is known."""
    write_pairs(table(**{f"model_{side}": [None, "m"]}), tmp_path / "t.csv")
    assert (tmp_path / "t.csv").read_text().startswith(f"id,model_{side},prompt,")


def test_carriage_returns_are_quoted(tmp_path):
    """A word with a carriage return is quoted, so that it is one field for every reader."""
    write_pairs(table(source=["a\rb", "c"]), tmp_path / "t.csv")
    with (tmp_path / "t.csv").open(newline="") as file:
        assert [row[-1] for row in csv.reader(file)] == ["source", "a\rb", "c"]
    assert '"a\rb"' in (tmp_path / "t.csv").read_bytes().decode()


def test_table_without_rows_has_its_header(tmp_path):
    """Nor does it lack the columns of winners."""
    write_pairs(table().head(0), tmp_path / "t.csv")
    assert (tmp_path / "t.csv").read_text() == ",".join(KAGGLE) + "\n"


@pytest.mark.parametrize(("last", "is_valid"), [(0.2509, True), (0.2491, True), (0.2512, False)])
def test_sums_of_a_submission_are_rounded(tmp_path, last, is_valid):
    """Sums may differ from 1 by up to 0.001; the first wrong row is named and all are counted."""
    probs = [[1, 0, 0], [0.5, 0.25, last], [0.5, 0.25, last]]
    if is_valid:
        write_submission([5, 6, 7], probs, tmp_path / "s.csv")
        return
    with pytest.raises(PairsError, match=r"row 1 \(id=6\): .*; 2 rows are wrong"):
        write_submission([5, 6, 7], probs, tmp_path / "s.csv")


def test_preferences_leave_out_ties(tmp_path):
    """The better response is the chosen one; ties are counted; what is not known is left out."""
    texts = {"prompt": [["x\n\né?"], ["q", "r"], ["s"]], "response_a": [["a"], ["b", None], ["c"]]}
    texts |= {"response_b": [["d"], ["e"], ["f"]], "system": ["x", None, None]}
    names = {
        "model_a": ["m", None, None],
        "model_b": ["n", "o", None],
        "language": [None, "en", "de"],
    }
    pairs = build_pairs({"id": [1, 2, 3], **texts, **names, "label": [0, 1, 2]})
    assert write_preference(pairs, tmp_path / "t.jsonl") == 1
    one, two = map(json.loads, (tmp_path / "t.jsonl").read_text().splitlines())

    def says(role, content):
        return {"role": role, "content": content}

    assert one == {
        "id": 1,
        "prompt": [says("system", "x"), says("user", "é?")],
        "chosen": [says("assistant", "a")],
        "rejected": [says("assistant", "d")],
        "chosen_model": "m",
        "rejected_model": "n",
    }
    assert two == {
        "id": 2,
        "prompt": [says("user", "q")],
        "chosen": [says("assistant", "e"), says("user", "r"), says("assistant", "")],
        "rejected": [says("assistant", "b"), says("user", "r"), says("assistant", "")],
        "chosen_model": "o",
        "language": "en",
    }
    with pytest.raises(PairsError, match=r"ends in \.jsonl"):
        write_preference(pairs, tmp_path / "t.json")
