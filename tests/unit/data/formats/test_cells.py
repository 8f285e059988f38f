"""Single cells at the border of what is read: numbers, words, lists, labels, blocks of text."""

from decimal import Decimal

import numpy as np
import pandas as pd
import pytest

from tiewise.data.formats.cells import (
    as_turn,
    as_word,
    find_shared_end,
    has_brackets,
    holds_text,
    is_missing,
    join_texts,
    parse_number,
    read_messages,
    read_transcript,
    read_weight,
    shown,
    spells_messages,
    split_messages,
)
from tiewise.data.formats.winners import read_labels
from tiewise.errors import LabelError, PairsError

FLAGS = ("winner_model_a", "winner_model_b", "winner_tie")
PROBS = ("prob_a", "prob_b", "prob_tie")


def one_hot(*flags):
    return dict(zip(FLAGS, flags, strict=True))


def soft(*probs):
    return dict(zip(PROBS, probs, strict=True))


@pytest.mark.parametrize("value", [None, float("nan"), pd.NA, pd.NaT, ""])
def test_missing_cells(value):
    """Nulls of every kind are missing: a word is None, and a turn too, but for an empty text."""
    assert is_missing(value)
    assert as_word(value) is None
    assert as_turn(value, "a turn") == ("" if isinstance(value, str) else None)


@pytest.mark.parametrize(
    "value", [" ", "nan", 0, False, 0.0, [], {}, np.array([]), np.array([1])], ids=repr
)
def test_cells_that_are_not_missing(value):
    """Blanks, zeros and empty lists are values."""
    assert not is_missing(value)


@pytest.mark.parametrize(
    ("value", "word"), [(3, "3"), (0.5, "0.5"), (True, "True"), ("x", "x")], ids=repr
)
def test_words_and_numbers_are_words(value, word):
    """A name may be a number; a half surrogate pair in it is repaired."""
    assert as_word(value) == word
    assert as_word("a\ud83d") == "a\ufffd"


NUMBERS = [
    *[("0,25", 0.25), ("1,5", 1.5), (" -1,25 ", -1.25), ("+0,5", 0.5), ("0,000", 0.0)],
    *[("1,0000", 1.0), ("1000,000", 1000.0), ("1,00", 1.0)],
    *[("1,000", None), ("-12,345", None), ("1,234,567", None), ("1,2,3", None), (",5", None)],
    *[(" 2 ", 2.0), ("1e3", 1000.0), (".5", 0.5), ("1_0", None), ("x", None), ("", None)],
    *[("inf", None), ("nan", None), (float("inf"), None), (float("nan"), None)],
    *[(True, 1.0), (np.bool_(False), 0.0), (np.float32(0.5), 0.5), (Decimal("0.5"), 0.5)],
    *[(10**400, None), (1 + 0j, None), (b"1", None), (None, None), ([1], None)],
]


def test_numbers_of_any_spelling():
    """A comma is a decimal comma only where it cannot separate thousands; others are None."""
    for value, number in NUMBERS:
        assert parse_number(value) == number, value


def test_values_in_messages_are_short():
    """Forty characters are shown whole, more are cut; numbers as they are, text in quotes."""
    assert shown("a" * 38) == f"'{'a' * 38}'"
    assert shown("a" * 39) == f"'{'a' * 39}…"
    assert (shown(5), shown(None), shown("é\n")) == ("5", "None", "'\\xe9\\n'")


@pytest.mark.parametrize(
    ("cell", "is_listed"),
    [
        *[([], True), ((), True), (np.array([1]), True), (" [a] ", True), ("[]", True)],
        *[("[a", False), ("a]", False), ("a", False), (None, False), ({}, False), ("]a[", False)],
    ],
    ids=repr,
)
def test_lists_and_their_texts_have_brackets(cell, is_listed):
    """A list of any type, or text that begins and ends as one."""
    assert has_brackets(cell) == is_listed


@pytest.mark.parametrize(
    ("value", "has_text"),
    [
        *[("a", True), ("", False), (b"a", True), (b"", False), (None, False), (1.5, False)],
        *[(pd.Timestamp(0), False), (True, False), ([], False), ([None, 1, ""], False)],
        *[([None, ["a"]], True), ({"a": {"b": "c"}}, True), ({"a": [1, None]}, False), ({}, False)],
        *[(np.array(["", "a"]), True), (np.array([1.0]), False), (..., True)],
    ],
    ids=repr,
)
def test_text_is_found_at_any_depth(value, has_text):
    """Nulls, numbers, times and empty texts hold none; an unknown object may."""
    assert holds_text(value) == has_text


