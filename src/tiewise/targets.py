"""What the CPU-class model is fitted to: probabilities, weights, and which rows could be ties."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from .errors import PairsError
from .pairs import PROB_COLUMNS

FloatArray = npt.NDArray[np.float64]

_TIELESS_ROWS = 200


def fitting_targets(pairs: pd.DataFrame) -> tuple[FloatArray, FloatArray]:
    """Return what to fit to: target probabilities (n, 3) and weights (n,).

    Raises
    ------
    PairsError
        When there is no row, or a row has neither a label nor soft labels.
    """
    if pairs.empty:
        raise PairsError("there is no pair to fit on; read more rows or raise --limit")
    weights = pairs["weight"] if "weight" in pairs.columns else np.ones(len(pairs))
    if set(PROB_COLUMNS) <= set(pairs.columns):
        targets = pairs[list(PROB_COLUMNS)].to_numpy(dtype=np.float64)
    else:
        targets = _one_hot(pairs)
    return targets, np.asarray(weights, dtype=np.float64)


def can_tie(pairs: pd.DataFrame, targets: FloatArray) -> npt.NDArray[np.bool_]:
    """Return which rows come from a source that offered ties, shape (n,).

    A source of at least 200 rows and no tie among them did not offer any; unless that is so of
    every source, and then no row is left out.
    """
    sources = pairs["source"].fillna("").astype(str)
    rows = pd.Series(targets[:, 2], index=pairs.index).groupby(sources)
    is_tieless = (rows.transform("size") >= _TIELESS_ROWS) & (rows.transform("sum") == 0)
    possible = ~is_tieless.to_numpy(dtype=bool)
    return possible if possible.any() else np.ones(len(pairs), dtype=bool)


def _one_hot(pairs: pd.DataFrame) -> FloatArray:
    is_missing = pairs["label"].isna().to_numpy()
    if is_missing.any():
        first = pairs["id"].to_numpy()[is_missing][0]
        raise PairsError(
            f"{is_missing.sum()} of {len(pairs)} rows have no label, the first is id={first}; "
            "fit on labelled rows only"
        )
    labels = pairs["label"].to_numpy(dtype=np.int64)
    return np.asarray(np.eye(3)[labels], dtype=np.float64)
