"""What one row contributes, and what is refused before anything is scored."""

import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from sklearn import metrics as sklearn_metrics

from strategies import scored_rows
from tiewise.errors import ScoresError
from tiewise.evaluation.metrics import (
    area_components,
    brier_scores,
    calibration_error,
    check_labels,
    check_probs,
    confidence_bins,
    decisive_correct,
    log_losses,
)
from tiewise.evaluation.resampling import group_rows

GOOD = [0.2, 0.3, 0.5]


@given(scored_rows())
def test_log_loss_is_scikit_learns_in_either_precision(rows):
    """Clipping included: a zero at the true label costs -log(eps) of the type."""
    labels, probs, _ = rows
    for dtype in (np.float64, np.float32):
        cast = probs.astype(dtype)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns where a float32 row sums to 1 - 1e-7
            theirs = sklearn_metrics.log_loss(labels, cast, labels=[0, 1, 2])
        assert log_losses(labels, cast).mean() == pytest.approx(theirs, rel=1e-6)


@given(scored_rows())
def test_brier_is_the_sum_of_scikit_learns_three_binary_ones(rows):
    """The multi-class score is the sum over classes, so it lies in [0, 2]."""
    labels, probs, _ = rows
    theirs = sum(
        sklearn_metrics.brier_score_loss(labels == k, probs[:, k].clip(0, 1), pos_label=True)
        for k in range(3)
    )
    assert brier_scores(labels, probs).mean() == pytest.approx(theirs)


@given(scored_rows())
def test_area_components_average_to_the_area_from_either_side(rows):
    """Each half of the placements averages to scikit-learn's one-vs-rest area."""
    labels, probs, _ = rows
    components = area_components(labels, probs)
    for k in range(3):
        inside = labels == k
        if inside.all() or not inside.any():
            continue
        area = sklearn_metrics.roc_auc_score(inside, probs[:, k])
        assert components[inside, k].mean() == pytest.approx(area)
        assert components[~inside, 3 + k].mean() == pytest.approx(area)


@given(scored_rows())
def test_area_components_of_a_resample_follow_scikit_learns_weighted_area(rows):
    """Weighting rows moves the first-order area as it moves the exact one, to second order."""
    labels, probs, _ = rows
    inside = labels == 0
    if inside.all() or not inside.any():
        return
    weights = 1 + 1e-4 * np.cos(np.arange(len(labels)))
    components = area_components(labels, probs)
    area = components[inside, 0].mean()
    moved = np.average(components[inside, 0], weights=weights[inside])
    moved += np.average(components[~inside, 3], weights=weights[~inside]) - area
    exact = sklearn_metrics.roc_auc_score(inside, probs[:, 0], sample_weight=weights)
    assert moved == pytest.approx(exact, abs=1e-7)


def test_the_decisive_winner_ignores_the_tie_and_halves_equals():
    """P(tie) plays no part; P(A) = P(B) is half right; ties do not count."""
    probs = np.array([[0.3, 0.2, 0.5], [0.3, 0.2, 0.5], [0.25, 0.25, 0.5], [0.9, 0.1, 0.0]])
    assert decisive_correct(np.array([0, 1, 1, 2]), probs).tolist() == [1, 0, 0.5, 0]


@given(scored_rows(min_size=2))
def test_bins_keep_equal_confidences_together_and_their_order(rows):
    """Bins are monotone in the confidence, at most as many as asked for."""
    confidence = rows[1].max(1)
    bins = confidence_bins(confidence, 4)
    order = np.argsort(confidence, kind="stable")
    assert (np.diff(bins[order]) >= 0).all()
    assert (np.diff(bins[order])[np.diff(confidence[order]) == 0] == 0).all()
    assert 0 <= bins.min() <= bins.max() < 4


def drawn_rows(n, *, sharpness, seed=0):
    generator = np.random.default_rng(seed)
    logits = generator.normal(size=(n, 3))
    true = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    labels = (generator.random(n)[:, None] > true.cumsum(1)[:, :2]).sum(1)
    claimed = np.exp(sharpness * logits)
    return labels, claimed / claimed.sum(1, keepdims=True)


