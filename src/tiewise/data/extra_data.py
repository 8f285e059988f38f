"""Rows that are only learned from: never held out, and kept away from those that are.

Folds are dealt among the data alone, so that runs with and without extra rows are scored on the
same rows. Of each fold the extra rows are left out whose conversation is held out there: groups are
united over all files, by first prompt turn and by session.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from tiewise.data.folds import derive_groups, merge_groups


def find_leaking_rows(
    pairs: pd.DataFrame, folds: npt.ArrayLike, extra: pd.DataFrame, n_splits: int
) -> npt.NDArray[np.bool_]:
    """Tell which extra rows each fold may not learn from.

    Parameters
    ----------
    pairs, folds
        The n rows that are held out in turn, and where.
    extra
        The m extra rows.
    n_splits
        Number of folds.

    Returns
    -------
    bool array, shape (m, n_splits)
        True where a row of the fold shares the extra row's conversation.

    Examples
    --------
    >>> pairs = pd.DataFrame({"prompt": [["p"], ["q"]], "group": ["1", "2"]})
    >>> extra = pd.DataFrame({"prompt": [["Q "], ["r"]], "group": ["2", "3"]})
    >>> find_leaking_rows(pairs, [0, 1], extra, 2).tolist()
    [[False, True], [False, False]]
    """
    joined = pd.concat([pairs, extra], ignore_index=True)
    groups = merge_groups(derive_groups(joined).tolist(), joined["group"])
    held_out, own = groups[: len(pairs)], groups[len(pairs) :]
    folds = np.asarray(folds)
    barred = [np.isin(own, held_out[folds == fold]) for fold in range(n_splits)]
    return np.stack(barred, axis=1)
