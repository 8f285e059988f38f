"""Costly errors are shown with their texts, short and in order."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from run_folders import simulated_tables
from strategies import turns
from tiewise.config.run_config import RunConfig
from tiewise.evaluation.references import evaluate_tables
from tiewise.report.cases import MAX_CHARACTERS, N_CASES, build_cases, show_turns
from tiewise.report.sections import Omission, ReportData
from tiewise.runs.folder import RunFolder


@pytest.fixture(scope="module")
def tables():
    return simulated_tables(120)


def material(tables, path, **changed):
    pairs, folds, oof = tables
    scores = evaluate_tables(oof, folds, n_resamples=9)
    values = {
        "run": RunFolder(path, RunConfig()), "oof": oof, "folds": folds, "scores": scores,
        "pairs": pairs, "config": {}, "environment": {}, "data": {}, "identities": {},
    }  # fmt: skip
    return ReportData(**values | changed)


def test_the_worst_come_first_with_their_own_texts(tables, tmp_path):
    """Each case shows the row that its id names."""
    section = build_cases(material(tables, tmp_path))
    assert len(section.cases) == N_CASES
    losses = [case.log_loss for case in section.cases]
    assert losses == sorted(losses, reverse=True)
    texts = tables[0].set_index("id")
    for case in section.cases:
        row = texts.loc[int(case.id)]
        assert case.responses[0].turns == show_turns(row["response_a"])
        assert case.responses[1].model == row["model_b"]
        assert case.chosen == ("A", "B", "tie")[row["label"]]


def test_what_was_chosen_and_what_was_likeliest_are_both_named(tables, tmp_path):
    """An error is their difference; the share of the likeliest is the largest."""
    for case in build_cases(material(tables, tmp_path)).cases:
        shares = dict(case.shares)
        assert shares[case.likeliest] == max(shares.values())
        assert np.log(shares[case.chosen]) == pytest.approx(-case.log_loss)
        assert [r.is_chosen for r in case.responses] == [case.chosen == "A", case.chosen == "B"]


def test_without_texts_the_section_is_left_out_with_a_reason(tables, tmp_path):
    """It says what would mend it."""
    left_out = build_cases(material(tables, tmp_path, pairs=None))
    assert isinstance(left_out, Omission)
    assert "--data" in left_out.reason


def test_fewer_rows_than_twenty_are_counted(tables, tmp_path):
    """The title says how many there are."""
    pairs, folds, oof = tables
    few = material((pairs, folds, oof.head(7)), tmp_path)
    assert build_cases(few).title == "The 7 most costly errors"


def test_what_happened_to_a_row_is_noted(tables, tmp_path):
    """Cut, degenerate, both bad: it may explain the error."""
    pairs, folds, oof = tables
    noted = oof.assign(is_degenerate=True, n_truncated=1_234)
    bad = pairs.assign(winner=pd.Series(["tie (bothbad)"] * len(pairs), dtype="string"))
    case = build_cases(material((bad, folds, noted), tmp_path)).cases[0]
    assert {"responses empty or identical", "1,234 tokens cut", "voted: both bad"} <= set(
        case.notes
    )


def test_unknown_models_and_sources_are_left_blank(tables, tmp_path):
    """Missing is not the word for it."""
    pairs, folds, oof = tables
    unknown = pd.Series([pd.NA] * len(pairs), dtype="string")
    bare = pairs.assign(model_a=unknown, source=unknown, winner=unknown)
    case = build_cases(material((bare, folds, oof), tmp_path)).cases[0]
    assert case.responses[0].model == ""
    assert not [note for note in case.notes if "source" in note]


@given(turns(max_size=10))
def test_turns_keep_their_order_and_missing_ones_their_place(cell):
    """A null is a null, and more turns than are shown are counted."""
    shown = show_turns(cell)
    assert [turn is None for turn in shown[:6]] == [turn is None for turn in cell[:6]]
    assert len(shown) == min(len(cell), 7)


@given(st.integers(1, 40), st.integers(1, 3_000))
def test_a_field_is_short_however_many_turns_it_has(n_turns, length):
    """Each turn gets its share of what is shown."""
    shown = show_turns(["x" * length] * n_turns)
    assert sum(map(len, shown)) < MAX_CHARACTERS + 7 * 50