def test_joined_texts_skip_missing_ones():
    """An empty text is kept, a missing one is not; only missing ones are missing."""
    assert join_texts(["a", None, "", "b"]) == "a\n\n\n\nb"
    assert join_texts([None]) is None
    assert join_texts([""]) == ""


@pytest.mark.parametrize(
    ("text", "is_spelled"),
    [
        *[('{"role": "user", "content": "Hi"}', True), (" [ {'from': 'a', 'value': 'b'}]", True)],
        *[("array([{'content': 'x', 'role': 'y'}], dtype=object)", True)],
        *[("[[{role: user, content: Hi}]]", True), ("({'role' : 1, 'content' : 2},)", True)],
        *[('[{"role": "user"}]', False), ('[{"content": "x"}]', False), ("[]", False)],
        *[('[{"role": 1, "value": 2}]', False), ('x [{"role": 1, "content": 2}]', False)],
        *[('["role", "content"]', False), ('[{"roles": 1, "contents": 2}]', False)],
    ],
)
def test_spelled_messages_are_noticed(text, is_spelled):
    """The first object has a role and a content, or a speaker and a value, in any spelling."""
    assert spells_messages(text) == is_spelled


@pytest.mark.parametrize(
    ("texts", "end"),
    [
        (["The sky is blue.", "The sky is bright."], 10),
        (["Why? Yes", "Why?\tYes"], 0),
        (["same text", "same text"], 4),
        (["a b c", "a b"], 1),
        (["a b ", "a b c"], 3),
        (["one", "two"], 0),
        (["", "x"], 0),
    ],
)
def test_shared_beginning_ends_before_a_space(texts, end):
    """At the last white space that both texts have at the same place, after equal characters."""
    assert find_shared_end(texts) == end


@pytest.mark.parametrize(
    ("text", "contents"),
    [
        ("Human: Hi\n\nAssistant: Yo", ["Hi", "Yo"]),
        ("\n\nHuman: Hi\r\n\r\nAssistant:Yo", ["Hi", "Yo"]),
        ("Human: Hi\nAssistant: Yo", ["Hi\nAssistant: Yo"]),
        ("  \n\nAssistant: Yo", ["Yo"]),
        ("Well: Human: Hi", None),
        ("Hi\n\nHuman: Hi", None),
        ("Hi", None),
    ],
)
def test_transcripts_begin_with_a_speaker(text, contents):
    """Speakers follow an empty line or begin the text; one space after the colon is not text."""
    messages = read_transcript(text)
    assert (messages and [message["content"] for message in messages]) == contents


def test_weights_start_at_zero():
    """0 is a weight, a negative number or text is none; a record without one has no column."""
    assert read_weight({}) == {}
    assert read_weight({"weight": 0}) == {"weight": 0.0}
    assert read_weight({"weight": "0,5"}) == {"weight": 0.5}
    with pytest.raises(PairsError, match=r"weight is -0\.001; expected 0 or more"):
        read_weight({"weight": -0.001})
    with pytest.raises(PairsError, match="weight is None; expected a number"):
        read_weight({"weight": None})


@pytest.mark.parametrize(
    "probs",
    [(0.5, 0.25, 0.25), (1, 0, 0), (0, 0, 1), (0.5, 0.25, 0.2500009), ("0,5", "0.5", 0)],
    ids=repr,
)
def test_soft_labels_need_no_winner(probs):
    """Three probabilities with sum 1, to six digits, are labels by themselves."""
    labels = read_labels(soft(*probs))
    assert labels["winner"] is None
    assert labels["prob_a"] == parse_number(probs[0])


@pytest.mark.parametrize(
    "record",
    [
        *[soft(0.5, 0.25, 0.250002), soft(0.5, 0.25, 0.249998), soft(1.1, -0.1, 0)],
        *[{"prob_a": 1.0}, {"prob_a": 0.5, "prob_b": 0.5}, soft(0, 0, 0)],
    ],
    ids=repr,
)
def test_other_soft_labels_are_refused(record):
    """A missing class, a negative value or another sum is refused, with and without a winner."""
    for each in (record, record | {"winner": "tie"}):
        with pytest.raises(LabelError, match="three probabilities with sum 1"):
            read_labels(each)


def test_columns_that_name_the_winner_must_agree():
    """The word, the flags and the label name one winner."""
    record = {"winner": "model_b", "label": "1.0"} | one_hot(0, "TRUE", " false ")
    assert read_labels(record, has_label=True) == {"winner": "model_b"}
    assert read_labels(record | {"label": 2}) == {"winner": "model_b"}
    for change in ({"winner": "tie"}, {"label": 0}, one_hot(0, 0, 1)):
        with pytest.raises(LabelError, match="as winners; expected one"):
            read_labels(record | change, has_label=True)
    assert read_labels({"winner": "both_bad", "label": 2}, has_label=True)["winner"] == "both_bad"
    assert read_labels({"label": 0}, has_label=True) == {"winner": "model_a"}


