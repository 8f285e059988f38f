"""The findings of an audit appear when their reason does, worst first."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from strategies import pairs_tables
from tiewise.data.pairs import build_pairs
from tiewise.evaluation.audit import audit_pairs, leak_share, random_leak_share
from tiewise.evaluation.findings import SEVERITIES, share_of
from tiewise.evaluation.intervals import Interval

N = 120


def sound(**columns):
    """Return pairs without a problem: own prompts and texts, all classes, responses alike."""
    numbers = [f"{row * 7919 % 997} {row * 104729 % 991}" for row in range(N)]
    texts = {
        "prompt": [
            [f"what is {number} in the {number} of {row}"] for row, number in enumerate(numbers)
        ],
        "response_a": [[f"it is {row:03}"] for row in range(N)],
        "response_b": [[f"it is {row + N:03}"] for row in range(N)],
    }
    return build_pairs({"id": range(N), "label": [0, 1, 2] * (N // 3), **texts} | columns)


def findings(pairs, **options):
    return audit_pairs(pairs, **options).findings


def test_sound_data_have_no_findings():
    """Nothing is found, and the audit says so."""
    found = audit_pairs(sound())
    assert found.findings == []
    assert str(found).splitlines()[:2] == ["findings", "  none"]


def longer_wins(row):
    """Return a response that is longer where A wins, shorter where B wins."""
    return [f"it is {row:03}" + " so to say" * (row % 3 == 0)]


def with_attrs(**attrs):
    pairs = sound()
    pairs.attrs = attrs
    return pairs


PROBLEMS = {
    "leakage": (
        lambda: sound(prompt=[[f"what is {row // 2}"] for row in range(N)]),
        "medium",
        "would share a prompt with training rows under a random split: use group folds",
    ),
    "near-duplicates": (
        lambda: sound(
            prompt=[
                [f"Write a story about a keeper of lighthouse {row}, please"] for row in range(N)
            ]
        ),
        "medium",
        "have a nearly equal prompt in the training rows",
    ),
    "duplicate ids": (
        lambda: sound(id=[0, 0, *range(2, N)]),
        "high",
        "2 rows have an id of another",
    ),
    "few prompts": (lambda: sound().head(20), "medium", "There are 20 different prompts"),
    "one side": (lambda: sound(label=[0, 2] * (N // 2)), "high", "Response B never wins"),
    "no ties": (lambda: sound(label=[0, 1] * (N // 2)), "medium", "There are no ties"),
    "A wins": (
        lambda: sound(label=[0, 0, 0, 1, 0, 2] * (N // 6)),
        "medium",
        "Response A wins 80.0% [",
    ),
    "A nearly always wins": (
        lambda: sound(label=[0] * (N - 2) + [1, 2]),
        "high",
        "check that the order of the responses was random",
    ),
    "length": (
        lambda: sound(response_a=[longer_wins(row) for row in range(N)]),
        "medium",
        "The longer response wins 100.0% [",
    ),
    "copies": (
        lambda: sound(prompt=[["one"]] * N, response_a=[["two"]] * N, response_b=[["six"]] * N),
        "medium",
        "120 rows have all texts of another row",
    ),
    "identical": (
        lambda: sound(response_b=[[f"it is {row:03}"] for row in range(N)]),
        "medium",
        "80 rows have two identical responses and yet a winner",
    ),
    "blank": (
        lambda: sound(response_a=[[" "], *sound()["response_a"][1:]]),
        "low",
        "1 row has a blank",
    ),
    "repaired": (lambda: with_attrs(repaired=2), "low", "2 rows have a lone surrogate"),
    "rejected": (lambda: with_attrs(rejected=["row 9: no"] * 4), "medium", "The first: row 9: no."),
    "unread": (lambda: with_attrs(unread=["mood"]), "low", "not read: mood"),
    "language": (
        lambda: sound(prompt=[[f"quaeso {row} {row * 7919 % 997}"] for row in range(N)]),
        "low",
        "The language of 100.0% of the prompts is not known",
    ),
}


@pytest.mark.parametrize("name", PROBLEMS)
def test_problem_is_found(name):
    """Data with one problem have its finding, with its severity."""
    make, severity, text = PROBLEMS[name]
    found = [finding for finding in findings(make()) if text in finding.text]
    assert [finding.severity for finding in found] == [severity]


def test_truncated_rows_are_found():
    """With token lengths the share of the rows that are cut is a finding."""
    lengths = np.full((N, 3), 10)
    kept = {"balanced": np.where(np.arange(N)[:, None] < 30, 5, lengths)}
    texts = [each.text for each in findings(sound(), token_lengths=lengths, kept_tokens=kept)]
    assert [text for text in texts if text.startswith("25.0% of the rows have more tokens")]


def test_unlabelled_data_are_not_judged_by_winners():
    """Without winners there is no finding about classes, sides, lengths or folds."""
    pairs = sound(label=[None] * N, prompt=[[f"what is {row // 2}"] for row in range(N)])
    assert not [each for each in findings(pairs) if "win" in each.text or "split" in each.text]


@given(pairs=pairs_tables())
def test_worst_findings_are_first(pairs):
    """Any table has findings in the order of their severity; the text and JSON have them all."""
    found = audit_pairs(pairs, n_splits=2)
    places = [SEVERITIES.index(finding.severity) for finding in found.findings]
    assert places == sorted(places)
    assert found.to_dict()["findings"] == [vars(finding) for finding in found.findings]
    shown = " ".join(str(found).split())
    assert all(" ".join(finding.text.split()) in shown for finding in found.findings)
    assert bool(found.findings) or "findings none" in shown


@given(groups=st.lists(st.sampled_from("pqr"), min_size=1, max_size=5), n_splits=st.integers(2, 3))
def test_random_leakage_is_expectation(groups, n_splits):
    """The share equals the mean over all assignments of rows to folds."""
    assignments = itertools.product(range(n_splits), repeat=len(groups))
    mean = np.mean([leak_share(groups, folds) for folds in assignments])
    assert random_leak_share(groups, n_splits) == pytest.approx(mean)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 9)), min_size=1, max_size=30))
def test_share_has_interval_in_unit(rows):
    """The value is the share of all rows; the ends are in [0, 1] or not defined."""
    is_counted, groups = zip(*rows, strict=True)
    found = share_of(is_counted, groups)
    assert isinstance(found, Interval)
    assert found.value == pytest.approx(np.mean(is_counted))
    if len(set(groups)) > 1:
        assert 0 <= found.low <= found.value <= found.high <= 1
