"""Several people's votes on a pair as one row with soft labels."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from tiewise.data.labels import PROB_COLUMNS, WORD_OF_WINNER, Winner, swap_probs
from tiewise.data.table import row_digests, swap_pairs
from tiewise.data.targets import make_targets
from tiewise.errors import PairsError


def pool_votes(pairs: pd.DataFrame) -> pd.DataFrame:
    """Join rows of the same texts and models, whichever response stood first.

    Parameters
    ----------
    pairs
        A pairs table of single votes, each with a label or soft labels.

    Returns
    -------
    DataFrame
        A row per pair, as it first stood in the table. ``prob_a, prob_b, prob_tie`` are the shares
        of its votes, and ``weight`` their number (the sum of their weights), so that fitting to the
        pooled rows is fitting to the single votes; set it to 1 where every pair shall count the
        same. The label is what most votes say, a tie where two of them lead.

    Raises
    ------
    PairsError
        When a row has neither a label nor soft labels, or its soft labels are a teacher's.

    Examples
    --------
    >>> from tiewise.data.schema import build_pairs
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
    first, pair, is_turned = _same_pairs(pairs)
    votes = np.where(is_turned[:, None], swap_probs(targets.probs), targets.probs)
    totals = np.bincount(pair, targets.weights)
    # A pair of weight 0 has shares all the same.
    counted = np.where(totals[pair] > 0, targets.weights, 1.0)
    sums = np.zeros((len(first), 3))
    np.add.at(sums, pair, votes * counted[:, None])
    probs = sums / sums.sum(axis=1, keepdims=True)
    pooled = pairs.iloc[first].reset_index(drop=True)
    labels = _majority(sums)
    return pooled.assign(
        label=pd.array(labels, dtype="Int8"),
        winner=pd.array([WORD_OF_WINNER[Winner(label)] for label in labels], dtype="string"),
        **dict(zip(PROB_COLUMNS, probs.T, strict=True)),
        weight=totals,
    )


def _same_pairs(
    pairs: pd.DataFrame,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Return each pair's first row, each row's pair, and whether it stands the other way round."""
    given, swapped = (_row_keys(table) for table in (pairs, swap_pairs(pairs)))
    pair, _ = pd.factorize(np.where(given < swapped, given, swapped))
    first = np.unique(pair, return_index=True)[1]
    return first, pair, given != given[first[pair]]


def _row_keys(pairs: pd.DataFrame) -> npt.NDArray[np.object_]:
    """Return the digest of each row's texts with the models that answered."""
    models = zip(pairs["model_a"].astype("string"), pairs["model_b"].astype("string"), strict=True)
    keys = zip(row_digests(pairs), map(repr, models), strict=True)
    return np.array([digest + names for digest, names in keys], dtype=object)


def _majority(sums: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    leads = sums == sums.max(axis=1, keepdims=True)
    return np.where(leads.sum(axis=1) > 1, int(Winner.TIE), leads.argmax(axis=1))
