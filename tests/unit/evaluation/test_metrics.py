"""Tests of the metrics of single rows, the calibration errors, and the checks of inputs."""

import math
import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as sklearn_metrics

from strategies import scored_rows
from tiewise.data.class_columns import PROBS
from tiewise.errors import ScoresError
from tiewise.evaluation.intervals import group_rows
from tiewise.evaluation.metrics import (
    area_components,
    brier_scores,
    check_labels,
    check_probs,
    confidence_bins,
    decisive_correct,
    expected_calibration_error,
    log_losses,
    rms_calibration_error,
)

GOOD = [0.2, 0.3, 0.5]


@given(scored_rows())
def test_log_loss_matches_scikit_learn(rows):
    """In float64 and float32, including the clipping at the epsilon of the dtype."""
    labels, probs, _ = rows
    for dtype in (np.float64, np.float32):
        cast = probs.astype(dtype)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns where a float32 row sums to 1 - 1e-7
            theirs = sklearn_metrics.log_loss(labels, cast, labels=[0, 1, 2])
        assert log_losses(labels, cast).mean() == pytest.approx(theirs, rel=1e-6)


@given(scored_rows())
def test_brier_sums_binary_brier_scores(rows):
    """The multi-class score is the sum of scikit-learn's binary scores over the classes."""
    labels, probs, _ = rows
    theirs = sum(
        sklearn_metrics.brier_score_loss(labels == k, probs[:, k].clip(0, 1), pos_label=True)
        for k in range(3)
    )
    assert brier_scores(labels, probs).mean() == pytest.approx(theirs)


@given(scored_rows())
def test_area_components_average_to_area(rows):
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
def test_area_components_follow_weights(rows):
    """Weighted rows move the linearised area as they move the exact one, to second order."""
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


def test_decisive_correct_ignores_tie():
    """P(tie) has no effect; P(A) = P(B) counts half; ties do not count."""
    probs = np.array([[0.3, 0.2, 0.5], [0.3, 0.2, 0.5], [0.25, 0.25, 0.5], [0.9, 0.1, 0.0]])
    assert decisive_correct(np.array([0, 1, 1, 2]), probs).tolist() == [1, 0, 0.5, 0]


@given(scored_rows(min_size=2))
def test_bins_keep_equal_values_together(rows):
    """Bins are monotone in the confidence, and at most as many as requested."""
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


def test_calibrated_model_has_small_error():
    """On 600 calibrated rows the sampling noise of 15 bins alone would give about 0.07."""
    errors = []
    for seed in range(20):
        interval = rms_calibration_error(*_grouped(*drawn_rows(600, sharpness=1, seed=seed)), 0.95)
        assert interval.low == 0
        errors.append(interval.value)
    assert np.mean(np.nan_to_num(errors)) < 0.03
    assert 3 < np.isnan(errors).sum() < 17


def test_overconfidence_is_measured():
    """Logits that are twice too large give the error of a sample so large that noise vanishes."""
    truth = rms_calibration_error(*_grouped(*drawn_rows(200_000, sharpness=2)), 0.95)
    found = rms_calibration_error(*_grouped(*drawn_rows(2000, sharpness=2, seed=1)), 0.95)
    assert found.low < truth.value < found.high
    assert truth.value == pytest.approx(0.163, abs=0.01)


def _grouped(labels, probs):
    return labels, probs, group_rows(None, labels, probs)


def test_debiasing_is_clustered():
    """Rows copied ten times within their groups give the calibration error of one copy."""
    labels, probs = drawn_rows(300, sharpness=1.5)
    once = rms_calibration_error(*_grouped(labels, probs), 0.95)
    copies = labels.repeat(10), probs.repeat(10, axis=0)
    grouped = group_rows(np.arange(300).repeat(10), *copies)
    assert rms_calibration_error(*copies, grouped, 0.95).value == pytest.approx(
        once.value, abs=0.005
    )


