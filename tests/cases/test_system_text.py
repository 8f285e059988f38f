"""Prompt groups follow the first text of the user, not the text of the system."""

import json

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal

import tiewise as tw
from strategies import any_text, clean_text, conversations
from tiewise.data.first_text import first_texts
from tiewise.data.formats import read_chunks, read_many, write_pairs, write_preference
from tiewise.data.formats.cells import join_messages, split_messages
from tiewise.data.pairs import build_pairs, swap_pairs
from tiewise.errors import PairsError
from tiewise.evaluation.audit import audit_pairs
from tiewise.runs.training_rows import find_leaking_rows

CLOCK = "04-system-clock/clock.jsonl"
RULES = "04-system-clock/rules.jsonl"
CLOCKS = [f"Now is 2024-05-10 10:{minute}. Answer briefly." for minute in range(10, 50)]
QUESTIONS = [f"Question {n}: what is the {word}?" for n, word in enumerate("abcdefghij")] * 4


def says(role, content):
    return {"role": role, "content": content}


def figures(ended):
    """Return the figures of an audit as printed, by name."""
    assert ended.status == 0, ended.text
    lines = [line.rsplit(None, 1) for line in ended.output.splitlines()]
    return {line[0].strip(): line[1] for line in lines if len(line) == 2}


def test_clock_does_not_split_questions(case, tiewise):
    """Ten questions under forty clocks are ten prompt groups, and none is on both sides."""
    found = figures(tiewise("audit", case(CLOCK)))
    assert found["prompt groups"] == "10"
    assert found["group"] == "0.000"
    assert float(found["position"]) > 0
    pairs = tw.read_pairs(case(CLOCK))
    folds = tw.fold_by_group(tw.derive_groups(pairs), pairs["label"].to_numpy(int))
    questions = pairs["prompt"].str[0].str.split("\n\n").str[1]
    assert questions.nunique() == 10
    assert all(len(set(folds[questions == question])) == 1 for question in set(questions))


def test_long_rules_do_not_join_questions(case, tiewise):
    """Forty questions under one long system text are forty groups without near-duplicates."""
    found = figures(tiewise("audit", case(RULES)))
    assert found["prompt groups"] == "40"
    assert found["group, near-duplicates"] == "0.000"


def preference(clock, question):
    """Return a record of TRL with its prompt as messages."""
    prompt = [says("system", clock), says("user", question)]
    sides = {name: [says("assistant", name)] for name in ("chosen", "rejected")}
    return {"prompt": prompt, **sides}


def preference_as_json(clock, question):
    """Return the same record with cells of JSON text, as in a csv file."""
    record = preference(clock, question)
    return {name: json.dumps(cell) for name, cell in record.items()}


def implicit_prompt(clock, question):
    """Return a record of TRL whose prompt begins both conversations, by a developer."""
    prompt = [says("developer", clock), says("user", question)]
    return {name: [*prompt, says("assistant", name)] for name in ("chosen", "rejected")}


def several_system_messages(clock, question):
    """Return a record of Arena with two system messages and a second exchange."""
    start = [says("system", "Be kind."), says("system", clock), says("user", question)]
    sides = {
        f"conversation_{side}": [*start, says("assistant", side), says("user", "Why?")]
        for side in "ab"
    }
    return {"winner": "tie", **sides}


def blocks_of_text(clock, question):
    """Return a record of MT-bench with blocks of text."""
    start = [
        says("system", [{"type": "text", "text": clock}]),
        says("user", [{"type": "text", "text": question}]),
    ]
    sides = {f"conversation_{side}": [*start, says("assistant", side)] for side in "ab"}
    return {"question_id": 81, "judge": "author_2", "turn": 1, "winner": "tie", **sides}


WRITERS = (
    preference,
    preference_as_json,
    implicit_prompt,
    several_system_messages,
    blocks_of_text,
)


@pytest.mark.parametrize("write", WRITERS)
def test_every_format_groups_by_question(write):
    """Groups follow the questions, and the column `system` has the clock, in each format."""
    pairs = tw.read_pairs(pd.DataFrame(map(write, CLOCKS, QUESTIONS)))
    assert pairs["group"].nunique() == 10
    assert first_texts(pairs) == [question.lower() for question in QUESTIONS]
    assert [clock in system for clock, system in zip(CLOCKS, pairs["system"], strict=True)]
    for prompt, system, question in zip(pairs["prompt"], pairs["system"], QUESTIONS, strict=True):
        assert prompt[0] == f"{system}\n\n{question}"
    found = audit_pairs(pairs)
    assert (found.leakage["group"], found.repeats["prompt groups"]) == (0.0, 10)


def test_plain_prompts_have_no_system_column():
    """Without a system message the table has the columns of before."""
    record = {
        name: [says("user", "Hi"), says("assistant", name)] for name in ("chosen", "rejected")
    }
    assert "system" not in tw.read_pairs(pd.DataFrame([record]))


