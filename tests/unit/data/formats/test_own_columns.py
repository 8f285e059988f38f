"""Files with columns, winners and ids of one's own are read, or refused with what to type."""

from __future__ import annotations

import itertools
import logging
import re
import shlex

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal

from tiewise.api import convert
from tiewise.data.formats import read_chunks, read_many, read_pairs
from tiewise.data.formats.columns import find_own_columns
from tiewise.data.labels import WORD_OF_WINNER, label_from_winner
from tiewise.errors import LabelError, PairsError

TEXTS = {
    "prompt": ["Sky?", "Sea?", "Sun?"],
    "response_a": ["blue", "wet", "hot"],
    "response_b": ["red", "dry", "far"],
}
WINNERS = ["model_a", "model_b", "tie"]
SPELLED = {
    0: ("A", "a", "model_a", "Model A", "MODEL-A", "response_a", "assistant A", "[[A]]", "[A]"),
    1: ("B", "b", "model_b", "Model B", "Answer_B", "output b", "[[B]]"),
    2: (
        "tie",
        "TIE",
        "C",
        "c",
        "[[C]]",
        "draw",
        "both_bad",
        "Both bad",
        "neither",
        "Tie (bothbad)",
    ),
}


def frame(**columns):
    """Return three pairs without ids, with further columns."""
    return pd.DataFrame(TEXTS | columns)


def refusal(table, **options):
    """Return the message with which a table is refused."""
    with pytest.raises(PairsError) as caught:
        read_pairs(table, **options)
    return str(caught.value)


@pytest.mark.parametrize(("label", "word"), [(n, w) for n, words in SPELLED.items() for w in words])
def test_spellings_of_winners(label, word):
    """People's and language models' words for a winner are read in any case, with white space."""
    for spelling in (word, word.upper(), word.lower(), f" {word}\n"):
        assert label_from_winner(spelling) == label
        pairs = read_pairs(frame(winner=[spelling, *WINNERS[:2]]))
        assert pairs["label"].tolist() == [label, 0, 1]


@given(word=st.text("abcdetimo12_ [](),", max_size=9))
def test_words_are_read_or_refused(word):
    """No word becomes a winner unless its letters are those of a known one."""
    letters = re.sub(r"[\W_]", "", word).lower()
    known = {re.sub(r"[\W_]", "", w).lower(): n for n, words in SPELLED.items() for w in words}
    try:
        found = label_from_winner(word)
    except LabelError:
        return
    assert found == known[letters] or letters in {"modela", "modelb", "bothbad"}


@pytest.mark.parametrize("column", ["winner", "label"])
@pytest.mark.parametrize("kind", [int, float, str])
def test_one_and_two_are_a_and_b(column, kind):
    """1 and 2 have one reading, also next to the word tie; what is read is said."""
    pairs = read_pairs(frame(**{column: [kind(1), kind(2), kind(1)]}))
    assert pairs["label"].tolist() == [0, 1, 0]
    assert f"{column} 1 is read as A and 2 as B" in pairs.attrs["notes"]
    assert pairs.attrs["unread"] == []
    mixed = read_pairs(frame(**{column: ["1", "tie", "2"]}))
    assert mixed["label"].tolist() == [0, 2, 1]


AMBIGUOUS = {
    "0 and 1": ([0, 1, 1], ("a=0,b=1", "b=0,a=1")),
    "0, 1 and 2": ([2, 0, 1], ("a=0,b=1,tie=2", "tie=0,a=1,b=2")),
    "-1, 0 and 1": ([-1, 0, 1], ("a=-1,tie=0,b=1", "b=-1,tie=0,a=1")),
}


@pytest.mark.parametrize("column", ["winner", "label"])
@pytest.mark.parametrize("values", AMBIGUOUS)
def test_ambiguous_numbers_are_refused(column, values):
    """Both readings are named as they are typed, and each is accepted; skipping rows is no way."""
    numbers, readings = AMBIGUOUS[values]
    for kind, on_error in itertools.product((int, float, str), ("raise", "skip")):
        found = refusal(frame(**{column: map(kind, numbers)}), on_error=on_error)
        assert f"{column} is {values}" in found
        for reading in readings:
            assert f"--columns {reading}" in found
            assert read_pairs(frame(**{column: map(kind, numbers)}), columns=[reading]) is not None


