"""An audit counts what is there, names what leaks, and says what it could not say."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strategies import pairs_tables
from tiewise.data.audit import audit_pairs, leak_share
from tiewise.data.folds import fold_by_group, fold_by_position, split
from tiewise.data.schema import build_pairs
from tiewise.data.table import swap_pairs


def pairs_of(rows, **columns):
    """Give a pairs table of (prompt, response A, response B) rows, all won by A."""
    texts = dict(zip(("prompt", "response_a", "response_b"), zip(*rows, strict=True), strict=True))
    given_columns = {"id": range(len(rows)), "label": [0] * len(rows), **texts}
    return build_pairs(given_columns | columns)


ROWS = [
    (["Hi"], ["x"], ["y"]),
    (["hi ", "And?"], ["x", "z"], ["y", "y"]),
    (["Bye"], ["x"], ["x"]),
    (["2+2?"], ["4"], [None]),
    (["3+3?"], [""], [" "]),
    (["4+4?"], ["8"], ["8", "9"]),
]


def test_counts_every_strange_row():
    """Identical, blank, missing, mismatched and repeated rows are each counted."""
    pairs = pairs_of(
        ROWS, id=[1, 1, 2, 3, 4, 5], winner=["model_a"] * 5 + ["both_bad"], label=[0] * 5 + [2]
    )
    pairs.attrs = {"rejected": ["row 9: no"], "repaired": 2}
    found = audit_pairs(pairs, n_splits=2)
    assert found.rows == {
        "read": 6,
        "rejected": 1,
        "repaired": 2,
        "identical answers": 1,
        "degenerate": 2,
        "turn mismatches": 1,
        "several turns": 1,
        "duplicate ids": 2,
    }
    assert found.classes == {"A": 5, "B": 0, "tie": 1, "unlabelled": 0}
    assert found.winners == {"both_bad": 1, "model_a": 5}
    assert found.missing["response_b, a turn"] == 1
    assert (found.missing["response_a, blank"], found.missing["response_b, blank"]) == (1, 2)
    assert found.repeats == {
        "conversations": 5,
        "rows of one conversation": 2,
        "rows of one prompt": 0,
        "rows with a response again": 2,
        "rows with all texts again": 0,
    }
    assert list(found.largest.values()) == [2]
    assert next(iter(found.largest)).endswith(" hi")


def test_leakage_is_zero_by_group_and_not_by_position():
    """Neighbouring rows of one conversation leak by position; by group nothing can."""
    rows = [([f"question {row // 2}"], ["a"], ["b"]) for row in range(40)]
    found = audit_pairs(pairs_of(rows))
    assert found.leakage["position"] == 1.0
    assert found.leakage["id"] == 1.0
    assert found.leakage["group"] == 0.0


def test_near_duplicates_leak_by_group():
    """Prompts that differ in a word are two groups, which folds by group part."""
    story = "Write a story about a lighthouse keeper who finds a map, in about {} hundred words."
    rows = [([story.format(number)], ["a"], ["b"]) for number in range(20)]
    found = audit_pairs(pairs_of(rows))
    assert found.leakage["group"] == 0.0
    assert found.leakage["group, near-duplicates"] == 1.0


@given(
    rows=st.lists(st.tuples(st.sampled_from("pqrst"), st.integers(0, 2)), min_size=5, max_size=40),
)
def test_leak_share_is_what_splitting_shows(rows):
    """The share equals counting, fold by fold, the held-out rows whose group is trained on."""
    groups = np.array([group for group, _ in rows])
    folds = fold_by_position(len(rows), 3)
    n_leaking = 0
    for fold in range(3):
        train_idx, eval_idx = split(folds, fold)
        n_leaking += int(np.isin(groups[eval_idx], groups[train_idx]).sum())
    assert leak_share(groups, folds) == pytest.approx(n_leaking / len(rows))
    if len(set(groups.tolist())) >= 3:
        by_group = fold_by_group(groups, [label for _, label in rows], 3)
        assert leak_share(groups, by_group) == 0.0


@settings(max_examples=15)
@given(pairs=pairs_tables())
def test_any_table_can_be_audited_and_told(pairs):
    """Every pairs table, the empty one too, gives figures that JSON, text and HTML can bear."""
    found = audit_pairs(pairs, n_splits=2)
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False)) == found.to_dict()
    assert all(section in str(found) for section, figures in found.to_dict().items() if figures)
    assert found.rows["read"] == len(pairs) == sum(found.classes.values())
    swapped = audit_pairs(swap_pairs(pairs), n_splits=2)
    assert (swapped.rows, swapped.repeats) == (found.rows, found.repeats)
    assert swapped.leakage.get("position") == found.leakage.get("position")


def test_what_cannot_be_said_is_named(monkeypatch):
    """Text ids, too few groups, no tokens, no library: each section says why it is not there."""
    monkeypatch.setitem(sys.modules, "rensa", None)
    found = audit_pairs(pairs_of(ROWS[:3], id=["a", "b", "c"]), n_splits=2)
    assert set(found.omitted) == {"leakage by id", "near-duplicates", "tokens"}
    assert "pip install 'tiewise[audit]'" in found.omitted["near-duplicates"]
    found = audit_pairs(pairs_of(ROWS[:2]), n_splits=2, token_lengths=np.ones((2, 3)))
    assert "2 folds" in found.omitted["leakage by group"]
    assert "what a cut loses" in found.omitted


def test_html_is_escaped():
    """A prompt that looks like markup is shown, not interpreted."""
    rows = [(["<script>alert(1)</script>"], ["a"], ["b"])] * 2
    shown = audit_pairs(pairs_of(rows), n_splits=2)._repr_html_()
    assert "<script>" not in shown
    assert "&lt;script&gt;" in shown


def test_a_cut_is_described_by_field():
    """Cut from the right, response B is lost; balanced, both responses keep their share."""
    lengths = [[10, 50, 80], [10, 100, 5], [5, 5, 5]]
    found = audit_pairs(pairs_of(ROWS[:3]), n_splits=2, token_lengths=lengths, max_length=60)
    tokens = found.tokens
    assert tokens["rows over max_length"] == 2
    assert tokens["right, rows without response_b"] == 2
    assert tokens["balanced, rows without response_b"] == 0
    assert tokens["right, lost of prompt"] == 0
    assert tokens["right, lost of response_b"] == pytest.approx(1 - 5 / 90)
    assert tokens["row, most"] == 140
    assert tokens["response_a, median"] == 50


@given(
    lengths=st.lists(st.tuples(*[st.integers(0, 500)] * 3), min_size=1, max_size=20),
    max_length=st.integers(0, 1600),
)
def test_no_cut_takes_more_than_there_is(lengths, max_length):
    """Shares lost are shares, and nothing is lost where everything fits."""
    pairs = pairs_of([ROWS[0]] * len(lengths))
    found = audit_pairs(pairs, n_splits=2, token_lengths=lengths, max_length=max_length).tokens
    lost = {name: value for name, value in found.items() if "lost of" in name}
    assert all(0 <= value <= 1 for value in lost.values())
    if found["rows over max_length"] == 0:
        assert set(lost.values()) == {0.0}
