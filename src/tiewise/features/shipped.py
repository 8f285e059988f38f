"""Load the small model in the package, with which `tiewise.score` works right after installation.

It is two logistic regressions over pair features. The card ``shipped_model.md`` says what it was
fitted on and what it cannot do. It needs numpy alone.
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from importlib import resources
from typing import Any

import numpy as np
import numpy.typing as npt

from tiewise.errors import ModelError
from tiewise.features.estimators import Logistic
from tiewise.features.pair_features import FORMAT_VERSION, PairFeatures

FloatArray = npt.NDArray[np.float64]

MODEL_FILE = "shipped_model.json"


@dataclass(frozen=True)
class ShippedModel:
    """Two logistic regressions: of A against B, and of a tie against none.

    `winner` takes the signed features; `tie` takes the shared features `tie_names`.
    """

    winner: Logistic
    tie: Logistic
    tie_names: tuple[str, ...]

    def predict(self, features: PairFeatures) -> FloatArray:
        """Return P(A), P(B), P(tie), shape (n, 3)."""
        columns = [features.shared_names.index(name) for name in self.tie_names]
        tie = self.tie.log_odds(features.shared[:, columns])
        return join_log_odds(self.winner.log_odds(features.signed), tie)


@functools.cache
def load_shipped() -> ShippedModel:
    """Return the model in the package; ModelError when its file belongs to another version."""
    source = resources.files("tiewise.features").joinpath(MODEL_FILE)
    return shipped_from_json(json.loads(source.read_text(encoding="utf-8")))


def shipped_from_json(values: dict[str, Any]) -> ShippedModel:
    """Return the model in a JSON object; ModelError when its features have another version."""
    if values["features_version"] != FORMAT_VERSION:
        raise ModelError(
            f"{MODEL_FILE} has features of version {values['features_version']}; expected version "
            f"{FORMAT_VERSION}. Install the package again."
        )
    winner, tie = (
        Logistic(
            **{name: np.array(part[name]) for name in ("centre", "scale", "weights")},
            intercept=part["intercept"],
        )
        for part in (values["winner"], values["tie"])
    )
    return ShippedModel(winner, tie, tuple(values["tie_names"]))


def join_log_odds(winner: FloatArray, tie: FloatArray) -> FloatArray:
    """Return P(A), P(B), P(tie), shape (n, 3), from the log odds of two binary models.

    `winner` are log odds of A against B where there is no tie, `tie` those of a tie against none.
    Negating `winner` exchanges the first two columns exactly and leaves the third.

    >>> join_log_odds(np.array([0.0]), np.array([0.0])).tolist()
    [[0.25, 0.25, 0.5]]
    """
    half = winner / 2
    logits = np.stack([half, -half, tie + np.logaddexp(half, -half)], axis=1)
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    # A and B are added first, so that their exchange cannot change the rounding of the sum.
    total = (odds[:, 0] + odds[:, 1]) + odds[:, 2]
    return np.asarray(odds / total[:, None])
