"""The CPU-class model stands beside a run where it was fitted on the same rows and folds."""

from dataclasses import replace

import numpy as np
import pytest

from run_folders import simulated_run
from tiewise.config.loading import load_preset
from tiewise.data.labels import PROB_COLUMNS
from tiewise.files import write_json
from tiewise.runs.folder import RunFolder
from tiewise.runs.references import predict_by_baseline, score_run
from tiewise.runs.tables import read_data, read_folds, read_oof, save_data, save_folds, save_scored


@pytest.fixture
def run(tmp_path):
    """Make a finished run of 100 rows."""
    return simulated_run(tmp_path, 100)[0]


def add_baseline(run, *, name="cpu", n_rows=100, **changed) -> RunFolder:
    """Write a finished run of the model beside `run`, on its data and folds or on others."""
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


def test_it_is_one_of_the_references(run):
    """Its score is that of its own out-of-fold predictions, paired with the run's."""
    assert "baseline" in score_run(run, read_oof(run)).omitted
    add_baseline(run)
    scores = score_run(run, read_oof(run))
    own = read_oof(run)["label"].map({0: 0.5, 1: 0.3, 2: 0.2}).to_numpy(float)
    assert scores.baselines["baseline"].log_loss.value == pytest.approx(-np.log(own).mean())
    gap = scores.scores.log_loss.value - scores.baselines["baseline"].log_loss.value
    assert scores.differences["baseline"]["log_loss"].value == pytest.approx(gap)


def test_rows_are_looked_up_by_id(run):
    """The order in which rows are asked for does not matter."""
    add_baseline(run)
    ids = read_oof(run)["id"].iloc[::-3]
    probs, reason = predict_by_baseline(run, ids)
    assert (len(probs), reason) == (len(ids), "")


@pytest.mark.parametrize("changed", [{"n_splits": 4}, {"data_seed": 1}, {"fold_rule": "position"}])
def test_other_folds_are_no_reference(run, changed):
    """What learned from a row that the run held out would win unfairly."""
    add_baseline(run, **changed)
    assert predict_by_baseline(run, read_oof(run)["id"])[0] is None


def test_other_data_are_no_reference(run):
    """The digest of the data decides."""
    other = add_baseline(run)
    write_json(other.data_path, read_data(other) | {"digest": "e" * 64})
    assert predict_by_baseline(run, read_oof(run)["id"])[0] is None


def test_missing_rows_are_counted(run):
    """A run of some folds is no reference for the others."""
    add_baseline(run, n_rows=70)
    assert "lacks 30 of these rows" in predict_by_baseline(run, read_oof(run)["id"])[1]


def test_a_damaged_run_stops_nothing(run):
    """Somebody else's broken folder is passed over."""
    add_baseline(run, name="broken").path.joinpath("config.json").write_text("{")
    assert "not fitted" in predict_by_baseline(run, read_oof(run)["id"])[1]


def test_a_run_whose_predictions_are_damaged_stops_nothing(run):
    """Nor one that is being written at this moment; an older one that is whole takes its place."""
    add_baseline(run, name="older")
    damaged = add_baseline(run, name="newer")
    damaged.oof_path.write_bytes(b"no table")
    assert "baseline" in score_run(run, read_oof(run)).baselines
    (run.path.with_name("older") / "scores.json").unlink()
    assert "baseline" in score_run(run, read_oof(run)).omitted


def test_extra_rows_do_not_change_what_it_is_held_against(run):
    """The folds are those of the data; extra rows are only learned from."""
    add_baseline(run)
    described = read_data(run)
    more = {"digest": "e" * 64, "pairs_digest": described["digest"]}
    write_json(run.data_path, described | more)
    assert "baseline" in score_run(run, read_oof(run)).baselines


def test_the_model_is_not_its_own_reference(tmp_path):
    """Nothing is omitted either."""
    run, _ = simulated_run(tmp_path, 100, preset="baseline")
    assert predict_by_baseline(run, read_oof(run)["id"]) == (None, "")
