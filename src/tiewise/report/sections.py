"""What a report is made of, and what its parts are: sections, figures, tables, omissions.

Everything here is plain text and numbers; escaping is the templates' work.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from tiewise.evaluation.intervals import FloatArray, Interval
from tiewise.evaluation.references import RunScores, reference_probs
from tiewise.report.excerpts import label_text
from tiewise.runs.folder import RunFolder

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHARES = {"accuracy", "decisive_accuracy", "share"}
"""Numbers that are shown in percent."""

SCORE_NAMES = {
    "log_loss": "log loss",
    "accuracy": "accuracy",
    "brier": "Brier score",
    "ece": "calibration error",
    "decisive_accuracy": "decisive accuracy",
    "macro_f1": "macro F1",
    "auc": "area under the curve",
    "bayes": "Bayes",
}
SCORE_MEANINGS = {
    "log_loss": "nats a pair; lower is better",
    "accuracy": "likeliest outcome is the vote",
    "brier": "0 to 2; lower is better",
    "ece": "0 to 1; lower is better",
    "decisive_accuracy": "A or B right where it is no tie",
    "macro_f1": "0 to 1; higher is better",
    "auc": "each outcome against the rest",
}


@dataclass(frozen=True)
class Table:
    """Rows of cells under named columns; the first cell of a row names it."""

    caption: str
    columns: list[str]
    rows: list[list[str]]


@dataclass(frozen=True)
class Picture:
    """A figure and its description in words."""

    name: str
    alt: str
    caption: str
    draw: Callable[[], Figure]


@dataclass(frozen=True)
class Section:
    """A part of the report."""

    name: str
    title: str
    text: str
    tiles: list[tuple[str, str, str]] = field(default_factory=list)
    """Name, value, explanation: the numbers to see first."""
    picture: Picture | None = None
    tables: list[Table] = field(default_factory=list)
    is_table_shown: bool = False
    """Whether the tables stand open, or are the numbers behind a figure."""
    cases: list[Any] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What is left out within the section, and why."""


@dataclass(frozen=True)
class Omission:
    """A part that could not be written, and why."""

    title: str
    reason: str


@dataclass(frozen=True)
class ReportData:
    """Everything a report is made of."""

    run: RunFolder
    oof: pd.DataFrame
    """Out-of-fold predictions, labelled."""
    folds: pd.DataFrame
    scores: RunScores
    pairs: pd.DataFrame | None
    """The texts of the rows of `oof`, in the same order."""
    config: dict[str, Any]
    environment: dict[str, Any]
    data: dict[str, Any]
    """What the run remembers of its data: sources, counts, digest."""
    identities: dict[int, dict[str, Any]]

    @cached_property
    def references(self) -> dict[str, FloatArray]:
        """Probabilities of the reference predictors for the rows of `oof`."""
        positions = pd.Index(self.folds["id"]).get_indexer(pd.Index(self.oof["id"]))
        return reference_probs(self.folds, positions)[0]


def show(interval: Interval, metric: str = "") -> str:
    """Return a number with its interval: shares in percent, all else to three decimals.

    Examples
    --------
    >>> show(Interval(0.5, 0.4, 0.6)), show(Interval(0.5, 0.4, 0.6), "accuracy")
    ('0.500 [0.400, 0.600]', '50.0% [40.0%, 60.0%]')
    """
    return format(interval, ".1%" if metric in SHARES else ".3f").replace("-", "−")


def negated(interval: Interval) -> Interval:
    """Return the interval of minus the number.

    Examples
    --------
    >>> negated(Interval(-1.0, -2.0, -0.5))
    Interval(value=1.0, low=0.5, high=2.0)
    """
    return Interval(-interval.value, -interval.high, -interval.low)


def word(name: str) -> str:
    """Return the words for a name in the code.

    Examples
    --------
    >>> word("class_prior"), word("ece")
    ('class prior', 'calibration error')
    """
    return SCORE_NAMES.get(name, label_text(name.replace("_", " ")))


def read_facts(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file, or an empty one where there is none to be read."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
