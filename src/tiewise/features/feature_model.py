"""The feature model: text counts, logistic regressions and boosted trees, without torch.

A language model may read the responses too (``--states``); its states are given to this module.

Exchanging A and B exchanges their probabilities exactly. Rows of a source without ties train A
against B only.
"""

from __future__ import annotations

import logging
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd

from tiewise.config import RunConfig, defining_fields, public_name
from tiewise.console import FoldClock
from tiewise.data.folds import read_groups
from tiewise.data.labels import LOGIT_COLUMNS, PROB_COLUMNS
from tiewise.data.pairs import TEXT_COLUMNS, is_degenerate, row_digests
from tiewise.data.targets import make_targets
from tiewise.errors import ModelError
from tiewise.features.binary_models import FOR_NEW_SOURCES, BinaryModel, fit_binary_model
from tiewise.features.pair_features import (
    FORMAT_VERSION,
    PairFeatures,
    extract_features,
    join_features,
)
from tiewise.features.shipped import join_log_odds
from tiewise.files import atomic_folder
from tiewise.runs.environment import is_first_process
from tiewise.runs.fold_lock import FoldTask, check_fingerprint
from tiewise.runs.manifest import verify_manifest, write_manifest

_SHARE_OF_FIRST = 0.6
"""Share of the model of A against B in the time of a fit, measured with 2,000 to 20,000 rows."""
FloatArray = npt.NDArray[np.float64]

MODEL_FILE = "feature_model.skops"
_log = logging.getLogger(__name__)
READER_FIELDS = ("states", "revision", "backbone_sha256", "dtype")
"""Fields of a model's configuration that name the backbone which reads the responses."""
_TRUSTED_TYPES = ["sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor"]
"""Types in the file that skops does not trust by itself; it refuses all others."""


@dataclass(frozen=True)
class FeatureModel:
    """A fitted feature model: models of A against B and of ties, and the number of its rows.

    Without `has_ties` no tie was possible in the data, and the model of ties is not trained.
    `reader` names the backbone whose hidden states the model needs, by the fields `READER_FIELDS`
    of :class:`tiewise.config.ModelConfig`, and has the `digest` of its states
    (:mod:`tiewise.models.states`); None without states.
    """

    winner: BinaryModel
    tie: BinaryModel
    n_rows: int
    has_ties: bool = True
    reader: dict[str, Any] | None = None

    def predict(self, pairs: pd.DataFrame) -> FloatArray:
        """Return P(A), P(B), P(tie) of a pairs table: float64, shape (n, 3), rows sum to 1."""
        if pairs.empty:
            return np.zeros((0, 3))
        return self.predict_features(extract_table_features(pairs))

    @property
    def reads_states(self) -> bool:
        """Whether a prediction needs hidden states; not where their weight is 0."""
        return self.winner.states is not None or self.tie.states is not None

    def predict_features(self, features: PairFeatures) -> FloatArray:
        """Return P(A), P(B), P(tie), shape (n, 3), of pairs whose features are known."""
        return join_log_odds(self.winner.log_odds(features), self.tie.log_odds(features))

    def save(self, folder: Path | str) -> None:
        """Write the model into a new folder, which replaces any folder of that name."""
        import skops.io

        values = {
            "features_version": FORMAT_VERSION,
            "n_rows": self.n_rows,
            "winner": self.winner.to_dict(),
            "tie": self.tie.to_dict(),
            "has_ties": self.has_ties,
            "reader": self.reader,
        }
        with atomic_folder(folder) as temporary:
            skops.io.dump(values, temporary / MODEL_FILE, compression=zipfile.ZIP_DEFLATED)
            write_manifest(temporary)


def fit_feature_model(
    pairs: pd.DataFrame,
    *,
    groups: npt.ArrayLike | None = None,
    seed: int = 0,
    soft_weight: float = 1.0,
    new_sources: bool = False,
    features: PairFeatures | None = None,
    clock: FoldClock | None = None,
) -> FeatureModel:
    """Fit the feature model to a labelled pairs table of n rows.

    Rows count as in :func:`tiewise.data.targets.make_targets`. `groups`, shape (n,), are the prompt
    groups, the column ``group`` when None. With `new_sources` the settings of A against B are those
    for votes of other sources. `features` are those of the rows where they are known; `clock` logs
    the time left.

    >>> from tiewise.data.simulation.simulate import simulate
    >>> pairs = simulate(90)
    >>> fit_feature_model(pairs, groups=["one group"] * 90).predict(pairs).shape
    (90, 3)
    """
    targets = make_targets(pairs, soft_weight=soft_weight)
    names = read_groups(pairs["group"] if groups is None else groups, len(pairs))
    if features is None:
        features = extract_table_features(pairs)
    wins_a, wins_b, ties = targets.probs.T
    decided, may_tie = wins_a + wins_b, 1 - targets.binary_fraction
    models = []
    for part, whole, is_odd in ((wins_a, decided, True), (ties, may_tie, False)):
        outcomes, weights = part / np.where(whole > 0, whole, 1.0), targets.weights * whole
        settings = FOR_NEW_SOURCES if is_odd and new_sources else None
        model = fit_binary_model(
            features, outcomes, weights, names, is_odd=is_odd, seed=seed, settings=settings
        )
        models.append(model)
        if clock is not None and is_odd:
            clock.update(_SHARE_OF_FIRST)
    winner, tie = models
    return FeatureModel(winner, tie, len(pairs))


