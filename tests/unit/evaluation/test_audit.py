"""The audit counts rows, measures leakage and finds near-duplicate prompts."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strategies import pairs_tables
from tiewise.data.folds import fold_by_group, fold_by_position, split
from tiewise.data.pairs import TEXT_COLUMNS, build_pairs, swap_pairs
from tiewise.evaluation.audit import audit_pairs, leak_share
from tiewise.tokens.template import fill_in_order, share_budget


def pairs_of(rows, **columns):
    """Return a pairs table of (prompt, response A, response B) rows; A wins all of them."""
    texts = {name: [row[i] for row in rows] for i, name in enumerate(TEXT_COLUMNS)}
    given_columns = {"id": range(len(rows)), "label": [0] * len(rows), **texts}
    return build_pairs(given_columns | columns)


def audit_lengths(lengths, max_length):
    """Return the audit's figures of rows with these token lengths under both truncation rules."""
    kept = {
        "right": fill_in_order(lengths, max_length),
        "balanced": share_budget(lengths, max_length),
    }
    pairs = pairs_of([(["Hi"], ["x"], ["y"])] * len(lengths))
    return audit_pairs(pairs, n_splits=2, token_lengths=lengths, kept_tokens=kept).tokens


ROWS = [
    (["Hi"], ["x"], ["y"]),
    (["hi ", "And?"], ["x", "z"], ["y", "y"]),
    (["Bye"], ["x"], ["x"]),
    (["2+2?"], ["4"], [None]),
    (["3+3?"], [""], [" "]),
    (["4+4?"], ["8"], ["8", "9"]),
]


def test_unusual_rows_are_counted():
    """Rows with identical, blank, missing, mismatched and repeated texts are counted."""
    pairs = pairs_of(
        ROWS, id=[1, 1, 2, 3, 4, 5], winner=["model_a"] * 5 + ["both_bad"], label=[0] * 5 + [2]
    )
    pairs.attrs = {"rejected": ["row 9: no"], "repaired": 2}
    found = audit_pairs(pairs, n_splits=2)
    assert found.rows == {
        "read": 6,
        "rejected": 1,
        "repaired": 2,
        "identical responses": 1,
        "degenerate": 2,
        "turn mismatches": 1,
        "several turns": 1,
        "system text": 0,
        "duplicate ids": 2,
    }
    assert found.classes == {"A": 5, "B": 0, "tie": 1, "unlabelled": 0}
    assert found.winners == {"both_bad": 1, "model_a": 5}
    assert found.missing["response_b, missing turn"] == 1
    assert (found.missing["response_a, blank"], found.missing["response_b, blank"]) == (1, 2)
    assert found.repeats == {
        "prompt groups": 5,
        "rows with a shared prompt group": 2,
        "rows with a repeated prompt": 0,
        "rows with a repeated response": 2,
        "rows with all texts repeated": 0,
        "rows equal but for code points": 0,
        "rows without a user text": 0,
    }
    assert list(found.largest.values()) == [2]
    assert next(iter(found.largest)).endswith(" hi")


def test_only_folds_by_group_avoid_leakage():
    """Neighbouring rows of one prompt group leak by position and id, and not by group."""
    rows = [([f"question {row // 2}"], ["a"], ["b"]) for row in range(40)]
    found = audit_pairs(pairs_of(rows))
    assert found.leakage["position"] == 1.0
    assert found.leakage["id"] == 1.0
    assert found.leakage["group"] == 0.0


def test_near_duplicates_leak():
    """Prompts that differ in one word are different groups and may be in different folds."""
    story = "Write a story about a lighthouse keeper who finds a map, in about {} hundred words."
    rows = [([story.format(number)], ["a"], ["b"]) for number in range(20)]
    found = audit_pairs(pairs_of(rows))
    assert found.leakage["group"] == 0.0
    assert found.leakage["group, near-duplicates"] == 1.0


@given(
    rows=st.lists(st.tuples(st.sampled_from("pqrst"), st.integers(0, 2)), min_size=5, max_size=40),
)
def test_leak_share_matches_counting(rows):
    """The share equals a count, fold by fold, of held-out rows with their group in training."""
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
def test_any_table_can_be_audited(pairs):
    """The audit of any table, also an empty one, converts to JSON and text."""
    found = audit_pairs(pairs, n_splits=2)
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False)) == found.to_dict()
    assert all(section in str(found) for section, figures in found.to_dict().items() if figures)
    assert found.rows["read"] == len(pairs) == sum(found.classes.values())
    swapped = audit_pairs(swap_pairs(pairs), n_splits=2)
    assert (swapped.rows, swapped.repeats) == (found.rows, found.repeats)
    assert swapped.leakage.get("position") == found.leakage.get("position")


def test_omitted_figures_are_named(monkeypatch):
    """Text ids, few groups, missing tokens and a missing library omit figures, with a reason."""
    monkeypatch.setitem(sys.modules, "rensa", None)
    found = audit_pairs(pairs_of(ROWS[:3], id=["a", "b", "c"]), n_splits=2)
    assert set(found.omitted) == {"leakage by id", "near-duplicates", "tokens"}
    assert "pip install 'tiewise[audit]'" in found.omitted["near-duplicates"]
    found = audit_pairs(pairs_of(ROWS[:2]), n_splits=2, token_lengths=np.ones((2, 3)))
    assert "expected at least 2" in found.omitted["leakage by group"]
    assert "truncation" in found.omitted


def test_html_is_escaped():
    """Markup in a prompt is shown as text."""
    rows = [(["<script>alert(1)</script>"], ["a"], ["b"])] * 2
    shown = audit_pairs(pairs_of(rows), n_splits=2)._repr_html_()
    assert "<script>" not in shown
    assert "&lt;script&gt;" in shown


def test_truncation_is_reported_by_column():
    """Truncation from the right loses response B; balanced truncation keeps all three texts."""
    lengths = [[10, 50, 80], [10, 100, 5], [5, 5, 5]]
    tokens = audit_lengths(lengths, 60)
    assert tokens["right, truncated rows"] == tokens["balanced, truncated rows"] == 2
    assert tokens["right, rows without response_b"] == 2
    assert tokens["balanced, rows without response_b"] == 0
    assert tokens["right, share cut of prompt"] == 0
    assert tokens["right, share cut of response_b"] == pytest.approx(1 - 5 / 90)
    assert tokens["row, maximum"] == 140
    assert tokens["response_a, median"] == 50


@given(
    lengths=st.lists(st.tuples(*[st.integers(0, 500)] * 3), min_size=1, max_size=20),
    max_length=st.integers(0, 1600),
)
def test_cut_tokens_are_shares(lengths, max_length):
    """Shares cut are in [0, 1], and 0 when every row fits."""
    found = audit_lengths(lengths, max_length)
    shares = {value for name, value in found.items() if "share cut of" in name}
    n_over = sum(sum(row) > max_length for row in lengths)
    assert found["right, truncated rows"] == found["balanced, truncated rows"] == n_over
    assert all(0 <= share <= 1 for share in shares)
    assert (shares == {0.0}) == (n_over == 0)
