"""A number and its interval. No score is shown without one."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tiewise.errors import ScoresError

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

FEW_GROUPS = 30
"""Below this many groups an interval is flagged: it is a rough one."""


@dataclass(frozen=True)
class Interval:
    """A value between the two ends of its interval.

    NaN stands for what cannot be known: a share of no rows has no value, and a single group has a
    value but no interval.
    """

    value: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether both ends lie on the same side of zero."""
        return self.low > 0 or self.high < 0

    def clip(self, least: float, most: float) -> Interval:
        """Keep both ends within what the value can be."""
        low, high = np.clip([self.low, self.high], least, most)
        return Interval(self.value, float(low), float(high))

    def to_dict(self) -> dict[str, float | None]:
        """Return value, low and high for JSON; what cannot be known is None."""
        ends = {"value": self.value, "low": self.low, "high": self.high}
        return {name: end if math.isfinite(end) else None for name, end in ends.items()}

    def __format__(self, specification: str) -> str:
        specification = specification or ".4f"
        if math.isnan(self.value):
            return "not defined"
        value, low, high = (format(end, specification) for end in self._ends())
        return f"{value} [{low}, {high}]" if math.isfinite(self.low) else f"{value} [unknown]"

    def __str__(self) -> str:
        return format(self)

    def _ends(self) -> tuple[float, float, float]:
        return self.value, self.low, self.high


def check_confidence(confidence_level: float) -> float:
    """Return `confidence_level`, or raise ScoresError unless it lies between 0 and 1."""
    if not 0 < confidence_level < 1:
        raise ScoresError(
            f"confidence_level is {confidence_level}; expected a number between 0 and 1, as 0.95."
        )
    return confidence_level


def few_groups_mark(n_groups: int) -> str:
    """Return what stands behind a number from so few groups that its interval is rough.

    Examples
    --------
    >>> few_groups_mark(29), few_groups_mark(30)
    ('  (29 groups: rough)', '')
    """
    return f"  ({n_groups} groups: rough)" if n_groups < FEW_GROUPS else ""


def shown_rows(rows: npt.NDArray[Any], limit: int = 5) -> str:
    """Name the first few of `rows` for a message.

    Examples
    --------
    >>> shown_rows(np.arange(7))
    'row 0, 1, 2, 3, 4, …'
    """
    names = ", ".join(str(row) for row in rows[:limit].tolist())
    return f"row {names}" + (", …" if len(rows) > limit else "")