def load_feature_model(folder: Path | str) -> FeatureModel:
    """Return the model that `FeatureModel.save` wrote; ModelError when its files are damaged."""
    import skops.io

    path = Path(folder) / MODEL_FILE
    if damage := verify_manifest(path.parent, allow_extra_files=True):
        raise ModelError(
            f"{folder} holds no intact feature model: {damage}. Copy it again, or fit again; "
            "remove it first if it was downloaded from the hub."
        )
    try:
        values = skops.io.load(path, trusted=_TRUSTED_TYPES)
        version = values["features_version"]
        if version == FORMAT_VERSION:
            winner = BinaryModel.from_dict(values["winner"], is_odd=True)
            tie = BinaryModel.from_dict(values["tie"], is_odd=False)
            has_ties, reader = values.get("has_ties", True), values.get("reader")
            return FeatureModel(winner, tie, values["n_rows"], has_ties, reader)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        raise ModelError(f"{path} cannot be read: {error!r}. Fit the model again.") from error
    raise ModelError(
        f"{path} has features of version {version}; expected version {FORMAT_VERSION}. Fit the "
        "model again."
    )


def extract_table_features(pairs: pd.DataFrame) -> PairFeatures:
    """Return the features of a pairs table with at least one row."""
    prompts, responses_a, responses_b = (list(pairs[name]) for name in TEXT_COLUMNS)
    return extract_features(prompts, responses_a, responses_b)


class FeatureMemory:
    """Features of rows by the digest of their texts, so that folds share the work."""

    def __init__(self) -> None:
        self._known: dict[str, PairFeatures] = {}

    def extract(self, pairs: pd.DataFrame) -> PairFeatures:
        """Return the features of a pairs table with at least one row."""
        digests = row_digests(pairs).tolist()
        new = {digest: row for row, digest in enumerate(digests) if digest not in self._known}
        if new:
            found = extract_table_features(pairs.iloc[list(new.values())])
            self._known |= {digest: found.rows([i]) for i, digest in enumerate(new)}
        return join_features([self._known[digest] for digest in digests])


_MEMORY = FeatureMemory()


def _extract(pairs: pd.DataFrame, reader: ReadStates | None) -> PairFeatures:
    features = _MEMORY.extract(pairs)
    return features if reader is None else replace(features, states=reader.read(pairs))


class ReadStates(Protocol):
    """A frozen language model, such as :class:`tiewise.models.states.StateReader`."""

    @property
    def digest(self) -> str:
        """SHA-256 of everything but the texts that decides the states."""
        ...

    def read(self, pairs: pd.DataFrame) -> npt.NDArray[np.float32]:
        """Return the hidden states of both responses of n pairs, shape (n, 2, k, h)."""
        ...


def fit_feature_fold(
    config: RunConfig,
    train: pd.DataFrame,
    held_out: pd.DataFrame,
    task: FoldTask,
    *,
    reader: ReadStates | None = None,
) -> pd.DataFrame | None:
    """Fit one fold, save its model and predict its held-out rows; None when it was finished before.

    Only the first process of a launch fits; the others return None. The columns are ``prob_*``,
    ``logit_*`` and ``is_degenerate``. RunError means that the folder belongs to other inputs.
    """
    if not is_first_process():
        return None
    fingerprint = {"config": defining_fields(config), "data": task.data_digest, "fold": task.fold}
    if reader is not None:
        fingerprint["states"] = reader.digest
    check_fingerprint(task.folder, fingerprint, resume=task.resume)
    if task.folder.is_finished:
        return None
    model = fit_feature_model(
        train,
        seed=config.train.seed,
        soft_weight=config.train.soft_weight,
        new_sources=config.train.new_sources,
        features=_extract(train, reader),
        clock=task.clock,
    )
    named = None
    if reader is not None:
        if not model.reads_states:
            _log.warning(
                "fold %d: the hidden states have no weight: on held-out rows they did not help, or "
                "there are too few prompt groups to tell. The model is the one without --states.",
                task.fold,
            )
        fields = {name: vars(config.model)[name] for name in READER_FIELDS}
        named = fields | {"states": public_name(fields["states"]), "digest": reader.digest}
    replace(model, has_ties=task.has_ties, reader=named).save(task.folder.adapter_dir)
    probs = model.predict_features(_extract(held_out, reader))
    logits = pd.DataFrame(np.log(probs), columns=LOGIT_COLUMNS)
    table = pd.DataFrame(probs, columns=PROB_COLUMNS).join(logits)
    return table.assign(is_degenerate=is_degenerate(held_out))
