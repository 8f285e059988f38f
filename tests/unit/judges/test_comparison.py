"""Tests of the comparison of runs and of other predictions."""

import pytest

from run_folders import simulated_run, write_run
from tiewise.data.labels import PROB_COLUMNS
from tiewise.errors import RunError
from tiewise.judges.labelled_predictions import (
    LabelledPredictions,
    compare_runs,
    compare_with_reference,
    load_run_predictions,
)
from tiewise.runs.tables import read_folds, read_oof, read_shared


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    """Return a run and predictions of its 200 rows: its own, uniform ones, uniform ones of half."""
    run, pairs = simulated_run(tmp_path_factory.mktemp("artifacts"), 200)
    base = load_run_predictions(run)
    uniform = base.oof.assign(**dict.fromkeys(PROB_COLUMNS, 1 / 3))

    def named(name, oof):
        return LabelledPredictions(
            name, oof, base.folds, lambda: pairs, is_symmetric=True, counts={}
        )

    return run, named("good", base.oof), named("uniform", uniform), named("half", uniform[:100])


def test_several_runs_are_compared(judged):
    """Each is compared on the rows it shares with the reference."""
    _, good, uniform, half = judged
    found = compare_with_reference([uniform, half], good)
    rows = {row.run: row for row in found.overall}
    assert rows["uniform"].log_loss.low > 0
    assert (rows["uniform"].n, rows["half"].n) == (200, 100)
    assert found.left_out["half"]["only_reference"] == 100
    assert str(found).startswith("difference to good")


def test_slices_are_compared_on_request(judged):
    """Slices are computed from the texts of the reference."""
    _, good, uniform, _ = judged
    found = compare_with_reference([uniform], good, by_slice=True)
    assert {"length gap", "outcome", "turns"} <= {row.family for row in found.differences}


def test_two_runs_are_compared(judged, tmp_path):
    """The difference is the first run minus the second; rows without a label are counted."""
    run, *_ = judged
    oof = read_oof(run).astype({"label": "Int64"})
    runs = {}
    for name, probs in (("same", oof[PROB_COLUMNS]), ("uniform", 1 / 3)):
        table = oof.assign(label=oof["label"].mask(oof.index < 50))
        table[PROB_COLUMNS] = probs
        runs[name] = write_run(tmp_path, read_folds(run), table, name=name, is_scored=False)
    same, uniform = runs["same"], runs["uniform"]
    found = compare_runs(uniform, same)
    assert found.overall[0].log_loss.low > 0
    assert found.left_out["uniform"]["unlabelled"] == 50
    assert "50 without a label" in str(found)
    assert [len(table) for table in read_shared([same, uniform])] == [200, 200]
    with pytest.raises(RunError, match="different labels"):
        read_shared([run, same])


def test_repeated_names_are_refused(judged):
    """Several runs need different names, but a single run can be compared with itself."""
    _, good, uniform, _ = judged
    with pytest.raises(RunError, match="name each run once"):
        compare_with_reference([good, uniform], good)
    assert compare_with_reference([good], good).overall[0].log_loss.value == 0


def test_shared_rows_have_one_order(judged, tmp_path):
    """Rows of several runs are joined by id, in the order of the first run."""
    run, *_ = judged
    oof = read_oof(run)
    other = write_run(
        tmp_path, read_folds(run), oof.iloc[::-1].iloc[20:], name="other", is_scored=False
    )
    first, second = read_shared([run, other])
    kept = oof[oof["id"].isin(oof["id"].iloc[:-20])]
    for table in (first, second):
        assert table[["id", *PROB_COLUMNS]].equals(
            kept[["id", *PROB_COLUMNS]].reset_index(drop=True)
        )
