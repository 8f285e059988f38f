"""Intervals: a number and its confidence interval, and the base class of evaluation results."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from tiewise.errors import ScoresError

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

FEW_GROUPS = 30
"""Intervals from fewer groups than this are marked as rough."""


@dataclass(frozen=True)
class Interval:
    """A value and its confidence interval.

    NaN means not defined: a share of no rows has no value, and a single group has a value but no
    interval.
    """

    value: float
    low: float
    high: float

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

    def __format__(self, specification: str) -> str:
        specification = specification or ".4f"
        if math.isnan(self.value):
            return "not defined"
        value, low, high = (format(end, specification) for end in vars(self).values())
        return f"{value} [{low}, {high}]" if math.isfinite(self.low) else f"{value} [unknown]"

    def __str__(self) -> str:
        return format(self)


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
    return f"  ({n_groups} groups: rough)" if n_groups < FEW_GROUPS else ""


def list_rows(rows: npt.NDArray[Any], limit: int = 5) -> str:
    """List the first `limit` of `rows` for an error message.

    >>> list_rows(np.arange(7))
    'row 0, 1, 2, 3, 4, …'
    """
    names = ", ".join(str(row) for row in rows[:limit].tolist())
    return f"row {names}" + (", …" if len(rows) > limit else "")
