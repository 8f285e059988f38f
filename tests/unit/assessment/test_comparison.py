"""Runs held against one another: two in a sentence, many in a table."""

import json

import pytest

from run_folders import simulated_run
from tiewise.assessment.comparison import compare_runs, compare_with_reference
from tiewise.assessment.judged import Judged, judge_run
from tiewise.errors import RunError
from tiewise.pairs.labels import PROB_COLUMNS
from tiewise.runs.folder import open_run, start_run
from tiewise.runs.tables import read_oof, save_scored


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    """Make three judges of the same 200 rows, one of them ignorant, one of fewer rows."""
    run, pairs = simulated_run(tmp_path_factory.mktemp("artifacts"), 200)
    base = judge_run(run)
    uniform = base.oof.assign(**dict.fromkeys(PROB_COLUMNS, 1 / 3))

    def named(name, oof):
        return Judged(name, oof, base.folds, lambda: pairs, is_symmetric=True, counts={})

    return run, named("good", base.oof), named("ignorant", uniform), named("half", uniform[:100])


def test_a_table_of_many_says_what_pairwise_comparison_says(judged):
    """Each minus the reference; rows that only one has are counted."""
    _, good, ignorant, half = judged
    found = compare_with_reference([ignorant, half], good)
    rows = {row.run: row for row in found.overall}
    gap = rows["ignorant"].log_loss
    assert gap.low > 0
    assert (rows["ignorant"].n, rows["half"].n) == (200, 100)
    assert found.left_out == {"ignorant": (0, 0), "half": (0, 100)}
    text = str(found)
    assert text.startswith("minus good")
    assert "left out: 0 rows only in half, 100 only in good" in text
    value = found.to_dict()
    assert json.loads(json.dumps(value, allow_nan=False)) == value


def test_slices_are_compared_when_asked_for(judged):
    """By the families that the reference's texts allow."""
    _, good, ignorant, _ = judged
    found = compare_with_reference([ignorant], good, is_by_slice=True)
    assert {"length gap", "outcome", "turns"} <= {row.family for row in found.rows}


def test_a_run_equals_itself(judged):
    """The difference is zero, and no winner is named."""
    found = compare_runs(judged[0], judged[0])
    assert (found.log_loss.value, found.n_only_first) == (0, 0)
    assert "no difference shown" in str(found)


def test_rows_that_nobody_judged_are_left_out_and_counted(judged, tmp_path):
    """As rows with soft labels alone are; where nobody judged any, there is nothing to compare."""
    run, *_ = judged
    oof = read_oof(run).astype({"label": "Int64"})
    for n, name in ((50, "some"), (200, "none")):
        other = start_run(tmp_path, run.config, name=name)
        save_scored(other, oof.assign(label=oof["label"].mask(oof.index < n)), {})
    some, none = (open_run(name, tmp_path) for name in ("some", "none"))
    found = compare_runs(some, some)
    assert (found.n, found.n_unlabelled, found.n_only_first) == (150, 50, 0)
    assert "50 without a label" in str(found)
    with pytest.raises(RunError, match="no labelled row"):
        compare_runs(none, none)


def test_what_cannot_be_compared_is_refused(judged):
    """Named twice; another label; no row in common."""
    _, good, ignorant, _ = judged
    with pytest.raises(RunError, match="named twice"):
        compare_with_reference([good], good)
    other = Judged("other", good.oof.assign(label=0), good.folds, lambda: None, True, {})
    with pytest.raises(RunError, match="disagree about labels"):
        compare_with_reference([other], good)
    away = Judged("away", good.oof.assign(id=-1), good.folds, lambda: None, True, {})
    with pytest.raises(RunError, match="no row in common"):
        compare_with_reference([away, ignorant], good)
