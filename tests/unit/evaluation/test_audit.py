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


REPEATED = [
    (["Be brief.\n\nQ1"], ["a"], ["b"]),
    (["q1"], ["b"], ["a", "c"]),
    (["Q1"], ["a"], ["d"]),
    (["Caf\u00e9"], ["e"], ["f"]),
    (["Cafe\u0301"], ["e"], ["f"]),
    (["", "Q2", "Q3"], [None, "", "g"], ["g", "g", "g"]),
    ([" "], ["\u200bh"], ["h"]),
    ([None], [" ", ""], [None, " "]),
]


def test_repeats_are_counted():
    """Each kind of repetition has its own figure; the two columns of responses count as one."""
    pairs = pairs_of(
        [*REPEATED, REPEATED[0]],
        system=["Be brief.", *[None] * 7, "Be brief."],
        winner=["tie (bothbad)", "tie", *["model_b"] * 5, None, None],
        label=[2, 2, 1, 1, 1, 1, 1, None, None],
    )
    found = audit_pairs(pairs, n_splits=2)
    assert found.repeats == {
        "prompt groups": 4,
        "rows with a shared prompt group": 8,
        "rows with a repeated prompt": 4,
        "rows with a repeated response": 7,
        "rows with all texts repeated": 4,
        "rows equal but for code points": 2,
        "rows without a user text": 2,
    }
    assert (found.rows["system text"], found.rows["several turns"]) == (2, 1)
    assert (found.rows["turn mismatches"], found.rows["identical responses"]) == (2, 0)
    assert (found.rows["degenerate"], found.rows["duplicate ids"]) == (1, 0)
    assert found.classes == {"A": 0, "B": 5, "tie": 2, "unlabelled": 2}
    assert found.winners == {"model_b": 5, "tie": 1, "tie (bothbad)": 1}
    assert found.missing == {
        "prompt, missing turn": 1,
        "prompt, blank": 2,
        "response_a, missing turn": 1,
        "response_a, blank": 1,
        "response_b, missing turn": 1,
        "response_b, blank": 1,
    }


def test_largest_groups_come_first():
    """Five groups are named, by size and then by name; a group of one row is none of them."""
    sizes = {"g": 2, "f": 3, "e": 2, "d": 2, "c": 2, "b": 4, "a": 1}
    rows = [
        ([f"{name}{'x' * 60}"], ["y"], ["z"]) for name, size in sizes.items() for _ in range(size)
    ]
    groups = [name for name, size in sizes.items() for _ in range(size)]
    found = audit_pairs(pairs_of(rows, group=groups), n_splits=2).largest
    assert list(found.items()) == [
        (f"{name} {name}{'x' * 47}", sizes[name]) for name in ("b", "f", "c", "d", "e")
    ]
    alone = audit_pairs(pairs_of(rows[:2], group=["p", "q"]), n_splits=2)
    assert alone.largest == {}


def test_lengths_are_quantiles():
    """The median, the 90th percentile and the maximum are lengths that occur."""
    rows = [(["x" * n], ["y"], ["zz"]) for n in range(1, 21)]
    found = audit_pairs(pairs_of(rows), n_splits=2).characters
    assert [found[f"prompt, {level}"] for level in ("median", "90th percentile", "maximum")] == [
        11,
        19,
        20,
    ]
    assert (found["response_b, median"], found["row, maximum"]) == (2, 23)


def test_lost_response_had_tokens():
    """Only a response that had tokens can be lost; what a rule cuts is a share of the column."""
    lengths = [[2, 2, 0], [2, 2, 1], [4, 0, 3]]
    kept = {"rule": [[2, 2, 0], [2, 2, 0], [1, 0, 3]]}
    pairs = pairs_of([(["Hi"], ["x"], ["y"])] * 3)
    found = audit_pairs(pairs, n_splits=2, token_lengths=lengths, kept_tokens=kept)
    assert found.tokens["rule, rows without response_b"] == 1
    assert found.tokens["rule, truncated rows"] == 2
    assert found.tokens["rule, share cut of prompt"] == pytest.approx(3 / 8)
    assert found.tokens["rule, share cut of response_a"] == 0
    assert "truncation" not in found.omitted


def test_seed_reaches_the_folds():
    """Leaks of near-duplicates depend on seed and number of folds; shares have three digits."""
    story = "Write a story about a lighthouse keeper who finds a map, in about {} hundred words."
    texts = [story.format(n) if n < 2 else f"question {n}" for n in range(13)]
    pairs = pairs_of([([text], ["a"], ["b"]) for text in texts])
    shares = [
        audit_pairs(pairs, n_splits=n_splits, seed=seed).leakage["group, near-duplicates"]
        for n_splits, seed in ((2, 0), (2, 1), (3, 0), (3, 1))
    ]
    assert shares == pytest.approx([0, 2 / 13, 2 / 13, 0])
    text = str(audit_pairs(pairs, n_splits=2, seed=0))
    assert "  group                   0.000\n" in text


def test_unread_columns_are_named():
    """The columns that were not read are listed, in their order."""
    pairs = pairs_of(ROWS)
    assert "columns not read" not in audit_pairs(pairs, n_splits=2).omitted
    pairs.attrs["unread"] = ["tone", "margin"]
    assert audit_pairs(pairs, n_splits=2).omitted["columns not read"] == "tone, margin"
