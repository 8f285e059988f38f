"""An adopted calibration is applied to whatever the run predicts; without one nothing changes."""

import numpy as np
import pandas as pd
import pytest

from run_folders import fit_small, simulated_run
from tiewise.data.labels import PROB_COLUMNS, swap_probs
from tiewise.data.simulation.simulate import simulate
from tiewise.errors import RunError
from tiewise.evaluation.calibration import NO_CALIBRATION, Calibration, calibrate, fit_calibration
from tiewise.files import digest_file, write_json
from tiewise.judges.predictors import PredictOptions, open_predictor
from tiewise.runs.calibration import (
    apply_calibration,
    log_probs,
    read_calibration,
    save_calibration,
)
from tiewise.runs.tables import read_oof, save_scored


@pytest.fixture
def run(tmp_path):
    """Make a run whose probabilities are far too sure."""
    run, _ = simulated_run(tmp_path, 400)
    oof = read_oof(run)
    sharp = oof[PROB_COLUMNS].to_numpy() ** 4
    oof[PROB_COLUMNS] = sharp / sharp.sum(1, keepdims=True)
    save_scored(run, oof, {})
    return run


def verdict_of(run):
    """Judge the run's own rows."""
    oof = read_oof(run)
    return calibrate(oof["label"], log_probs(oof), groups=oof["group"], symmetric=True)


def test_what_was_adopted_is_read_back_and_applied(run):
    """To the last bit, and with a smaller log loss."""
    verdict = verdict_of(run)
    assert verdict.is_worth_it
    save_calibration(run, verdict)
    assert read_calibration(run) == verdict.adopted
    oof = read_oof(run)
    after = apply_calibration(oof, read_calibration(run))
    np.testing.assert_array_equal(after[PROB_COLUMNS], verdict.adopted.apply(log_probs(oof)))
    own = [table[PROB_COLUMNS].to_numpy()[range(400), oof["label"]] for table in (oof, after)]
    assert np.log(own[1]).mean() > np.log(own[0]).mean()
    np.testing.assert_allclose(np.exp(after["logit_a"]), after["prob_a"])


def test_without_one_nothing_changes(run):
    """Bit for bit, and an earlier verdict's file goes when it is taken back."""
    oof = read_oof(run)
    assert read_calibration(run) == NO_CALIBRATION
    pd.testing.assert_frame_equal(apply_calibration(oof, NO_CALIBRATION), oof)
    save_calibration(run, verdict_of(run))
    save_calibration(run, calibrate([0, 1, 2] * 40, np.zeros((120, 3))))
    assert read_calibration(run) == NO_CALIBRATION


def test_exchange_still_exchanges_bit_for_bit(run):
    """What treats A and B alike is applied alike."""
    oof = read_oof(run)
    fitted = fit_calibration(oof["label"], log_probs(oof), method="vector", symmetric=True)
    swapped = oof.assign(**dict(zip(PROB_COLUMNS, swap_probs(oof[PROB_COLUMNS]).T, strict=True)))
    one, other = (apply_calibration(t, fitted)[PROB_COLUMNS].to_numpy() for t in (oof, swapped))
    np.testing.assert_array_equal(swap_probs(one), other)


def test_it_belongs_to_the_predictions_it_was_fitted_on(run):
    """After a further fold it is refused, with what to do."""
    save_calibration(run, verdict_of(run))
    save_scored(run, read_oof(run).head(300), {})
    with pytest.raises(RunError, match=r"other predictions .* tiewise calibrate"):
        read_calibration(run)


@pytest.mark.parametrize("text", ["{", "[]", '{"adopted": {"method": "bias", "scale": [1]}}'])
def test_damage_is_said(run, text):
    """Not half applied."""
    (run.path / "calibration.json").write_text(text)
    with pytest.raises(RunError, match="damaged"):
        read_calibration(run)


def test_predictions_apply_calibration(tmp_path, monkeypatch):
    """An adopted calibration changes what the run predicts while its file exists."""
    monkeypatch.setattr("tiewise.features.binary_models._MOST_TREES", 10)
    run, pairs = fit_small(tmp_path, "small"), simulate(20, seed=1)
    before = open_predictor(run, cache_dir=tmp_path)(pairs, PredictOptions())
    flatter = Calibration("temperature", scale=(0.5, 0.5, 0.5))
    values = {"adopted": flatter.to_dict(), "oof_sha256": digest_file(run.oof_path)}
    write_json(run.path / "calibration.json", values)
    after = open_predictor(run, cache_dir=tmp_path)(pairs, PredictOptions())
    np.testing.assert_array_equal(after[PROB_COLUMNS], flatter.apply(log_probs(before)))
    assert (after[PROB_COLUMNS].max(axis=1) < before[PROB_COLUMNS].max(axis=1)).all()
