"""Tests of intervals and of the bootstrap over groups that they come from."""

import math
import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from strategies import scored_rows
from tiewise.errors import ScoresError
from tiewise.evaluation.intervals import (
    Interval,
    bootstrap,
    check_confidence,
    group_codes,
    group_rows,
    jackknife,
    list_rows,
)


def mean(totals):
    return totals[..., :1] / totals[..., 1:]


def drawn_sums(n_groups, seed=0, scale=1.0):
    generator = np.random.default_rng(seed)
    counts = generator.integers(1, 6, n_groups).astype(float)
    return np.column_stack([generator.gamma(2, scale, n_groups) * counts, counts])


@given(scored_rows())
def test_group_sums_match_pandas(rows):
    """Sums within groups equal pandas' groupby, as a multiset."""
    labels, probs, groups = rows
    ours = group_rows(groups, labels, probs).sums(probs)
    theirs = pd.DataFrame(probs).groupby(groups).sum().to_numpy()
    np.testing.assert_allclose(np.sort(ours, axis=0), np.sort(theirs, axis=0), atol=1e-12)


@given(scored_rows(), st.randoms())
def test_row_order_and_group_names_do_not_matter(rows, random):
    """Shuffled rows and renamed groups give the same sums in the same order, bit for bit."""
    labels, probs, groups = rows
    order = list(range(len(labels)))
    random.shuffle(order)
    renamed = np.array([f"{ord(name) * 7919 % 31}{name}" for name in groups])
    first = group_rows(groups, labels, probs).sums(probs)
    second = group_rows(renamed[order], labels[order], probs[order]).sums(probs[order])
    np.testing.assert_array_equal(first, second)


def test_jackknife_follows_its_definition():
    """Influences and standard errors equal those from leaving out each group in turn."""
    sums = drawn_sums(12)
    influence, errors = jackknife(sums, mean)
    left_out = np.array([mean(np.delete(sums, g, axis=0).sum(0))[0] for g in range(12)])
    np.testing.assert_allclose(influence[:, 0], 11 * (left_out.mean() - left_out))
    assert errors[0] == pytest.approx(
        math.sqrt(11 / 12 * ((left_out - left_out.mean()) ** 2).sum())
    )


def test_standard_error_of_mean():
    """With one row per group, the jackknife error is the standard error of the mean."""
    values = np.random.default_rng(1).normal(size=40)
    _, errors = jackknife(np.column_stack([values, np.ones(40)]), mean)
    assert errors[0] == pytest.approx(stats.sem(values))


def test_many_groups_match_scipy_bootstrap():
    """With 2,000 groups the interval agrees with SciPy's to a tenth of its width."""
    sums = drawn_sums(2000)
    ours = bootstrap(sums, mean, n_resamples=1999).intervals()[0]
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


def test_interval_matches_bootstrap_t_by_hand():
    """The half width on 12 numbers equals a bootstrap-t written out with NumPy."""
    values = np.array([0.3, 1.1, 2.7, 0.2, 4.9, 1.4, 0.8, 2.2, 3.6, 0.1, 1.9, 2.5])
    sums = np.column_stack([values, np.ones(12)])
    found = bootstrap(sums, mean, confidence_level=0.9, n_resamples=60, seed=3).intervals()[0]
    drawn = values[np.random.default_rng(3).integers(0, 12, size=(60, 12))]
    own_errors = drawn.std(axis=1, ddof=1) / math.sqrt(12)
    deviations = np.abs(drawn.mean(axis=1) - values.mean()) / own_errors
    half = np.quantile(deviations, 0.9) * stats.sem(values)
    assert found.value == pytest.approx(values.mean())
    assert found.high - found.value == pytest.approx(half)


@given(st.integers(2, 20), st.integers(0, 5), st.floats(0.5, 0.99))
def test_interval_contains_value(n_groups, seed, level):
    """The value is inside, and a higher level never gives a narrower interval."""
    narrow, wide = (
        bootstrap(
            drawn_sums(n_groups, seed), mean, confidence_level=share, n_resamples=99, seed=seed
        ).intervals()[0]
        for share in (level * 0.9, level)
    )
    assert wide.low <= narrow.low <= narrow.value <= narrow.high <= wide.high


@given(st.floats(1e-3, 1e3), st.integers(0, 3))
def test_interval_scales_with_values(factor, seed):
    """Intervals do not depend on the unit of the values."""
    sums = drawn_sums(15, seed)
    plain = bootstrap(sums, mean, n_resamples=50).intervals()[0]
    scaled = bootstrap(sums * [factor, 1], mean, n_resamples=50).intervals()[0]
    assert scaled.low == pytest.approx(plain.low * factor)
    assert scaled.high == pytest.approx(plain.high * factor)


