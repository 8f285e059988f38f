"""Tests of the tables of a run folder."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiewise.config import load_preset
from tiewise.data.labels import LOGIT_COLUMNS, PROB_COLUMNS
from tiewise.errors import RunError
from tiewise.files import digest_file
from tiewise.runs.fold_lock import check_fingerprint
from tiewise.runs.folder import read_object, start_run
from tiewise.runs.tables import (
    check_predictions,
    digest_predictions,
    drop_ties,
    is_joined,
    join_folds,
    pairs_digest,
    read_data,
    read_fold_oof,
    read_folds,
    read_oof,
    read_rows,
    save_data,
    save_folds,
    save_scored,
    table_logits,
)

TINY = load_preset("tiny")
DATA = {"digest": "one", "sources": [], "counts": {}}


@pytest.fixture
def run(tmp_path):
    """Create a run without started folds."""
    return start_run(tmp_path, TINY, name="r")


@pytest.fixture
def started(run):
    """Start fold 0 of the run."""
    check_fingerprint(run.fold(0), {"fold": 0}, resume=False)
    return run


def finish(run, fold):
    """Finish a fold that held out one row."""
    save_scored(run.fold(fold), pd.DataFrame({"id": [fold], "fold": fold, "prob_a": [1.0]}), {})


def test_folds_do_not_change(started):
    """The same folds may be saved again; other folds are refused."""
    table = pd.DataFrame({"id": [1, 2], "fold": [0, 1]})
    save_folds(started, table)
    save_folds(started, table)
    with pytest.raises(RunError, match="other rows or folds"):
        save_folds(started, table.assign(fold=[1, 0]))


def test_data_do_not_change(started):
    """The same data may be saved again; other data with the same ids are refused."""
    save_folds(started, pd.DataFrame({"id": [1], "fold": [0]}))
    save_data(started, DATA)
    save_data(started, DATA)
    with pytest.raises(RunError, match="other data: their SHA-256 was one and is now two"):
        save_data(started, DATA | {"digest": "two"})


def test_unstarted_run_takes_new_data(run, tmp_path):
    """Until a fold is started, data and folds are written again."""
    save_folds(run, pd.DataFrame({"id": [1], "fold": [0]}))
    save_data(run, DATA)
    run = start_run(tmp_path, replace(TINY, train=replace(TINY.train, seed=1)), name="r")
    save_folds(run, pd.DataFrame({"id": [2], "fold": [0]}))
    save_data(run, DATA | {"digest": "two"})
    assert read_folds(run)["id"].tolist() == [2]
    assert read_data(run)["digest"] == "two"


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b"\xff", b'{"digest": 1'])
def test_damaged_data_file_is_reported(run, content):
    """Any other content of data.json is an error that names the file."""
    run.data_path.write_bytes(content)
    with pytest.raises(RunError, match=r"data\.json"):
        read_data(run)


def test_extra_rows_do_not_count():
    """Runs with other extra rows have the same digest of pairs."""
    assert pairs_digest({"digest": "all"}) == "all"
    assert pairs_digest({"digest": "all", "pairs_digest": "pairs"}) == "pairs"


@pytest.mark.parametrize("position", [5, 2000, 4000, -20, -1])
def test_flipped_bit_is_found(run, position):
    """A damaged table is not read."""
    table = pd.DataFrame({"id": range(900), "fold": 0})
    table.to_parquet(run.rows_path)
    save_folds(run, table)
    save_data(run, DATA)
    save_scored(run.fold(0), table, {})
    save_scored(run, table, {})
    for path, read, folder in [
        (run.oof_path, read_oof, run),
        (run.fold(0).oof_path, read_fold_oof, run.fold(0)),
        (run.folds_path, read_folds, run),
        (run.rows_path, read_rows, run),
    ]:
        pd.testing.assert_frame_equal(read(folder), table)
        damaged = bytearray(path.read_bytes())
        damaged[position] ^= 4
        path.write_bytes(damaged)
        with pytest.raises(RunError, match=f"{path.name} is damaged"):
            read(folder)


def test_unreadable_table_is_reported(run):
    """A table without a stated SHA-256 that is not parquet is an error."""
    run.folds_path.write_bytes(b"no table")
    with pytest.raises(RunError, match=r"folds\.parquet cannot be read"):
        read_folds(run)


def test_predictions_are_of_finished_folds(run):
    """Joined or not, exactly the finished folds are read."""
    save_folds(run, pd.DataFrame({"id": [0, 1], "fold": [0, 1]}))
    with pytest.raises(RunError, match="is missing"):
        read_oof(run)
    finish(run, 0)
    assert read_oof(run)["fold"].tolist() == [0]
    save_scored(run, read_oof(run), {})
    assert is_joined(run)
    finish(run, 1)
    assert not is_joined(run)
    assert read_oof(run)["fold"].tolist() == [0, 1]
    save_scored(run, read_oof(run), {})
    run.fold(0).scores_path.unlink()
    assert read_oof(run)["fold"].tolist() == [1]


@given(order=st.permutations(range(12)), n_folds=st.integers(1, 3), joined=st.booleans())
def test_predictions_are_in_data_order(tmp_path_factory, order, n_folds, joined):
    """Predictions of the finished folds are in the order of the data, whatever the folds are."""
    folder = tmp_path_factory.mktemp("artifacts")
    run = start_run(folder, TINY, name="r")
    table = pd.DataFrame({"id": order, "fold": [i % 3 for i in range(12)]})
    save_folds(run, table)
    for fold in range(n_folds):
        save_scored(run.fold(fold), table[table["fold"] == fold], {})
    if joined:
        save_scored(run, join_folds(run, range(n_folds)), {})
    expected = table[table["fold"] < n_folds].reset_index(drop=True)
    pd.testing.assert_frame_equal(read_oof(run), expected)


@pytest.mark.parametrize("read", [read_oof, read_folds])
def test_run_has_three_spellings(run, tmp_path, monkeypatch, read):
    """A table is read by run, by path and by name, in the default folder or the one given."""
    save_folds(run, pd.DataFrame({"id": [0], "fold": [0]}))
    finish(run, 0)
    monkeypatch.setenv("TIEWISE_ARTIFACTS", str(tmp_path))
    for table in (read(run.path), read(str(run.path)), read("r"), read("r", str(tmp_path))):
        pd.testing.assert_frame_equal(table, read(run))
    with pytest.raises(RunError, match=r"no run r in .*Existing runs|no run r in .*no runs yet"):
        read("r", tmp_path / "elsewhere")


def test_same_predictions_keep_their_file(run):
    """Predictions that another version of pandas wrote keep their bytes; others replace them."""
    oof = pd.DataFrame({"id": [1, 2], "fold": [0, 0], "prob_a": [0.25, 0.5]})
    oof.to_parquet(run.oof_path, compression="gzip")
    before = run.oof_path.read_bytes()
    save_scored(run, oof, {"n": 2})
    assert run.oof_path.read_bytes() == before
    save_scored(run, oof.assign(prob_a=[0.25, 0.75]), {"n": 2})
    assert run.oof_path.read_bytes() != before
    assert read_object(run.scores_path)["oof_sha256"] == digest_file(run.oof_path)


def test_changed_member_is_refused(run):
    """A blend refuses a member with other predictions, or without any."""
    save_folds(run, pd.DataFrame({"id": [0], "fold": [0]}))
    finish(run, 0)
    save_scored(run, read_oof(run), {})
    digests = digest_predictions([run])
    check_predictions([run], digests)
    save_scored(run, read_oof(run).assign(prob_a=0.5), {})
    with pytest.raises(RunError, match="has changed since"):
        check_predictions([run], digests)
    run.oof_path.unlink()
    with pytest.raises(RunError, match="has changed since"):
        check_predictions([run], digests)


def test_logits_may_come_from_probabilities():
    """Without logits, log probabilities are returned."""
    probs = pd.DataFrame({"prob_a": [0.5], "prob_b": [0.25], "prob_tie": [0.25]})
    assert np.array_equal(table_logits(probs), np.log([[0.5, 0.25, 0.25]]))
    logits = probs.assign(logit_a=1.0, logit_b=2.0, logit_tie=3.0)
    assert np.array_equal(table_logits(logits), [[1, 2, 3]])


@given(
    st.lists(st.lists(st.floats(1e-6, 1), min_size=3, max_size=3), min_size=1, max_size=9),
    st.booleans(),
)
def test_dropped_ties_leave_a_against_b(odds, has_orders):
    """P(tie) is 0, the odds of A against B stay, and logits are log-probabilities."""
    probs = np.array(odds) / np.sum(odds, axis=1, keepdims=True)
    suffixes = ["", "_given", "_swapped"] if has_orders else [""]
    columns = [f"{name}{suffix}" for suffix in suffixes for name in PROB_COLUMNS]
    table = pd.DataFrame(np.hstack([probs] * len(suffixes)), columns=columns)
    table[LOGIT_COLUMNS] = np.log(probs)
    found = drop_ties(table)
    for suffix in suffixes:
        a, b, tie = found[[f"{name}{suffix}" for name in PROB_COLUMNS]].to_numpy().T
        assert (tie == 0).all()
        np.testing.assert_allclose(a + b, 1)
        np.testing.assert_allclose(a * probs[:, 1], b * probs[:, 0])
    logits = found[LOGIT_COLUMNS].to_numpy()
    np.testing.assert_allclose(np.exp(logits), found[PROB_COLUMNS], atol=1e-11)
    swapped = drop_ties(pd.DataFrame(probs[:, [1, 0, 2]], columns=PROB_COLUMNS))
    assert (swapped[["prob_b", "prob_a"]].to_numpy() == found[["prob_a", "prob_b"]]).all(axis=None)
