"""Compute what rows of a pairs table are fitted to: probabilities, weights, and entropies.

The loss of a row has a hard and a soft part, mixed by the soft weight w:

    (1 - w) * cross-entropy(label, p) + w * KL(soft label || p)

w is 0 where a row has no soft label and 1 where it has no label. As a function of p this is the
cross-entropy with the mixture of label and soft label, less a constant.

Votes from sources without ties only show who wins: the loss of their rows is -log P(A | not a tie),
or the same for B. In a pooled row this holds for the share `binary_fraction` of its votes. A
teacher's soft labels still count for ties.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import entr

from tiewise.data.labels import PROB_COLUMNS, WORD_OF_WINNER, Winner, swap_probs
from tiewise.data.pairs import row_digests, swap_pairs
from tiewise.errors import ConfigError, PairsError

FloatArray = npt.NDArray[np.float64]

DETECT = "detect"
"""Value of `no_tie_sources` that finds the sources by their votes."""
NO_TIE_COLUMN = "is_no_tie_row"
_MIN_VOTES = 200


@dataclass(frozen=True)
class Targets:
    """What n rows are fitted to; the last three are float64 of shape (n,)."""

    probs: FloatArray
    """Mixture of label and soft label: float64, shape (n, 3), rows sum to 1."""
    weights: FloatArray
    binary_fraction: FloatArray
    """Share of the row that is about A against B alone, in [0, 1]."""
    target_entropy: FloatArray
    """Entropy of the soft part, the constant that makes its cross-entropy a divergence."""

    def in_both_orders(self) -> Targets:
        """Return 2n rows: these, and then these with A and B exchanged."""
        both = {name: np.concatenate([part] * 2) for name, part in vars(self).items()}
        return Targets(**both | {"probs": np.concatenate([self.probs, swap_probs(self.probs)])})


def make_targets(pairs: pd.DataFrame, *, soft_weight: float = 1.0) -> Targets:
    """Return what to fit n rows of a pairs table to; a row without any label is a PairsError.

    `soft_weight`, in [0, 1], is the share of the soft label where a row has both. Soft labels and
    ``weight`` are used where the columns exist. ``is_no_tie_row`` (:func:`mark_no_tie_rows`) marks
    rows from sources without ties; without it they are detected.

    >>> votes = {"label": [0, 1], "prob_a": 0.5, "prob_b": 0.25, "prob_tie": 0.25, "source": ""}
    >>> make_targets(pd.DataFrame(votes), soft_weight=0.5).probs.tolist()
    [[0.75, 0.125, 0.125], [0.25, 0.625, 0.125]]
    """
    if pairs.empty:
        raise PairsError("there is no pair to fit on; read more rows or raise --limit")
    hard, soft = _hard(pairs), _soft(pairs)
    has_label, has_soft = ~np.isnan(hard[:, 0]), ~np.isnan(soft[:, 0])
    is_unknown = ~(has_label | has_soft)
    if is_unknown.any():
        raise PairsError(
            f"{is_unknown.sum()} of {len(pairs)} rows have no label, the first is "
            f"id={pairs['id'].to_numpy()[is_unknown][0]}; fit on labelled rows only"
        )
    share = np.where(has_label, np.where(has_soft, soft_weight, 0.0), 1.0)
    hard, soft = np.nan_to_num(hard), np.nan_to_num(soft)
    if NO_TIE_COLUMN not in pairs.columns:
        pairs = mark_no_tie_rows(pairs, find_no_tie_sources(pairs))
    weights = pairs["weight"] if "weight" in pairs.columns else np.ones(len(pairs))
    return Targets(
        probs=(1 - share)[:, None] * hard + share[:, None] * soft,
        weights=np.asarray(weights, dtype=np.float64),
        binary_fraction=pairs[NO_TIE_COLUMN].to_numpy(bool)
        * (1 - share + share * (soft[:, 2] == 0)),
        target_entropy=share * entr(soft).sum(axis=1),
    )


def mark_no_tie_rows(pairs: pd.DataFrame, sources: Iterable[str]) -> pd.DataFrame:
    """Return the pairs with a column ``is_no_tie_row``: whether their source is one of these."""
    return pairs.assign(**{NO_TIE_COLUMN: np.isin(_sources(pairs), list(sources))})


def choose_no_tie_sources(pairs: pd.DataFrame, wanted: tuple[str, ...]) -> list[str]:
    """Return the sources without ties among all training rows: those named, or ``detect``.

    A source that does not exist or has ties is a ConfigError.
    """
    if wanted == (DETECT,):
        return find_no_tie_sources(pairs)
    n_ties = _count_votes(pairs)["n_ties"].to_dict()
    for name in wanted:
        if name not in n_ties:
            known = ", ".join(map(str, n_ties))
            raise ConfigError(f"--no-tie-sources is {name}; expected one of the sources {known}.")
        if n_ties[name] > 0:
            raise ConfigError(
                f"--no-tie-sources is {name}, but {n_ties[name]:g} of its votes are ties. Remove "
                "it from the flag."
            )
    return sorted(wanted)


def find_no_tie_sources(pairs: pd.DataFrame) -> list[str]:
    """Return the sources that offered no tie: those with at least 200 votes and not one tie.

    Where no source has a tie, ties may just be rare, and none is returned. A teacher's soft labels
    are no votes. A row without a source has the source "".

    >>> find_no_tie_sources(pd.DataFrame({"source": ["x"] * 200 + ["y"], "label": [0] * 200 + [2]}))
    ['x']
    """
    votes = _count_votes(pairs)
    if not votes["n_ties"].sum():
        return []
    return sorted(votes.index[(votes["n_votes"] >= _MIN_VOTES) & (votes["n_ties"] == 0)])


def has_ties(pairs: pd.DataFrame) -> bool:
    """Return whether a tie is possible: not if there are 200 votes or more and none is a tie.

    With fewer votes ties may just be rare: of 200 votes with 2 % ties, all 200 are decided with a
    probability of 1.8 %, and with 5 % ties of 0.004 %.

    >>> rows = pd.DataFrame({"source": "", "label": [0, 1] * 100})
    >>> has_ties(rows), has_ties(rows.head(199)), has_ties(rows.replace({"label": {1: 2}}))
    (False, True, True)
    """
    votes = _count_votes(pairs).sum()
    return bool(votes["n_ties"] > 0 or votes["n_votes"] < _MIN_VOTES)


def pool_votes(pairs: pd.DataFrame) -> pd.DataFrame:
    """Join several votes on a pair, in either order of the responses, to one row with soft labels.

    Parameters
    ----------
    pairs
        A pairs table of single votes, each with a label or soft labels.

    Returns
    -------
    DataFrame
        One row for all votes on the same texts and models, in the order of the first of them.
        ``prob_a, prob_b, prob_tie`` are the shares of the votes, and ``weight`` is their number
        (the sum of their weights), so that a fit on the pooled rows equals a fit on the single
        votes; set it to 1 to let every pair count the same. The label has most votes; it is a tie
        where two labels have equally many.

    Raises
    ------
    PairsError
        When a row has neither a label nor soft labels, or its soft labels are a teacher's.

    Examples
    --------
    >>> from tiewise.data.pairs import build_pairs
    >>> texts = {"prompt": [["Q"]] * 3, "response_a": [["4"], ["4"], ["5"]]}
    >>> texts |= {"response_b": [["5"], ["5"], ["4"]]}
    >>> votes = build_pairs({"id": [7, 8, 9], **texts, "winner": ["model_a", "tie", "model_b"]})
    >>> pool_votes(votes)[["id", "winner", "prob_a", "prob_b", "prob_tie", "weight"]].round(2)
       id   winner  prob_a  prob_b  prob_tie  weight
    0   7  model_a    0.67     0.0      0.33     3.0
    """
    if "teacher" in pairs.columns and pairs["teacher"].notna().any():
        raise PairsError("a teacher's soft labels are no votes; pool the votes before labelling")
    targets = make_targets(pairs)
    given, swapped = _row_keys(pairs), _row_keys(swap_pairs(pairs))
    pair, _ = pd.factorize(np.where(given < swapped, given, swapped))
    first = np.unique(pair, return_index=True)[1]
    is_swapped = given != given[first[pair]]
    votes = np.where(is_swapped[:, None], swap_probs(targets.probs), targets.probs)
    totals = np.bincount(pair, targets.weights)
    # Votes of a pair with weight 0 count equally for its shares.
    counted = np.where(totals[pair] > 0, targets.weights, 1.0)
    sums = np.zeros((len(first), 3))
    np.add.at(sums, pair, votes * counted[:, None])
    probs = sums / sums.sum(axis=1, keepdims=True)
    # Sums of weights such as 0.1 + 0.2 are rounded.
    is_shared = np.isclose(sums, sums.max(axis=1, keepdims=True), rtol=1e-9, atol=0).sum(axis=1) > 1
    labels = np.where(is_shared, int(Winner.TIE), sums.argmax(axis=1))
    return (
        pairs.iloc[first]
        .reset_index(drop=True)
        .assign(
            label=pd.array(labels, dtype="Int8"),
            winner=pd.array([WORD_OF_WINNER[Winner(label)] for label in labels], dtype="string"),
            **dict(zip(PROB_COLUMNS, probs.T, strict=True)),
            weight=totals,
        )
    )


def count_own_soft_labels(pairs: pd.DataFrame) -> int:
    """Return the number of rows with soft labels that are no teacher's."""
    if PROB_COLUMNS[0] not in pairs:
        return 0
    is_own = pairs[PROB_COLUMNS[0]].notna()
    return int((is_own & pairs["teacher"].isna() if "teacher" in pairs else is_own).sum())


