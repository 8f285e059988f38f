"""Tests of the feature model as a reference of other runs."""

from dataclasses import replace

import numpy as np
import pytest

from run_folders import simulated_run
from tiewise.config import load_preset
from tiewise.data.labels import PROB_COLUMNS
from tiewise.files import write_json
from tiewise.runs.folder import RunFolder
from tiewise.runs.references import predict_by_baseline, score_run
from tiewise.runs.tables import read_data, read_folds, read_oof, save_data, save_folds, save_scored


@pytest.fixture
def run(tmp_path):
    """Return a finished run of 100 rows."""
    return simulated_run(tmp_path, 100)[0]


def add_baseline(run, *, name="cpu", n_rows=100, **changed) -> RunFolder:
    """Write a finished run of the feature model next to `run`, on its data and folds or others."""
    config = load_preset("baseline")
    config = replace(config, data=replace(config.data, **changed))
    other = RunFolder(run.path.with_name(name), config)
    write_json(other.path / "config.json", config.to_dict())
    save_folds(other, read_folds(run))
    save_data(other, {"digest": "d" * 64, "sources": [], "counts": {}})
    oof = read_oof(run).head(n_rows)
    oof[PROB_COLUMNS] = [0.5, 0.3, 0.2]
    save_scored(other, oof, {})
    for fold in range(5):
        save_scored(other.fold(fold), oof[oof["fold"] == fold], {})
    return other


def test_feature_model_is_a_reference(run):
    """Its score is that of its own out-of-fold predictions, paired with the run's."""
    assert "baseline" in score_run(run, read_oof(run)).omitted
    add_baseline(run)
    scores = score_run(run, read_oof(run))
    own = read_oof(run)["label"].map({0: 0.5, 1: 0.3, 2: 0.2}).to_numpy(float)
    assert scores.baselines["baseline"].log_loss.value == pytest.approx(-np.log(own).mean())
    gap = scores.log_loss.value - scores.baselines["baseline"].log_loss.value
    assert scores.differences["baseline"]["log_loss"].value == pytest.approx(gap)


def test_rows_are_matched_by_id(run):
    """The order of the requested rows does not matter."""
    add_baseline(run)
    ids = read_oof(run)["id"].iloc[::-3]
    probs, reason = predict_by_baseline(run, ids)
    assert (len(probs), reason) == (len(ids), "")


@pytest.mark.parametrize("changed", [{"n_splits": 4}, {"data_seed": 1}, {"fold_rule": "position"}])
def test_other_folds_are_not_used(run, changed):
    """A model fitted on rows that the run held out would have an unfair advantage."""
    add_baseline(run, **changed)
    assert predict_by_baseline(run, read_oof(run)["id"])[0] is None


def test_other_data_are_not_used(run):
    """The digest of the data decides."""
    other = add_baseline(run)
    write_json(other.data_path, read_data(other) | {"digest": "e" * 64})
    assert predict_by_baseline(run, read_oof(run)["id"])[0] is None


def test_missing_rows_are_counted(run):
    """A run of some folds is not a reference for the others."""
    add_baseline(run, n_rows=70)
    assert "has not predicted 30 of these rows" in predict_by_baseline(run, read_oof(run)["id"])[1]


def test_damaged_run_is_skipped(run):
    """A folder with a broken configuration is ignored."""
    add_baseline(run, name="broken").path.joinpath("config.json").write_text("{")
    assert "not fitted" in predict_by_baseline(run, read_oof(run)["id"])[1]


def test_damaged_predictions_are_skipped(run):
    """An older run with intact predictions is used instead."""
    add_baseline(run, name="older")
    damaged = add_baseline(run, name="newer")
    damaged.oof_path.write_bytes(b"no table")
    assert "baseline" in score_run(run, read_oof(run)).baselines
    (run.path.with_name("older") / "scores.json").unlink()
    assert "baseline" in score_run(run, read_oof(run)).omitted


def test_extra_rows_keep_the_reference(run):
    """The folds depend on the data; extra rows are only used for training."""
    add_baseline(run)
    described = read_data(run)
    more = {"digest": "e" * 64, "pairs_digest": described["digest"]}
    write_json(run.data_path, described | more)
    assert "baseline" in score_run(run, read_oof(run)).baselines


def test_own_run_is_no_reference(tmp_path):
    """Nothing is reported as omitted either."""
    run, _ = simulated_run(tmp_path, 100, preset="baseline")
    assert predict_by_baseline(run, read_oof(run)["id"]) == (None, "")