@given(st.integers(3, 30), st.integers(0, 20), st.sampled_from([0.8, 0.9, 0.95]))
def test_p_value_agrees_with_interval(n_groups, seed, level):
    """An interval excludes zero exactly where p is below one minus its level."""
    sums = drawn_sums(n_groups, seed)
    sums[:, 0] -= 1.5 * sums[:, 1]
    drawn = bootstrap(sums, mean, confidence_level=level, n_resamples=199)
    p_value = drawn.p_values(n_groups - 1)[0]
    assert 0 <= p_value <= 1
    assert drawn.intervals()[0].excludes_zero == (p_value < 1 - level)


def test_p_value_matches_t_test():
    """With one row per group and many groups, resampling and theory agree."""
    values = np.random.default_rng(0).normal(0.15, 1, 500)
    drawn = bootstrap(np.column_stack([values, np.ones(500)]), mean, n_resamples=4999)
    expected = stats.ttest_1samp(values, 0).pvalue
    assert drawn.p_values(499)[0] == pytest.approx(expected, rel=0.4)


def test_single_group_has_no_interval():
    """The spread of a single group is unknown."""
    interval = bootstrap(drawn_sums(1), mean).intervals()[0]
    assert math.isfinite(interval.value)
    assert math.isnan(interval.low)
    assert math.isnan(interval.high)
    assert interval.to_dict()["low"] is None
    assert str(interval).endswith("[unknown]")


@given(st.integers(3, 200), st.data())
def test_share_of_rows_has_wilson_interval(n, data):
    """The ends solve Wilson's equation for n - 1 trials and Student's t; all right: n trials."""
    k = data.draw(st.integers(0, n))
    sums = np.column_stack([np.arange(n) < k, np.ones(n)]).astype(float)
    found = bootstrap(sums, mean, n_resamples=1).share_intervals(sums[:, 1:])[0]
    n_trials = n if k in (0, n) else n - 1
    factor = stats.t.ppf(0.975, n - 1) ** 2 / n_trials
    # (k / n - p)^2 = factor p (1 - p)
    ends = sorted(np.roots([1 + factor, -2 * k / n - factor, (k / n) ** 2]))
    assert found.value == k / n
    assert [found.low, found.high] == pytest.approx(np.clip(ends, 0, 1), abs=1e-9)


def test_many_rows_match_scipy_wilson():
    """With 5,000 rows the interval is SciPy's Wilson interval."""
    sums = np.column_stack([np.arange(5000) < 4900, np.ones(5000)]).astype(float)
    found = bootstrap(sums, mean, n_resamples=1).share_intervals(sums[:, 1:])[0]
    theirs = stats.binomtest(4900, 5000).proportion_ci(method="wilson")
    assert [found.low, found.high] == pytest.approx([theirs.low, theirs.high], abs=1e-5)


@pytest.mark.parametrize("share", [0.5, 0.9, 0.95, 0.98])
def test_shares_of_rows_are_covered(share):
    """Exact coverage, from binomial probabilities, is near 95 % from 10 to 100 rows."""
    coverages = []
    for n in (10, 15, 20, 30, 40, 50, 70, 100):
        total = 0.0
        for k in range(n + 1):
            sums = np.column_stack([np.arange(n) < k, np.ones(n)]).astype(float)
            found = bootstrap(sums, mean, n_resamples=1).share_intervals(sums[:, 1:])[0]
            is_covered = found.low <= share <= found.high
            total += stats.binom.pmf(k, n, share) * is_covered
        coverages.append(total)
    assert 0.94 < np.mean(coverages) < 0.98
    assert min(coverages) > 0.925


@pytest.mark.parametrize("share", [0.9, 0.98])
def test_shares_of_groups_are_covered(share):
    """With 30 groups of unequal size and correlated rows, nine in ten intervals hold the share."""
    generator = np.random.default_rng(0)
    hits = 0
    for _ in range(500):
        counts = generator.geometric(0.25, 30) + 1.0
        chance = generator.beta(9 * share, 9 * (1 - share), 30)
        sums = np.column_stack([generator.binomial(counts.astype(int), chance), counts])
        found = bootstrap(sums, mean, n_resamples=1).share_intervals(counts[:, None])[0]
        hits += found.low <= share <= found.high
    assert 0.91 < hits / 500 < 0.985


