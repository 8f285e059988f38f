"""Prompts that show one question in other code points, or in a conversation, are one group."""

import unicodedata

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tiewise as tw
from strategies import clean_text
from tiewise.data.first_text import first_user_text, normalise
from tiewise.data.near_duplicates import merge_near_duplicates
from tiewise.data.pairs import build_pairs, pair_digests, row_digests
from tiewise.evaluation.agreement import name_votes
from tiewise.evaluation.audit import audit_pairs

INVISIBLE = "\u200b\u200c\u200d\u2060\ufeff\u00ad\u200e\u202a\ufe0f"


def says(role, content):
    return {"role": role, "content": content}


def asked(prompts, **columns):
    """Return a pairs table of these prompts."""
    n = len(prompts)
    texts = {"prompt": prompts, "response_a": [["x"]] * n, "response_b": [["y"]] * n}
    return build_pairs({"id": range(n), **texts, **columns})


def test_handed_spellings_are_one_group(case, tiewise):
    """Composed, decomposed, with a byte order mark, with a zero-width space: one question."""
    pairs = tw.read_pairs(case("18-same-text-other-codepoints/unicode.jsonl"))
    assert pairs["group"].nunique() == 2
    assert pairs["group"][:4].nunique() == 1
    found = tiewise("audit", case("18-same-text-other-codepoints/unicode.jsonl"))
    shown = [" ".join(line.split()) for line in found.output.splitlines()]
    assert "rows equal but for code points 4" in shown
    assert "rows with a repeated prompt 4" in shown


@pytest.mark.parametrize(
    ("text", "other"),
    [
        ("Résumé, bitte", unicodedata.normalize("NFD", "Résumé, bitte")),
        ("한국어 질문", unicodedata.normalize("NFD", "한국어 질문")),
        ("Tiếng Việt là gì?", unicodedata.normalize("NFD", "Tiếng Việt là gì?")),
        ("price of 10 km in Paris", "price of 10\u00a0km in\u202fParis\u3000"),
        ("Hello there", "\ufeffHel\u00adlo\u2060 there\u200e"),
        ("Ångström", "\u212bngstr\u00f6m"),
        ("می\u200cخواهم", "میخواهم"),
        ("I ❤ it", "I ❤\ufe0f it"),
    ],
)
def test_other_spellings_are_one_group(text, other):
    """Equal texts in other code points share group, pair digest and near-duplicates."""
    pairs = asked([[text], [other], ["something else"]])
    assert pairs["group"][0] == pairs["group"][1] != pairs["group"][2]
    digests = pair_digests(asked([[text, "And?"], [other.replace("\u00a0", " "), "And?"]]))
    spaces = {"\u202f", "\u3000"} & set(other)
    assert (digests[0] == digests[1]) == (not spaces)
    assert len(set(merge_near_duplicates(pairs))) == 2


@given(text=clean_text(), data=st.data())
def test_spelling_does_not_change_the_text(text, data):
    """Decomposition and invisible characters change nothing; normalising twice neither."""
    places = data.draw(st.lists(st.integers(0, len(text)), max_size=3))
    spelled = text
    for place in sorted(places, reverse=True):
        spelled = spelled[:place] + data.draw(st.sampled_from(INVISIBLE)) + spelled[place:]
    assert normalise(spelled) == normalise(text)
    assert normalise(unicodedata.normalize("NFD", text)) == normalise(text)


@given(text=st.text(st.characters(max_codepoint=0x7F)))
def test_plain_text_is_only_folded(text):
    """ASCII keeps the digest that it had: case and white space alone are normalised."""
    assert normalise(text) == " ".join(text.casefold().split())


def test_votes_on_other_spellings_are_one_pair():
    """Two votes on one pair in two spellings and both orders are votes on one pair."""
    texts = {"prompt": [["Où ?"]] * 2, "response_a": [["é"], ["b"]]}
    texts |= {"response_b": [["b"], [unicodedata.normalize("NFD", "é")]]}
    votes = name_votes(build_pairs({"id": [0, 1], **texts, "label": [0, 1]}))
    assert votes["pair"].nunique() == votes["vote"].nunique() == 1