def rows_in_groups():
    """Return 20 rows in 5 groups with four confidences, one of which is the end of a bin."""
    generator = np.random.default_rng(0)
    groups, labels = np.arange(20) % 5, generator.integers(0, 3, 20)
    confidence = np.array([0.6, 0.7, 0.8, 0.9])[generator.integers(0, 4, 20)]
    probs = np.column_stack([confidence, (1 - confidence) / 2, (1 - confidence) / 2])
    return labels, probs, groups


def variance_of_mean(gaps, groups):
    """Return the clustered variance of a mean, row by row, as in a survey of five groups."""
    by_group = [(gaps[groups == group] - gaps.mean()).sum() for group in range(5)]
    return 5 / 4 * np.square(by_group).sum() / len(gaps) ** 2


def test_rms_error_by_hand():
    """On 20 rows in 5 groups and 2 bins the error equals a calculation row by row."""
    labels, probs, groups = rows_in_groups()
    gaps = probs[:, 0] - (labels == 0)
    ranks = np.array([(probs[:, 0] < c).sum() + (probs[:, 0] == c).sum() / 2 for c in probs[:, 0]])
    upper = ranks >= 10  # equal values have their mean rank
    squared = 0.0
    for rows in (np.flatnonzero(upper), np.flatnonzero(~upper)):
        variance = variance_of_mean(gaps[rows], groups[rows])
        squared += len(rows) / 20 * (gaps[rows].mean() ** 2 - variance)
    found = rms_calibration_error(labels, probs, group_rows(groups, labels, probs), 0.95)
    assert squared > 0.01
    assert found.value == pytest.approx(math.sqrt(squared))


def test_expected_error_by_hand():
    """The ECE of 20 rows in 5 groups, in bins by pandas that include their upper end."""
    labels, probs, groups = rows_in_groups()
    gaps = probs[:, 0] - (labels == 0)
    bins = pd.cut(probs[:, 0], np.linspace(0, 1, 16), right=True, labels=False)
    value = squares = expected = 0.0
    for place in range(15):
        rows = np.flatnonzero(bins == place)
        if len(rows):
            value += abs(gaps[rows].sum()) / 20
            deviation = math.sqrt(variance_of_mean(gaps[rows], groups[rows])) * len(rows) / 20
            squares, expected = squares + deviation**2, expected + deviation
    found = expected_calibration_error(labels, probs, group_rows(groups, labels, probs), 0.9)
    half = stats.t.ppf(0.95, 4) * math.sqrt(squares)
    low = value - expected * stats.halfnorm.mean() - half
    assert found.value == pytest.approx(value)
    assert found.high == pytest.approx(min(1, value + half))
    assert found.low == pytest.approx(max(0, low))


@pytest.mark.parametrize("confidence", [1 / 3, 0.4, 0.6, 0.8, 1.0])
def test_bins_of_ece_include_their_upper_end(confidence):
    """A confidence at an edge shares the bin below it, with the sum of the gaps, not their size."""
    rest = (1 - confidence) / 2
    below = confidence - 0.02
    probs = np.array([[confidence, rest, rest], [below, (1 - below) / 2, (1 - below) / 2]])
    if below < 1 / 3:
        probs[1] = probs[0]
    gaps = probs[:, 0] - np.array([1, 0])
    labels = np.array([0, 1])
    found = expected_calibration_error(*_grouped(labels, probs), 0.95).value
    assert found == pytest.approx(abs(gaps.sum()) / 2, abs=1e-12)


@pytest.mark.parametrize("n_rare", [30, 60])
def test_frequent_lowest_confidence_has_own_bin(n_rare):
    """Of 970 rows at .6 just 60 % are right; rows at .95, which are never right, have the error."""
    confidence = np.repeat([0.6, 0.95], [970, n_rare])
    probs = np.column_stack([confidence, (1 - confidence) / 2, (1 - confidence) / 2])
    labels = np.repeat([0, 1, 1], [582, 388, n_rare])
    truth = math.sqrt(n_rare / (970 + n_rare) * 0.95**2)
    found = rms_calibration_error(*_grouped(labels, probs), 0.95)
    assert found.value == pytest.approx(truth, abs=0.002)
    assert found.low < truth < found.high
    expected = expected_calibration_error(*_grouped(labels, probs), 0.95).value
    assert expected == pytest.approx(n_rare / (970 + n_rare) * 0.95)