def test_ambiguity_is_found_late():
    """A zero in the last of many rows decides, although the head has only 1 and 2."""
    table = pd.concat([frame(winner=[1, 2, 1])] * 50, ignore_index=True)
    assert read_pairs(table)["label"].isin([0, 1]).all()
    table.loc[149, "winner"] = 0
    for on_error in ("raise", "skip"):
        assert "0, 1 and 2" in refusal(table, on_error=on_error)
    with pytest.raises(PairsError, match="0, 1 and 2"):
        next(read_chunks(table, size=2))


@pytest.mark.parametrize("early", [None, "A"])
@pytest.mark.parametrize("kind", [int, float, str])
def test_order_of_winners_is_irrelevant(early, kind):
    """Numbers after many rows without one are read, or refused, as they are at the beginning."""
    winners = [early] * 30 + [kind(1), kind(2), kind(1)] * 2
    table = pd.concat([frame()] * 12, ignore_index=True)
    table["winner"] = pd.Series(winners, dtype=object)
    pairs = read_pairs(table, labelled=None)
    turned = read_pairs(table[::-1].reset_index(drop=True), labelled=None)
    assert pairs["label"].tolist() == turned["label"].tolist()[::-1]
    assert pairs.attrs["notes"] == turned.attrs["notes"]
    assert "winner 1 is read as A and 2 as B" in pairs.attrs["notes"]
    table.loc[35, "winner"] = kind(0)
    for on_error in ("raise", "skip"):
        found = refusal(table, labelled=None, on_error=on_error)
        assert "winner is 0, 1 and 2" in found
        assert "row 3" not in found


BOOLEANS = {
    "cells": [True, False, True],
    "words": ["True", "false", "TRUE"],
    "numbers": [1, 0, 1.0],
}


@pytest.mark.parametrize("cells", BOOLEANS)
@pytest.mark.parametrize("declared", [(True, False), ("True", "false"), (1, 0), ("1", "0")])
def test_booleans_are_declared(cells, declared):
    """True is the value 1 and false 0, in the file and in what is declared; else both are asked."""
    table = frame(winner=BOOLEANS[cells])
    pairs = read_pairs(table, columns=dict(zip("ab", declared, strict=True)))
    assert pairs["label"].tolist() == [0, 1, 0]
    typed = f"a={declared[0]},b={declared[1]}"
    assert read_pairs(table, columns=[typed])["label"].tolist() == [0, 1, 0]
    found = refusal(table)
    assert "winner is 0 and 1" in found
    assert "--columns b=0,a=1" in found


@given(
    data=st.data(),
    values=st.lists(st.integers(-9, 9), min_size=3, max_size=3, unique=True),
    as_text=st.booleans(),
)
def test_declared_numbers_are_read(data, values, as_text):
    """Any three values can be declared, as a dictionary or as words of the command line."""
    labels = data.draw(st.lists(st.integers(0, 2), min_size=3, max_size=3))
    column = data.draw(st.sampled_from(["winner", "label"]))
    cells = [values[label] for label in labels]
    names = dict(zip(("a", "b", "tie"), values, strict=True))
    declared = [f"{k}={v}" for k, v in names.items()] if as_text else names
    pairs = read_pairs(frame(**{column: list(map(str, cells))}), columns=declared)
    assert pairs["label"].tolist() == labels
    assert pairs["winner"].tolist() == [WORD_OF_WINNER[label] for label in labels]


def test_declared_words_are_read():
    """Words of any language can be declared, several for one winner; others are refused by row."""
    table = frame(winner=["links", "rechts", "egal"])
    declared = {"a": "links", "b": "rechts", "tie": ["egal", "beide schlecht"]}
    assert read_pairs(table, columns=declared)["label"].tolist() == [0, 1, 2]
    typed = ["a=links,b=rechts", "tie=egal,tie=beide schlecht"]
    assert read_pairs(table, columns=typed)["label"].tolist() == [0, 1, 2]
    table.loc[1, "winner"] = "oben"
    assert "row 1: winner is 'oben'; expected one of links, rechts" in refusal(table, columns=typed)


@given(
    value=st.sampled_from(["equal", "A wins", "7"]),
    name=st.sampled_from(["a", "b", "tie"]),
    data=st.data(),
)
def test_declared_words_are_added(value, name, data):
    """A declared value is read next to all known words, each with its white space and case."""
    known = [(word, label) for label, words in SPELLED.items() for word in words]
    drawn = data.draw(st.lists(st.sampled_from(known), min_size=2, max_size=2))
    table = frame(winner=[value, f" {drawn[0][0]} ", drawn[1][0].upper()])
    pairs = read_pairs(table, columns={name: value})
    assert pairs["label"].tolist() == [["a", "b", "tie"].index(name), *(each[1] for each in drawn)]


