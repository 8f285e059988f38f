"""Pairs tables are complete and checked, and keep their content when A and B are swapped."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal

from strategies import clean_text, pairs_columns, pairs_tables, turns
from tiewise.data.folds import derive_groups
from tiewise.data.labels import WINNER_WORDS, label_from_winner, swap_labels
from tiewise.data.pairs import (
    COLUMNS,
    as_ids,
    build_pairs,
    check_pairs,
    is_degenerate,
    pair_digests,
    row_digests,
    swap_pairs,
    text_lengths,
)
from tiewise.errors import PairsError


def one_pair(**columns):
    given_columns = {
        "id": [7],
        "prompt": [["2+2?"]],
        "response_a": [["4"]],
        "response_b": [["5"]],
        "winner": ["model_a"],
    }
    return build_pairs(given_columns | columns)


@given(columns=pairs_columns())
def test_built_table_keeps_its_columns(columns):
    """A built table is valid and has the given values; empty words are missing values."""
    pairs = build_pairs(columns)
    check_pairs(pairs)
    assert tuple(pairs.columns[: len(COLUMNS)]) == COLUMNS
    assert list(map(str, pairs["id"])) == list(map(str, columns.pop("id")))
    for name, values in columns.items():
        expected = [pd.NA if value is None or value == "" else value for value in values]
        for kept, value in zip(pairs[name], expected, strict=True):
            assert kept is pd.NA if value is pd.NA else kept == value
    words = columns.get("winner", [None] * len(pairs))
    labels = [None if word is None else label_from_winner(word) for word in words]
    assert [None if pd.isna(label) else label for label in pairs["label"]] == labels
    assert pairs["group"].tolist() == derive_groups(pairs).tolist()
    assert pairs["label"].dtype == "Int8"


@given(labels=st.lists(st.sampled_from([0, 1, 2, None]), max_size=5))
def test_winner_is_derived_from_label(labels):
    """A label without a winner gives the plain word; a missing label gives none."""
    texts = [[""]] * len(labels)
    pairs = build_pairs(
        {
            "id": range(len(labels)),
            "prompt": texts,
            "response_a": texts,
            "response_b": texts,
            "label": labels,
        }
    )
    words = {0: "model_a", 1: "model_b", 2: "tie", None: None}
    assert [None if pd.isna(word) else word for word in pairs["winner"]] == [
        words[label] for label in labels
    ]


@given(pairs=pairs_tables())
def test_swapping_twice_restores_the_table(pairs):
    """Swapping twice restores values and types; the swapped table is valid."""
    swapped = swap_pairs(pairs)
    check_pairs(swapped)
    assert_frame_equal(swap_pairs(swapped), pairs)


@given(pairs=pairs_tables())
def test_swapping_exchanges_both_sides(pairs):
    """Responses, models, soft labels, label and winner are exchanged; other columns are not."""
    swapped = swap_pairs(pairs)
    exchanged = {"response_a", "response_b", "model_a", "model_b", "prob_a", "prob_b"}
    for name in pairs.columns.drop(["label", "winner"]):
        other = {"a": "b", "b": "a"}[name[-1]] if name in exchanged else ""
        origin = name[:-1] + other if other else name
        pd.testing.assert_series_equal(swapped[name], pairs[origin], check_names=False)
    is_known = pairs["label"].notna().to_numpy()
    known = pairs["label"][is_known].to_numpy(dtype=np.int8)
    assert swapped["label"][is_known].tolist() == swap_labels(known).tolist()
    assert swapped["label"].isna().tolist() == (~is_known).tolist()


@given(pairs=pairs_tables())
def test_symmetric_values_survive_swapping(pairs):
    """Degenerate rows, lengths and groups are the same when A and B are swapped."""
    swapped = swap_pairs(pairs)
    assert is_degenerate(swapped).tolist() == is_degenerate(pairs).tolist()
    lengths, swapped_lengths = text_lengths(pairs), text_lengths(swapped)
    assert swapped_lengths["n_chars_a"].tolist() == lengths["n_chars_b"].tolist()
    assert swapped_lengths["n_chars_prompt"].tolist() == lengths["n_chars_prompt"].tolist()
    assert derive_groups(swapped).tolist() == derive_groups(pairs).tolist()


@pytest.mark.parametrize("winner", WINNER_WORDS)
def test_swapping_exchanges_winners(winner):
    """A win becomes a win of the other, in the word and in the label; ties keep their word."""
    swapped = swap_pairs(one_pair(winner=[winner], label=[WINNER_WORDS[winner]]))
    expected = {"model_a": ("model_b", 1), "model_b": ("model_a", 0)}.get(winner, (winner, 2))
    assert (swapped["winner"][0], swapped["label"][0]) == expected


def test_swapping_copies_the_table():
    """Swapping does not change its argument and keeps its attributes."""
    pairs = one_pair()
    pairs.attrs["rejected"] = []
    swapped = swap_pairs(pairs)
    assert pairs["label"].tolist() == [0]
    assert swapped.attrs == pairs.attrs


@given(response_a=turns(), response_b=turns())
def test_equal_responses_are_degenerate(response_a, response_b):
    """A row is degenerate when both responses are equal or both are blank."""
    pairs = one_pair(response_a=[response_a], response_b=[response_b])
    texts = [[turn or "" for turn in response] for response in (response_a, response_b)]
    is_blank = not "".join(texts[0] + texts[1]).strip()
    assert is_degenerate(pairs).tolist() == [is_blank or texts[0] == texts[1]]


@pytest.mark.parametrize("blank", [[], [None], [""], [" \n", None]])
def test_one_blank_response_is_valid(blank):
    """Two blank responses are degenerate; one blank response is not."""
    pairs = one_pair(response_a=[blank], response_b=[[]])
    assert is_degenerate(pairs).tolist() == [True]
    assert is_degenerate(one_pair(response_a=[blank])).tolist() == [False]


@given(rows=st.lists(st.tuples(turns(2), turns(2), turns(2)), max_size=6))
def test_digests_identify_the_texts(rows):
    """Digests are equal exactly when the texts are, also when joined texts are equal."""
    columns = {"prompt": [], "response_a": [], "response_b": []}
    for row in [*rows, *rows]:
        for name, cell in zip(columns, row, strict=True):
            columns[name].append(cell)
    digests = row_digests(pd.DataFrame(columns))
    assert digests[: len(rows)].tolist() == digests[len(rows) :].tolist()
    assert len(set(digests.tolist())) == len({repr(row) for row in rows})


def test_digests_depend_on_turns():
    """Turn boundaries, columns and missing turns change the digest."""
    texts = [["ab"], ["a", "b"], ["a", None, "b"], ["a", "", "b"], ["ab", None]]
    frames = [one_pair(prompt=[text]) for text in texts] + [one_pair(response_a=[["ab"]])]
    assert len({row_digests(frame)[0] for frame in frames}) == len(frames)


@given(pairs=pairs_tables())
def test_lengths_count_characters(pairs):
    """Lengths are code points of all turns, with the index of the table."""
    pairs.index = pairs.index + 10
    lengths = text_lengths(pairs)
    assert lengths.index.equals(pairs.index)
    for name, field in [("n_chars_prompt", "prompt"), ("n_chars_b", "response_b")]:
        assert lengths[name].tolist() == [
            len("".join(turn or "" for turn in cell)) for cell in pairs[field]
        ]


@given(values=st.lists(st.integers(-(10**18) + 1, 10**18 - 1)))
def test_integer_ids_become_integers(values):
    """Integers and integers as text give the same column."""
    assert as_ids(values).tolist() == values
    assert as_ids(map(str, values)).tolist() == values
    assert as_ids(values).dtype == np.int64


@given(values=st.lists(clean_text(4) | st.none(), min_size=1))
def test_other_ids_remain_text(values):
    """One other id makes all ids text, unchanged; leading zeros are kept."""
    ids = as_ids([*values, "007"])
    assert [None if pd.isna(value) else value for value in ids] == [*values, "007"]


@pytest.mark.parametrize(
    ("columns", "match"),
    [
        ({"prompt": ["2+2?"]}, "prompt must be a list"),
        ({"prompt": [[1]]}, "prompt must be a list"),
        ({"prompt": [("a",)]}, "prompt must be a list"),
        ({"response_a": [["\ud800"]]}, "response_a must be a list"),
        ({"response_b": [None]}, "response_b must be a list"),
        ({"id": [None]}, "id is missing"),
        ({"winner": ["A"]}, "winner must be one of model_a"),
        ({"winner": ["model_a"], "label": [1]}, "contradict"),
        ({"label": [3], "winner": [None]}, "label must be 0, 1 or 2"),
        ({"prob_a": [0.5], "prob_b": [0.5]}, "soft labels are prob_a, prob_b; expected"),
        ({"prob_a": [0.5], "prob_b": [0.4], "prob_tie": [0.2]}, "sum 1"),
        ({"prob_a": [0.5], "prob_b": [0.3], "prob_tie": [0.20001]}, "sum 1"),
        ({"prob_a": [1.5], "prob_b": [-0.5], "prob_tie": [0.0]}, "sum 1"),
        ({"prob_a": [float("nan")], "prob_b": [0.5], "prob_tie": [0.5]}, "sum 1"),
        ({"weight": [-1]}, "weight must be finite"),
        ({"weight": [float("inf")]}, "weight must be finite"),
        ({"model_a": ["x", "y"]}, "equal lengths"),
    ],
)
def test_invalid_pairs_are_refused(columns, match):
    """Each of these columns is invalid, and the message says why."""
    with pytest.raises(PairsError, match=match):
        one_pair(**columns)


def test_messages_name_three_rows():
    """A message names the first three rows and counts the others."""
    pairs = pd.concat([one_pair(id=[row]) for row in range(20)], ignore_index=True)
    pairs["winner"] = "unknown"
    with pytest.raises(
        PairsError, match=r"row 0 \(id=0\), .* row 2 \(id=2\), and 17 more rows: winner"
    ):
        check_pairs(pairs)


def test_other_column_orders_are_refused():
    """The fixed columns are required, first and in order."""
    pairs = one_pair()
    for broken in (pairs.drop(columns="group"), pairs[["label", *pairs.columns.drop("label")]]):
        with pytest.raises(PairsError, match=r"expected id, prompt, .* in this order"):
            check_pairs(broken)
    with pytest.raises(PairsError, match="missing: response_b"):
        build_pairs({"id": [1], "prompt": [[""]], "response_a": [[""]]})


@given(pairs=pairs_tables())
def test_swapped_pairs_share_a_digest(pairs):
    """A pair has one digest in both orders; the digests of its rows differ."""
    swapped = swap_pairs(pairs)
    assert pair_digests(swapped).tolist() == pair_digests(pairs).tolist()
    differs = [a != b for a, b in zip(pairs["response_a"], pairs["response_b"], strict=True)]
    assert (row_digests(swapped) != row_digests(pairs)).tolist() == differs


def test_order_of_a_pair_is_not_in_its_digest():
    """One pair in both orders has one digest, and two pairs have two."""
    one = one_pair(response_a=[["x"]], response_b=[["y"]])
    other = one_pair(response_a=[["x"]], response_b=[["z"]])
    digests = [pair_digests(table)[0] for table in (one, swap_pairs(one), other)]
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.parametrize(("rest", "is_valid"), [(9e-7, True), (-9e-7, True), (2e-6, False)])
def test_soft_labels_sum_to_one_closely(rest, is_valid):
    """The sum may differ from 1 by less than a millionth; 0 is a probability and a weight."""
    soft = {"prob_a": [0.0], "prob_b": [0.5], "prob_tie": [0.5 + rest], "weight": [0.0]}
    if is_valid:
        assert one_pair(**soft)["weight"].tolist() == [0.0]
    else:
        with pytest.raises(PairsError, match="sum 1"):
            one_pair(**soft)


def test_groups_and_systems_are_checked():
    """A table without a group in a row, or whose prompt lacks its system text, is refused."""
    pairs = one_pair(prompt=[["Be brief.\n\nHi"]], system=["Be brief."])
    check_pairs(pairs)
    with pytest.raises(PairsError, match="group is missing"):
        check_pairs(pairs.assign(group=pd.array([None], dtype="string")))
    for system in ("Be", "Hi", "Be brief.\n"):
        with pytest.raises(PairsError, match="system must begin the prompt"):
            one_pair(prompt=[["Be brief.\n\nHi"]], system=[system])
    with pytest.raises(PairsError, match="system must begin the prompt"):
        one_pair(prompt=[[]], system=["Be brief."])


def test_empty_words_are_missing():
    """An empty name is none, and a winner without a label gives it, and the reverse."""
    pairs = one_pair(model_a=[""], language=["en"], winner=["tie"])
    assert pairs["model_a"].isna().all()
    assert pairs.loc[0, ["language", "label"]].tolist() == ["en", 2]
    assert one_pair(winner=[""], label=[1])["winner"].tolist() == ["model_b"]


def test_large_integers_stay_text():
    """Integers of up to 18 digits are numbers, longer ones text, and missing ids make all text."""
    assert as_ids(["9" * 18, "-1", "0"]).tolist() == [10**18 - 1, -1, 0]
    for other in ("1" * 19, "-0", "+1", "1.0", " 1"):
        assert as_ids([other, "2"]).tolist() == [other, "2"]
    assert as_ids([1, None]).isna().tolist() == [False, True]


def test_digests_of_composed_texts():
    """Invisible characters and the code points of accents count only where texts are compared."""
    one, other = one_pair(prompt=[["Caf\u00e9"]]), one_pair(prompt=[["Cafe\u0301\u200b"]])
    assert row_digests(one) != row_digests(other)
    assert row_digests(one, composed=True) == row_digests(other, composed=True)
    assert pair_digests(one) == pair_digests(other)
    assert row_digests(one_pair(prompt=[[None]])) != row_digests(one_pair(prompt=[[""]]))
    assert len(row_digests(one)[0]) == 32
