"""Tests of scores and paired comparisons: scikit-learn, invariances, edge cases."""

import html
import json
import math
import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as sklearn_metrics

from strategies import scored_rows
from tiewise.errors import ScoresError
from tiewise.evaluation.intervals import Interval
from tiewise.evaluation.scores import METRICS, compare, evaluate

FEW = 19  # resamples, where the test is not about the interval


@given(scored_rows())
def test_scores_match_scikit_learn(rows):
    """Accuracy, macro F1, log loss and area are equal on any labels and probabilities."""
    labels, probs, groups = rows
    scores = evaluate(labels, probs, groups=groups, n_resamples=FEW)
    predicted = probs.argmax(1)
    assert scores.accuracy.value == pytest.approx(sklearn_metrics.accuracy_score(labels, predicted))
    macro_f1 = sklearn_metrics.f1_score(labels, predicted, average="macro", zero_division=0)
    assert scores.macro_f1.value == pytest.approx(macro_f1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        log_loss = sklearn_metrics.log_loss(labels, probs, labels=[0, 1, 2])
    assert scores.log_loss.value == pytest.approx(log_loss)
    if len(set(labels)) == 3:
        area = sklearn_metrics.roc_auc_score(labels, probs, multi_class="ovr")
        assert scores.auc.value == pytest.approx(area)


@given(scored_rows(), st.randoms())
def test_row_order_and_group_names_do_not_matter(rows, random):
    """After shuffling and renaming, every number is the same bit for bit."""
    labels, probs, groups = rows
    order = list(range(len(labels)))
    random.shuffle(order)
    renamed = np.array([f"{ord(name) * 7919 % 31}{name}" for name in groups])
    first = evaluate(labels, probs, groups=groups, n_resamples=FEW)
    second = evaluate(labels[order], probs[order], groups=renamed[order], n_resamples=FEW)
    assert first.to_dict() == second.to_dict()


@given(scored_rows(), st.permutations(["prob_a", "prob_b", "prob_tie"]))
def test_column_order_does_not_matter(rows, order):
    """Tables with their columns in any order give the scores and differences of the arrays."""
    labels, probs, groups = rows
    table = pd.DataFrame(probs, columns=["prob_a", "prob_b", "prob_tie"])[order]
    options = {"groups": groups, "n_resamples": FEW}
    by_name = evaluate(labels, table, **options)
    assert by_name.to_dict() == evaluate(labels, probs, **options).to_dict()
    uniform = np.full_like(probs, 1 / 3)
    difference = compare(labels, table, uniform, **options)
    assert difference.to_dict() == compare(labels, probs, uniform, **options).to_dict()


@given(scored_rows())
def test_swapping_responses_keeps_scores(rows):
    """Log loss, Brier, decisive accuracy and area do not depend on which response is A."""
    labels, probs, groups = rows
    first = evaluate(labels, probs, groups=groups, n_resamples=FEW)
    swapped = np.array([1, 0, 2])[labels]
    second = evaluate(swapped, probs[:, [1, 0, 2]], groups=groups, n_resamples=FEW)
    for name in ("log_loss", "brier", "decisive_accuracy", "auc"):
        one, two = getattr(first, name).value, getattr(second, name).value
        assert one == pytest.approx(two, nan_ok=True), name


@given(scored_rows())
def test_scores_are_within_bounds(rows):
    """Intervals contain their value and stay in the range of the metric, where defined."""
    labels, probs, groups = rows
    scores = evaluate(labels, probs, groups=groups, n_resamples=FEW)
    for name, most in METRICS.items():
        interval = getattr(scores, name)
        if math.isnan(interval.value):
            assert math.isnan(interval.low) or name == "rms_calibration_error"
        elif not math.isnan(interval.low):
            assert 0 <= interval.low <= interval.value + 1e-12, name
            assert interval.value - 1e-12 <= interval.high <= most, name


def test_uniform_probabilities_score_log_three():
    """The interval has no width, and decisive accuracy is one half."""
    labels = np.arange(90) % 3
    scores = evaluate(labels, np.full((90, 3), 1 / 3))
    assert scores.log_loss.value == pytest.approx(math.log(3))
    assert scores.log_loss.high - scores.log_loss.low < 1e-9
    assert scores.brier.value == pytest.approx(2 / 3)
    assert scores.decisive_accuracy.value == pytest.approx(0.5)
    assert scores.auc.value == pytest.approx(0.5)


@given(scored_rows())
def test_scores_json_has_no_nan(rows):
    """Undefined numbers are null; scores.json has the keys of the interface."""
    labels, probs, groups = rows
    value = evaluate(labels, probs, groups=groups, n_resamples=FEW).to_dict()
    assert json.loads(json.dumps(value, allow_nan=False)) == value
    promised = {"n", "n_groups", "log_loss", "accuracy", "brier", "ece", "decisive_accuracy"}
    promised |= {"rms_calibration_error"}
    assert promised <= value.keys()
    assert value["log_loss"].keys() == {"value", "low", "high"}


def test_perfect_scores_have_a_width():
    """All of 40 rows right: shares are open below, the decisive one by its own 30 rows."""
    labels = np.repeat([0, 1, 2], [20, 10, 10])
    scores = evaluate(labels, 0.94 * np.eye(3)[labels] + 0.02)
    for name, n in (("accuracy", 40), ("decisive_accuracy", 30), ("macro_f1", 40), ("auc", 40)):
        share = getattr(scores, name)
        assert share.value == pytest.approx(1)
        assert share.low == pytest.approx(n / (n + stats.t.ppf(0.975, n - 1) ** 2)), name


@given(scored_rows(), scored_rows(), st.sampled_from(["accuracy", "decisive_accuracy", "brier"]))
def test_differences_are_within_bounds(rows, others, metric):
    """Differences of shares stay within one, those of Brier scores within two."""
    labels, probs, groups = rows
    other = np.resize(others[1], probs.shape)
    found = compare(labels, probs, other, groups=groups, metric=metric, n_resamples=FEW)
    if not math.isnan(found.low):
        assert -METRICS[metric] <= found.low <= found.high <= METRICS[metric]


def test_one_row_has_no_interval():
    """A single row has a log loss, but no interval and no area."""
    scores = evaluate([1], [[0.25, 0.5, 0.25]])
    assert scores.log_loss.value == pytest.approx(math.log(2))
    assert math.isnan(scores.log_loss.low)
    assert math.isnan(scores.auc.value)
    assert scores.has_few_groups


def test_only_ties_have_no_decisive_accuracy():
    """A share of no rows is null, not zero."""
    scores = evaluate([2, 2, 2], [[0.2, 0.3, 0.5]] * 3)
    assert scores.n_decisive == 0
    assert scores.to_dict()["decisive_accuracy"]["value"] is None


def test_zero_probability_is_clipped():
    """A zero at the true label is clipped as scikit-learn clips it."""
    scores = evaluate([0, 0], [[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
    assert scores.log_loss.value == pytest.approx(-math.log(np.finfo(float).eps) / 2)


def test_groups_widen_intervals():
    """Ten copies of each row within its group keep the interval of one copy."""
    generator = np.random.default_rng(0)
    probs = generator.dirichlet([2, 2, 2], 100)
    labels = generator.integers(0, 3, 100)
    once = evaluate(labels, probs).log_loss
    copies = labels.repeat(10), probs.repeat(10, axis=0)
    clustered = evaluate(*copies, groups=np.arange(100).repeat(10)).log_loss
    naive = evaluate(*copies).log_loss
    assert clustered.high - clustered.low == pytest.approx(once.high - once.low, rel=0.15)
    assert naive.high - naive.low < 0.5 * (once.high - once.low)


@given(st.integers(1, 60))
def test_few_groups_are_marked(n_groups):
    """In the object, in JSON and in print."""
    scores = evaluate([0] * n_groups, [[0.5, 0.25, 0.25]] * n_groups, n_resamples=FEW)
    assert scores.has_few_groups == (n_groups < 30)
    assert scores.to_dict()["few_groups"] == scores.has_few_groups
    assert ("rough" in str(scores)) == scores.has_few_groups


def test_scores_print_as_text_and_html():
    """Both show every metric with its interval."""
    scores = evaluate([0, 1, 2, 0], [[0.4, 0.3, 0.3]] * 4)
    assert "log loss" in str(scores)
    assert len(str(scores).splitlines()) == 1 + len(METRICS)
    table, shown = scores.to_frame(), scores._repr_html_()
    assert html.escape(scores.describe()) in shown
    for name, ends in table.to_dict("index").items():
        assert Interval(**ends).to_dict() == scores.to_dict()[name]
        assert html.escape(f"{Interval(**ends):.4f}") in shown
    assert list(table.index) == list(METRICS)


def test_seed_decides_intervals():
    """Equal seeds give equal intervals, another seed gives others."""
    generator = np.random.default_rng(0)
    rows = generator.integers(0, 3, 50), generator.dirichlet([2, 2, 2], 50)
    assert evaluate(*rows) == evaluate(*rows)
    assert evaluate(*rows, seed=1) != evaluate(*rows)


@given(scored_rows(), st.sampled_from(["log_loss", "accuracy", "brier", "decisive_accuracy"]))
def test_compare_is_difference_of_scores(rows, metric):
    """compare(p, q) is score(p) - score(q), and minus compare(q, p)."""
    labels, probs, groups = rows
    others = probs[::-1]
    options = {"groups": groups, "n_resamples": FEW}
    there = compare(labels, probs, others, metric=metric, **options)
    back = compare(labels, others, probs, metric=metric, **options)
    scores = [getattr(evaluate(labels, p, **options), metric).value for p in (probs, others)]
    assert there.value == pytest.approx(scores[0] - scores[1], nan_ok=True, abs=1e-9)
    assert there.value == pytest.approx(-back.value, nan_ok=True, abs=1e-9)


@given(scored_rows())
def test_model_equals_itself(rows):
    """The difference is zero and its interval includes zero."""
    labels, probs, groups = rows
    interval = compare(labels, probs, probs, groups=groups, n_resamples=FEW)
    assert interval.value == 0
    assert not interval.excludes_zero


def test_pairing_finds_small_gains():
    """A small steady gain is significant although the intervals of the two scores overlap."""
    generator = np.random.default_rng(0)
    probs = generator.dirichlet([2, 2, 2], 300)
    labels = (generator.random(300)[:, None] > probs.cumsum(1)[:, :2]).sum(1)
    worse = 0.95 * probs + 0.05 * np.roll(np.eye(3)[labels], 1, axis=1)
    assert compare(labels, probs, worse).excludes_zero
    assert evaluate(labels, probs).log_loss.high > evaluate(labels, worse).log_loss.low


def test_two_dtypes_are_clipped_alike():
    """The same zeros at the label, in float32 and float64, make no difference."""
    labels, wrong = np.zeros(40, dtype=int), np.tile([0.0, 1.0, 0.0], (40, 1))
    found = compare(labels, wrong.astype(np.float32), wrong)
    assert (found.low, found.value, found.high) == (0, 0, 0)


def test_unknown_metric_is_refused():
    """The message lists the known metrics."""
    with pytest.raises(ScoresError, match="decisive_accuracy"):
        compare([0], [[1.0, 0, 0]], [[1.0, 0, 0]], metric="f1")


def test_compared_decisive_accuracy_leaves_out_ties():
    """The paired difference is that of the two scores, which do not count ties."""
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 3, 60)
    first, second = (generator.dirichlet(np.ones(3), 60) for _ in range(2))
    found = compare(labels, first, second, metric="decisive_accuracy", n_resamples=99)
    one, other = (evaluate(labels, p, n_resamples=99).decisive_accuracy for p in (first, second))
    assert found.value == pytest.approx(one.value - other.value)


def test_rows_in_another_order_are_refused():
    """Tables whose index is permuted are refused; without a common index rows are positions."""
    table = pd.DataFrame(np.eye(3)[[0, 1, 2, 0]] / 2 + 1 / 6, columns=["a", "b", "tie"])
    labels, other = pd.Series([0, 1, 2, 0]), table.iloc[::-1]
    for refused in (
        lambda: evaluate(labels, other),
        lambda: evaluate(labels, table, groups=labels[::-1]),
        lambda: compare(labels, table, other),
    ):
        with pytest.raises(ScoresError, match="another order"):
            refused()
    expected = evaluate(labels, table)
    assert evaluate(labels, other.loc[labels.index]) == expected
    assert evaluate(labels.set_axis(list("abcd")), table) == expected


def test_difference_of_verdicts_warns(caplog):
    """The log loss of verdicts only counts errors; accuracies and probabilities are fine."""
    verdicts, probs = np.eye(3)[[0, 1, 2]], np.full((3, 3), 1 / 3)
    compare([0, 1, 1], verdicts, probs, metric="accuracy")
    compare([0, 1, 1], probs, probs)
    assert not caplog.records
    compare([0, 1, 1], probs, verdicts)
    assert "probs_2 are verdicts" in caplog.text
    assert "log loss" in caplog.text