def test_declared_word_overrules_a_known_one():
    """`a=B,b=A` exchanges the letters; a number that is not declared is refused."""
    pairs = read_pairs(frame(winner=["A", "B", "tie"]), columns=["a=B,b=A"])
    assert pairs["label"].tolist() == [1, 0, 2]
    found = refusal(frame(winner=["0", "1", "2"]), columns=["a=0,b=1"])
    assert "winner is '2'; expected one of 0, 1, or a known word" in found


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        (["x=0"], "x is no column that a format reads"),
        (["a"], "columns is 'a'; expected OURS=THEIRS"),
        (["a=0,b=0"], "columns gives 0 as the value of two winners"),
    ],
)
def test_wrong_declarations_are_refused(declared, message):
    """A declaration that cannot be meant is named."""
    assert message in refusal(frame(label=[0, 1, 0]), columns=declared)


def test_declared_winners_need_a_column():
    """Values of winners without a column winner or label names the way to one."""
    found = refusal(frame(verdict=[0, 1, 2]), columns={"a": 0, "b": 1, "tie": 2})
    assert "--columns winner=verdict" in found


OWN_WINNERS = {
    "alpaca_eval": (
        {"instruction": "Sky?", "output_1": "blue", "output_2": "red", "preference": [0, 1, 1]},
        "preference",
        [0, 1, 1],
    ),
    "helpsteer3": (
        {
            "context": [[{"role": "user", "content": "Sky?"}]] * 3,
            "response1": "blue",
            "response2": "red",
            "overall_preference": [0, 1, 1],
        },
        "overall_preference",
        [0, 1, 1],
    ),
}


@pytest.mark.parametrize("declared", [{"a": 0, "b": 1}, ["a=0,b=1"], {"a": [0, -1], "b": 1}])
@pytest.mark.parametrize("name", OWN_WINNERS)
def test_own_winner_is_not_overruled(name, declared):
    """Values given for a format's own column are used where it is named, and refused elsewhere."""
    columns, own, labels = OWN_WINNERS[name]
    table = pd.DataFrame(columns)
    found = refusal(table, columns=declared)
    assert f"columns gives a=0, but the format {name} takes the winner from {own}" in found
    assert f"winner={own}" in found
    named = {**declared, "winner": own} if isinstance(declared, dict) else [
        *declared, f"winner={own}"
    ]  # fmt: skip
    assert read_pairs(table, columns=named)["label"].tolist() == labels
    assert read_pairs(table, columns=declared, labelled=False)["label"].isna().all()


def test_second_winner_is_refused():
    """A column named as the winner next to a format's own winner is refused, not left unread."""
    columns, own, _ = OWN_WINNERS["alpaca_eval"]
    table = pd.DataFrame(columns).assign(verdict=["B", "A", "B"])
    found = refusal(table, columns=["winner=verdict"])
    assert "columns gives winner=verdict, but the format alpaca_eval" in found
    assert f"remove {own} from the file" in found
    chosen = pd.DataFrame({"prompt": ["Sky?"], "chosen": ["blue"], "rejected": ["red"], "v": [1]})
    for declared in (["winner=v"], ["a=0,b=1"]):
        assert "the format preference takes the winner from the order of the responses" in refusal(
            chosen, columns=declared
        )


@pytest.mark.parametrize(("name", "first"), [("alpaca_eval", [1, 1.8]), ("helpsteer3", [-2, 3])])
def test_partly_labelled_rows_are_read(name, first):
    """Rows without a winner have weight 1 and no soft labels; those with one are as before."""
    columns, own, _ = OWN_WINNERS[name]
    table = pd.DataFrame(columns | {own: [*first, None]})
    expected, pairs = read_pairs(table[:2]), read_pairs(table, labelled=None)
    assert_frame_equal(pairs[:2], expected)
    assert pairs["label"].isna().tolist() == [False, False, True]
    assert pairs.get("weight", pd.Series([1.0] * 3))[2] == 1
    assert "winner is missing" in refusal(table)


