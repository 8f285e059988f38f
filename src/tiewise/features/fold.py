"""One fold of the CPU-class model: fitted, saved, and its held-out rows predicted.

What is counted in a row does not depend on the fold, so each row is counted once in the life of a
process, however many folds are fitted; rows are known by the digest of their texts.
"""

from __future__ import annotations

import functools
import itertools

import numpy as np
import pandas as pd

from tiewise.config import RunConfig, defining_fields
from tiewise.data.labels import LOGIT_COLUMNS, PROB_COLUMNS
from tiewise.data.table import is_degenerate, row_digests
from tiewise.features.feature_model import describe_pairs, fit_baseline
from tiewise.features.pair_features import PairFeatures, join_features
from tiewise.files import atomic_folder
from tiewise.runs.fold_lock import FoldTask, check_fingerprint


class FeatureMemory:
    """Features of rows, counted once."""

    def __init__(self) -> None:
        self._positions: dict[str, int] = {}
        self._features: PairFeatures | None = None

    def describe(self, pairs: pd.DataFrame) -> PairFeatures:
        """Return the features of n pairs, at least one."""
        digests = row_digests(pairs).tolist()
        new = {digest: row for row, digest in enumerate(digests) if digest not in self._positions}
        if new:
            found = describe_pairs(pairs.iloc[list(new.values())])
            known = [found] if self._features is None else [self._features, found]
            self._features = join_features(known)
            self._positions |= dict(zip(new, itertools.count(len(self._positions)), strict=False))
        assert self._features is not None  # noqa: S101 - there is at least one row
        return self._features.rows([self._positions[digest] for digest in digests])


def fit_baseline_fold(
    config: RunConfig, train: pd.DataFrame, held_out: pd.DataFrame, task: FoldTask
) -> pd.DataFrame | None:
    """Fit on the rows of the other folds and predict those held out; None if that was done before.

    Raises
    ------
    RunError
        When the folder belongs to other inputs.
    """
    memory = open_memory()
    identity = {"config": defining_fields(config), "data": task.data_digest, "fold": task.fold}
    check_fingerprint(task.folder, identity, resume=task.resume)
    if task.folder.is_finished:
        return None
    groups = train["group"].to_numpy()
    features, held_features = memory.describe(train), memory.describe(held_out)
    model = fit_baseline(
        train,
        groups=groups,
        seed=config.train.seed,
        soft_weight=config.train.soft_weight,
        features=features,
    )
    with atomic_folder(task.folder.adapter_dir) as temporary:
        model.save(temporary)
    probs = model.predict_features(held_features)
    table = pd.DataFrame(probs, columns=PROB_COLUMNS)
    logits = pd.DataFrame(np.log(probs), columns=LOGIT_COLUMNS)
    return pd.concat([table, logits], axis=1).assign(is_degenerate=is_degenerate(held_out))


@functools.cache
def open_memory() -> FeatureMemory:
    """Return the features of rows that this process has seen."""
    return FeatureMemory()
