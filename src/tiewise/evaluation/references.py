"""A run held against what it must beat, on the same rows and folds: what ``scores.json`` says.

References (:mod:`tiewise.evaluation.reference_models`): `uniform`; `class_prior`, the class
frequencies of the fold's training rows; `length_only`, a logistic regression that sees how long the
texts are and nothing else; and `bayes`, the true probabilities, where the data are simulated. Where
several people voted on the same pair, how far they agree stands beside them.
"""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from tiewise.errors import ScoresError
from tiewise.evaluation.agreement import VOTE_COLUMNS, HumanAgreement, agreement_of_votes
from tiewise.evaluation.intervals import IntArray, Interval
from tiewise.evaluation.metrics import check_labels
from tiewise.evaluation.position import PositionBias, measure_position_bias
from tiewise.evaluation.reference_models import reference_probs
from tiewise.evaluation.scores import METRICS, Metric, Scores, compare, evaluate
from tiewise.pairs.labels import PROB_COLUMNS, swap_probs

COMPARED: tuple[Metric, ...] = ("log_loss", "accuracy")


@dataclass(frozen=True)
class RunScores:
    """A run's scores beside what it must beat."""

    scores: Scores
    baselines: dict[str, Scores]
    """The references' scores on the same rows."""

    differences: dict[str, dict[str, Interval]]
    """By reference, then metric: the run's score minus the reference's, paired."""

    counts: dict[str, int]
    """Rows left out, cut, degenerate, ..."""

    position_bias: PositionBias | None = None
    """Where both orders were scored."""

    omitted: dict[str, str] = field(default_factory=dict)
    """References that could not be had, and why."""

    human_agreement: HumanAgreement | None = None
    """Where several people voted on the same pair."""

    def to_dict(self) -> dict[str, Any]:
        """Return what ``scores.json`` holds; what is not defined is None."""
        return {
            **self.scores.to_dict(),
            "baselines": {name: scores.to_dict() for name, scores in self.baselines.items()},
            "differences": {
                name: {metric: interval.to_dict() for metric, interval in metrics.items()}
                for name, metrics in self.differences.items()
            },
            "counts": self.counts,
            "position_bias": self.position_bias.to_dict() if self.position_bias else None,
            "human_agreement": self.human_agreement.to_dict() if self.human_agreement else None,
            "omitted": self.omitted,
        }

    def beats(self, name: str) -> bool:
        """Whether the run's log loss is below that reference's beyond its interval."""
        return self.differences[name]["log_loss"].high < 0

    def __str__(self) -> str:
        lines = [self.scores.describe(), *("".join(row) for row in self._padded())]
        for name, metrics in self.differences.items():
            verdict = "beats" if self.beats(name) else "does not beat"
            lines.append(f"{verdict} {name}: {metrics['log_loss']:+.4f} in log loss")
        lines += [f"{name}: omitted, {reason}" for name, reason in self.omitted.items()]
        if self.human_agreement:
            lines.append(str(self.human_agreement))
        if self.position_bias:
            lines.append(str(self.position_bias))
        counted = [f"{name.replace('_', ' ')} {n:,}" for name, n in self._told().items()]
        lines += [f"counted: {', '.join(counted)}"] if counted else []
        return "\n".join(lines)

    def _told(self) -> dict[str, int]:
        """Return the counts that say more than how many rows there are."""
        counts = {name.removeprefix("n_"): n for name, n in self.counts.items() if n}
        return {name: n for name, n in counts.items() if name != "rows"}

    def _repr_html_(self) -> str:
        rows = (
            "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>"
            for row in self._rows()
        )
        caption = html.escape(self.scores.describe())
        return f"<table><caption>{caption}</caption>{''.join(rows)}</table>"

    def _rows(self) -> list[list[str]]:
        """Lay out a line per metric and a column per predictor, every score with its interval."""
        columns = [self.scores, *self.baselines.values()]
        header = ["", "this run", *self.baselines]
        return [header] + [
            [name.replace("_", " "), *(f"{getattr(scores, name):.4f}" for scores in columns)]
            for name in METRICS
        ]

    def _padded(self) -> list[list[str]]:
        return [[f"{row[0]:18}", *(f"{cell:25}" for cell in row[1:])] for row in self._rows()]