def test_partly_given_soft_labels_are_read():
    """Blank soft labels are those of a row without a winner, and an error where one is needed."""
    probs = {"prob_a": [0.5, None, 0.2], "prob_b": [0.3, None, 0.2], "prob_tie": [0.2, None, 0.6]}
    table = frame(**probs)
    pairs = read_pairs(table, labelled=None)
    assert pairs["prob_a"].isna().tolist() == [False, True, False]
    assert "row 1: prob_a is nan; expected a number" in refusal(table)
    assert "row 1" in refusal(frame(**probs, winner=["A", "B", "A"]), labelled=None)


def test_label_is_read_as_words():
    """A column label may hold words, and is not read next to other winners."""
    assert read_pairs(frame(label=["A", "B", "tie"]))["label"].tolist() == [0, 1, 2]
    both = read_pairs(frame(winner=["A", "B", "tie"], label=[5, 6, 7]))
    assert (both["label"].tolist(), both.attrs["unread"]) == ([0, 1, 2], ["label"])
    assert read_pairs(frame(label=[0, 1, 5]), labelled=False)["label"].isna().all()


def test_ids_are_made_from_rows(caplog, tmp_path):
    """A file without ids has row numbers, and the log and the table say so."""
    caplog.set_level(logging.INFO)
    table = frame(winner=WINNERS)
    for path in (tmp_path / "one.csv", tmp_path / "two.csv"):
        table.to_csv(path, index=False)
    pairs = read_pairs(tmp_path / "one.csv")
    assert pairs["id"].tolist() == [0, 1, 2]
    assert "there is no column id; ids are the row numbers, from 0" in pairs.attrs["notes"]
    assert "one.csv: there is no column id" in caplog.text
    both = read_many([tmp_path / "one.csv", tmp_path / "two.csv"])
    assert both["id"].tolist() == [f"{name}.csv:{i}" for name in ("one", "two") for i in range(3)]
    chunks = pd.concat([parse() for parse in read_chunks(table, size=2)])
    assert chunks["id"].tolist() == [0, 1, 2]
    assert_frame_equal(read_pairs(table.assign(id=[0, 1, 2])), pairs)
    assert "row 1: id is missing" in refusal(table.assign(id=[0, None, 2]))


NAMES = {"prompt": "question", "response_a": "answer_1", "response_b": "answer_2", "winner": "best"}


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_columns_are_renamed(tmp_path, suffix):
    """Renamed columns give the same table in each spelling of the names and each kind of file."""
    expected = read_pairs(frame(winner=WINNERS))
    table = frame(winner=WINNERS).rename(columns=NAMES)
    path = tmp_path / f"own.{suffix}"
    if suffix == "csv":
        table.to_csv(path, index=False)
    elif suffix == "parquet":
        table.to_parquet(path)
    else:
        table.to_json(path, orient="records", lines=True)
    words = [f"{ours}={theirs}" for ours, theirs in NAMES.items()]
    for columns in (NAMES, words, [",".join(words)], [", ".join(words[:2]), *words[2:]]):
        assert_frame_equal(read_pairs(path, columns=columns), expected)
    assert_frame_equal(read_many([path], columns=NAMES).drop(columns=["source", "group"]),
                       expected.drop(columns=["source", "group"]))  # fmt: skip


def test_renamed_column_wins():
    """A column that a renamed one replaces is reported as not read; a swap of names is possible."""
    table = frame(winner=WINNERS, question=["q", "r", "s"])
    pairs = read_pairs(table, columns={"prompt": "question"})
    assert pairs["prompt"].tolist() == [["q"], ["r"], ["s"]]
    assert pairs.attrs["unread"] == ["prompt"]
    turned = read_pairs(table, columns={"response_a": "response_b", "response_b": "response_a"})
    assert turned["response_a"].tolist() == [["red"], ["dry"], ["far"]]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            {"prompt": "qestion"},
            "there is no column qestion; did you mean question? Found question",
        ),
        ({"promt": "question"}, "promt is no column that a format reads; did you mean prompt?"),
        (["question"], "columns is 'question'; expected OURS=THEIRS"),
        (["prompt=question", "prompt=answer_1"], "columns names prompt twice"),
    ],
)
def test_wrong_names_are_suggested(columns, message):
    """A column that does not exist, on either side, is named with the nearest one."""
    table = frame(winner=WINNERS).rename(columns=NAMES)
    assert message in refusal(table, columns=columns)