def _row_keys(pairs: pd.DataFrame) -> npt.NDArray[np.object_]:
    """Return the digest of each row's texts with the models that answered."""
    models = zip(pairs["model_a"].astype("string"), pairs["model_b"].astype("string"), strict=True)
    keys = zip(row_digests(pairs), map(repr, models), strict=True)
    return np.array([digest + names for digest, names in keys], dtype=object)


def _count_votes(pairs: pd.DataFrame) -> pd.DataFrame:
    """Count each source's rows that people voted on, and their votes for a tie."""
    hard, soft = _hard(pairs)[:, 2], _soft(pairs)[:, 2]
    if "teacher" in pairs.columns:
        soft = np.where(pairs["teacher"].notna(), np.nan, soft)
    ties = np.fmax(hard, soft)
    rows = pd.DataFrame({"n_votes": ~np.isnan(ties), "n_ties": np.nan_to_num(ties)})
    return rows.groupby(_sources(pairs)).sum()


def _sources(pairs: pd.DataFrame) -> npt.NDArray[np.str_]:
    return pairs["source"].astype("string").fillna("").to_numpy(str)


def _hard(pairs: pd.DataFrame) -> FloatArray:
    """Return one-hot labels, shape (n, 3), NaN where a row has none."""
    codes = pairs["label"].astype("Int64").to_numpy(np.int64, na_value=3)
    one_hot: FloatArray = np.vstack([np.eye(3), np.full(3, np.nan)])[codes]
    return one_hot


def _soft(pairs: pd.DataFrame) -> FloatArray:
    """Return soft labels, shape (n, 3), NaN where a row has none."""
    if not set(PROB_COLUMNS) <= set(pairs.columns):
        return np.full((len(pairs), 3), np.nan)
    return pairs[PROB_COLUMNS].to_numpy(dtype=np.float64)