@given(st.lists(st.sampled_from([0.4, 0.5, 0.6, 0.7, 0.99]), min_size=1, max_size=300))
@example([0.4] * 100 + [0.5, 0.6])
def test_few_confidences_are_a_bin_each(values):
    """However often each occurs, no two share a bin."""
    bins = confidence_bins(np.array(values), 15)
    assert len(set(zip(values, bins.tolist(), strict=True))) == len(set(bins.tolist()))
    assert len(set(bins.tolist())) == len(set(values))


@given(st.integers(15, 500), st.integers(2, 15))
def test_bins_have_equal_mass(n, n_bins):
    """Different confidences fill bins that differ by one row at most."""
    counts = np.bincount(confidence_bins(np.random.default_rng(n).random(n), n_bins))
    assert len(counts) == n_bins
    assert np.ptp(counts) <= 1


def test_number_of_bins_is_by_groups():
    """Ten copies of each of 60 rows in its group give exactly the error of one copy."""
    labels, probs = drawn_rows(60, sharpness=3)
    once = rms_calibration_error(*_grouped(labels, probs), 0.95)
    copies = labels.repeat(10), probs.repeat(10, axis=0)
    grouped = group_rows(np.arange(60).repeat(10), *copies)
    again = rms_calibration_error(*copies, grouped, 0.95)
    assert vars(again) == pytest.approx(vars(once))


def test_negative_square_is_an_upper_bound():
    """A square below its noise is printed as a bound and is null in JSON, not zero."""
    labels, probs = np.arange(300) % 3, np.full((300, 3), 1 / 3)
    found = rms_calibration_error(*_grouped(labels, probs), 0.95)
    assert math.isnan(found.value)
    assert f"{found:.3f}" == f"< {found.high:.3f}"
    assert found.to_dict() == {"value": None, "low": 0.0, "high": found.high}


def test_single_group_has_no_error():
    """The sampling variance of a single group is unknown, so the debiased error is not defined."""
    labels, probs = drawn_rows(50, sharpness=1)
    grouped = group_rows(["a"] * 50, probs)
    assert str(rms_calibration_error(labels, probs, grouped, 0.95)) == "not defined"
    expected = expected_calibration_error(labels, probs, grouped, 0.95)
    assert str(expected) == f"{expected.value:.4f} [unknown]"


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
def test_invalid_labels_are_refused(labels, message):
    """Each message says what is wrong and in which row."""
    with pytest.raises(ScoresError, match=message):
        check_labels(labels)


def test_nullable_labels_are_accepted():
    """The pairs table stores Int8 with <NA>, which is refused with its row."""
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
def test_invalid_probabilities_are_refused(probs, message):
    """Nothing is renormalised or clipped silently."""
    with pytest.raises(ScoresError, match=message):
        check_probs(probs, 2)


@given(names=st.sampled_from(PROBS), order=st.permutations(range(4)), seed=st.integers(0, 99))
def test_columns_are_found_by_name(names, order, seed):
    """Any order of the columns of a table, and further columns, give the same probabilities."""
    probs = np.random.default_rng(seed).dirichlet(np.ones(3), 5)
    table = pd.DataFrame(probs, columns=list(names)).assign(group=1)
    np.testing.assert_array_equal(check_probs(table.iloc[:, order], 5), probs)
    np.testing.assert_array_equal(check_probs(pd.DataFrame(probs), 5), probs)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (["prob_a", "prob_b", "prob_ties"], "Rename prob_ties to prob_tie"),
        (["Prob_A", "prob_b", "prob_tie"], "Rename Prob_A to prob_a"),
        (["prob_a", "prob_b", "neither"], "prob_tie is missing"),
        (["p1", "p2", "p3"], "columns of probs are p1, p2, p3; expected prob_a, prob_b, prob_tie"),
        ([2, 1, 0], "columns of probs are 2, 1, 0"),
        (["prob_a", "winner_model_b", "tie"], "expected prob_a, prob_b, prob_tie in any order"),
    ],
)
def test_unknown_columns_are_refused(columns, message):
    """A table without the three columns is not read by position; the message suggests a name."""
    with pytest.raises(ScoresError, match=message):
        check_probs(pd.DataFrame([[0.5, 0.25, 0.25]], columns=columns), 1)


