"""Chosen and rejected responses become pairs in an order that does not show the choice."""

from __future__ import annotations

import hashlib
import json

import pandas as pd
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal

from strategies import clean_text, conversations, pairs_tables
from tiewise.data.formats import read_pairs, write_pairs, write_preference
from tiewise.data.pairs import build_pairs
from tiewise.errors import PairsError

USER = {"role": "user", "content": "What color is the sky?"}
BLUE, GREEN = ({"role": "assistant", "content": f"It is {color}."} for color in ("blue", "green"))
EXPLICIT_STRINGS = {"prompt": "The sky is", "chosen": " blue.", "rejected": " green."}
IMPLICIT_STRINGS = {"chosen": "The sky is blue.", "rejected": "The sky is green."}
EXPLICIT_MESSAGES = {"prompt": [USER], "chosen": [BLUE], "rejected": [GREEN]}
IMPLICIT_MESSAGES = {"chosen": [USER, BLUE], "rejected": [USER, GREEN]}
MIXED = {"prompt": USER["content"], "chosen": [USER, BLUE], "rejected": [USER, GREEN]}
TRANSCRIPT = {
    "chosen": "\n\nHuman: Hi\n\nAssistant: Yes?\n\nHuman: Sky?\n\nAssistant: blue",
    "rejected": "\n\nHuman: Hi\n\nAssistant: Yes?\n\nHuman: Sky?\n\nAssistant: green",
}
REWARDBENCH_1 = {
    "prompt": "Sky?",
    "chosen": "blue",
    "chosen_model": "gpt",
    "rejected": "green",
    "rejected_model": "llama",
    "subset": "hep-python",
    "id": 30,
}
REWARDBENCH_2 = {
    "id": "12",
    "prompt": "Sky?",
    "chosen": ["blue", "azure"],
    "rejected": ["green", "red", "brown"],
    "num_correct": 2,
    "num_incorrect": 3,
    "total_completions": 5,
    "models": ["m0", "m1", "m2", "m3", "m4"],
    "subset": "Ties",
    "additional_metadata": {"category": None},
}
EVERY = {
    "explicit strings": (EXPLICIT_STRINGS, ["The sky is"], [" blue."], [" green."]),
    "implicit strings": (IMPLICIT_STRINGS, ["The sky is"], [" blue."], [" green."]),
    "explicit messages": (EXPLICIT_MESSAGES, [USER["content"]], ["It is blue."], ["It is green."]),
    "implicit messages": (IMPLICIT_MESSAGES, [USER["content"]], ["It is blue."], ["It is green."]),
    "prompt repeated": (MIXED, [USER["content"]], ["It is blue."], ["It is green."]),
    "transcript": (TRANSCRIPT, ["Hi", "Sky?"], ["Yes?", "blue"], ["Yes?", "green"]),
    "rewardbench": (REWARDBENCH_1, ["Sky?"], ["blue"], ["green"]),
}


def by_choice(pairs):
    """Return each row's chosen and rejected response."""
    rows = zip(pairs["response_a"], pairs["response_b"], pairs["label"], strict=True)
    return [(a, b) if label == 0 else (b, a) for a, b, label in rows]


@pytest.mark.parametrize(("record", "prompt", "chosen", "rejected"), EVERY.values(), ids=EVERY)
def test_every_layout_is_read(record, prompt, chosen, rejected):
    """The prompt, the chosen and the rejected response are as in the record."""
    pairs = read_pairs(pd.DataFrame([record]))
    assert pairs["prompt"].tolist() == [prompt]
    assert by_choice(pairs) == [(chosen, rejected)]


@pytest.mark.parametrize("record", [case[0] for case in EVERY.values()] + [REWARDBENCH_2])
@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_read_write_read_is_identity(tmp_path, record, suffix):
    """A table that was read is written and read as the same table."""
    pairs = read_pairs(pd.DataFrame([record]))
    write_pairs(pairs, tmp_path / f"pairs.{suffix}")
    assert_frame_equal(read_pairs(tmp_path / f"pairs.{suffix}"), pairs)


@pytest.mark.parametrize("record", [EXPLICIT_MESSAGES, IMPLICIT_MESSAGES, MIXED])
def test_messages_as_json_text(record):
    """A csv file holds messages as JSON; other text in brackets stays text."""
    spelled = {
        key: value if isinstance(value, str) else json.dumps(value) for key, value in record.items()
    }
    assert_frame_equal(*(read_pairs(pd.DataFrame([row])) for row in (spelled, record)))
    texts = {"prompt": "Say a list.", "chosen": '[{"a": 1}]', "rejected": "No: [{]"}
    found = read_pairs(pd.DataFrame([texts]))
    assert {found["response_a"][0][0], found["response_b"][0][0]} == {'[{"a": 1}]', "No: [{]"}