def evaluate_tables(
    oof: pd.DataFrame,
    folds_table: pd.DataFrame,
    *,
    counts: Mapping[str, int] | None = None,
    others: Mapping[str, npt.ArrayLike] | None = None,
    omitted: Mapping[str, str] | None = None,
    confidence_level: float = 0.95,
    n_resamples: int = 999,
    seed: int = 0,
) -> RunScores:
    """Score a run's out-of-fold predictions beside its references.

    Parameters
    ----------
    oof
        The run's ``oof.parquet``: `id, fold, label, group, prob_a, prob_b, prob_tie`, and what else
        it holds. Rows without a label are left out and counted.
    folds_table
        The run's ``folds.parquet``: `id, fold, label, n_chars_prompt, n_chars_a, n_chars_b` of
        every row of the data; with `bayes_a, bayes_b, bayes_tie` the true probabilities; with
        `pair, vote` the votes on the same pair (:func:`tiewise.evaluation.agreement.name_votes`).
    counts
        Further counts to report: rows dropped, repaired, ...
    others
        Further references by name, probabilities (n, 3) of the rows of `oof`.
    omitted
        Further references that could not be had, and why.
    confidence_level, n_resamples, seed
        As in :func:`tiewise.evaluate`.

    Raises
    ------
    ScoresError
        The two tables do not belong together, or nothing can be scored.
    """
    options: dict[str, Any] = {
        "confidence_level": confidence_level,
        "n_resamples": n_resamples,
        "seed": seed,
    }
    is_labelled = oof["label"].notna().to_numpy()
    scored = oof[is_labelled]
    labels = check_labels(scored["label"])
    probs, options["groups"] = scored[PROB_COLUMNS].to_numpy(), scored["group"]
    positions = _positions(scored["id"], folds_table["id"])
    references, lacking = reference_probs(folds_table, positions)
    references |= {name: np.asarray(other)[is_labelled] for name, other in (others or {}).items()}
    return RunScores(
        scores=evaluate(labels, probs, **options),
        baselines={name: evaluate(labels, p, **options) for name, p in references.items()},
        differences={
            name: {m: compare(labels, probs, p, metric=m, **options) for m in COMPARED}
            for name, p in references.items()
        },
        counts={**count_rows(oof), **(counts or {})},
        position_bias=_position_bias(scored, options),
        omitted={**lacking, **(omitted or {})},
        human_agreement=_agreement(folds_table.iloc[positions], options),
    )


def count_rows(oof: pd.DataFrame) -> dict[str, int]:
    """Count what happened to the rows of an out-of-fold table, by the columns it has.

    Examples
    --------
    >>> count_rows(pd.DataFrame({"label": [0, None], "n_truncated": [0, 9]}))
    {'rows': 2, 'unlabelled': 1, 'truncated': 1}
    """
    counts = {"rows": len(oof), "unlabelled": int(oof["label"].isna().sum())}
    if "n_truncated" in oof:
        counts["truncated"] = int((oof["n_truncated"] > 0).sum())
    if "is_degenerate" in oof:
        counts["degenerate"] = int(oof["is_degenerate"].sum())
    return counts


def _positions(ids: pd.Series, all_ids: pd.Series) -> IntArray:
    """Where each of `ids` stands in `all_ids`."""
    index = pd.Index(all_ids.astype(str))
    if not index.is_unique:
        repeated = index[index.duplicated()].unique()[:5].tolist()
        raise ScoresError(
            f"the folds table holds an id more than once, as {', '.join(repeated)}; "
            "every row needs its own."
        )
    positions = index.get_indexer(pd.Index(ids.astype(str)))
    unknown = ids[positions < 0].astype(str)
    if len(unknown):
        raise ScoresError(
            f"{len(unknown)} ids of the predictions are not in the folds table, as "
            f"{', '.join(unknown[:5])}. Do both come from the same run?"
        )
    return positions.astype(np.int64)


def _agreement(voted: pd.DataFrame, options: dict[str, Any]) -> HumanAgreement | None:
    """How far people agree on the rows scored; None where nobody voted on another's pair."""
    if not set(VOTE_COLUMNS) <= set(voted) or not voted["pair"].duplicated().any():
        return None
    return agreement_of_votes(voted, **{k: v for k, v in options.items() if k != "groups"})


def _position_bias(scored: pd.DataFrame, options: dict[str, Any]) -> PositionBias | None:
    """Position bias of the rows that were scored in both orders; None without any."""
    columns = [f"{name}_{order}" for order in ("given", "swapped") for name in PROB_COLUMNS]
    if not set(columns) <= set(scored):
        return None
    both = scored[scored[columns].notna().all(axis=1)]
    if not len(both):
        return None
    given, permuted = np.split(both[columns].to_numpy(), 2, axis=1)
    options = {**options, "groups": both["group"]}
    # The table holds the swapped order permuted back to the row's own A and B.
    return measure_position_bias(given, swap_probs(permuted), **options)