def test_a_calibrated_model_has_almost_no_calibration_error():
    """On 600 calibrated rows the noise of 15 bins alone would read about 0.07."""
    errors = []
    for seed in range(20):
        labels, probs = drawn_rows(600, sharpness=1, seed=seed)
        interval = calibration_error(labels, probs, group_rows(None, labels, probs), 0.95)
        assert interval.low == 0
        errors.append(interval.value)
    assert np.mean(errors) < 0.03


def test_overconfidence_is_measured():
    """Twice too sharp is found, as large as in a sample so big that bins have no noise."""
    truth = calibration_error(*_grouped(*drawn_rows(200_000, sharpness=2)), 0.95)
    found = calibration_error(*_grouped(*drawn_rows(2000, sharpness=2, seed=1)), 0.95)
    assert found.low < truth.value < found.high
    assert truth.value == pytest.approx(0.163, abs=0.01)


def _grouped(labels, probs):
    return labels, probs, group_rows(None, labels, probs)


def test_the_bias_correction_knows_groups():
    """Rows copied ten times within their groups give the calibration error of one copy."""
    labels, probs = drawn_rows(300, sharpness=1.5)
    once = calibration_error(*_grouped(labels, probs), 0.95)
    copies = labels.repeat(10), probs.repeat(10, axis=0)
    grouped = group_rows(np.arange(300).repeat(10), *copies)
    assert calibration_error(*copies, grouped, 0.95).value == pytest.approx(once.value, abs=0.005)


def test_a_single_group_has_no_calibration_error():
    """The noise of its bins cannot be known, so nothing is claimed."""
    labels, probs = drawn_rows(50, sharpness=1)
    assert (
        str(calibration_error(labels, probs, group_rows(["a"] * 50, probs), 0.95)) == "not defined"
    )


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([], r"shape \(0,\)"),
        ([[0, 1]], r"shape \(1, 2\)"),
        ([0, 3, 1], "in 1 rows, the first at row 1 "),
        ([0, 1.5], "the first at row 1 "),
        ([0, None], "the first at row 1 "),
        (["a", "b"], "not a number"),
        ([0, np.nan, 1], "the first at row 1 "),
    ],
)
def test_labels_that_are_not_labels_are_refused(labels, message):
    """Each refusal says what is wrong and in which row."""
    with pytest.raises(ScoresError, match=message):
        check_labels(labels)


def test_nullable_labels_are_read_and_missing_ones_refused():
    """The pairs table holds Int8 with <NA>."""
    assert check_labels(pd.Series([0, 2], dtype="Int8")).tolist() == [0, 2]
    with pytest.raises(ScoresError, match="the first at row 0"):
        check_labels(pd.Series([pd.NA, 2], dtype="Int8"))


@pytest.mark.parametrize(
    ("probs", "message"),
    [
        ([GOOD], r"shape \(1, 3\); expected \(2, 3\)"),
        ([[0.5, 0.5]] * 2, r"shape \(2, 2\)"),
        ([GOOD, [0.5, 0.6, -0.1]], "in 1 rows, the first at row 1 "),
        ([GOOD, [np.nan, 0.5, 0.5]], "the first at row 1 "),
        ([GOOD, [np.inf, 0.0, 0.0]], "the first at row 1 "),
        ([[2.0, -1.0, 0.5], GOOD], "If these are logits"),
        ([GOOD, [0.3, 0.3, 0.3]], "does not sum to 1"),
        ([GOOD, ["a", "b", "c"]], "not a number"),
    ],
)
def test_probabilities_that_are_not_probabilities_are_refused(probs, message):
    """Nothing is renormalised or clipped in silence."""
    with pytest.raises(ScoresError, match=message):
        check_probs(probs, 2)


def test_rounding_of_float32_passes():
    """A softmax in float32 is as good as its type."""
    probs = np.array([GOOD] * 3, dtype=np.float32) * np.float32(1 + 1e-6)
    assert check_probs(probs, 3).dtype == np.float32
