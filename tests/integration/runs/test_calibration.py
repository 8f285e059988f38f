"""Tests of the calibration of a run: saved, read back, and applied to predictions."""

import numpy as np
import pandas as pd
import pytest

from run_folders import fit_small, simulated_run
from tiewise.data.labels import LOGIT_COLUMNS, PROB_COLUMNS, swap_probs
from tiewise.data.simulation.simulate import simulate
from tiewise.errors import RunError
from tiewise.evaluation.calibration import (
    METHODS,
    NO_CALIBRATION,
    Calibration,
    calibrate,
    fit_calibration,
)
from tiewise.files import digest_file, write_json
from tiewise.judges.kinds import CalibratedJudge, ShippedJudge, TwoClassJudge, open_judge
from tiewise.runs.calibration import (
    apply_calibration,
    read_calibration,
    save_calibration,
)
from tiewise.runs.tables import drop_ties, log_probs, read_oof, save_scored


@pytest.fixture
def run(tmp_path):
    """Return a run with overconfident probabilities."""
    run, _ = simulated_run(tmp_path, 400)
    oof = read_oof(run)
    sharp = oof[PROB_COLUMNS].to_numpy() ** 4
    oof[PROB_COLUMNS] = sharp / sharp.sum(1, keepdims=True)
    save_scored(run, oof, {})
    return run


def calibrate_run(run):
    """Calibrate on the run's own rows."""
    oof = read_oof(run)
    return calibrate(oof["label"], log_probs(oof), groups=oof["group"], symmetric=True)


def test_adopted_calibration_is_applied(run):
    """It is read back bit for bit, and log loss is lower."""
    result = calibrate_run(run)
    assert result.is_worth_it
    save_calibration(run, result)
    assert read_calibration(run) == result.adopted
    oof = read_oof(run)
    after = apply_calibration(oof, read_calibration(run))
    np.testing.assert_array_equal(after[PROB_COLUMNS], result.adopted.apply(log_probs(oof)))
    own = [table[PROB_COLUMNS].to_numpy()[range(400), oof["label"]] for table in (oof, after)]
    assert np.log(own[1]).mean() > np.log(own[0]).mean()
    np.testing.assert_allclose(np.exp(after["logit_a"]), after["prob_a"])


def test_no_calibration_changes_nothing(run):
    """Bit for bit; a later result without calibration removes the file."""
    oof = read_oof(run)
    assert read_calibration(run) == NO_CALIBRATION
    pd.testing.assert_frame_equal(apply_calibration(oof, NO_CALIBRATION), oof)
    save_calibration(run, calibrate_run(run))
    save_calibration(run, calibrate([0, 1, 2] * 40, np.zeros((120, 3))))
    assert read_calibration(run) == NO_CALIBRATION


def test_symmetric_calibration_commutes_with_swap(run):
    """With equal parameters for A and B, bit for bit."""
    oof = read_oof(run)
    fitted = fit_calibration(oof["label"], log_probs(oof), method="vector", symmetric=True)
    swapped = oof.assign(**dict(zip(PROB_COLUMNS, swap_probs(oof[PROB_COLUMNS]).T, strict=True)))
    one, other = (apply_calibration(t, fitted)[PROB_COLUMNS].to_numpy() for t in (oof, swapped))
    np.testing.assert_array_equal(swap_probs(one), other)


@pytest.mark.parametrize("method", METHODS)
def test_two_classes_stay_two(run, method):
    """Where no row can be a tie, a calibration leaves P(tie) at 0 and each row's sum at 1."""
    oof = drop_ties(read_oof(run))
    decided = oof["label"] < 2
    steep = oof.assign(**{name: 3 * oof[name] for name in LOGIT_COLUMNS})
    fitted = fit_calibration(oof["label"][decided], log_probs(steep)[decided], method=method)
    after = apply_calibration(steep, fitted, has_ties=False)
    assert (after["prob_tie"] == 0).all()
    orders = [name for name in oof if name.endswith(("_given", "_swapped"))]
    pd.testing.assert_frame_equal(after[orders], oof[orders])
    three = apply_calibration(steep.head(1), fitted)  # one row does not say how many classes
    assert three["prob_tie"].iloc[0] == fitted.apply(log_probs(steep.head(1)))[0, 2]
    np.testing.assert_allclose(after[PROB_COLUMNS].sum(axis=1), 1)
    expected = fitted.apply(log_probs(steep))
    odds = np.log(expected[:, 0] / expected[:, 1])
    np.testing.assert_allclose(np.log(after["prob_a"] / after["prob_b"]), odds, rtol=1e-9)


@pytest.mark.parametrize("is_two_class", [True, False])
def test_calibrated_judge_has_the_classes_of_its_judge(is_two_class):
    """A calibration gives a judge of two classes no ties back, and keeps those of another."""
    judge = TwoClassJudge(ShippedJudge()) if is_two_class else ShippedJudge()
    pairs = simulate(20, seed=1)
    flatter = Calibration("temperature", scale=(0.1, 0.1, 0.1))
    table = CalibratedJudge(judge, flatter).predict(pairs)
    assert (table["prob_tie"] == 0).all() == is_two_class
    assert not table[PROB_COLUMNS].equals(judge.predict(pairs)[PROB_COLUMNS])


def test_other_predictions_are_refused(run):
    """After another fold the message says what to do."""
    save_calibration(run, calibrate_run(run))
    save_scored(run, read_oof(run).head(300), {})
    with pytest.raises(RunError, match=r"other predictions .* --calibrate"):
        read_calibration(run)


@pytest.mark.parametrize("text", ["{", "[]", '{"adopted": {"method": "bias", "scale": [1]}}'])
def test_damaged_file_is_refused(run, text):
    """Nothing is applied in part."""
    (run.path / "calibration.json").write_text(text)
    with pytest.raises(RunError, match="damaged"):
        read_calibration(run)


def test_predictions_apply_calibration(tmp_path, monkeypatch):
    """An adopted calibration changes what the run predicts while its file exists.

    It is fitted on all folds, so named folds predict without it.
    """
    monkeypatch.setattr("tiewise.features.binary_models._MAX_TREES", 10)
    run, pairs = fit_small(tmp_path, "small"), simulate(20, seed=1)
    before = open_judge(run, cache_dir=tmp_path).predict(pairs)
    flatter = Calibration("temperature", scale=(0.5, 0.5, 0.5))
    values = {"adopted": flatter.to_dict(), "oof_sha256": digest_file(run.oof_path)}
    write_json(run.path / "calibration.json", values)
    after = open_judge(run, cache_dir=tmp_path).predict(pairs)
    np.testing.assert_array_equal(after[PROB_COLUMNS], flatter.apply(log_probs(before)))
    assert (after[PROB_COLUMNS].max(axis=1) < before[PROB_COLUMNS].max(axis=1)).all()
    named = open_judge(run, cache_dir=tmp_path, folds=[0, 1]).predict(pairs)
    pd.testing.assert_frame_equal(named, before)
