"""What a model is fitted to: probabilities, weights, and which rows say nothing about ties.

A row's loss has a hard and a soft part, mixed by the soft weight w:

    (1 - w) * cross-entropy(label, p) + w * KL(soft label || p)

w is 0 where a row has no soft label and 1 where it has no label, so no row is lost. As a function
of p this is the cross-entropy against the mixture of label and soft label, less a constant.

People whose source offered no tie have said who wins, not that there is no tie. Of their rows the
loss takes only -log P(A | not a tie), or B's, which moves no tie mass: it is divided by P(A) + P(B)
in the share `decisive` of the row. So a teacher's soft labels may still teach ties on such rows.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt
import pandas as pd

from tiewise.data.labels import PROB_COLUMNS, swap_probs
from tiewise.errors import ConfigError, PairsError

FloatArray = npt.NDArray[np.float64]

DETECT = "detect"
"""Instead of names of sources: those that hold many votes and not one tie."""
NO_TIE_COLUMN = "is_no_tie_row"
_MIN_VOTES = 200


@dataclass(frozen=True)
class Targets:
    """What n rows are fitted to.

    probs
        Mixture of label and soft label: float64, shape (n, 3), rows sum to 1.
    weights
        float64, shape (n,), not negative.
    decisive
        Share of the row that is about A against B alone, in [0, 1]: float64, shape (n,).
    floors
        Entropy of the soft part, which makes its cross-entropy a divergence: float64, shape (n,).
    """

    probs: FloatArray
    weights: FloatArray
    decisive: FloatArray
    floors: FloatArray

    def in_both_orders(self) -> Targets:
        """Return 2n rows: these, and then these with A and B exchanged."""
        both = {
            part.name: np.concatenate([getattr(self, part.name)] * 2) for part in fields(Targets)
        }
        return Targets(**both | {"probs": np.concatenate([self.probs, swap_probs(self.probs)])})


def make_targets(pairs: pd.DataFrame, *, soft_weight: float = 1.0) -> Targets:
    """Return what to fit the rows of a pairs table to.

    Parameters
    ----------
    pairs
        A pairs table of n rows. Soft labels (``prob_a, prob_b, prob_tie``) and ``weight`` are used
        where the columns exist. The column ``is_no_tie_row`` marks rows from sources without ties
        (:func:`mark_no_tie_rows`); where it is missing such sources are detected.
    soft_weight
        Share of the soft label where a row has both, in [0, 1].

    Raises
    ------
    PairsError
        When there is no row, or a row has neither a label nor soft labels.

    Examples
    --------
    >>> votes = {"label": [0, 1], "prob_a": 0.5, "prob_b": 0.25, "prob_tie": 0.25, "source": ""}
    >>> make_targets(pd.DataFrame(votes), soft_weight=0.5).probs.tolist()
    [[0.75, 0.125, 0.125], [0.25, 0.625, 0.125]]
    """
    if pairs.empty:
        raise PairsError("there is no pair to fit on; read more rows or raise --limit")
    hard, soft = _hard(pairs), _soft(pairs)
    has_label, has_soft = ~np.isnan(hard[:, 0]), ~np.isnan(soft[:, 0])
    _refuse_untold(pairs, has_label | has_soft)
    share = np.where(has_label, np.where(has_soft, soft_weight, 0.0), 1.0)
    hard, soft = np.nan_to_num(hard), np.nan_to_num(soft)
    is_no_tie_row = (
        pairs[NO_TIE_COLUMN].to_numpy(bool)
        if NO_TIE_COLUMN in pairs.columns
        else _is_of(pairs, find_no_tie_sources(pairs))
    )
    weights = pairs["weight"] if "weight" in pairs.columns else np.ones(len(pairs))
    return Targets(
        probs=(1 - share)[:, None] * hard + share[:, None] * soft,
        weights=np.asarray(weights, dtype=np.float64),
        decisive=is_no_tie_row * ((1 - share) + share * (soft[:, 2] == 0)),
        floors=share * _entropy(soft),
    )


def mark_no_tie_rows(pairs: pd.DataFrame, sources: Iterable[str]) -> pd.DataFrame:
    """Return the pairs with a column ``is_no_tie_row``: whether the row's source is among these."""
    return pairs.assign(**{NO_TIE_COLUMN: _is_of(pairs, sources)})


