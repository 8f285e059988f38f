"""Scores of parts of the data, and which parts differ from the rest by more than chance.

Each slice is held against all other rows: the difference of log loss, its interval and its p value
come from one bootstrap over groups. The p values of all slices together are corrected by Holm's
rule, so that of many slices looked at, one that stands out by luck is not reported.
"""

from __future__ import annotations

import html
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
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
from tiewise.evaluation.metrics import check_labels, check_probs, log_losses
from tiewise.evaluation.resampling import GroupedRows, bootstrap, group_codes, group_rows
from tiewise.pairs.labels import PROB_COLUMNS


@dataclass(frozen=True)
class SliceScores:
    """One slice: its size, its scores, and how it differs from the rest."""

    family: str
    name: str
    n: int
    n_groups: int
    log_loss: Interval
    accuracy: Interval

    difference: Interval
    """Log loss of the slice minus that of all other rows."""

    p_value: float
    p_holm: float
    """Corrected for all slices looked at; NaN where nothing can be said."""

    @property
    def has_few_groups(self) -> bool:
        """Whether its intervals are rough."""
        return self.n_groups < FEW_GROUPS


@dataclass(frozen=True)
class Slices:
    """Every slice of every family, and the families that could not be cut."""

    rows: tuple[SliceScores, ...]
    omitted: dict[str, str]
    confidence_level: float

    def to_frame(self) -> pd.DataFrame:
        """Return a line per slice: `family, slice, n, n_groups, value, low, high` (log loss), ...

        `is_different` is whether the corrected p value is below one minus the confidence level.
        """
        return pd.DataFrame([self._line(row) for row in self.rows])

    def to_dict(self) -> dict[str, Any]:
        """Return the slices for JSON; what cannot be known is None."""
        lines = [
            {
                "family": row.family,
                "slice": row.name,
                "n": row.n,
                "n_groups": row.n_groups,
                "few_groups": row.has_few_groups,
                "log_loss": row.log_loss.to_dict(),
                "accuracy": row.accuracy.to_dict(),
                "difference": row.difference.to_dict(),
                "p_value": None if np.isnan(row.p_value) else row.p_value,
                "p_holm": None if np.isnan(row.p_holm) else row.p_holm,
            }
            for row in self.rows
        ]
        return {"slices": lines, "omitted": self.omitted}

    def __str__(self) -> str:
        width = max((len(f"{row.family}: {row.name}") for row in self.rows), default=0)
        lines = [
            f"{'slice':{width}}  {'rows':>7}  log loss, and how much more than the rest; p by "
            f"Holm's rule, * below {1 - self.confidence_level:.2g}"
        ]
        lines += [
            f"{f'{row.family}: {row.name}':{width}}  {row.n:7,}  {row.log_loss:.4f}  "
            f"rest {row.difference:+.4f}  {describe_p(row.p_holm)}"
            f"{' *' if self._differs(row) else ''}"
            f"{few_groups_mark(row.n_groups)}"
            for row in self.rows
        ]
        return "\n".join(lines + [f"{name}: omitted, {why}" for name, why in self.omitted.items()])

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(str(self))}</pre>"

    def _differs(self, row: SliceScores) -> bool:
        return row.p_holm < 1 - self.confidence_level

    def _line(self, row: SliceScores) -> dict[str, Any]:
        return {
            "family": row.family,
            "slice": row.name,
            "n": row.n,
            "n_groups": row.n_groups,
            "value": row.log_loss.value,
            "low": row.log_loss.low,
            "high": row.log_loss.high,
            "accuracy": row.accuracy.value,
            "difference": row.difference.value,
            "p_value": row.p_value,
            "p_holm": row.p_holm,
            "is_different": self._differs(row),
        }


def evaluate_slices(
    pairs: pd.DataFrame,
    oof: pd.DataFrame,
    *,
    confidence_level: float = 0.95,
    n_resamples: int = 999,
    seed: int = 0,
) -> Slices:
    """Score every slice of the rows of `oof` that `pairs` and `oof` allow to cut.

    Parameters
    ----------
    pairs
        The pairs table, or as many of its columns as there are; `id` is needed.
    oof
        Predictions: `id, label, group, prob_a, prob_b, prob_tie` and what else is known. Rows
        without a label are left out.
    confidence_level, n_resamples, seed
        As in :func:`tiewise.evaluate`.

    Raises
    ------
    ScoresError
        A predicted row is not in `pairs`, or nothing can be scored.
    """
    check_confidence(confidence_level)
    table = join_rows(pairs, oof[oof["label"].notna()])
    labels = check_labels(table["label"])
    probs = check_probs(table[PROB_COLUMNS].to_numpy(), len(labels))
    groups = group_codes(table["group"], len(labels))
    terms = np.column_stack([log_losses(labels, probs), probs.argmax(1) == labels])
    grouped = group_rows(groups, labels, probs)
    families, omitted = cut_families(table)
    rows = [
        row
        for name, family in families.items()
        for row in _score_family(
            name,
            family,
            terms,
            grouped,
            confidence_level=confidence_level,
            n_resamples=n_resamples,
            seed=seed,
        )
    ]
    corrected = correct_holm([row.p_value for row in rows]).tolist()
    final = (replace(row, p_holm=p) for row, p in zip(rows, corrected, strict=True))
    return Slices(tuple(final), omitted, confidence_level)