def test_exact_digests_keep_the_spelling():
    """Digests that name cached features tell spellings apart, since their features differ."""
    pairs = asked([["é"], [unicodedata.normalize("NFD", "é")]])
    assert len(set(row_digests(pairs))) == 2
    assert len(set(row_digests(pairs, composed=True))) == 1


QUESTION = "What is  the capital of France?"
TRANSCRIPTS = [
    "\ufeffHuman: {}\n\nAssistant: {}",
    "\n\nHuman: {}\n\nAssistant: Paris.\n\nHuman: And of {}?\n\nAssistant:",
    "Human: {}\n\nAssistant: It is {}",
    "User: {}\nAssistant: Paris.\nUser: Is it {}?\nAssistant:",
    "USER: {}\nASSISTANT: {}",
    "System: Now is {1}.\n\nHuman: {0}\n\nAssistant:",
    "Human:\n\nAssistant: Hello {1}!\n\nHuman: {0}\n\nAssistant:",
    "Assistant: Hello {1}!\n\nHuman: {0}\n\nAssistant:",
    "Human: {}\nAI: It is {}",
    "<|im_start|>system\nNow is {1}.<|im_end|>\n<|im_start|>user\n{0}<|im_end|>\n"
    "<|im_start|>assistant\n",
    "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\n{1}<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\n{0}<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\n",
    "<start_of_turn>user\n{}<end_of_turn>\n<start_of_turn>model\n{}",
    "<|user|>\n{}<|end|>\n<|assistant|>\n{}",
    "<s>[INST] <<SYS>>\n{1}\n<</SYS>>\n\n{0} [/INST]",
    "[INST] {} [/INST] It is {}</s>",
]


@pytest.mark.parametrize("template", TRANSCRIPTS)
def test_transcripts_are_grouped_by_question(template):
    """A conversation in one text has the group of its first question, whatever follows it."""
    prompts = [[template.format(QUESTION, more)] for more in ("Spain", "Italy", "10:03")]
    pairs = asked([*prompts, [QUESTION.upper()], [template.format("Why?", "Spain")]])
    assert pairs["group"][:4].nunique() == 1
    assert pairs["group"].nunique() == 2


@pytest.mark.parametrize(
    "text",
    [
        "Human: What is love?",
        "Explain this log:\n\nUser: root\nAssistant: none",
        "user stories: write three",
        "I am a bot: what now?\nAssistant: none",
        "Compare <|im_start|>user and [INST]",
        "def user: pass",
        "2. Human: a\nAssistant: b",
    ],
)
def test_other_prompts_are_no_transcripts(text):
    """Text that only mentions speakers or markup is grouped as a whole."""
    assert first_user_text([text]) == text


@given(prompt=st.lists(st.none() | st.sampled_from(["", " ", "\u200b", "Hi", "And?"]), max_size=4))
def test_first_visible_turn_counts(prompt):
    """The first turn with a visible character is the first text; without one it is empty."""
    visible = [turn for turn in prompt if turn in ("Hi", "And?")]
    assert first_user_text(prompt) == (visible[0] if visible else "")


def test_rows_without_a_user_text_are_counted():
    """They are one group, and the audit counts them and those with a system text."""
    prompts = [[], [None], ["", " "], ["Rules."], ["Rules.\n\nHi"], ["Hi"]]
    pairs = asked(prompts, system=[None, None, None, "Rules.", "Rules.", None])
    found = audit_pairs(pairs, n_splits=2)
    assert found.repeats["rows without a user text"] == 4
    assert found.rows["system text"] == 2
    assert pairs["group"].nunique() == 2


def test_greetings_do_not_join_conversations():
    """Conversations that the assistant begins are grouped by what the user says then."""
    greeting = [says("assistant", "Hello, how can I help?")]
    rows = [
        {
            name: [*greeting, says("user", question), says("assistant", name)]
            for name in ("chosen", "rejected")
        }
        for question in ("Why?", "When?", "why? ")
    ]
    pairs = tw.read_pairs(pd.DataFrame(rows))
    assert np.unique(pairs["group"]).size == 2
    assert pairs["group"][0] == pairs["group"][2]
