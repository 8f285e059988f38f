"""Many runs against one reference, row by row, overall and by slice.

Every comparison is paired: a run and the reference are scored on the rows that both predicted, and
the difference of log loss and of accuracy in each row is what is resampled, by group. P values (of
log loss) are corrected by Holm's rule, once for the runs overall and once for all their slices.
"""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from tiewise.errors import ScoresError
from tiewise.evaluation.families import cut_families
from tiewise.evaluation.intervals import (
    FEW_GROUPS,
    FloatArray,
    Interval,
    check_confidence,
    few_groups_mark,
)
from tiewise.evaluation.metrics import check_labels
from tiewise.evaluation.resampling import Bootstrap, bootstrap, group_rows
from tiewise.evaluation.scores import paired_terms
from tiewise.evaluation.slices import correct_holm, describe_p, join_rows
from tiewise.pairs.labels import PROB_COLUMNS

OVERALL = "all rows"


@dataclass(frozen=True)
class PairedDifference:
    """One run against the reference on one part of the rows."""

    run: str
    family: str
    """What the rows are cut by; "all rows" for all of them."""

    name: str
    """Of the slice; "all rows" for all of them."""

    n: int
    n_groups: int
    log_loss: Interval
    """The run's minus the reference's: below zero, the run is better."""

    accuracy: Interval
    """The run's minus the reference's: above zero, the run is better."""

    p_value: float
    p_holm: float

    @property
    def has_few_groups(self) -> bool:
        """Whether its intervals are rough."""
        return self.n_groups < FEW_GROUPS

    def to_dict(self) -> dict[str, Any]:
        """Return the difference for JSON; what cannot be known is None."""
        return {
            "run": self.run,
            "family": self.family,
            "slice": self.name,
            "n": self.n,
            "n_groups": self.n_groups,
            "few_groups": self.has_few_groups,
            "log_loss": self.log_loss.to_dict(),
            "accuracy": self.accuracy.to_dict(),
            "p_value": None if np.isnan(self.p_value) else self.p_value,
            "p_holm": None if np.isnan(self.p_holm) else self.p_holm,
        }


@dataclass(frozen=True)
class PairedDifferences:
    """Every run against the reference: overall first, then by slice."""

    rows: tuple[PairedDifference, ...]
    omitted: dict[str, str]
    """Families that could not be cut, and why."""

    reference: str = "the reference"
    left_out: dict[str, tuple[int, int]] = field(default_factory=dict)
    """By run: rows that only it, and that only the reference, has predicted."""

    @property
    def overall(self) -> tuple[PairedDifference, ...]:
        """The differences on all rows."""
        return tuple(row for row in self.rows if row.family == OVERALL)

    def to_frame(self) -> pd.DataFrame:
        """Return a line per run and slice, intervals as three columns each."""
        return pd.json_normalize([row.to_dict() for row in self.rows], sep="_")

    def to_dict(self) -> dict[str, Any]:
        """Return everything for JSON."""
        return {
            "reference": self.reference,
            "differences": [row.to_dict() for row in self.rows],
            "omitted": self.omitted,
            "left_out": {name: list(counts) for name, counts in self.left_out.items()},
        }

    def __str__(self) -> str:
        names = [_name(row) for row in self.rows]
        width = max(map(len, names), default=0)
        lines = [f"minus {self.reference}, paired; intervals by group, p by Holm's rule"]
        lines += [
            f"{name:{width}}  {row.n:7,}  log loss {row.log_loss:+.4f}  "
            f"accuracy {row.accuracy:+.4f}  {describe_p(row.p_holm)}{few_groups_mark(row.n_groups)}"
            for name, row in zip(names, self.rows, strict=True)
        ]
        lines += [
            f"left out: {own:,} rows only in {name}, {other:,} only in {self.reference}"
            for name, (own, other) in self.left_out.items()
            if own or other
        ]
        return "\n".join(lines + [f"{name}: omitted, {why}" for name, why in self.omitted.items()])

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(str(self))}</pre>"


