"""Each column that holds a part of the prompt is read, refused by name, or listed as not read."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal

from strategies import clean_text
from tiewise.data.formats import FORMATS, read_many, read_pairs, write_pairs
from tiewise.data.formats.columns import find_unread
from tiewise.errors import PairsError

FOLDER = "01-question-column"
QUESTIONS = ["Why is the sky blue?", "Name a river in France.", "What is 17*3?"]
CHOSEN = ["It scatters.", "The Loire, a river.", "It is 51."]
REJECTED = ["I do not know.", "The Rhine, maybe.", "It is 41."]
TOOLS = [{"type": "function", "function": {"name": "look_up"}}]


def by_choice(pairs):
    """Return each row's chosen and rejected response."""
    rows = zip(pairs["response_a"], pairs["response_b"], pairs["label"], strict=True)
    return [(a, b) if label == 0 else (b, a) for a, b, label in rows]


def frame(**columns):
    """Return three preferences with these further columns."""
    return pd.DataFrame({**columns, "chosen": CHOSEN, "rejected": REJECTED})


def said(role, content):
    return {"role": role, "content": content}


def test_handed_questions_are_prompts(case, tiewise):
    """The question, or instruction and input, is the prompt; the responses are whole."""
    for name, column in (("question.jsonl", "question"), ("instruction.json", "instruction")):
        path = case(f"{FOLDER}/{name}")
        text = path.read_text()
        lines = (
            json.loads(text) if name == "instruction.json" else map(json.loads, text.splitlines())
        )
        records = list(lines)
        pairs = read_pairs(path)
        system = [f"{record['system']}\n\n" if "system" in record else "" for record in records]
        expected = [before + record[column] for before, record in zip(system, records, strict=True)]
        assert pairs["prompt"].tolist() == [[prompt] for prompt in expected]
        texts = [([record["chosen"]], [record["rejected"]]) for record in records]
        assert by_choice(pairs) == texts
        assert pairs.attrs["unread"] == []
    assert tiewise("audit", case(f"{FOLDER}/question.jsonl")).status == 0


def test_handed_system_is_read(case):
    """The system text is before the prompt, and in its own column."""
    pairs = read_pairs(case(f"{FOLDER}/system.jsonl"))
    assert pairs["prompt"][1] == ["You are a pirate.\n\nSay hi"]
    assert pairs["system"].tolist() == ["You are formal.", "You are a pirate.", "You are a cat."]
    assert pairs["group"].nunique() == 1


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet", "json"])
@pytest.mark.parametrize("name", ["question", "instruction", "input", "prompt"])
def test_known_names_are_read(tmp_path, name, suffix):
    """Every name of a prompt gives one table, from each kind of file, in any order of columns."""
    expected = read_pairs(frame(prompt=QUESTIONS))
    table = frame(**{name: QUESTIONS}, system=["", None, ""])[
        ["rejected", name, "system", "chosen"]
    ]
    path = tmp_path / f"t.{suffix}"
    writers = {
        "csv": lambda: table.to_csv(path, index=False),
        "jsonl": lambda: table.to_json(path, orient="records", lines=True),
        "parquet": lambda: table.to_parquet(path),
        "json": lambda: table.to_json(path, orient="records"),
    }
    writers[suffix]()
    pairs = read_pairs(path)
    assert pairs["system"].isna().all()
    assert_frame_equal(pairs.drop(columns="system"), expected)


def test_input_is_below_instruction():
    """They are joined by an empty line; an empty input adds nothing."""
    pairs = read_pairs(frame(instruction=QUESTIONS, input=["", None, "Digits only."]))
    prompts = [*QUESTIONS[:2], "What is 17*3?\n\nDigits only."]
    assert pairs["prompt"].tolist() == [[prompt] for prompt in prompts]


@pytest.mark.parametrize("name", ["query", "Question", "context", "problem", "user", "prompt_text"])
@pytest.mark.parametrize("spell", [str, lambda text: [said("user", text)]])
def test_unknown_text_is_refused_by_name(name, spell):
    """Without a prompt, a further column with texts or messages is refused, and named."""
    table = frame(**{name: [spell(question) for question in QUESTIONS]})
    answers = table.assign(
        **{
            side: [[said("assistant", text)] for text in table[side]]
            for side in ("chosen", "rejected")
        }
    )
    for each in (table, answers):
        with pytest.raises(PairsError, match=rf"3 rows cannot be read:\s+row 0: {name} .*rename"):
            read_pairs(each)