@pytest.mark.parametrize("label", [3, -1, 0.5, "x", [0]])
def test_other_labels_are_refused(label):
    """A label is 0, 1 or 2."""
    with pytest.raises(LabelError, match=r"label is .*; expected 0, 1 or 2"):
        read_labels({"label": label}, has_label=True)


@pytest.mark.parametrize(
    "flags", [(0, 0, 0), (1, 1, 0), (2, 0, 0), (1, 0, None), (0.5, 0.5, 0)], ids=repr
)
def test_exactly_one_flag_is_set(flags):
    """Anything else than one 1 and two 0 is refused."""
    with pytest.raises(LabelError, match="exactly one must be 1"):
        read_labels(one_hot(*flags))


@pytest.mark.parametrize("flags", [(0, 0, 0), (None, None, None), ("", 0, "0")], ids=repr)
def test_blank_flags_are_optional(flags):
    """Where winners are optional, blank flags are none; one that is set still counts."""
    assert read_labels(one_hot(*flags), is_required=False) == {"winner": None}
    assert read_labels(one_hot(0, 1, 0), is_required=False) == {"winner": "model_b"}
    with pytest.raises(LabelError, match="exactly one must be 1"):
        read_labels(one_hot(1, 1, 0), is_required=False)


def test_missing_winner_is_refused():
    """A record without any label is refused, unless winners are optional."""
    assert read_labels({}, is_required=False) == {"winner": None}
    with pytest.raises(LabelError, match="winner is missing"):
        read_labels({"winner": None})


def test_sides_of_a_conversation():
    """System and user messages are one side; an answer without a question has a missing turn."""
    roles = ("assistant", "system", "developer", "user", "user", "assistant", "assistant", "user")
    found = split_messages([{"role": role, "content": role[0]} for role in roles])
    assert found.prompt == [None, "s\n\nd\n\nu\n\nu", "u"]
    assert found.response == ["a", "a\n\na", None]
    assert found.system is None
    assert split_messages([]).prompt == []


def test_leading_system_messages_are_the_system_text():
    """Only those before the first other message count; an empty one is none."""
    texts = [("system", "x"), ("developer", "y"), ("user", "q"), ("system", "z")]
    messages = [{"role": role, "content": text} for role, text in texts]
    assert split_messages(messages).system == "x\n\ny"
    assert split_messages([{"role": "system", "content": ""}, *messages[2:]]).system is None


def test_repairs_of_either_side_are_reported():
    """A half surrogate pair in a question or in an answer makes the row a repaired one."""
    for role in ("user", "assistant", "system"):
        assert split_messages([{"role": role, "content": "\ud83d"}]).is_repaired
        assert not split_messages([{"role": role, "content": "x"}]).is_repaired


@pytest.mark.parametrize("role", ["tool", "User", None, 1, ["user"]])
def test_other_roles_are_refused(role):
    """A role has one of four names."""
    with pytest.raises(PairsError, match=r"a message.s role is .* user, system, developer, assist"):
        split_messages([{"role": role, "content": "x"}])


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ({"type": "text", "text": "a"}, "a"),
        ([{"text": "a"}, {"type": "text", "text": None}, {"text": "b"}], "a\n\nb"),
        ([{"type": "text", "text": "a", "image": None, "annotations": [], "id": 3}], "a"),
        ([], None),
    ],
)
def test_blocks_of_text(content, text):
    """Blocks are joined by an empty line; further keys without text are ignored."""
    assert split_messages([{"role": "user", "content": content}]).prompt == [text]


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ([{"type": "image", "text": "a"}], "a block of type image"),
        ([{"type": "text", "text": "a", "file": "x"}], "a block of type file"),
        ([{"text": "a", "citations": ["b"]}], "the key citations of a block is"),
        (["a"], "a block is 'a'"),
        (3, "a message's content is 3; expected text or blocks"),
        ([{"text": 3}], "a block's text is 3"),
    ],
)
def test_other_blocks_are_refused(content, match):
    """Whatever is not text would be lost."""
    with pytest.raises(PairsError, match=match):
        split_messages([{"role": "user", "content": content}])


@pytest.mark.parametrize("message", [{"role": "user"}, {"content": "x"}, "x", ["role", "content"]])
def test_messages_have_role_and_content(message):
    """A message without one of them is refused, and so is what is no message."""
    with pytest.raises(PairsError, match="expected a role and a content"):
        read_messages([message])
    assert read_messages('[{"role": "user", "content": "x", "id": 3}]')[0]["content"] == "x"
