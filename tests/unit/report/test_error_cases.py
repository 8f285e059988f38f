"""The costliest errors are shown in order, with shortened texts."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from run_folders import simulated_tables
from strategies import turns
from tiewise.config import RunConfig
from tiewise.evaluation.references import evaluate_tables
from tiewise.report.cases import MAX_CHARACTERS, N_CASES, build_errors, show_turns
from tiewise.report.content import Omission, ReportData
from tiewise.runs.folder import RunFolder


@pytest.fixture(scope="module")
def simulated():
    """Return pairs, folds and out-of-fold predictions."""
    return simulated_tables(120)


def report_data(tables, path):
    pairs, folds, oof = tables
    scores = evaluate_tables(oof, folds, n_resamples=9)
    return ReportData(RunFolder(path, RunConfig()), oof, folds, scores, pairs)


def test_cases_have_their_own_texts(simulated, tmp_path):
    """Each case shows the row with its id; the highest loss comes first."""
    cases = build_errors(report_data(simulated, tmp_path)).cases
    assert len(cases) == N_CASES
    losses = [case["log_loss"] for case in cases]
    assert losses == sorted(losses, reverse=True)
    texts = simulated[0].set_index("id")
    for case in cases:
        row = texts.loc[int(case["id"])]
        assert case["responses"][0]["turns"] == show_turns(row["response_a"])
        assert case["responses"][1]["model"] == row["model_b"]
        assert case["label"] == ("A", "B", "tie")[row["label"]]


def test_label_and_most_probable_outcome(simulated, tmp_path):
    """The most probable outcome has the largest probability; the loss is that of the label."""
    for case in build_errors(report_data(simulated, tmp_path)).cases:
        probs, label = case["probs"], case["label"]
        assert probs[case["most_probable"]] == max(probs.values())
        assert np.log(probs[label]) == pytest.approx(-case["log_loss"])
        assert [r["is_chosen"] for r in case["responses"]] == [label == "A", label == "B"]


def test_missing_texts_omit_the_section(simulated, tmp_path):
    """The reason names the flag that helps."""
    omission = build_errors(report_data((None, *simulated[1:]), tmp_path))
    assert isinstance(omission, Omission)
    assert "--data" in omission.reason


def test_few_rows_are_counted(simulated, tmp_path):
    """The text states how many cases there are."""
    pairs, folds, oof = simulated
    section = build_errors(report_data((pairs, folds, oof.head(7)), tmp_path))
    assert section.text.startswith("These 7 of 7 pairs make up 100.0%")


def test_special_rows_have_notes(simulated, tmp_path):
    """Truncation, degenerate responses and a vote for both bad may explain an error."""
    pairs, folds, oof = simulated
    oof = oof.assign(is_degenerate=True, n_truncated=1_234)
    bad = pairs.assign(winner=pd.Series(["tie (bothbad)"] * len(pairs), dtype="string"))
    case = build_errors(report_data((bad, folds, oof), tmp_path)).cases[0]
    expected = {"responses empty or identical", "1,234 tokens truncated", "labelled: both bad"}
    assert expected <= set(case["notes"])


def test_unknown_models_are_blank(simulated, tmp_path):
    """A missing model name or source is not shown as a word."""
    pairs, folds, oof = simulated
    unknown = pd.Series([pd.NA] * len(pairs), dtype="string")
    bare = pairs.assign(model_a=unknown, source=unknown, winner=unknown)
    case = build_errors(report_data((bare, folds, oof), tmp_path)).cases[0]
    assert case["responses"][0]["model"] == ""
    assert not [note for note in case["notes"] if "source" in note]


@given(turns(max_size=10))
def test_turns_keep_their_order(cell):
    """A null turn stays null, and turns that are not shown are counted."""
    shown = show_turns(cell)
    assert [turn is None for turn in shown[:6]] == [turn is None for turn in cell[:6]]
    assert len(shown) == min(len(cell), 7)


@given(st.integers(1, 40), st.integers(1, 3_000))
def test_turns_share_the_limit(n_turns, length):
    """A prompt or response is short, however many turns it has."""
    shown = show_turns(["x" * length] * n_turns)
    assert sum(map(len, shown)) < MAX_CHARACTERS + 7 * 50
