"""The bootstrap over groups that every interval comes from.

Rows of one group (one conversation's origin) are not independent, so what is resampled is the
group. Every statistic here is a smooth function of *totals*: sums over rows, first added up within
each group, so one resample of G groups costs one row of a matrix product, however many rows there
are.

The interval is the symmetric studentised one: a resample's deviation is divided by its own
standard error (from the groups' jackknife influences, weighted as drawn), and the 95 % quantile of
its size scales the standard error of the sample. Measured coverage (``benchmarks/coverage.md``) is
nearest to what it claims from 20 groups up; percentile and BCa intervals of the same resamples are
too short there.

Rows are put in a canonical order first (groups by their content, not by their names), so neither
the order of rows nor the names of groups moves an interval by a single bit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import t

from tiewise.errors import ScoresError
from tiewise.evaluation.intervals import FloatArray, IntArray, Interval, shown_rows

Statistic = Callable[[FloatArray], FloatArray]
"""From totals (..., n_columns) to values (..., n_values)."""

_CHUNK = 64
_ROUNDING = 1e-11  # what is left of the influences of groups that are all alike


@dataclass(frozen=True)
class GroupedRows:
    """The rows in canonical order, a group's rows side by side."""

    order: IntArray
    """Positions of the rows, (n,)."""

    starts: IntArray
    """Where each group starts in `order`, (n_groups,)."""

    @property
    def n_groups(self) -> int:
        """How many groups there are."""
        return len(self.starts)

    def sums(self, columns: npt.NDArray[Any]) -> FloatArray:
        """Add the rows of `columns` (n, k) up within each group: float64 (n_groups, k)."""
        rows = np.asarray(columns, dtype=np.float64)[self.order]
        return np.add.reduceat(rows, self.starts, axis=0)


def group_rows(groups: npt.ArrayLike | None, *content: npt.NDArray[Any]) -> GroupedRows:
    """Sort rows by group, groups by what is in them.

    Parameters
    ----------
    groups
        A name per row, (n,), any hashable type; None makes each row its own group.
    *content
        Arrays (n,) or (n, k) that tell one row from another.

    Raises
    ------
    ScoresError
        A row has no group, or there are not as many groups as rows.

    Examples
    --------
    >>> grouped = group_rows(["x", "y", "x"], np.array([3.0, 1.0, 2.0]))
    >>> grouped.n_groups, sorted(grouped.sums(np.array([[3.0], [1.0], [2.0]])).ravel().tolist())
    (2, [1.0, 5.0])
    """
    columns = [column for array in content for column in np.atleast_2d(array.T)]
    codes = group_codes(groups, len(columns[0]))
    table = pd.DataFrame(dict(enumerate(columns)))
    row_key = pd.util.hash_pandas_object(table, index=False).to_numpy(np.uint64)
    group_key = np.zeros(codes.max(initial=-1) + 1, dtype=np.uint64)
    np.add.at(group_key, codes, row_key)  # wraps; a sum does not know the order of its terms
    order = np.lexsort((row_key, codes, group_key[codes]))
    sorted_codes = codes[order]
    starts = np.flatnonzero(np.r_[True, sorted_codes[1:] != sorted_codes[:-1]])
    return GroupedRows(order.astype(np.int64), starts.astype(np.int64))


def group_codes(groups: npt.ArrayLike | None, n_rows: int) -> IntArray:
    """Give each group a number from 0: int64 (n_rows,); None makes each row its own group."""
    if groups is None:
        return np.arange(n_rows, dtype=np.int64)
    names = groups if isinstance(groups, pd.Series) else pd.Series(np.asarray(groups))
    if len(names) != n_rows:
        raise ScoresError(f"groups has {len(names)} entries for {n_rows} rows; expected one a row.")
    codes = pd.factorize(names.to_numpy())[0].astype(np.int64)
    missing = np.flatnonzero(codes < 0)
    if len(missing):
        raise ScoresError(
            f"groups is missing in {len(missing)} rows, the first at {shown_rows(missing)}; "
            "every row needs one. Leave groups out to treat each row as its own group."
        )
    return codes


@dataclass(frozen=True)
class Bootstrap:
    """Values of a statistic, their standard errors, and what resampling made of them."""

    values: FloatArray
    """(n_values,)"""

    standard_errors: FloatArray
    """(n_values,), of the jackknife over groups."""

    deviations: FloatArray
    """Size of each resample's deviation in its own standard errors, (n_resamples, n_values)."""

    def intervals(self, confidence_level: float) -> list[Interval]:
        """Return one interval per value."""
        scale = _nan_quantile(self.deviations, confidence_level)
        ends = zip(self.values, scale * self.standard_errors, strict=True)
        return [Interval(float(v), float(v - half), float(v + half)) for v, half in ends]

    def p_values(
        self, degrees_of_freedom: npt.ArrayLike, confidence_level: float = 0.95
    ) -> FloatArray:
        """Return how rarely chance alone lies this far from zero: (n_values,) in [0, 1].

        Resamples tell nothing of tails rarer than one in their number, and many comparisons need
        such tails. So the tail is Student's, stretched until it agrees with the resamples at
        `confidence_level`: an interval excludes zero exactly where p is below one minus that.

        Parameters
        ----------
        degrees_of_freedom
            Groups less one, (n_values,) or one for all.
        confidence_level
            Where tail and resamples agree.
        """
        scale = _nan_quantile(self.deviations, confidence_level)
        stretch = scale / t.ppf((1 + confidence_level) / 2, degrees_of_freedom)
        with np.errstate(divide="ignore", invalid="ignore"):
            distance = np.abs(self.values) / (self.standard_errors * stretch)
        p_values = 2 * t.sf(distance, degrees_of_freedom)
        return np.where(np.abs(self.values) <= _ROUNDING, 1.0, p_values)