def test_labels_next_to_implicit_prompts_are_listed():
    """Words and numbers next to texts that hold their prompts are not taken for a prompt."""
    further = {"dataset": ["hh"] * 3, "score": [0.5, -1, 2], "prompt_id": ["a", "b", "c"]}
    texts = {
        side: [f"{question} {answer}" for question, answer in zip(QUESTIONS, answers, strict=True)]
        for side, answers in (("chosen", CHOSEN), ("rejected", REJECTED))
    }
    pairs = read_pairs(pd.DataFrame(further | texts))
    assert pairs["prompt"][0] == ["Why is the sky blue?"]
    assert pairs.attrs["unread"] == list(further)


def test_texts_without_any_prompt_are_refused():
    """Answers that share no beginning in every row hold no prompt: "The" is none."""
    with pytest.raises(PairsError, match=r"3 rows cannot be read:\s+row 0: .*add a column prompt"):
        read_pairs(frame())


def test_empty_prompts_stay_empty():
    """An empty or null prompt is not replaced by the beginning of the answers."""
    pairs = read_pairs(frame(prompt=["Why?", "", None]))
    assert pairs["prompt"].tolist() == [["Why?"], [""], [None]]
    assert by_choice(pairs)[2] == (["It is 51."], ["It is 41."])


@pytest.mark.parametrize("name", ["question", "instruction", "input"])
def test_second_prompt_is_refused(name):
    """A second column with another prompt is refused; one that the prompt holds is listed."""
    prompts = [f"Answer: {question}" for question in QUESTIONS]
    for second in (prompts, QUESTIONS, ["", None, ""]):
        pairs = read_pairs(frame(prompt=prompts, **{name: second}))
        assert pairs["prompt"].tolist() == [[prompt] for prompt in prompts]
        assert pairs.attrs["unread"] == [name]
    with pytest.raises(PairsError, match=rf"row 2: {name} is 'Other'"):
        read_pairs(frame(prompt=prompts, **{name: ["", "", "Other"]}))


HISTORIES = {
    "pairs": [["Hi", "Hello."], ["And?", "So."]],
    "messages": [
        said("user", "Hi"),
        said("assistant", "Hello."),
        said("user", "And?"),
        said("assistant", "So."),
    ],
    "arrays": np.array([np.array(["Hi", "Hello."]), np.array(["And?", "So."])], object),
    "tuples": (("Hi", "Hello."), ("And?", "So.")),
}


@pytest.mark.parametrize("history", HISTORIES.values(), ids=HISTORIES)
def test_history_precedes_the_prompt(history):
    """Earlier exchanges come first on both sides, as lists or as their JSON text."""
    spelled = json.dumps(np.array(history, object).tolist())
    for cell in (history, spelled):
        table = frame(prompt=QUESTIONS)
        table["history"] = pd.Series([cell, None, "[]"], dtype=object)
        pairs = read_pairs(table)
        assert pairs["prompt"][0] == ["Hi", "And?", QUESTIONS[0]]
        assert by_choice(pairs)[0][0] == ["Hello.", "So.", CHOSEN[0]]
        assert pairs["prompt"][1:].tolist() == [[question] for question in QUESTIONS[1:]]


def exchanges(*answers):
    """Return a record of each side's exchanges, with these answers to "Hi" and "Sky?"."""
    turns = {name: list(answers) for name in ("response_a", "response_b")}
    return {"id": 1, "prompt": ["Hi", "Sky?"][-len(answers) :], **turns, "winner": "tie"}


@pytest.mark.parametrize(
    ("record", "prompt", "response"),
    [
        (exchanges("Yo", "blue"), ["Hi", "Sky?"], ["Yo", "blue"]),
        (exchanges("Hey", "blue"), ["Hi", "Hi", "Sky?"], ["Yo", "Hey", "blue"]),
        (exchanges("blue"), ["Hi", "Sky?"], ["Yo", "blue"]),
        (exchanges("Yo") | {"prompt": ["Hi"]}, ["Hi", "Hi"], ["Yo", "Yo"]),
    ],
    ids=["whole", "other answers", "lacking", "same question again"],
)
def test_history_that_is_there_counts_once(record, prompt, response):
    """Exchanges that begin prompt and both responses, before a last turn, are not repeated."""
    pairs = read_pairs(pd.DataFrame([record | {"history": [["Hi", "Yo"]]}]), format="kaggle")
    assert pairs["prompt"][0] == prompt
    assert pairs["response_a"][0] == pairs["response_b"][0] == response


def test_history_in_one_response_is_added_to_both():
    """Where only one response begins with the earlier answers, both sides get the exchanges."""
    record = exchanges("Yo", "blue") | {"response_b": ["Hey", "red"], "history": [["Hi", "Yo"]]}
    for each in (record, record | {"response_a": ["Hey", "red"], "response_b": ["Yo", "blue"]}):
        pairs = read_pairs(pd.DataFrame([each]), format="kaggle")
        assert pairs["prompt"][0] == ["Hi", "Hi", "Sky?"]
        assert pairs["response_a"][0] == ["Yo", *each["response_a"]]
        assert pairs["response_b"][0] == ["Yo", *each["response_b"]]


