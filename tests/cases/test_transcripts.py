"""Transcripts and repeated prompts are split into turns, with every kind of line end."""

from __future__ import annotations

import pandas as pd
import pytest
from hypothesis import assume, given
from pandas.testing import assert_frame_equal

from strategies import clean_text
from tiewise.data.formats import read_pairs, write_pairs
from tiewise.errors import PairsError

START = "\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: Why is the sky blue?\n\nAssistant:"
GOOD, BAD = " It scatters.\n\nA lot.", " Who knows?"
PROMPT = ["Hi", "Why is the sky blue?"]


def by_choice(pairs):
    """Return each row's chosen and rejected response."""
    rows = zip(pairs["response_a"], pairs["response_b"], pairs["label"], strict=True)
    return [(a, b) if label == 0 else (b, a) for a, b, label in rows]


LAYOUTS = {
    "whole conversations": {"chosen": START + GOOD, "rejected": START + BAD},
    "prompt apart": {"prompt": START, "chosen": GOOD, "rejected": BAD},
    "prompt repeated": {"prompt": START, "chosen": START + GOOD, "rejected": START + BAD},
    "question apart": {"prompt": "Hi", "chosen": START + GOOD, "rejected": START + BAD},
}


@pytest.mark.parametrize("record", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
@pytest.mark.parametrize("suffix", ["csv", "parquet", "jsonl"])
def test_transcripts_are_split(tmp_path, record, line_end, suffix):
    """A conversation has its turns in every layout, with the line ends of Windows too."""
    spelled = {name: text.replace("\n", line_end) for name, text in record.items()}
    table, path = pd.DataFrame([spelled] * 2), tmp_path / f"t.{suffix}"
    if suffix == "csv":
        table.to_csv(path, index=False, lineterminator=line_end)
    elif suffix == "parquet":
        table.to_parquet(path)
    else:
        table.to_json(path, orient="records", lines=True)
    pairs = read_pairs(path)
    assert pairs["prompt"].tolist() == [PROMPT] * 2
    chosen, rejected = by_choice(pairs)[0]
    assert [turn.strip() for turn in chosen] == ["Hello", GOOD.strip().replace("\n", line_end)]
    assert [turn.strip() for turn in rejected] == ["Hello", BAD.strip()]
    write_pairs(pairs, tmp_path / "w.csv")
    assert_frame_equal(read_pairs(tmp_path / "w.csv"), pairs)


@pytest.mark.parametrize("prompt", ["Human: Hi", "Say: Assistant:", "Assistant:", "Human: a\n\nb"])
def test_other_prompts_stay_text(prompt):
    """A prompt is a transcript only if it ends with "Assistant:" after a turn of "Human:"."""
    pairs = read_pairs(pd.DataFrame([{"prompt": prompt, "chosen": "Hi", "rejected": "Yo"}]))
    assert pairs["prompt"].tolist() == [[prompt]]


def test_answer_with_speakers_stays_text():
    """An answer that is a dialogue about something else is one response."""
    dialogue = "Human: Are you there?\n\nAssistant: Always."
    record = {"prompt": "Write a dialogue.", "chosen": dialogue, "rejected": "No."}
    pairs = read_pairs(pd.DataFrame([record]))
    assert by_choice(pairs) == [([dialogue], ["No."])]


QUESTIONS = ["Why is the sky blue?", "Name a river.", "What is 17*3?"]


@pytest.mark.parametrize("separator", [" ", "\n", "\n\n", "\r\n", "\t"])
@pytest.mark.parametrize("name", ["prompt", "question", "instruction"])
def test_repeated_prompts_are_taken_off(separator, name):
    """Responses that all begin with the prompt lose it, and their rows are counted as repaired."""
    records = [
        {
            name: question,
            "chosen": f"{question}{separator}yes",
            "rejected": f"{question}{separator}no",
        }
        for question in QUESTIONS
    ]
    pairs = read_pairs(pd.DataFrame(records))
    assert pairs["prompt"].tolist() == [[question] for question in QUESTIONS]
    assert by_choice(pairs) == [([f"{separator}yes"], [f"{separator}no"])] * 3
    assert pairs.attrs["repaired"] == 3


def test_prompts_repeated_by_chance_are_kept():
    """One pair of answers that quotes the prompt among others is not changed."""
    records = [
        {"prompt": question, "chosen": f"{question} yes", "rejected": f"{question} no"}
        for question in QUESTIONS
    ]
    for changed in ({"chosen": "yes"}, {"rejected": "no"}, {"rejected": QUESTIONS[1]}):
        read = read_pairs(pd.DataFrame([records[0], records[1] | changed, records[2]]))
        assert by_choice(read)[0] == ([records[0]["chosen"]], [records[0]["rejected"]])
        assert read.attrs["repaired"] == 0
    short = {"prompt": "Hi", "chosen": "Hi there", "rejected": "Hi you"}
    assert by_choice(read_pairs(pd.DataFrame([short]))) == [(["Hi there"], ["Hi you"])]


@given(prompt=clean_text(), chosen=clean_text(), rejected=clean_text())
def test_texts_are_whole(prompt, chosen, rejected):
    """Prompt and responses are those of the record, or the prompt was repeated and is taken off."""
    assume((chosen + rejected).strip())
    record = {"prompt": prompt, "chosen": chosen, "rejected": rejected}
    try:
        pairs = read_pairs(pd.DataFrame([record]))
    except PairsError as error:
        assert "row 0" in str(error)  # noqa: PT017
        return
    responses = [side[0] for side in by_choice(pairs)[0]]
    if pairs.attrs["repaired"]:
        responses = [prompt + response for response in responses]
    assert (pairs["prompt"][0], responses) == ([prompt], [chosen, rejected])


def test_response_of_the_prompt_alone_is_kept():
    """A response that is only the prompt is a response, not a repeated prompt."""
    rows = [{"prompt": "Say it again", "chosen": "Say it again\n", "rejected": "Say it again now"}]
    pairs = read_pairs(pd.DataFrame(rows))
    assert sorted([*pairs["response_a"], *pairs["response_b"]]) == [
        ["Say it again\n"], ["Say it again now"],
    ]  # fmt: skip