def test_rewardbench_1_is_read():
    """Models follow their responses, and the subset is the source."""
    pairs = read_pairs(pd.DataFrame([REWARDBENCH_1]))
    assert pairs.attrs["format"] == "rewardbench"
    of_blue = "model_a" if pairs["response_a"][0] == ["blue"] else "model_b"
    assert pairs[of_blue][0] == "gpt"
    assert pairs.loc[0, ["id", "source"]].tolist() == [30, "hep-python"]


def test_rewardbench_2_is_read():
    """Every chosen response is paired with every rejected one; ids name both."""
    pairs = read_pairs(pd.DataFrame([REWARDBENCH_2]))
    assert by_choice(pairs) == [
        ([right], [wrong]) for right in ("blue", "azure") for wrong in ("green", "red", "brown")
    ]
    assert pairs["id"].tolist() == [f"12/{i}/{j}" for i in range(2) for j in range(3)]
    models = dict(
        zip(("blue", "azure", "green", "red", "brown"), REWARDBENCH_2["models"], strict=True)
    )
    for side in "ab":
        expected = [models[response[0]] for response in pairs[f"response_{side}"]]
        assert pairs[f"model_{side}"].tolist() == expected


def test_rewardbench_2_needs_matching_models():
    """A list of models of another length is not used."""
    pairs = read_pairs(pd.DataFrame([REWARDBENCH_2 | {"models": ["m0"]}]))
    assert pairs["model_a"].isna().all()


@given(prompt=clean_text(), chosen=clean_text(), rejected=clean_text())
def test_order_ignores_the_choice(prompt, chosen, rejected):
    """Choosing the other response changes the label and nothing else."""
    assume((chosen + rejected).strip())
    one, other = (
        read_pairs(pd.DataFrame([{"prompt": prompt, "chosen": first, "rejected": second}]))
        for first, second in ((chosen, rejected), (rejected, chosen))
    )
    texts = ["prompt", "response_a", "response_b"]
    assert_frame_equal(one[texts], other[texts])
    assert chosen == rejected or one["label"][0] + other["label"][0] == 1


def test_choice_is_balanced():
    """Over many rows A and B are chosen equally often, also for equal responses."""
    for rejected in ("no", "yes"):
        records = [
            {"prompt": f"{number}?", "chosen": "yes", "rejected": rejected}
            for number in range(2000)
        ]
        assert 0.46 < read_pairs(pd.DataFrame(records))["label"].mean() < 0.54


@given(shared=clean_text(), chosen=clean_text(), rejected=clean_text())
def test_implicit_prompt_is_complete(shared, chosen, rejected):
    """Prompt and response together are the text that was given, split before a space."""
    assume("Human:" not in shared + chosen + rejected and chosen.strip() != rejected.strip())
    record = {"chosen": f"{shared} {chosen}", "rejected": f"{shared} {rejected}"}
    if not shared.strip() and (chosen + rejected).strip():
        with pytest.raises(PairsError, match="texts without a prompt"):
            read_pairs(pd.DataFrame([{name: text.strip() for name, text in record.items()}]))
        return
    pairs = read_pairs(pd.DataFrame([record]))
    prompt = pairs["prompt"][0][0]
    responses = [side[0] for side in by_choice(pairs)[0]]
    assert [prompt + response for response in responses] == list(record.values())
    assert prompt == "" or all(response[:1].isspace() or response == "" for response in responses)


def test_implicit_prompt_ends_before_space():
    """TRL splits at the first different character, so a response begins within a word."""
    record = {"chosen": "The sky is blue.", "rejected": "The sky is bright."}
    pairs = read_pairs(pd.DataFrame([record]))
    assert pairs["prompt"][0] == ["The sky is"]
    assert by_choice(pairs) == [([" blue."], [" bright."])]


@given(sides=conversations(), other=st.lists(clean_text(), min_size=3, max_size=3))
def test_messages_keep_every_turn(sides, other):
    """Earlier answers belong to both responses, whichever way the prompt is given."""
    prompt, response = sides
    assume((response[-1] + other[0]).strip())
    rejected = [*response[:-1], other[0]]
    pairs = build_pairs(
        {
            "id": [0],
            "prompt": [prompt],
            "response_a": [response],
            "response_b": [rejected],
            "label": [0],
        }
    )
    explicit = messages_of(pairs, n_shared=2 * len(prompt) - 1)
    implicit = {name: explicit["prompt"] + explicit[name] for name in ("chosen", "rejected")}
    for record in (explicit, implicit, explicit | implicit):
        read = read_pairs(pd.DataFrame([record]))
        assert read["prompt"].tolist() == [prompt]
        assert by_choice(read) == [(response, rejected)]