def test_labels_are_no_predictions():
    """Kaggle's names next to a, b, tie are refused, since either may be labels; prob_* is clear."""
    labels = pd.DataFrame(np.eye(3), columns=PROBS[1])
    classes = pd.DataFrame([GOOD] * 3, columns=PROBS[2])
    with pytest.raises(ScoresError, match="and a, b, tie; one of them may be the labels"):
        check_probs(labels.join(classes), 3)
    ours = pd.DataFrame([GOOD] * 3, columns=PROBS[0])
    np.testing.assert_array_equal(check_probs(labels.join(classes).join(ours), 3), [GOOD] * 3)


def test_float32_rounding_is_accepted():
    """A softmax in float32 sums to one only within its precision."""
    probs = np.array([GOOD] * 3, dtype=np.float32) * np.float32(1 + 1e-6)
    assert check_probs(probs, 3).dtype == np.float32


@pytest.mark.parametrize("excess", [5e-5, -5e-5])
def test_rounded_rows_are_accepted(excess):
    """A sum within 1e-4 of one is a rounded row; it is returned as it is."""
    probs = np.array([[0.5, 0.25, 0.25 + excess]])
    assert np.array_equal(check_probs(probs, 1), probs)


@pytest.mark.parametrize("excess", [2e-4, -2e-4])
def test_wrong_sums_are_refused(excess):
    """A sum further than 1e-4 from one is named with its row."""
    with pytest.raises(ScoresError, match=r"sum to 1 within 0.0001 in 1 rows, the first at row 0"):
        check_probs(np.array([[0.5, 0.25, 0.25 + excess]]), 1)


def test_half_precision_has_its_own_tolerance():
    """Rows of float16 sum to one within the precision of float16."""
    probs = np.array([[0.3335, 0.3335, 0.3335]], dtype=np.float16)
    assert abs(probs.astype(float).sum() - 1) > 1e-4
    assert check_probs(probs, 1).dtype == np.float16


def test_values_as_many_as_bins_are_kept_apart():
    """Each of n different values is a bin when there are n bins, however often it occurs."""
    values = np.array([0.4] * 50 + [0.5, 0.6, 0.7])
    assert confidence_bins(values, 4).tolist() == [0] * 50 + [1, 2, 3]
    assert len(set(confidence_bins(values, 3).tolist())) < 4


def test_bins_are_cut_at_middle_ranks():
    """The row of rank r of n is in the bin that holds the share (r - 1/2) / n."""
    values = np.linspace(0.4, 0.9, 10)
    assert confidence_bins(values, 4).tolist() == [0, 0, 1, 1, 1, 2, 2, 3, 3, 3]


def test_error_of_fifteen_bins_by_hand():
    """Rows in neighbouring fifteenths of [0, 1] are averaged apart, also within one tenth."""
    confidence = np.array([0.61] * 4 + [0.69] * 4)  # bins (9/15, 10/15] and (10/15, 11/15]
    labels = np.array([0, 0, 0, 0, 1, 1, 1, 0])
    rest = (1 - confidence) / 2
    probs = np.column_stack([confidence, rest, rest])
    found = expected_calibration_error(*_grouped(labels, probs), 0.95).value
    assert found == pytest.approx((0.39 * 4 + (0.69 - 0.25) * 4) / 8)