@given(st.integers(2, 40), st.integers(0, 20), st.floats(0, 1))
def test_share_intervals_are_within_bounds(n_groups, seed, share):
    """They contain their value, stay in [0, 1], and copies of rows in groups change nothing."""
    generator = np.random.default_rng(seed)
    counts = generator.integers(1, 6, n_groups)
    sums = np.column_stack([generator.binomial(counts, share), counts]).astype(float)
    drawn = bootstrap(sums, mean, n_resamples=1)
    found = drawn.share_intervals(sums[:, 1:])[0]
    assert 0 <= found.low <= found.value <= found.high <= 1
    assert found.value in (0, 1) or drawn.standard_errors[0] == 0 or found.low < found.high
    again = bootstrap(3 * sums, mean, n_resamples=1).share_intervals(3 * sums[:, 1:])[0]
    assert vars(again) == pytest.approx(vars(found))


def test_perfect_share_has_a_width():
    """All of 50 rows right: the low end is n / (n + t squared); in one group it is unknown."""
    sums = np.ones((50, 2))
    found = bootstrap(sums, mean).share_intervals(sums[:, 1:])[0]
    assert found.low == pytest.approx(50 / (50 + stats.t.ppf(0.975, 49) ** 2))
    assert found.high == 1
    alone = bootstrap(sums[:1], mean).share_intervals(sums[:1, 1:])[0]
    assert math.isnan(alone.low)
    assert math.isnan(alone.high)


def test_equal_groups_have_no_width():
    """Without any variation the interval has no width, and p is 0, or 1 for zero."""
    drawn = bootstrap(np.full((40, 2), 3.0) * [0.1, 1], mean, n_resamples=99)
    assert drawn.intervals()[0] == Interval(*[pytest.approx(0.1)] * 3)
    assert drawn.p_values(39)[0] == 0
    assert bootstrap(np.ones((40, 2)) * [0, 1], mean).p_values(39)[0] == 1.0


def test_undefined_values_stay_undefined():
    """A ratio over zero is NaN, null in JSON, and printed in words."""
    interval = bootstrap(np.zeros((5, 2)), mean).intervals()[0]
    assert interval.to_dict() == {"value": None, "low": None, "high": None}
    assert str(interval) == "not defined"
    assert not interval.excludes_zero


@pytest.mark.parametrize("missing", [None, np.nan, pd.NA])
def test_missing_group_is_refused(missing):
    """Every row needs a group; the message names the first without."""
    with pytest.raises(ScoresError, match="missing in 1 rows, the first at row 2"):
        group_codes(pd.Series(["a", "b", missing], dtype=object), 3)


def test_wrong_number_of_groups_is_refused():
    """There must be one group per row."""
    with pytest.raises(ScoresError, match="2 entries for 3 rows"):
        group_codes(["a", "b"], 3)


def test_zero_resamples_are_refused():
    """There is no interval from zero resamples."""
    with pytest.raises(ScoresError, match="n_resamples is 0"):
        bootstrap(drawn_sums(3), mean, n_resamples=0)


def test_interval_takes_number_format():
    """The format specification applies to each of the three numbers."""
    assert f"{Interval(1 / 3, 0.25, 0.5):.2f}" == "0.33 [0.25, 0.50]"
    assert str(Interval(1.0, 0.5, 1.5)) == "1.0000 [0.5000, 1.5000]"


@given(st.floats(-5, 5), st.floats(0, 3))
def test_interval_converts_to_float(value, half):
    """`float` returns the value, also within NumPy and pandas; HTML has the printed numbers."""
    interval = Interval(value, value - half, value + half)
    assert float(interval) == value
    assert np.array([interval], dtype=float).tolist() == [value]
    assert pd.Series([interval]).astype(float).tolist() == [value]
    assert re.sub("<.*?>", "", interval._repr_html_()) == str(interval)


def test_unknown_value_is_escaped():
    """A value that is only known to be below the high end has no markup in HTML."""
    assert "&lt; 0.05" in Interval(math.nan, 0, 0.05)._repr_html_()


@pytest.mark.parametrize("level", [0, 1, 95, -0.1, math.nan])
def test_confidence_level_is_checked(level):
    """A level is between 0 and 1; 95 is refused."""
    with pytest.raises(ScoresError, match="between 0 and 1"):
        check_confidence(level)


@given(st.floats(-5, 5), st.floats(0, 3), st.floats(0, 3))
def test_clip_moves_only_ends(value, below, above):
    """The ends stay within the bounds and in order; the value does not change."""
    clipped = Interval(value, value - below, value + above).clip(0, 1)
    assert clipped.value == value
    assert 0 <= clipped.low <= clipped.high <= 1


@given(st.floats(-5, 5), st.floats(0, 3))
def test_interval_excludes_zero(low, width):
    """Both ends must be on the same side; touching zero does not count."""
    interval = Interval(low, low, low + width)
    assert interval.excludes_zero == (low > 0 or low + width < 0)


def test_few_rows_are_listed():
    """A message lists the first five rows and marks that there are more."""
    assert list_rows(np.array([3, 9])) == "row 3, 9"
    assert list_rows(np.arange(9)).endswith("4, …")