@pytest.mark.parametrize("history", ["We spoke.", [["Hi"]], [3], "[('Hi', 'Yo')]", {"a": 1}])
def test_other_histories_are_refused(history):
    """A history that is neither messages nor exchanges is refused by row."""
    table = frame(prompt=QUESTIONS)
    table["history"] = pd.Series([None, history, None], dtype=object)
    with pytest.raises(PairsError, match=r"1 row cannot be read:\s+row 1: history"):
        read_pairs(table)


def sources():
    """Return a record of each format."""
    flat = {"id": 1, "prompt": "Sky?", "response_a": "blue", "response_b": "red", "winner": "tie"}
    lists = {name: [flat[name]] for name in ("prompt", "response_a", "response_b")}
    talk = [said("user", "Sky?"), said("assistant", "blue")]
    arena = {"conversation_a": talk, "conversation_b": talk, "winner": "tie"}
    preference = {"prompt": "Sky?", "chosen": "blue", "rejected": "red"}
    steer = {"context": talk[:1]}
    words = dict.fromkeys(("label", "model_a", "model_b", "language", "group", "source"))
    return {
        "wsdm": flat,
        "kaggle": flat | lists,
        "pairs": flat | lists | words | {"label": 2, "group": "g"},
        "arena": arena,
        "mt_bench": arena | {"question_id": 1, "judge": "j", "turn": 1},
        "preference": preference,
        "rewardbench": preference | {"id": 1, "subset": "s"},
        "alpaca_eval": {"instruction": "Sky?", "output_1": "x", "output_2": "y", "preference": 2},
        "helpsteer3": steer | {"response1": "x", "response2": "y", "overall_preference": 1},
        "nemo_rl": steer | {"completions": [{"rank": n, "completion": str(n)} for n in range(2)]},
    }


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("column", ["system", "system_prompt"])
def test_system_is_read_in_every_format(name, column):
    """The system text begins the prompt, and the tools follow it."""
    record = sources()[name] | {column: "Be brief."}
    pairs = read_pairs(pd.DataFrame([record]))
    assert pairs.attrs["format"] == name
    assert pairs["prompt"].tolist() == [["Be brief.\n\nSky?"]]
    assert pairs["system"].tolist() == ["Be brief."]
    system = f"Be brief.\n\n{json.dumps(TOOLS)}"
    for tools in (TOOLS, np.array(TOOLS, object), json.dumps(TOOLS)):
        pairs = read_pairs(pd.DataFrame([record | {"tools": tools}]))
        assert pairs["prompt"].tolist() == [[f"{system}\n\nSky?"]]
        assert pairs["system"].tolist() == [system]
    for tools in (None, [], "", "[]"):
        assert read_pairs(pd.DataFrame([record | {"tools": tools}]))["system"][0] == "Be brief."
    with pytest.raises(PairsError, match=r"row 0.*system"):
        read_pairs(pd.DataFrame([record | {column: ["Be brief."]}]))


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_written_context_reads_back(tmp_path, name, suffix):
    """A table with system text, tools and history is written and read as the same table."""
    record = sources()[name] | {"system": "Be brief.", "tools": TOOLS}
    pairs = read_pairs(pd.DataFrame([record | {"history": [["Hi", "Yo"]]}]))
    write_pairs(pairs, tmp_path / f"t.{suffix}")
    read = read_pairs(tmp_path / f"t.{suffix}")
    assert_frame_equal(read, pairs)
    has_history = name not in ("arena", "mt_bench", "helpsteer3", "nemo_rl")
    assert len(pairs["prompt"][0]) == 1 + has_history
    assert find_unread(name, ["history"]) == ([] if has_history else ["history"])


@given(
    system=clean_text(), prompt=clean_text(), answers=st.lists(clean_text(), min_size=2, max_size=2)
)
def test_context_loses_no_text(system, prompt, answers):
    """System text, prompt and whole answers are in the row, for any texts."""
    assume("".join(answers).strip() and system)
    record = {"system": system, "question": prompt, "chosen": answers[0], "rejected": answers[1]}
    records = [record, {"system": "", "question": "Why?", "chosen": "yes", "rejected": "no"}]
    pairs = read_pairs(pd.DataFrame(records))
    is_there = prompt == system or prompt.startswith(system + "\n\n")
    parts = [prompt] if is_there else [system, prompt]
    assert pairs["prompt"][0] == ["\n\n".join(parts)]
    assert pairs["system"][0] == system
    assert by_choice(pairs)[0] == ([answers[0]], [answers[1]])