NEAREST = {
    "typo": ({"response_b": "respone_b"}, "kaggle", "response_b=respone_b"),
    "case": ({"prompt": "Prompt"}, "kaggle", "prompt=Prompt"),
    "own": (NAMES, "kaggle",
            "prompt=question,response_a=answer_1,response_b=answer_2,winner=best"),
    "spaces": ({"response_a": "Response A", "response_b": "Response B"}, "kaggle",
               "response_a=Response A,response_b=Response B"),
    "models": ({"response_a": "model_a_answer", "response_b": "model_b_answer"}, "kaggle",
               "response_a=model_a_answer,response_b=model_b_answer"),
}  # fmt: skip


@pytest.mark.parametrize("case", NEAREST)
def test_nearest_format_is_named(case):
    """The format, the missing columns and the flag that would help are named; the flag does."""
    names, expected, flag = NEAREST[case]
    table = frame(id=[1, 2, 3], winner=WINNERS).rename(columns=names)
    found = refusal(table)
    assert f"looks like {expected}" in found
    assert f"--columns {shlex.quote(flag)}" in found
    assert len(read_pairs(table, columns=[flag])) == 3


@pytest.mark.parametrize("missing", ["prompt", "response_a", "response_b"])
def test_used_columns_are_not_suggested(missing):
    """A column that the format reads already is not offered for another one."""
    found = refusal(frame(winner=WINNERS).drop(columns=missing))
    assert f"{missing} is missing" in found
    assert "Did you mean" not in found


def test_preference_is_the_nearest():
    """A misspelt column of TRL is compared with TRL's."""
    table = pd.DataFrame({"prompt": ["p"], "chosen": ["x"], "reject": ["y"]})
    found = refusal(table)
    assert "looks like preference; rejected is missing" in found
    assert "--columns rejected=reject" in found


def test_foreign_columns_list_the_formats():
    """Where nothing is near, each format is listed with its columns."""
    found = refusal(pd.DataFrame({"x": [1], "y": [2]}))
    assert "no known format has the columns x, y" in found
    assert "kaggle: prompt, response_a, response_b" in found


@pytest.mark.parametrize("name", ["verdict", "Winner", "preferred", "human_preference", "winer"])
def test_winner_is_suggested(name):
    """Where only the winner is missing, the column that may hold it is named."""
    found = refusal(frame(**{name: WINNERS}))
    assert "no column names the winner" in found
    assert f"--columns winner={name}" in found


def test_columns_of_other_types():
    """None gives no names, as the empty tuple does; a number in the list is refused."""
    table = frame(winner=WINNERS)
    assert_frame_equal(read_pairs(table, columns=None), read_pairs(table))
    assert "columns is [1]; expected a dictionary or words" in refusal(table, columns=[1])


def test_convert_names_columns_left_out(tmp_path):
    """A column that no format reads, such as a label next to soft labels, is named."""
    probs = {"prob_a": [0.5, 0.2, 0.1], "prob_b": [0.3, 0.6, 0.1], "prob_tie": [0.2, 0.2, 0.8]}
    frame(**probs, label=[0, 1, 2], cost=[1, 2, 3]).to_csv(tmp_path / "own.csv", index=False)
    found = convert(tmp_path / "own.csv", tmp_path / "pairs.csv")
    assert found.columns_dropped == ["label", "cost"]
    assert str(found) == "3 of 3 rows, without the columns label, cost"


COLUMNS = ("prompt=question,response_a=answer_1", "response_b=answer_2,winner=best,a=0,b=1")
KNOWN = {
    "all": (NAMES, "prompt=question response_a=answer_1 response_b=answer_2 winner=best a=0 b=1"),
    "no winner": (
        {name: NAMES[name] for name in TEXTS},
        "prompt=question response_a=answer_1 response_b=answer_2",
    ),
    "other names": ({"prompt": "question"}, ""),
    "our names": ({}, ""),
}


@pytest.mark.parametrize("case", KNOWN)
def test_names_of_a_run_fit_other_files(tmp_path, case):
    """Names of columns are used again where all texts have them, with the winner if it is there."""
    names, expected = KNOWN[case]
    table = frame(winner=[0, 1, 0]).rename(columns=names)
    if case == "no winner":
        table = table.drop(columns="winner")
    table.to_csv(tmp_path / "new.csv", index=False)
    found = find_own_columns([str(tmp_path / "new.csv")], COLUMNS)
    assert " ".join(found) == expected
    if found:
        assert len(read_pairs(tmp_path / "new.csv", columns=found, labelled=None)) == 3
    assert find_own_columns([str(tmp_path / "new.csv")], ()) == ()