def bootstrap(
    sums: FloatArray, statistic: Statistic, *, n_resamples: int = 999, seed: int = 0
) -> Bootstrap:
    """Resample groups with replacement and see how far a statistic moves.

    Parameters
    ----------
    sums
        Sums of each group, (n_groups, n_columns).
    statistic
        From totals (..., n_columns) to values (..., n_values); NaN where not defined.
    n_resamples
        How many resamples, at least 1.
    seed
        Of the resampling: equal seeds give equal intervals.

    References
    ----------
    Davison and Hinkley (1997), Bootstrap Methods and their Application, sections 2.4, 2.7, 5.2.
    Hall (1988), On symmetric bootstrap confidence intervals, JRSS B 50, 35-45.

    Examples
    --------
    >>> sums = np.column_stack([np.arange(100.0), np.ones(100)])
    >>> mean = lambda totals: totals[..., :1] / totals[..., 1:]
    >>> f"{bootstrap(sums, mean).intervals(0.95)[0]:.1f}"
    '49.5 [43.8, 55.2]'
    """
    check_resamples(n_resamples)
    n_groups, n_columns = sums.shape
    with np.errstate(divide="ignore", invalid="ignore"):
        values = statistic(sums.sum(0))
        influence, standard_errors = jackknife(sums, statistic)
        if n_groups < 2:
            return Bootstrap(values, standard_errors, np.full((1, len(values)), np.nan))
        columns = np.hstack([sums, influence, influence**2])
        totals = resampled_totals(columns, n_resamples, np.random.default_rng(seed))
        moved = np.abs(statistic(totals[:, :n_columns]) - values)
        own_errors = _own_errors(totals[:, n_columns:] / n_groups, n_groups, standard_errors)
        deviations = np.where(standard_errors == 0, 0.0, moved / own_errors)
    return Bootstrap(values, standard_errors, deviations)


def jackknife(sums: FloatArray, statistic: Statistic) -> tuple[FloatArray, FloatArray]:
    """Leave each group out once.

    Returns
    -------
    influence
        How much each group pulls each value, (n_groups, n_values); sums to zero over groups.
    standard_errors
        (n_values,); NaN for a single group.
    """
    n_groups = len(sums)
    without = statistic(sums.sum(0) - sums)
    with np.errstate(divide="ignore", invalid="ignore"):
        influence = (n_groups - 1) * (without.mean(0) - without)
        standard_errors = np.sqrt((influence**2).sum(0) / (n_groups * (n_groups - 1.0)))
    standard_errors[standard_errors <= _ROUNDING * (1 + np.abs(without.mean(0)))] = 0.0
    return influence, standard_errors


def mean_of_sums(totals: FloatArray) -> FloatArray:
    """Divide every total by the last column, the count: (..., k + 1) to (..., k)."""
    return totals[..., :-1] / totals[..., -1:]


def _own_errors(moments: FloatArray, n_groups: int, standard_errors: FloatArray) -> FloatArray:
    """Give the standard error of each resample, from the first two moments of its influences.

    A resample in which nothing varies (every group drawn is all right, say) has no scale: NaN.
    """
    mean, square = np.split(moments, 2, axis=1)
    own_errors = np.sqrt(np.maximum(square - mean**2, 0) / (n_groups - 1))
    return np.where(own_errors > standard_errors * 1e-6, own_errors, np.nan)


def check_resamples(n_resamples: int) -> None:
    """Raise ScoresError unless something is drawn at all."""
    if n_resamples < 1:
        raise ScoresError(f"n_resamples is {n_resamples}; expected at least 1.")


def resampled_totals(
    columns: FloatArray, n_resamples: int, generator: np.random.Generator
) -> FloatArray:
    """Draw groups with replacement and add them up: (n_resamples, n_columns)."""
    n_groups = len(columns)
    totals = np.empty((n_resamples, columns.shape[1]))
    for start in range(0, n_resamples, _CHUNK):
        n_draws = min(_CHUNK, n_resamples - start)
        drawn = generator.integers(0, n_groups, size=(n_draws, n_groups))
        drawn += np.arange(n_draws)[:, None] * n_groups
        counts = np.bincount(drawn.ravel(), minlength=n_draws * n_groups)
        weights = counts.reshape(n_draws, n_groups).astype(np.float64)
        totals[start : start + n_draws] = weights @ columns
    return totals


def _nan_quantile(values: FloatArray, level: float) -> FloatArray:
    """Quantile of what is known in each column; NaN where nothing is."""
    known = [column[np.isfinite(column)] for column in values.T]
    return np.array([np.quantile(column, level) if len(column) else np.nan for column in known])