def join_rows(pairs: pd.DataFrame, oof: pd.DataFrame) -> pd.DataFrame:
    """Join predictions with the rows they are of: as many rows as `oof`, in its order.

    Columns that both have are taken from `oof`.

    Raises
    ------
    ScoresError
        An id is in `pairs` twice, or not at all.

    Examples
    --------
    >>> pairs = pd.DataFrame({"id": [1, 2], "language": ["English", "German"]})
    >>> join_rows(pairs, pd.DataFrame({"id": [2], "fold": [0]}))
       id  fold language
    0   2     0   German
    """
    index = pd.Index(pairs["id"].astype(str))
    wanted = pd.Index(oof["id"].astype(str))
    if not index.is_unique:
        repeated = ", ".join(index[index.duplicated()].unique()[:5])
        raise ScoresError(f"pairs holds an id more than once, as {repeated}; every row needs one.")
    places = index.get_indexer(wanted)
    unknown = wanted[places < 0]
    if len(unknown):
        raise ScoresError(
            f"{len(unknown)} predicted rows are not in pairs, as id {', '.join(unknown[:5])}. "
            "Are these the data the run was fitted on?"
        )
    further = [column for column in pairs.columns if column not in oof.columns]
    found = pairs[further].iloc[places].reset_index(drop=True)
    return pd.concat([oof.reset_index(drop=True), found], axis=1)


def describe_p(p_value: float) -> str:
    """Return a P value for people.

    Examples
    --------
    >>> describe_p(0.04), describe_p(float("nan"))
    ('p 0.040', 'p not defined')
    """
    return "p not defined" if np.isnan(p_value) else f"p {p_value:.3f}"


def correct_holm(p_values: npt.ArrayLike) -> FloatArray:
    """Correct p values for having looked at all of them; NaN are not counted and stay NaN.

    References
    ----------
    Holm (1979), A simple sequentially rejective multiple test procedure.

    Examples
    --------
    >>> correct_holm([0.01, 0.04, float("nan"), 0.03]).round(3)
    array([0.03, 0.06,  nan, 0.06])
    """
    values = np.asarray(p_values, dtype=np.float64)
    known = np.flatnonzero(~np.isnan(values))
    order = known[np.argsort(values[known], kind="stable")]
    corrected = np.full(len(values), np.nan)
    factors = np.arange(len(order), 0, -1)
    corrected[order] = np.minimum(np.maximum.accumulate(values[order] * factors), 1)
    return corrected


def _score_family(
    name: str,
    family: pd.Series,
    terms: FloatArray,
    grouped: GroupedRows,
    **options: Any,
) -> list[SliceScores]:
    """Score the slices of one family; `terms` are loss and rightness of each row, (n, 2)."""
    names = family.cat.remove_unused_categories().cat
    member = np.asarray(names.codes)[:, None] == np.arange(len(names.categories))
    # For each slice the sums of loss, rightness and rows; then the same of all rows.
    everything = np.column_stack([terms, np.ones(len(terms))])
    parts = [everything * inside[:, None] for inside in member.T]
    sums = grouped.sums(np.hstack([*parts, everything]))
    drawn = bootstrap(sums, _slice_values, n_resamples=options["n_resamples"], seed=options["seed"])
    n_groups = (sums[:, 2:-3:3] > 0).sum(0)
    # A slice and its rest know no more of the spread than the one in fewer groups.
    n_rest = (sums[:, -1:] > sums[:, 2:-3:3]).sum(0)
    degrees = np.maximum(np.minimum(n_groups, n_rest) - 1, 1)
    level = options["confidence_level"]
    p_values = drawn.p_values(np.repeat(degrees, 3), level)[2::3]
    intervals = drawn.intervals(level)
    return [
        SliceScores(
            family=name,
            name=str(names.categories[k]),
            n=int(member[:, k].sum()),
            n_groups=int(n_groups[k]),
            log_loss=intervals[3 * k].clip(0, np.inf),
            accuracy=intervals[3 * k + 1].clip(0, 1),
            difference=intervals[3 * k + 2],
            p_value=float(p_values[k]),
            p_holm=float("nan"),
        )
        for k in range(len(names.categories))
    ]


def _slice_values(totals: FloatArray) -> FloatArray:
    """From totals (..., 3 (k + 1)) to log loss, accuracy, difference to the rest: (..., 3 k)."""
    shape = totals.shape[:-1]
    parts = totals[..., :-3].reshape(*shape, -1, 3)
    rest = totals[..., None, -3:] - parts
    log_loss, accuracy = parts[..., 0] / parts[..., 2], parts[..., 1] / parts[..., 2]
    difference = log_loss - rest[..., 0] / rest[..., 2]
    return np.stack([log_loss, accuracy, difference], axis=-1).reshape(*shape, -1)