@given(sides=conversations(), system=any_text(8))
def test_system_text_is_kept_apart(sides, system):
    """The system text is the beginning of the first turn; the other turns do not change."""
    messages = join_messages(*sides)
    found = split_messages([says("system", system), *messages])
    plain = split_messages(messages)
    if found.system is not None:
        assert found.prompt == [f"{found.system}\n\n{plain.prompt[0]}", *plain.prompt[1:]]
    assert (found.system is None) == (system == "")
    assert found.response == plain.response
    pairs = {"id": [0], "response_a": [["x"]], "response_b": [["y"]]}
    table = build_pairs({**pairs, "prompt": [found.prompt], "system": [found.system]})
    assert table["group"][0] == build_pairs({**pairs, "prompt": [plain.prompt]})["group"][0]


def system_tables():
    """Pairs tables of which some rows have a system text."""
    row = st.tuples(clean_text(8).filter(len) | st.none(), clean_text(8), st.integers(0, 2))
    return st.lists(row, min_size=1, max_size=5).map(tabulate)


def tabulate(rows):
    start = [([system] if system else [], question) for system, question, _ in rows]
    return build_pairs(
        {
            "id": range(len(rows)),
            "prompt": [["\n\n".join([*system, question]), "And?"] for system, question in start],
            "response_a": [["x", "y"]] * len(rows),
            "response_b": [["z", None]] * len(rows),
            "label": [label for *_, label in rows],
            "system": [system for system, *_ in rows],
        }
    )


@given(pairs=system_tables(), suffix=st.sampled_from([".csv", ".parquet"]))
def test_system_column_is_written_and_read(pairs, suffix, tmp_path_factory):
    """A table with system texts is read back equal from csv and parquet, and after a swap."""
    path = tmp_path_factory.mktemp("pairs") / f"pairs{suffix}"
    write_pairs(pairs, path)
    assert_frame_equal(tw.read_pairs(path), pairs)
    assert_frame_equal(swap_pairs(swap_pairs(pairs)), pairs)
    assert swap_pairs(pairs)["system"].equals(pairs["system"])


@given(pairs=system_tables())
def test_preferences_keep_the_system_message(pairs, tmp_path_factory):
    """A preference file has a system message where a row has a system text."""
    path = tmp_path_factory.mktemp("pairs") / "preference.jsonl"
    write_preference(pairs, path)
    decided = pairs[pairs["label"] != 2]
    if len(decided):
        found = tw.read_pairs(path)
        assert found["prompt"].tolist() == decided["prompt"].tolist()
        assert found["group"].tolist() == decided["group"].tolist()
        kept = found["system"].tolist() if "system" in found else [pd.NA] * len(found)
        assert kept == decided["system"].tolist()


def test_joined_files_share_questions(tmp_path):
    """Files with and without a system text are joined, with one group for each question."""
    with_clock, plain = tmp_path / "clock.parquet", tmp_path / "plain.csv"
    pairs = tw.read_pairs(pd.DataFrame(map(preference, CLOCKS, QUESTIONS)))
    write_pairs(pairs, with_clock)
    texts = {"prompt": [[question] for question in QUESTIONS], "response_a": [["x"]] * 40}
    texts |= {"response_b": [["y"]] * 40}
    write_pairs(build_pairs({"id": range(40), **texts, "label": [0] * 40}), plain)
    joined = read_many([with_clock, plain])
    assert joined["group"].nunique() == 10
    assert joined["system"].tolist() == [*CLOCKS, *[pd.NA] * 40]
    extra = joined.iloc[40:].reset_index(drop=True)
    excluded = find_leaking_rows(pairs, [int(place % 10 == 3) for place in range(40)], extra, 2)
    assert excluded[:, 1].tolist() == [question == QUESTIONS[3] for question in QUESTIONS]


def test_chunks_keep_the_system_text(case):
    """Chunks of a file have the groups and system texts of the whole table."""
    whole = tw.read_pairs(case(CLOCK))
    chunks = pd.concat([parse() for parse in read_chunks(case(CLOCK), size=7)], ignore_index=True)
    assert_frame_equal(chunks, whole)


@pytest.mark.parametrize("system", ["Be kind", "Be kind.\n", "kind.", "be kind."])
def test_other_system_text_is_refused(system):
    """A column `system` that does not begin the prompt is refused by row."""
    texts = {"prompt": [["Be kind.\n\nHi"]], "response_a": [["x"]], "response_b": [["y"]]}
    build_pairs({"id": [7], **texts, "system": ["Be kind."]})
    with pytest.raises(PairsError, match=r"row 0 \(id=7\): system must begin the prompt"):
        build_pairs({"id": [7], **texts, "system": [system]})


def test_different_system_texts_are_refused():
    """Two conversations that differ only in where the system text ends are refused."""
    first = [says("system", "a"), says("user", "b\n\nc"), says("assistant", "x")]
    second = [says("system", "a\n\nb"), says("user", "c"), says("assistant", "y")]
    table = pd.DataFrame([{"chosen": first, "rejected": second}])
    with pytest.raises(PairsError, match="system messages differ between chosen and rejected"):
        tw.read_pairs(table)
