"""Calibration is adopted where it helps, and nowhere else."""

import json

import numpy as np
import pytest
from scipy.special import softmax

from tiewise.evaluation.calibrate import calibrate
from tiewise.evaluation.scores import compare
from tiewise.pairs.labels import swap_probs


def drawn_rows(n, seed, *, sharpness=1.0, tie_bias=0.0):
    """Labels from softmax(logits); a model that is too sharp and wrong about ties; groups of 4."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(size=(n, 3)) * 1.5
    true = softmax(logits, axis=1)
    labels = (generator.random(n)[:, None] > true.cumsum(1)[:, :2]).sum(1)
    return labels, logits * sharpness + [0, 0, tie_bias], np.arange(n) // 4


def test_overconfidence_is_mended():
    """Twice too sharp: temperature is adopted, its gain clear of zero, its T about 2."""
    labels, logits, groups = drawn_rows(800, 0, sharpness=2)
    verdict = calibrate(labels, logits, groups=groups, methods=("temperature",))
    assert verdict.is_worth_it
    assert 1 / verdict.adopted.scale[0] == pytest.approx(2, rel=0.2)
    assert verdict.gains["temperature"].low > 0
    assert "adopted: temperature" in str(verdict)


def test_a_wrong_share_of_ties_is_mended_by_a_bias():
    """No temperature can add ties."""
    labels, logits, groups = drawn_rows(800, 1, tie_bias=-1)
    verdict = calibrate(labels, logits, groups=groups)
    assert verdict.adopted.method in ("bias", "vector")
    assert verdict.adopted.bias[2] - verdict.adopted.bias[0] == pytest.approx(1, abs=0.4)


def test_what_is_calibrated_is_left_alone():
    """Over fifteen calibrated data sets, almost none is touched; untouched means bit for bit."""
    adopted = 0
    for seed in range(15):
        labels, logits, groups = drawn_rows(200, seed)
        verdict = calibrate(labels, logits, groups=groups, n_resamples=199)
        adopted += verdict.is_worth_it
        if not verdict.is_worth_it:
            np.testing.assert_array_equal(verdict.probs, softmax(logits, axis=1))
            assert "not worth it" in str(verdict)
    assert adopted <= 2


def test_the_gain_is_the_one_on_rows_not_fitted_on():
    """The reported gain is that of the probabilities handed out."""
    labels, logits, groups = drawn_rows(400, 3, sharpness=3)
    verdict = calibrate(labels, logits, groups=groups, methods=("temperature",))
    again = compare(labels, softmax(logits, axis=1), verdict.probs, groups=groups)
    assert verdict.gains["temperature"].value == pytest.approx(again.value)


def test_labels_of_a_group_do_not_touch_its_own_probabilities():
    """Cross-fitting: changed labels of one group leave that group's calibrated rows as they are."""
    labels, logits, groups = drawn_rows(400, 4, sharpness=3)
    # The two rows exchanged have the classes of the folds unchanged.
    changed = labels.copy()
    rows = np.flatnonzero(groups == groups[0])
    changed[rows] = np.roll(labels[rows], 1)
    before = calibrate(labels, logits, groups=groups, methods=("temperature",)).probs
    after = calibrate(changed, logits, groups=groups, methods=("temperature",)).probs
    np.testing.assert_array_equal(before[rows], after[rows])


def test_a_symmetric_calibration_keeps_symmetry():
    """Symmetric probabilities stay symmetric."""
    labels, logits, groups = drawn_rows(800, 5, sharpness=2, tie_bias=-1)
    verdict = calibrate(labels, logits, groups=groups, symmetric=True)
    there = verdict.adopted.apply(logits)
    back = verdict.adopted.apply(swap_probs(logits))
    np.testing.assert_allclose(there, swap_probs(back), atol=1e-12)


def test_a_single_group_is_never_calibrated():
    """With nothing to judge on, nothing changes."""
    labels, logits, _ = drawn_rows(100, 6, sharpness=4)
    verdict = calibrate(labels, logits, groups=["only"] * 100)
    assert not verdict.is_worth_it
    assert verdict.gains == {}


def test_the_verdict_goes_to_json():
    """Decision, map and grounds."""
    verdict = calibrate(*drawn_rows(100, 7)[:2])
    value = verdict.to_dict()
    assert json.loads(json.dumps(value, allow_nan=False)) == value
    assert value["gains"].keys() == {"temperature", "bias", "vector"}
