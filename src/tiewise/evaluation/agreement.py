"""Human agreement: how often another person gives the same label to the same pair.

Each label is compared with the other labels of its pair. Pairs are the same if prompt and both
responses are, in either order; labels of swapped pairs are swapped back. These are raw rates, not
corrected for chance as Krippendorff's alpha is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Unpack

import numpy as np
import numpy.typing as npt
import pandas as pd

from tiewise.data.labels import swap_labels
from tiewise.data.pairs import pair_digests, row_digests
from tiewise.errors import ScoresError
from tiewise.evaluation.intervals import (
    BootstrapOptions,
    FloatArray,
    IntArray,
    Interval,
    Result,
    bootstrap,
    few_groups_mark,
    group_rows,
)
from tiewise.evaluation.metrics import N_CLASSES, check_labels

VOTE_COLUMNS = ["pair", "vote"]


@dataclass(frozen=True)
class HumanAgreement(Result):
    """Agreement of people on the same pairs."""

    n: int
    """Number of labels of pairs that at least two people labelled."""

    n_pairs: int
    n_groups: int
    agreement: Interval
    """Probability that another label of the pair is the same."""

    decisive_agreement: Interval
    """The same among labels A and B: neither is a tie."""

    majority_agreement: Interval
    """Share of labels equal to the majority of the others; divided equally where they tie."""

    def __str__(self) -> str:
        return (
            f"people: {self.n:,} labels of {self.n_pairs:,} pairs that several people labelled"
            f"{few_groups_mark(self.n_groups)}\n"
            f"another person agrees           {self.agreement:.4f}\n"
            f"the same, neither label a tie   {self.decisive_agreement:.4f}\n"
            f"the majority of others agrees   {self.majority_agreement:.4f}"
        )


def name_votes(pairs: pd.DataFrame) -> pd.DataFrame:
    """Identify each row's pair in either order, and give its label in one order.

    Column `pair` has 32 hexadecimal digits; `vote` (Int8) is missing without a label.

    >>> texts = {"prompt": [["Q"]] * 2, "response_a": [["1"], ["2"]], "response_b": [["2"], ["1"]]}
    >>> named = name_votes(pd.DataFrame({**texts, "label": pd.array([0, 1], "Int8")}))
    >>> named["pair"].nunique(), named["vote"].nunique()
    (1, 1)
    """
    names = pair_digests(pairs)
    is_swapped = names != row_digests(pairs, composed=True)
    is_known = pairs["label"].notna().to_numpy()
    votes = np.zeros(len(pairs), dtype=np.int64)
    votes[is_known] = check_labels(pairs["label"][is_known]) if is_known.any() else 0
    in_order = pd.Series(np.where(is_swapped, swap_labels(votes), votes), pairs.index, dtype="Int8")
    return pd.DataFrame({"pair": names, "vote": in_order.where(is_known)}, index=pairs.index)


def agreement_of_votes(votes: pd.DataFrame, **options: Unpack[BootstrapOptions]) -> HumanAgreement:
    """Compare each label with the others of the same pair.

    `votes` has the columns `pair, vote` of :func:`name_votes`, and `group`. Without a pair that has
    two labels, ScoresError is raised.

    >>> votes = pd.DataFrame({"pair": ["x", "x", "x"], "vote": [0, 0, 2], "group": "g"})
    >>> round(agreement_of_votes(votes).agreement.value, 3)
    0.333
    """
    known = votes[votes["vote"].notna()]
    codes, labels = pd.factorize(known["pair"])[0], known["vote"].to_numpy(np.int64)
    counts = np.zeros((codes.max(initial=-1) + 1, N_CLASSES))
    np.add.at(counts, (codes, labels), 1)
    is_shared = counts.sum(1)[codes] > 1
    if not is_shared.any():
        raise ScoresError(
            "agreement needs pairs with at least two labels; there are none. Give a table with one "
            "row per label, in which prompt and both responses repeat."
        )
    codes, labels = codes[is_shared], labels[is_shared]
    terms = _vote_terms(labels, counts[codes])
    sums = group_rows(known["group"].to_numpy()[is_shared], terms).sums(terms)
    intervals = bootstrap(sums, _ratios, **options).share_intervals(sums[:, [1, 3, 1]])
    return HumanAgreement(len(codes), len(np.unique(codes)), len(sums), *intervals)


def _vote_terms(labels: IntArray, counts: npt.NDArray[Any]) -> FloatArray:
    """Return (n, 5): agreement, 1, decisive agreement, 1 where that is defined, majority."""
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
