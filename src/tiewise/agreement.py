"""How far people agree with one another: what no predictor of single votes can pass by much.

Where several people voted on the same pair, each vote is held against the other votes on that pair.
A pair is the same when prompt and both answers are, whichever stood first: votes on the exchanged
pair are turned back.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from .errors import ScoresError
from .intervals import FEW_GROUPS, FloatArray, IntArray, Interval, check_confidence
from .labels import swap_labels
from .metrics import N_CLASSES, check_labels
from .resampling import bootstrap, group_rows


@dataclass(frozen=True)
class HumanAgreement:
    """How often another person's vote on the same pair is the same."""

    n: int
    """Votes on pairs that at least two people voted on."""

    n_pairs: int
    n_groups: int
    agreement: Interval
    """Chance that another vote on the pair is the same, of A, B and tie."""

    decisive_agreement: Interval
    """The same among votes for A or B: neither vote is a tie."""

    majority_agreement: Interval
    """How often a vote is what most of the other votes on the pair say; shared where they tie."""

    def to_dict(self) -> dict[str, Any]:
        """Return the agreement for JSON."""
        return {
            "n": self.n,
            "n_pairs": self.n_pairs,
            "n_groups": self.n_groups,
            "few_groups": self.n_groups < FEW_GROUPS,
            "agreement": self.agreement.to_dict(),
            "decisive_agreement": self.decisive_agreement.to_dict(),
            "majority_agreement": self.majority_agreement.to_dict(),
        }

    def __str__(self) -> str:
        return (
            f"{self.n:,} votes on {self.n_pairs:,} pairs in {self.n_groups:,} groups\n"
            f"another person votes the same   {self.agreement:.4f}\n"
            f"the same, neither vote a tie    {self.decisive_agreement:.4f}\n"
            f"the majority of others the same {self.majority_agreement:.4f}"
        )


def measure_agreement(
    pairs: pd.DataFrame,
    *,
    confidence_level: float = 0.95,
    n_resamples: int = 999,
    seed: int = 0,
) -> HumanAgreement:
    """Hold each vote against the other votes on the same pair.

    Parameters
    ----------
    pairs
        A pairs table of single votes: `prompt, response_a, response_b, label, group`.
    confidence_level, n_resamples, seed
        As in :func:`tiewise.evaluate`.

    Raises
    ------
    ScoresError
        No pair has two votes.

    Examples
    --------
    >>> texts = {"prompt": [["Q"]] * 3, "response_a": [["yes"]] * 3, "response_b": [["no"]] * 3}
    >>> votes = pd.DataFrame({**texts, "label": [0, 0, 2], "group": "g"})
    >>> round(measure_agreement(votes).agreement.value, 3)
    0.333
    """
    check_confidence(confidence_level)
    votes = pairs[pairs["label"].notna()]
    codes, labels = _same_pairs(votes)
    counts = np.zeros((codes.max(initial=-1) + 1, N_CLASSES))
    np.add.at(counts, (codes, labels), 1)
    is_shared = counts.sum(1)[codes] > 1
    if not is_shared.any():
        raise ScoresError(
            "no pair has two votes, so nobody can agree or disagree. Expected a table of single "
            "votes in which prompt and both answers repeat."
        )
    codes, labels = codes[is_shared], labels[is_shared]
    terms = _vote_terms(labels, counts[codes])
    groups = votes["group"].to_numpy()[is_shared]
    sums = group_rows(groups, terms).sums(terms)
    drawn = bootstrap(sums, _ratios, n_resamples=n_resamples, seed=seed)
    intervals = [interval.clip(0, 1) for interval in drawn.intervals(confidence_level)]
    return HumanAgreement(len(codes), len(np.unique(codes)), len(sums), *intervals)


def _same_pairs(votes: pd.DataFrame) -> tuple[IntArray, IntArray]:
    """Give equal pairs equal numbers, and turn their labels to speak of the same first answer."""
    labels = check_labels(votes["label"])
    columns = [votes[name] for name in ("prompt", "response_a", "response_b")]
    texts = [tuple(json.dumps(turns) for turns in row) for row in zip(*columns, strict=True)]
    is_flipped = np.array([a > b for _, a, b in texts])
    keys = pd.Series([(prompt, *sorted((a, b))) for prompt, a, b in texts], dtype=object)
    codes = pd.factorize(keys)[0].astype(np.int64)
    return codes, np.where(is_flipped, swap_labels(labels), labels)


def _vote_terms(labels: IntArray, counts: npt.NDArray[Any]) -> FloatArray:
    """For each vote: agreement, one, decisive agreement, whether it has any, majority, (n, 5)."""
    others = counts - np.eye(N_CLASSES)[labels]
    same = others[np.arange(len(labels)), labels]
    n_decisive = np.where(labels < 2, others[:, :2].sum(1), 0)
    is_largest = others == others.max(1, keepdims=True)
    majority = is_largest[np.arange(len(labels)), labels] / is_largest.sum(1)
    decisive = np.where(n_decisive > 0, same / np.maximum(n_decisive, 1), 0)
    columns = [same / others.sum(1), np.ones(len(labels)), decisive, n_decisive > 0, majority]
    return np.column_stack(columns)


def _ratios(totals: FloatArray) -> FloatArray:
    n = totals[..., 1]
    ratios = [totals[..., 0] / n, totals[..., 2] / totals[..., 3], totals[..., 4] / n]
    return np.stack(ratios, axis=-1)