def compare_many(
    runs: Mapping[str, pd.DataFrame],
    reference: pd.DataFrame,
    *,
    pairs: pd.DataFrame | None = None,
    confidence_level: float = 0.95,
    n_resamples: int = 999,
    seed: int = 0,
) -> PairedDifferences:
    """Compare every run with the reference on the rows that both have predicted.

    Parameters
    ----------
    runs
        Predictions by name: tables with `id, prob_a, prob_b, prob_tie`.
    reference
        The same, with `label` and `group` besides.
    pairs
        The pairs table of the rows; then every comparison is also made by slice.
    confidence_level, n_resamples, seed
        As in :func:`tiewise.evaluate`.

    Raises
    ------
    ScoresError
        A run shares no labelled row with the reference, or probabilities are none.

    Examples
    --------
    >>> labels = {"id": range(60), "label": [0, 1, 2] * 20, "group": range(60)}
    >>> probs = {"prob_a": 0.4, "prob_b": 0.3, "prob_tie": 0.3}
    >>> reference = pd.DataFrame({**labels, **probs})
    >>> print(compare_many({"same": reference}, reference))
    minus the reference, paired; intervals by group, p by Holm's rule
    same       60  log loss +0.0000 [+0.0000, +0.0000]  accuracy +0.0000 [+0.0000, +0.0000]  p 1.000
    """
    check_confidence(confidence_level)
    omitted: dict[str, str] = {}
    rows: list[PairedDifference] = []
    for name, run in runs.items():
        table, terms = _paired_rows(name, run, reference)
        parts = {OVERALL: pd.Series(pd.Categorical([OVERALL] * len(table)))}
        if pairs is not None:
            families, omitted = cut_families(join_rows(pairs, table))
            parts |= {key: part.cat.remove_unused_categories() for key, part in families.items()}
        grouped = group_rows(table["group"], terms)
        for family, slices in parts.items():
            sums = grouped.sums(_spread(terms, slices))
            drawn = bootstrap(sums, _means, n_resamples=n_resamples, seed=seed)
            rows += _differences(name, family, slices, sums, drawn, confidence_level)
    whole = [row for row in rows if row.family == OVERALL]
    parted = [row for row in rows if row.family != OVERALL]
    return PairedDifferences((*_corrected(whole), *_corrected(parted)), omitted)


def _differences(
    run: str,
    family: str,
    slices: pd.Series,
    sums: FloatArray,
    drawn: Bootstrap,
    confidence_level: float,
) -> list[PairedDifference]:
    n_groups = (sums[:, 2::3] > 0).sum(0)
    degrees = np.repeat(np.maximum(n_groups - 1, 1), 2)
    intervals = drawn.intervals(confidence_level)
    p_values = drawn.p_values(degrees, confidence_level)
    return [
        PairedDifference(
            run=run,
            family=family,
            name=str(category),
            n=int(sums[:, 3 * k + 2].sum()),
            n_groups=int(n_groups[k]),
            log_loss=intervals[2 * k],
            accuracy=intervals[2 * k + 1],
            p_value=float(p_values[2 * k]),
            p_holm=float("nan"),
        )
        for k, category in enumerate(slices.cat.categories)
    ]


def _paired_rows(
    name: str, run: pd.DataFrame, reference: pd.DataFrame
) -> tuple[pd.DataFrame, FloatArray]:
    """Rows that both predicted, and what each adds: loss and accuracy difference, one, (n, 3)."""
    repeated = [ids[ids.duplicated()] for ids in (run["id"], reference["id"])]
    if any(len(ids) for ids in repeated):
        first = next(ids.iloc[0] for ids in repeated if len(ids))
        raise ScoresError(f"run {name} or the reference predicts id {first} more than once.")
    own = run[["id", *PROB_COLUMNS]].rename(columns=lambda column: f"run_{column}")
    own["key"] = own.pop("run_id").astype(str)
    labelled = reference[reference["label"].notna()]
    table = labelled.assign(key=labelled["id"].astype(str)).merge(own, on="key")
    if not len(table):
        raise ScoresError(
            f"run {name} shares no labelled row with the reference. Are both of the same data?"
        )
    labels = check_labels(table["label"])
    one = table[[f"run_{column}" for column in PROB_COLUMNS]].to_numpy()
    other = table[PROB_COLUMNS].to_numpy()
    terms = [paired_terms(labels, one, other, metric=m)[0] for m in ("log_loss", "accuracy")]
    return table, np.column_stack([*terms, np.ones(len(table))])


def _spread(terms: FloatArray, slices: pd.Series) -> FloatArray:
    """Give each slice columns of its own: (n, 3) to (n, 3 k)."""
    member = np.asarray(slices.cat.codes)[:, None] == np.arange(len(slices.cat.categories))
    spread = member[:, :, None] * terms[:, None, :]
    return np.asarray(spread.reshape(len(terms), -1), dtype=np.float64)


def _means(totals: FloatArray) -> FloatArray:
    """From totals (..., 3 k) to differences of log loss and accuracy, (..., 2 k)."""
    parts = totals.reshape(*totals.shape[:-1], -1, 3)
    means = parts[..., :2] / parts[..., 2:]
    return np.asarray(means.reshape(*totals.shape[:-1], -1))


def _corrected(rows: list[PairedDifference]) -> list[PairedDifference]:
    corrected = correct_holm([row.p_value for row in rows]).tolist()
    return [replace(row, p_holm=p) for row, p in zip(rows, corrected, strict=True)]


def _name(row: PairedDifference) -> str:
    return row.run if row.family == OVERALL else f"{row.run}, {row.family}: {row.name}"
