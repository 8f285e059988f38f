"""One fold of the CPU-class model: fitted, saved, and its held-out rows predicted.

What is counted in a row does not depend on the fold, so each row is counted once in the life of a
process, however many folds are fitted; rows are known by the digest of their texts.
"""

from __future__ import annotations

import functools
import itertools
from pathlib import Path

import numpy as np
import pandas as pd

from tiewise.baseline.embeddings import Embedder
from tiewise.baseline.feature_model import add_logits, describe_pairs, fit_baseline
from tiewise.baseline.features import PairFeatures, join_features
from tiewise.config.identity import defining_fields
from tiewise.config.run_config import ModelConfig, RunConfig
from tiewise.errors import DeviceError, missing_extra
from tiewise.files import atomic_folder
from tiewise.pairs.labels import LOGIT_COLUMNS, PROB_COLUMNS
from tiewise.pairs.table import is_degenerate, row_digests
from tiewise.runs.claims import FoldTask, claim_fold
from tiewise.runs.folder import Run, read_object
from tiewise.runs.stacking import digest_stack, open_stack


class FeatureMemory:
    """Features of rows, counted once.

    Attributes
    ----------
    embed
        Adds sentence vectors; None without.
    """

    def __init__(self, embed: Embedder | None = None) -> None:
        self.embed = embed
        self._positions: dict[str, int] = {}
        self._features: PairFeatures | None = None

    def describe(self, pairs: pd.DataFrame) -> PairFeatures:
        """Return the features of n pairs, at least one."""
        digests = row_digests(pairs).tolist()
        new = {digest: row for row, digest in enumerate(digests) if digest not in self._positions}
        if new:
            found = describe_pairs(pairs.iloc[list(new.values())], embed=self.embed)
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
    DeviceError, ModelError
        When embeddings are asked for and cannot be had.
    """
    memory, sha256 = open_memory(config.model, task.cache_dir)
    stack = open_stack(config.model.stack, task.folder.path.parent.parent)
    identity = {
        "config": defining_fields(config),
        "data": task.data_digest,
        "fold": task.fold,
        "stack": digest_stack(stack),
        **({"embeddings": sha256} if sha256 else {}),
    }
    claim_fold(task.folder, identity, is_resumed=task.is_resumed)
    if task.folder.is_finished:
        return None
    groups = train["group"].to_numpy()
    features, held_features = (
        add_logits(memory.describe(rows), rows, config.model.stack) for rows in (train, held_out)
    )
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


def open_run_embedder(run: Run, cache_dir: Path) -> Embedder | None:
    """Return the encoder that a finished run was fitted with; None when it was fitted without.

    Raises
    ------
    ModelError
        When the encoder is not to be had, or its weights are not those of the fit.
    """
    if run.config.model.embeddings is None:
        return None
    fold = run.fold(run.finished_folds()[0])
    sha256 = read_object(fold.identity_path).get("embeddings")
    embedder = _open_embedder(run.config.model, cache_dir, sha256)
    return embedder[0] if embedder else None


def check_embeddings(config: ModelConfig) -> None:
    """Refuse embeddings where what they need is not installed.

    Raises
    ------
    DeviceError
        When torch or transformers is missing.
    """
    if config.embeddings is None:
        return
    try:
        import tiewise.baseline.embedder  # noqa: F401 - is it possible at all?
    except ModuleNotFoundError as error:
        raise DeviceError(
            f"{missing_extra('--embeddings', error)} Or leave it out. Nothing was downloaded."
        ) from error


@functools.lru_cache(maxsize=1)
def open_memory(config: ModelConfig, cache_dir: Path) -> tuple[FeatureMemory, str | None]:
    """Return what remembers the rows' features, and the digest of the encoder's weights."""
    embedder = _open_embedder(config, cache_dir, config.backbone_sha256)
    if embedder is None:
        return FeatureMemory(), None
    return FeatureMemory(embedder[0]), embedder[1]


def _open_embedder(
    config: ModelConfig, cache_dir: Path, sha256: str | None
) -> tuple[Embedder, str] | None:
    if config.embeddings is None:
        return None
    check_embeddings(config)
    from tiewise.baseline.embedder import open_embedder

    return open_embedder(config.embeddings, cache_dir=cache_dir, sha256=sha256)