@pytest.mark.parametrize("name", FORMATS)
def test_unread_columns_change_nothing(name):
    """A column is listed as not read exactly when its value has no effect on the table."""
    other = {
        "tstamp": 1,
        "judge": "k",
        "question_id": 2,
        "annotations": [1],
        "score_chosen": -1.5,
        "label": 1,
        "Winner": "model_a",
        "group": "h",
        "model_a": "m",
        "chosen_model": "c",
        "weight": 0.5,
        "language": "en",
        "winner": "model_a",
        "session": "s",
        "models": ["m", "n"],
        "subset": "t",
        "history": [["Hi", "Yo"]],
        "system": "Be brief.",
        "prob_a": 1.0,
        "prob_b": 0.0,
        "prob_tie": 0.0,
    }
    record = sources()[name]
    more = {column: cell for column, cell in other.items() if column not in record}
    assume_unread = find_unread(name, [*record, *more])
    before = read_pairs(pd.DataFrame([record]), format=name)
    for column, cell in more.items():
        if column.startswith("prob_") or (name == "arena" and column == "question_id"):
            continue
        after = read_pairs(pd.DataFrame([record | {column: cell}]), format=name, labelled=False)
        plain = read_pairs(pd.DataFrame([record]), format=name, labelled=False)
        if column in assume_unread:
            assert_frame_equal(after, plain)
            assert after.attrs["unread"] == [*before.attrs["unread"], column]
        else:
            assert column not in after.attrs["unread"]


def test_audit_and_fit_list_unread_columns(case, tiewise, tmp_path):
    """Both name the columns, also of several files."""
    table = frame(prompt=QUESTIONS, tone=["dry"] * 3, topic=[1, 2, 3])
    table = pd.concat([table] * 2, ignore_index=True)
    table.to_json("t.jsonl", orient="records", lines=True)
    table.rename(columns={"tone": "mood"}).to_parquet("u.parquet")
    assert read_many(["t.jsonl", "u.parquet"]).attrs["unread"] == ["tone", "topic", "mood"]
    assert "tone, topic, mood" in tiewise("audit", "t.jsonl", "u.parquet").output
    done = tiewise(
        "fit", "--preset", "baseline", "--data", "t.jsonl", "--run", "r", "--n-splits", "2"
    )
    assert "tone, topic" in done.text, done.text


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("column", ["image", "images", "video"])
def test_images_are_refused(name, column):
    """A column of images is refused in each row that has one; null and empty cells are not."""
    record = sources()[name]
    for cell in (["a.png"], "a.png", b"PNG", {"bytes": b"PNG", "path": None}, np.array(["a", "b"])):
        with pytest.raises(PairsError, match=rf"row 0.*{column} is .*text alone"):
            read_pairs(pd.DataFrame([record | {column: cell}]))
    for cell in (None, [], "", "[]"):
        assert read_pairs(pd.DataFrame([record | {column: cell}])).attrs["unread"] == [
            *read_pairs(pd.DataFrame([record])).attrs["unread"],
            column,
        ]


def test_words_for_a_choice_are_no_responses():
    """`chosen` and `rejected` next to two responses name a side, and are listed as not read."""
    texts = {"id": 1, "prompt": "Sky?", "response_a": "blue", "response_b": "red"}
    table = pd.DataFrame([texts | {"chosen": "response_a", "rejected": "response_b"}])
    with pytest.raises(PairsError, match="no column names the winner"):
        read_pairs(table)
    pairs = read_pairs(table.assign(winner="model_a"))
    assert pairs.loc[0, ["response_a", "label"]].tolist() == [["blue"], 0]
    assert pairs.attrs["unread"] == ["chosen", "rejected"]


def test_judged_turn_must_exist():
    """A judgment of a second turn in a conversation of one is refused."""
    record = sources()["mt_bench"] | {"turn": 2}
    with pytest.raises(PairsError, match="row 0: turn is 2 in a conversation of 1 turns"):
        read_pairs(pd.DataFrame([record]))


def test_system_text_given_twice_counts_once():
    """Two columns with the same system text put it before the prompt once."""
    row = {"prompt": "Ask", "chosen": "Yes.", "rejected": "No.", "system": "Be brief."}
    pairs = read_pairs(pd.DataFrame([row | {"system_prompt": "Be brief."}]))
    assert pairs["prompt"].tolist() == [["Be brief.\n\nAsk"]]


def test_parts_of_a_prompt_are_text():
    """An instruction that is a list cannot be joined with an input of text."""
    row = {"instruction": ["Ask", "Say"], "input": "this", "chosen": "Yes.", "rejected": "No."}
    with pytest.raises(PairsError, match="instruction and input are not both text"):
        read_pairs(pd.DataFrame([row]))
