"""Spellings that the first records decide, and columns next to what messages hold already."""

import pandas as pd
import pytest

from tiewise.data.formats import read_pairs

TEXTS = {"prompt": "Sky?", "chosen": "blue", "rejected": "red"}


def said(role, content):
    return {"role": role, "content": content}


def with_messages(*texts):
    """Return a preference of messages that begin with these system texts."""
    before = [*(said("system", text) for text in texts), said("user", "Sky?")]
    answers = {side: [*before, said("assistant", side)] for side in ("chosen", "rejected")}
    return pd.DataFrame([answers])


@pytest.mark.parametrize(
    ("spoken", "column", "system"),
    [
        ("Be brief.", "Be brief.", "Be brief."),
        ("Be brief.\n\nBe kind.", "Be brief.", "Be brief.\n\nBe kind."),
        ("Be brief.", "Be kind.", "Be kind.\n\nBe brief."),
        ("Be brief.", "Be", "Be\n\nBe brief."),
        ("Be brief.", "", "Be brief."),
    ],
)
def test_system_of_column_and_messages(spoken, column, system):
    """A system text in both counts once; two different ones are both kept, the column's first."""
    pairs = read_pairs(with_messages(spoken).assign(system=column))
    assert pairs["system"].tolist() == [system]
    assert pairs["prompt"].tolist() == [[f"{system}\n\nSky?"]]


@pytest.mark.parametrize(
    "column",
    [
        {"system": "Be \ud83d"},
        {"history": [["\ud83d", "Yo"]]},
        {"history": [["Hi", "\ud83d"]]},
        {"prompt": "Sky \ud83d"},
        {"chosen": "blue \ud83d"},
    ],
    ids=str,
)
def test_repairs_of_every_part_are_counted(column):
    """A half surrogate pair in any part of a row makes it one repaired row."""
    pairs = read_pairs(pd.DataFrame([TEXTS | column], dtype=object))
    assert pairs.attrs["repaired"] == 1
    texts = str(pairs[["prompt", "response_a", "response_b"]].to_numpy().tolist())
    assert "\ufffd" in texts


def repeating(n, *, but=None):
    """Return preferences whose responses begin with the prompt, in all rows but one."""
    rows = [
        {
            "prompt": f"Question {row}",
            "chosen": f"Question {row} yes",
            "rejected": f"Question {row} no",
        }
        for row in range(n)
    ]
    if but is not None:
        rows[but] |= {"chosen": "yes"}
    return read_pairs(pd.DataFrame(rows))


@pytest.mark.parametrize("but", [0, 3, 19])
def test_first_twenty_rows_decide(but):
    """If one of them does not repeat its prompt, all responses are whole."""
    pairs = repeating(25, but=but)
    assert pairs.attrs["repaired"] == 0
    answers = [*pairs["response_a"], *pairs["response_b"]]
    assert ["Question 1 yes"] in answers
    assert ["Question 24 no"] in answers


@pytest.mark.parametrize("but", [None, 20])
def test_repeated_prompts_are_taken_off_each_row(but):
    """Later rows lose their prompt where they repeat it; each such row counts as repaired."""
    pairs = repeating(25, but=but)
    assert pairs.attrs["repaired"] == 25 - (but is not None)
    answers = [*pairs["response_a"], *pairs["response_b"]]
    assert answers.count([" yes"]) == 25 - (but is not None)
    assert (["Question 20 no"] in answers) == (but is not None)


@pytest.mark.parametrize(
    ("prompt", "rest", "answer"),
    [
        ("Why so", " it", " it"),
        ("Why s", " it", "Why s it"),
        ("Why is it so?\n", "it", "it"),
        ("Why is it so", "on", "Why is it soon"),
    ],
)
def test_prompts_repeated_by_chance(prompt, rest, answer):
    """A repeated prompt has six characters or more, and white space is between it and the rest."""
    texts = {"prompt": prompt, "chosen": f"{prompt}{rest}", "rejected": f"{prompt}{rest}, no"}
    pairs = read_pairs(pd.DataFrame([texts]))
    assert [answer] in [*pairs["response_a"], *pairs["response_b"]]