def choose_no_tie_sources(pairs: pd.DataFrame, wanted: tuple[str, ...]) -> list[str]:
    """Return the sources that teach A against B alone.

    Parameters
    ----------
    pairs
        All rows that will be learned from.
    wanted
        Names of sources; or the single word ``detect`` (:func:`find_no_tie_sources`).

    Raises
    ------
    ConfigError
        When there is no source of that name, or one of its votes is a tie.
    """
    if wanted == (DETECT,):
        return find_no_tie_sources(pairs)
    n_ties = _evidence(pairs)["n_ties"].to_dict()
    for name in wanted:
        if name not in n_ties:
            known = ", ".join(map(str, n_ties))
            raise ConfigError(
                f"--no-tie-sources {name}: no row is of that source; there are {known}."
            )
        if n_ties[name] > 0:
            raise ConfigError(
                f"--no-tie-sources {name}: {n_ties[name]:g} of its votes are ties, so people could "
                "choose one. Leave it out."
            )
    return sorted(wanted)


def find_no_tie_sources(pairs: pd.DataFrame) -> list[str]:
    """Return the sources that offered no tie: at least 200 votes, and not a single tie.

    Where no source has a tie there is nothing to tell them by, and none is returned: then ties are
    rare. A teacher's soft labels are no votes; a row without a source is of the source "".

    Examples
    --------
    >>> find_no_tie_sources(pd.DataFrame({"source": ["x"] * 200 + ["y"], "label": [0] * 200 + [2]}))
    ['x']
    """
    evidence = _evidence(pairs)
    if not evidence["n_ties"].sum():
        return []
    is_no_tie_row = (evidence["n_votes"] >= _MIN_VOTES) & (evidence["n_ties"] == 0)
    return sorted(evidence.index[is_no_tie_row])


def _evidence(pairs: pd.DataFrame) -> pd.DataFrame:
    """Count for each source the rows people voted on, and their votes for a tie."""
    hard, soft = _hard(pairs)[:, 2], _soft(pairs)[:, 2]
    if "teacher" in pairs.columns:
        soft = np.where(pairs["teacher"].notna(), np.nan, soft)
    ties = np.fmax(hard, soft)
    rows = pd.DataFrame({"n_votes": ~np.isnan(ties), "n_ties": np.nan_to_num(ties)})
    return rows.groupby(_sources(pairs)).sum()


def _sources(pairs: pd.DataFrame) -> npt.NDArray[np.object_]:
    return pairs["source"].astype("string").fillna("").to_numpy(object)


def _is_of(pairs: pd.DataFrame, sources: Iterable[str]) -> npt.NDArray[np.bool_]:
    return np.isin(_sources(pairs).astype(str), list(sources))


def _hard(pairs: pd.DataFrame) -> FloatArray:
    """Return one-hot labels (n, 3), NaN where there is none."""
    codes = pairs["label"].astype("Int64").to_numpy(np.int64, na_value=3)
    one_hot: FloatArray = np.vstack([np.eye(3), np.full(3, np.nan)])[codes]
    return one_hot


def _soft(pairs: pd.DataFrame) -> FloatArray:
    """Return soft labels (n, 3), NaN where there are none."""
    if not set(PROB_COLUMNS) <= set(pairs.columns):
        return np.full((len(pairs), 3), np.nan)
    return pairs[PROB_COLUMNS].to_numpy(dtype=np.float64)


def _entropy(probs: FloatArray) -> FloatArray:
    logs = np.log(probs, out=np.zeros_like(probs), where=probs > 0)
    return np.asarray(-(probs * logs).sum(axis=1) + 0.0)


def _refuse_untold(pairs: pd.DataFrame, is_told: npt.NDArray[np.bool_]) -> None:
    if not is_told.all():
        first = pairs["id"].to_numpy()[~is_told][0]
        raise PairsError(
            f"{(~is_told).sum()} of {len(pairs)} rows have no label, the first is id={first}; "
            "fit on labelled rows only"
        )
