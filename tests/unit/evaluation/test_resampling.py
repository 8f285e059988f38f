"""Resampling: what is drawn, what moves an interval, and what does not."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from strategies import scored_rows
from tiewise.errors import ScoresError
from tiewise.evaluation.intervals import Interval
from tiewise.evaluation.resampling import bootstrap, group_codes, group_rows, jackknife


def mean(totals):
    return totals[..., :1] / totals[..., 1:]


def drawn_sums(n_groups, seed=0, scale=1.0):
    generator = np.random.default_rng(seed)
    counts = generator.integers(1, 6, n_groups).astype(float)
    return np.column_stack([generator.gamma(2, scale, n_groups) * counts, counts])


@given(scored_rows())
def test_group_sums_are_the_sums_of_each_groups_rows(rows):
    """Adding up within groups equals pandas' groupby, as a multiset."""
    labels, probs, groups = rows
    ours = group_rows(groups, labels, probs).sums(probs)
    theirs = pd.DataFrame(probs).groupby(groups).sum().to_numpy()
    np.testing.assert_allclose(np.sort(ours, axis=0), np.sort(theirs, axis=0), atol=1e-12)


@given(scored_rows(), st.randoms())
def test_neither_order_nor_names_change_the_grouped_sums(rows, random):
    """Shuffled rows and renamed groups give the same sums in the same order, bit for bit."""
    labels, probs, groups = rows
    order = list(range(len(labels)))
    random.shuffle(order)
    renamed = np.array([f"{ord(name) * 7919 % 31}{name}" for name in groups])
    first = group_rows(groups, labels, probs).sums(probs)
    second = group_rows(renamed[order], labels[order], probs[order]).sums(probs[order])
    np.testing.assert_array_equal(first, second)


def test_the_jackknife_equals_leaving_out_one_by_one():
    """Influences are those of the definition, and the standard error is theirs."""
    sums = drawn_sums(12)
    influence, errors = jackknife(sums, mean)
    left_out = np.array([mean(np.delete(sums, g, axis=0).sum(0))[0] for g in range(12)])
    np.testing.assert_allclose(influence[:, 0], 11 * (left_out.mean() - left_out))
    assert errors[0] == pytest.approx(
        math.sqrt(11 / 12 * ((left_out - left_out.mean()) ** 2).sum())
    )


def test_the_standard_error_of_a_plain_mean_is_the_textbooks():
    """With one row a group, the jackknife error is the standard error of the mean."""
    values = np.random.default_rng(1).normal(size=40)
    _, errors = jackknife(np.column_stack([values, np.ones(40)]), mean)
    assert errors[0] == pytest.approx(stats.sem(values))


def test_many_groups_give_scipys_bootstrap_interval():
    """With 2,000 groups the interval agrees with scipy's BCa one to a tenth of its width."""
    sums = drawn_sums(2000)
    ours = bootstrap(sums, mean, n_resamples=1999).intervals(0.95)[0]
    theirs = stats.bootstrap(
        (sums[:, 0], sums[:, 1]),
        lambda total, count, axis: total.sum(axis) / count.sum(axis),
        paired=True,
        vectorized=True,
        n_resamples=1999,
        batch=100,
        method="percentile",
        random_state=np.random.default_rng(5),
    ).confidence_interval
    width = theirs.high - theirs.low
    assert abs(ours.low - theirs.low) < 0.1 * width
    assert abs(ours.high - theirs.high) < 0.1 * width


@given(st.integers(2, 20), st.integers(0, 5), st.floats(0.5, 0.99))
def test_an_interval_contains_its_value_and_widens_with_confidence(n_groups, seed, level):
    """The value lies inside; more confidence is never narrower."""
    drawn = bootstrap(drawn_sums(n_groups, seed), mean, n_resamples=99, seed=seed)
    narrow, wide = drawn.intervals(level * 0.9)[0], drawn.intervals(level)[0]
    assert wide.low <= narrow.low <= narrow.value <= narrow.high <= wide.high


@given(st.floats(1e-3, 1e3), st.integers(0, 3))
def test_scaling_the_values_scales_the_interval(factor, seed):
    """Intervals are equivariant: other units, the same statement."""
    sums = drawn_sums(15, seed)
    plain = bootstrap(sums, mean, n_resamples=50).intervals(0.9)[0]
    scaled = bootstrap(sums * [factor, 1], mean, n_resamples=50).intervals(0.9)[0]
    assert scaled.low == pytest.approx(plain.low * factor)
    assert scaled.high == pytest.approx(plain.high * factor)


@given(st.integers(3, 30), st.integers(0, 20), st.sampled_from([0.8, 0.9, 0.95]))
def test_the_p_value_agrees_with_the_interval(n_groups, seed, level):
    """An interval excludes zero exactly where p is below one minus its level."""
    sums = drawn_sums(n_groups, seed)
    sums[:, 0] -= 1.5 * sums[:, 1]
    drawn = bootstrap(sums, mean, n_resamples=199)
    p_value = drawn.p_values(n_groups - 1, level)[0]
    assert 0 <= p_value <= 1
    assert drawn.intervals(level)[0].excludes_zero == (p_value < 1 - level)


def test_the_p_value_of_many_groups_is_the_t_tests():
    """With a row a group and many groups, resampling and theory agree."""
    values = np.random.default_rng(0).normal(0.15, 1, 500)
    drawn = bootstrap(np.column_stack([values, np.ones(500)]), mean, n_resamples=4999)
    expected = stats.ttest_1samp(values, 0).pvalue
    assert drawn.p_values(499)[0] == pytest.approx(expected, rel=0.4)


def test_one_group_has_a_value_but_no_interval():
    """Nothing can be said about the spread of a single group."""
    interval = bootstrap(drawn_sums(1), mean).intervals(0.95)[0]
    assert math.isfinite(interval.value)
    assert math.isnan(interval.low)
    assert math.isnan(interval.high)
    assert interval.to_dict()["low"] is None
    assert str(interval).endswith("[unknown]")


def test_groups_that_are_all_alike_have_an_interval_of_no_width():
    """What never varies is known exactly, and differs from zero as surely as can be said."""
    drawn = bootstrap(np.full((40, 2), 3.0) * [0.1, 1], mean, n_resamples=99)
    assert drawn.intervals(0.95)[0] == Interval(*[pytest.approx(0.1)] * 3)
    assert drawn.p_values(39)[0] == 0
    assert bootstrap(np.ones((40, 2)) * [0, 1], mean).p_values(39)[0] == 1.0


def test_what_is_not_defined_stays_not_defined():
    """A ratio over nothing is NaN, null in JSON, and said in words."""
    interval = bootstrap(np.zeros((5, 2)), mean).intervals(0.95)[0]
    assert interval.to_dict() == {"value": None, "low": None, "high": None}
    assert str(interval) == "not defined"
    assert not interval.excludes_zero


@pytest.mark.parametrize("missing", [None, np.nan, pd.NA])
def test_a_missing_group_is_refused_by_row(missing):
    """Every row needs a group; the message names the first without."""
    with pytest.raises(ScoresError, match="missing in 1 rows, the first at row 2"):
        group_codes(pd.Series(["a", "b", missing], dtype=object), 3)


def test_groups_of_another_length_are_refused():
    """One group a row."""
    with pytest.raises(ScoresError, match="2 entries for 3 rows"):
        group_codes(["a", "b"], 3)


def test_no_resamples_are_refused():
    """There is no interval of zero resamples."""
    with pytest.raises(ScoresError, match="n_resamples is 0"):
        bootstrap(drawn_sums(3), mean, n_resamples=0)
