"""The content of a report: the data it is made of, and the kinds of its parts.

Texts are plain; the template escapes them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from tiewise.evaluation.calibration import CalibrationResult, calibrate
from tiewise.evaluation.intervals import Interval
from tiewise.evaluation.paired import PairedDifferences, compare_many
from tiewise.evaluation.references import LENGTH_COLUMNS, RunScores
from tiewise.evaluation.slices import Slices, evaluate_slices
from tiewise.report import tables
from tiewise.runs.folder import RunFolder

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NEEDS_TEXTS = "the texts are needed: name the data files of the run with --data"


@dataclass(frozen=True)
class Finding:
    """One result in words."""

    kind: Literal["good", "bad", "neutral"]
    title: str
    text: str
    section: str  # name of the section that shows it


@dataclass(frozen=True)
class Panel:
    """One drawing of a figure."""

    name: str  # of its file
    draw: Callable[[], Axes]
    alt: str  # description for those who do not see it


@dataclass(frozen=True)
class Section:
    """One section of the report."""

    name: str  # anchor in the page
    title: str
    text: str
    panels: list[Panel] = field(default_factory=list)
    caption: str = ""
    table: pd.DataFrame | None = None  # texts; the first column names the row
    is_table_open: bool = False
    tiles: list[tuple[str, str, str]] = field(default_factory=list)  # name, value, explanation
    cases: list[Any] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # omitted parts, and why


@dataclass(frozen=True)
class Omission:
    """A section that cannot be written, and why."""

    title: str
    reason: str


@dataclass(frozen=True)
class ReportData:
    """Everything that a report is made of."""

    run: RunFolder
    oof: pd.DataFrame  # labelled out-of-fold predictions
    folds: pd.DataFrame
    scores: RunScores
    pairs: pd.DataFrame | None  # texts of the rows of `oof`, in the same order
    others: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    """Predictions of other runs with the same data and folds, by the name of the run."""

    @cached_property
    def calibration(self) -> CalibrationResult | None:
        """Test of calibrations on other prompt groups; None if there is one prompt group."""
        if self.oof["group"].nunique() < 2:
            return None
        log_probs = np.log(np.clip(tables.probs_of(self.oof), 1e-12, 1))
        return calibrate(
            self.oof["label"],
            log_probs,
            groups=self.oof["group"],
            symmetric=self.run.config.predict.swap,
        )

    @cached_property
    def leads(self) -> dict[str, Interval] | None:
        """Lead of the longer response in votes and predictions; None if lengths are missing."""
        if not set(LENGTH_COLUMNS) <= set(self.folds):
            return None
        return tables.lead_of_longer(self.oof, self.folds)

    @cached_property
    def slices(self) -> Slices:
        """Scores of the slices for which there are columns."""
        return evaluate_slices(self.folds if self.pairs is None else self.pairs, self.oof)

    @cached_property
    def differences(self) -> PairedDifferences:
        """Each of the other runs minus this run, on the rows that both predicted."""
        return compare_many(self.others, self.oof, name=self.run.name)
