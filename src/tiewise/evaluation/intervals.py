"""Intervals of scores from a studentised cluster bootstrap, and the base class of results.

Rows of one prompt group are not independent, so groups are resampled. Every statistic is a smooth
function of *totals*: sums over rows, added up within each group first. The interval is symmetric:
each resample's deviation is divided by its own standard error, from the jackknife influences of its
groups. Values in [0, 1], such as shares, have Wilson intervals instead, because resamples of a
share near 0 or 1 hardly differ. ``benchmarks/coverage.md`` has the coverage of all of them.
"""

from __future__ import annotations

import html
import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import t

from tiewise.data.folds import read_groups
from tiewise.errors import FoldError, ScoresError

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Statistic = Callable[[FloatArray], FloatArray]
"""From totals (..., n_columns) to values (..., n_values)."""

_CHUNK = 64  # resamples drawn at a time, which bounds the memory
_ROUNDING = 1e-11  # standard errors below this are rounding: all groups are equal
FEW_GROUPS = 30
"""Intervals from fewer groups than this are marked as rough."""


@dataclass(frozen=True)
class Interval:
    """A value and its confidence interval.

    NaN means not defined: a share of no rows has no value, and a single group has a value but no
    interval. A value that is NaN within an interval is only known to be below the high end.

    Examples
    --------
    >>> gap = Interval(-0.25, -0.5, -0.125)
    >>> float(gap), f"{gap:.3f}", gap.excludes_zero
    (-0.25, '-0.250 [-0.500, -0.125]', True)
    """

    value: float
    """The estimate; ``float(interval)`` returns it."""

    low: float
    """Lower end of the interval."""

    high: float
    """Upper end of the interval."""

    @property
    def excludes_zero(self) -> bool:
        """Whether both ends are on the same side of zero."""
        return self.low > 0 or self.high < 0

    def clip(self, least: float, most: float) -> Interval:
        """Return the interval with both ends, not the value, limited to [least, most]."""
        low, high = np.clip([self.low, self.high], least, most)
        return Interval(self.value, float(low), float(high))

    def to_dict(self) -> dict[str, float | None]:
        """Return value, low and high for JSON; None where not defined."""
        return {name: to_json(end) for name, end in vars(self).items()}

    def __float__(self) -> float:
        return float(self.value)

    def __format__(self, specification: str) -> str:
        specification = specification or ".4f"
        if math.isnan(self.value):
            return "not defined" if math.isnan(self.high) else f"< {self.high:{specification}}"
        value, low, high = (format(end, specification) for end in vars(self).values())
        return f"{value} [{low}, {high}]" if math.isfinite(self.low) else f"{value} [unknown]"

    def __str__(self) -> str:
        return format(self)

    def _repr_html_(self) -> str:
        value, bracket, ends = str(self).partition(" [")
        return f"<strong>{html.escape(value)}</strong>{html.escape(bracket + ends)}"


@dataclass(frozen=True)
class Result:
    """Base of the evaluation results: conversion to JSON and to HTML for notebooks."""

    def to_dict(self) -> dict[str, Any]:
        """Return all fields for JSON; numbers that are not defined are None."""
        found = {field.name: to_json(getattr(self, field.name)) for field in fields(self)}
        if "n_groups" in found:
            found["few_groups"] = found["n_groups"] < FEW_GROUPS
        return found

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(str(self))}</pre>"


def show_table(caption: str, table: pd.DataFrame) -> str:
    """Return a table of texts as HTML for a notebook, below a caption; both are escaped.

    >>> "&lt;b&gt;" in show_table("<b>", pd.DataFrame({"value": [1]}))
    True
    """
    rows = table.to_html(index=False, border=0, escape=True, justify="left")
    return f"<p>{html.escape(caption)}</p>\n{rows}"