def messages_of(pairs, n_shared):
    """Return one pair as messages with an explicit prompt."""
    prompt, chosen, rejected = (pairs[name][0] for name in ("prompt", "response_a", "response_b"))

    def conversation(responses):
        return [
            {"role": role, "content": content}
            for exchange in zip(prompt, responses, strict=True)
            for role, content in zip(("user", "assistant"), exchange, strict=True)
        ]

    return {
        "prompt": conversation(chosen)[:n_shared],
        "chosen": conversation(chosen)[n_shared:],
        "rejected": conversation(rejected)[n_shared:],
    }


@given(pairs=pairs_tables())
def test_preference_round_trip(tmp_path_factory, pairs):
    """Every row with a winner keeps its texts, choice, models and id; ties are counted."""
    pairs = pairs[pairs["label"].notna()].reset_index(drop=True)
    pairs = with_right_turns(pairs)
    path = tmp_path_factory.mktemp("trl") / "pairs.jsonl"
    n_ties = write_preference(pairs, path)
    decided = pairs[pairs["label"] != 2].reset_index(drop=True)
    assert n_ties == len(pairs) - len(decided)
    if len(decided) == 0:
        assert path.read_text() == ""
        return
    read = read_pairs(path)
    assert read["prompt"].tolist() == decided["prompt"].tolist()
    assert by_choice(read) == by_choice(decided)
    assert read["id"].astype(str).tolist() == decided["id"].astype(str).tolist()


def with_right_turns(pairs):
    """Return the rows with as many answers as questions, none of them missing or empty."""
    columns = {"id": pairs["id"], "label": pairs["label"]}
    for name in ("prompt", "response_a", "response_b"):
        columns[name] = [
            [f"{name} {place} {turn}" for turn in range(1 + place % 3)]
            for place in range(len(pairs))
        ]
    return build_pairs(columns)


def test_write_preference_needs_labels(tmp_path):
    """Rows without a label and other suffixes are refused."""
    texts = {name: [["x"]] for name in ("prompt", "response_a", "response_b")}
    with pytest.raises(PairsError, match="1 rows have no label"):
        write_preference(build_pairs({"id": [1], **texts}), tmp_path / "pairs.jsonl")
    with pytest.raises(PairsError, match=r"ends in \.jsonl"):
        write_preference(build_pairs({"id": [1], **texts, "label": [0]}), tmp_path / "pairs.csv")
    assert list(tmp_path.iterdir()) == []


def test_unlabelled_ignores_the_choice():
    """Read for prediction, the two responses keep the order of their digests."""
    frame = pd.DataFrame([EXPLICIT_STRINGS])
    pairs = read_pairs(frame, labelled=False)
    assert pairs["label"].isna().all()
    assert pairs["response_a"].tolist() == read_pairs(frame)["response_a"].tolist()


def test_smaller_digest_is_a():
    """Other tools can compute the position: BLAKE2b over prompt and response as JSON."""
    record = {"prompt": "Name a colour.", "chosen": "Blue.", "rejected": "Green."}
    texts = [record["chosen"], record["rejected"]]
    cells = [json.dumps([[record["prompt"]], [text]]).encode() for text in texts]
    first, second = (hashlib.blake2b(cell, digest_size=16).digest() for cell in cells)
    [row] = read_pairs(pd.DataFrame([record])).to_dict("records")
    assert row["response_a"] == [texts[0] if first < second else texts[1]]


def test_missing_ids_are_positions(tmp_path):
    """A data set without ids is numbered; one with ids keeps them."""
    path = tmp_path / "pairs.jsonl"
    lines = [EXPLICIT_STRINGS, EXPLICIT_STRINGS | {"id": 9}]
    path.write_text("\n".join(map(json.dumps, lines)))
    assert read_pairs(path)["id"].tolist() == [0, 9]
    assert read_pairs(pd.DataFrame([EXPLICIT_STRINGS] * 2))["id"].tolist() == [0, 1]


@pytest.mark.parametrize(
    ("record", "match"),
    [
        ({"chosen": [USER, BLUE], "rejected": [USER | {"content": "?"}, GREEN]}, "turns differ"),
        (
            {"chosen": "text", "rejected": [USER, GREEN]},
            "are both text or messages",
        ),
        (
            {"prompt": "Other?", "chosen": [USER, BLUE], "rejected": [USER, GREEN]},
            "none of the user",
        ),
        (
            {"prompt": "Sky?", "chosen": None, "rejected": "x"},
            "a conversation is None; expected a list of messages",
        ),
        (REWARDBENCH_2 | {"rejected": []}, "rejected is .*; expected a list of responses"),
        (REWARDBENCH_2 | {"chosen": [1]}, "a turn is 1; expected text or null"),
    ],
)
def test_wrong_row_is_refused(record, match):
    """A record that is no preference is refused with the reason."""
    with pytest.raises(PairsError, match=rf"row 0.*{match}"):
        read_pairs(pd.DataFrame([record]))
