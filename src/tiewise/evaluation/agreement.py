"""How far people agree with one another: what no predictor of single votes can pass by much.

Where several people voted on the same pair, each vote is held against the other votes on that pair.
A pair is the same when prompt and both answers are, whichever stood first: votes on the exchanged
pair are turned back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from tiewise.data.labels import swap_labels
from tiewise.data.table import row_digests
from tiewise.errors import ScoresError
from tiewise.evaluation.intervals import (
    FEW_GROUPS,
    FloatArray,
    IntArray,
    Interval,
    check_confidence,
    few_groups_mark,
)
from tiewise.evaluation.metrics import N_CLASSES, check_labels
from tiewise.evaluation.resampling import bootstrap, group_rows

VOTE_COLUMNS = ["pair", "vote"]
_EXCHANGED = {"response_a": "response_b", "response_b": "response_a"}


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
            f"people: {self.n:,} votes on {self.n_pairs:,} pairs that several voted on"
            f"{few_groups_mark(self.n_groups)}\n"
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
    named = name_votes(pairs).assign(group=pairs["group"].to_numpy())
    return agreement_of_votes(
        named, confidence_level=confidence_level, n_resamples=n_resamples, seed=seed
    )


def name_votes(pairs: pd.DataFrame) -> pd.DataFrame:
    """Name the pair of texts that each row votes on, and turn its vote to speak of one order.

    Returns
    -------
    DataFrame
        Columns `pair` (32 hex digits, equal where prompt and both answers are, whichever stood
        first) and `vote` (Int8, missing where there is no label); a row per row of `pairs`.

    Examples
    --------
    >>> texts = {"prompt": [["Q"]] * 2, "response_a": [["1"], ["2"]], "response_b": [["2"], ["1"]]}
    >>> named = name_votes(pd.DataFrame({**texts, "label": pd.array([0, 1], "Int8")}))
    >>> named["pair"].nunique(), named["vote"].nunique()
    (1, 1)
    """
    given, exchanged = row_digests(pairs), row_digests(pairs.rename(columns=_EXCHANGED))
    is_turned = given > exchanged
    is_known = pairs["label"].notna().to_numpy()
    votes = np.zeros(len(pairs), dtype=np.int64)
    votes[is_known] = check_labels(pairs["label"][is_known]) if is_known.any() else 0
    turned = pd.Series(np.where(is_turned, swap_labels(votes), votes), pairs.index, dtype="Int8")
    names = np.where(is_turned, exchanged, given)
    return pd.DataFrame({"pair": names, "vote": turned.where(is_known)}, index=pairs.index)


def agreement_of_votes(
    votes: pd.DataFrame,
    *,
    confidence_level: float = 0.95,
    n_resamples: int = 999,
    seed: int = 0,
) -> HumanAgreement:
    """Hold each vote against the others, from names alone: no text is needed.

    Parameters
    ----------
    votes
        `pair, vote` as :func:`name_votes` gives them, and `group`.
    confidence_level, n_resamples, seed
        As in :func:`tiewise.evaluate`.

    Raises
    ------
    ScoresError
        No pair has two votes.
    """
    check_confidence(confidence_level)
    known = votes[votes["vote"].notna()]
    codes, labels = pd.factorize(known["pair"])[0], known["vote"].to_numpy(np.int64)
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
    sums = group_rows(known["group"].to_numpy()[is_shared], terms).sums(terms)
    drawn = bootstrap(sums, _ratios, n_resamples=n_resamples, seed=seed)
    intervals = [interval.clip(0, 1) for interval in drawn.intervals(confidence_level)]
    return HumanAgreement(len(codes), len(np.unique(codes)), len(sums), *intervals)


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