def to_json(value: Any) -> Any:
    """Convert results, also in tuples and mappings, to objects that JSON can store.

    >>> to_json({"shares": (0.5, float("nan"))})
    {'shares': [0.5, None]}
    """
    if hasattr(value, "to_dict"):
        return value.to_dict()
    if isinstance(value, Mapping):
        return {name: to_json(entry) for name, entry in value.items()}
    if isinstance(value, tuple | list):
        return [to_json(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def check_confidence(confidence_level: float) -> float:
    """Return `confidence_level`, or raise ScoresError if it is not between 0 and 1."""
    if not 0 < confidence_level < 1:
        raise ScoresError(
            f"confidence_level is {confidence_level}; expected a number between 0 and 1, as 0.95."
        )
    return confidence_level


def few_groups_mark(n_groups: int) -> str:
    """Return the note on rough intervals: ``  (29 groups: rough)``; empty from 30 groups."""
    groups = "1 group" if n_groups == 1 else f"{n_groups} groups"
    return f"  ({groups}: rough)" if n_groups < FEW_GROUPS else ""


def list_rows(rows: npt.NDArray[Any], limit: int = 5) -> str:
    """List the first `limit` of `rows` for an error message.

    >>> list_rows(np.arange(7))
    'row 0, 1, 2, 3, 4, …'
    """
    names = ", ".join(str(row) for row in rows[:limit].tolist())
    return f"row {names}" + (", …" if len(rows) > limit else "")


class BootstrapOptions(TypedDict, total=False):
    """Options of every function that returns intervals, as in :func:`tiewise.evaluate`."""

    confidence_level: float
    n_resamples: int
    seed: int


@dataclass(frozen=True)
class GroupedRows:
    """Rows sorted by group."""

    order: IntArray
    """Positions of the rows, (n,)."""

    starts: IntArray
    """Index into `order` of the first row of each group, (n_groups,)."""

    @property
    def n_groups(self) -> int:
        """Number of groups."""
        return len(self.starts)

    def sums(self, columns: npt.NDArray[Any]) -> FloatArray:
        """Sum `columns` (n, k) within each group: float64 (n_groups, k)."""
        rows = np.asarray(columns, dtype=np.float64)[self.order]
        return np.add.reduceat(rows, self.starts, axis=0)


def group_rows(groups: npt.ArrayLike | None, *content: npt.NDArray[Any]) -> GroupedRows:
    """Sort rows by group, and groups by their content, from the name of each row's group, (n,).

    Neither the order of the rows nor the names of the groups changes a bit of the sums. None makes
    each row its own group. `content` are arrays (n,) or (n, k) that distinguish the rows.

    >>> grouped = group_rows(["x", "y", "x"], np.array([3.0, 1.0, 2.0]))
    >>> grouped.n_groups, sorted(grouped.sums(np.array([[3.0], [1.0], [2.0]])).ravel().tolist())
    (2, [1.0, 5.0])
    """
    columns = [column for array in content for column in np.atleast_2d(array.T)]
    codes = group_codes(groups, len(columns[0]))
    table = pd.DataFrame(dict(enumerate(columns)))
    row_key = pd.util.hash_pandas_object(table, index=False).to_numpy(np.uint64)
    group_key = np.zeros(codes.max(initial=-1) + 1, dtype=np.uint64)
    # The sum of the row keys (modulo 2**64) does not depend on the order of the rows.
    np.add.at(group_key, codes, row_key)
    order = np.lexsort((row_key, codes, group_key[codes]))
    sorted_codes = codes[order]
    starts = np.flatnonzero(np.r_[True, sorted_codes[1:] != sorted_codes[:-1]])
    return GroupedRows(order.astype(np.int64), starts.astype(np.int64))


def group_codes(groups: npt.ArrayLike | None, n_rows: int) -> IntArray:
    """Assign each group a number from 0: int64 (n_rows,); None makes each row its own group.

    The groups are read by :func:`tiewise.data.folds.read_groups`; ScoresError where it refuses
    them.
    """
    if groups is None:
        return np.arange(n_rows, dtype=np.int64)
    try:
        names = read_groups(groups, n_rows)
    except FoldError as error:
        raise ScoresError(
            f"{error} To treat each row as its own group, leave groups out."
        ) from None
    return pd.factorize(names)[0].astype(np.int64)


@dataclass(frozen=True)
class Bootstrap:
    """Values of a statistic and their jackknife standard errors, (n_values,) each."""

    values: FloatArray
    standard_errors: FloatArray
    deviations: FloatArray
    """Absolute deviation of each resample in its own standard errors, (n_resamples, n_values)."""

    confidence_level: float

    def intervals(self) -> list[Interval]:
        """Return one interval per value."""
        scale = _nan_quantile(self.deviations, self.confidence_level)
        ends = zip(self.values, scale * self.standard_errors, strict=True)
        return [Interval(float(v), float(v - half), float(v + half)) for v, half in ends]

    def share_intervals(self, counts: FloatArray) -> list[Interval]:
        """Return one Wilson interval per value, where the values are shares in [0, 1].

        `counts`, (n_groups, n_values), are the rows (or their weights) in each group that each
        share is a mean over. The number of trials in Wilson's interval is the effective one, at
        which independent rows have the standard error of the share; where all rows are right, or
        none, it is Kish's effective number of groups. The quantile is Student's t, for one less
        than the number of groups with rows. After Franco, Little, Louis and Slud (2019),
        Comparative study of confidence intervals for proportions in complex sample surveys,
        Journal of Survey Statistics and Methodology 7, 334-364.

        >>> sums = np.column_stack([np.r_[np.ones(49), 0], np.ones(50)])
        >>> f"{bootstrap(sums, mean_of_sums).share_intervals(sums[:, 1:])[0]:.2f}"
        '0.98 [0.89, 1.00]'
        """
        share, error = np.clip(self.values, 0, 1), self.standard_errors
        degrees = np.maximum((counts > 0).sum(0) - 1, 1)
        quantile = t.ppf((1 + self.confidence_level) / 2, degrees)
        with np.errstate(divide="ignore", invalid="ignore"):
            kish = counts.sum(0) ** 2 / (counts**2).sum(0)
            spread = share * (1 - share)
            # The squared quantile over the effective number of trials.
            shrinkage = quantile**2 * np.where(spread > 0, error**2 / spread, 1 / kish)
            centre = (share + shrinkage / 2) / (1 + shrinkage)
            half = np.sqrt(shrinkage * (spread + shrinkage / 4)) / (1 + shrinkage)
            half = np.where(np.isnan(error), np.nan, half)
        # Rounding must not leave a share of exactly 0 or 1 outside its interval.
        low = np.minimum(np.clip(centre - half, 0, 1), self.values)
        high = np.maximum(np.clip(centre + half, 0, 1), self.values)
        ends = zip(self.values.tolist(), low.tolist(), high.tolist(), strict=True)
        return [Interval(*each) for each in ends]

    def p_values(self, degrees_of_freedom: npt.ArrayLike) -> FloatArray:
        """Return two-sided p-values of the hypothesis that a value is zero, (n_values,).

        The tail is Student's t (degrees of freedom: the number of groups minus one), because Holm's
        correction needs p-values below 1 / n_resamples. Its scale is chosen so that the interval
        excludes zero exactly where p < 1 - `confidence_level`.
        """
        scale = _nan_quantile(self.deviations, self.confidence_level)
        stretch = scale / t.ppf((1 + self.confidence_level) / 2, degrees_of_freedom)
        with np.errstate(divide="ignore", invalid="ignore"):
            distance = np.abs(self.values) / (self.standard_errors * stretch)
        p_values = 2 * t.sf(distance, degrees_of_freedom)
        return np.where(np.abs(self.values) <= _ROUNDING, 1.0, p_values)


def bootstrap(
    sums: FloatArray,
    statistic: Statistic,
    *,
    confidence_level: float = 0.95,
    n_resamples: int = 999,
    seed: int = 0,
) -> Bootstrap:
    """Resample groups with replacement and measure how far a statistic moves.

    `sums` are those of each group, (n_groups, n_columns); the statistic is NaN where not defined.
    After Davison and Hinkley (1997), Bootstrap Methods and their Application, sections 2.4, 2.7,
    5.2, and Hall (1988), On symmetric bootstrap confidence intervals, JRSS B 50, 35-45.

    >>> sums = np.column_stack([np.arange(100.0), np.ones(100)])
    >>> f"{bootstrap(sums, mean_of_sums).intervals()[0]:.1f}"
    '49.5 [43.8, 55.2]'
    """
    n_groups, n_columns = sums.shape
    check_confidence(confidence_level)
    check_resamples(n_resamples, seed)
    with np.errstate(divide="ignore", invalid="ignore"):
        values = statistic(sums.sum(0))
        influence, standard_errors = jackknife(sums, statistic)
        if n_groups < 2:
            unknown = np.full((1, len(values)), np.nan)
            return Bootstrap(values, standard_errors, unknown, confidence_level)
        columns = np.hstack([sums, influence, influence**2])
        totals = resampled_totals(columns, n_resamples, np.random.default_rng(seed))
        moved = np.abs(statistic(totals[:, :n_columns]) - values)
        own_errors = _own_errors(totals[:, n_columns:] / n_groups, n_groups, standard_errors)
        deviations = np.where(standard_errors == 0, 0.0, moved / own_errors)
    return Bootstrap(values, standard_errors, deviations, confidence_level)


def jackknife(sums: FloatArray, statistic: Statistic) -> tuple[FloatArray, FloatArray]:
    """Recompute a statistic without each group in turn.

    Returns the influence of each group on each value, (n_groups, n_values), which sums to zero over
    groups, and the standard errors, (n_values,), NaN for a single group.
    """
    n_groups = len(sums)
    without = statistic(sums.sum(0) - sums)
    with np.errstate(divide="ignore", invalid="ignore"):
        influence = (n_groups - 1) * (without.mean(0) - without)
        standard_errors = np.sqrt((influence**2).sum(0) / (n_groups * (n_groups - 1.0)))
    standard_errors[standard_errors <= _ROUNDING * (1 + np.abs(without.mean(0)))] = 0.0
    return influence, standard_errors


def resampled_totals(
    columns: FloatArray, n_resamples: int, generator: np.random.Generator
) -> FloatArray:
    """Draw groups with replacement and sum their `columns`: (n_resamples, n_columns)."""
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


def mean_of_sums(totals: FloatArray) -> FloatArray:
    """Divide every total by the last one, the count: (..., k + 1) to (..., k)."""
    return totals[..., :-1] / totals[..., -1:]


def weighted_mean(values: FloatArray, weights: FloatArray) -> FloatArray:
    """Average (..., k) to (..., n) with weights (n, k), over the values that are not NaN."""
    is_known = np.isfinite(values)
    return np.asarray((np.where(is_known, values, 0.0) @ weights.T) / (is_known @ weights.T))


def check_resamples(n_resamples: int, seed: int) -> None:
    """Raise ScoresError unless there is at least one resample, and NumPy takes the seed."""
    try:
        is_valid = operator.index(n_resamples) >= 1
    except TypeError:
        is_valid = False
    if not is_valid:
        raise ScoresError(f"n_resamples is {n_resamples!r}; expected an integer, at least 1.")
    try:
        np.random.default_rng(seed)
    except (TypeError, ValueError) as error:
        raise ScoresError(f"seed is {seed!r}; expected an integer, at least 0.") from error


def _own_errors(moments: FloatArray, n_groups: int, standard_errors: FloatArray) -> FloatArray:
    """Return the standard error of each resample from two moments of its influences.

    NaN for a resample in which nothing varies, for example where all drawn groups are right.
    """
    mean, square = np.split(moments, 2, axis=1)
    own_errors = np.sqrt(np.maximum(square - mean**2, 0) / (n_groups - 1))
    return np.where(own_errors > standard_errors * 1e-6, own_errors, np.nan)


def _nan_quantile(values: FloatArray, level: float) -> FloatArray:
    """Quantile of the finite values of each column; NaN where there are none."""
    known = [column[np.isfinite(column)] for column in values.T]
    return np.array([np.quantile(column, level) if len(column) else np.nan for column in known])
