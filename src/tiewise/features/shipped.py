"""A predictor that answers right after installation: the small model that ships in the package.

Two logistic regressions over counted features (`features`), a few kB of JSON in
``shipped_model.json``; ``shipped_model.md`` beside it says what it was made from, by which command,
and what it cannot do. It needs numpy alone.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

import numpy as np
import numpy.typing as npt

from tiewise.errors import ModelError
from tiewise.features.logistic import Logistic
from tiewise.features.pair_features import FORMAT_VERSION, PairFeatures, extract_features

FloatArray = npt.NDArray[np.float64]
Texts = str | Sequence[str | None]

MODEL_FILE = "shipped_model.json"


@dataclass(frozen=True)
class Shipped:
    """The two logistic regressions.

    Attributes
    ----------
    winner
        Odd: log odds of A against B from the signed features.
    tie
        Log odds of a tie from `tie_names`.
    tie_names
        The shared features that tell of ties whatever the source: how alike the responses are.
    """

    winner: Logistic
    tie: Logistic
    tie_names: tuple[str, ...]

    def predict(self, features: PairFeatures) -> FloatArray:
        """Return P(A), P(B), P(tie), shape (n, 3)."""
        likeness = features.shared[:, [features.shared_names.index(x) for x in self.tie_names]]
        winner = self.winner.log_odds(features.signed)
        return softmax(join_log_odds(winner, self.tie.log_odds(likeness)))

    def to_json(self) -> dict[str, Any]:
        """Return the model as JSON values, four significant digits each."""
        return {
            "about": "tiewise's small model; see shipped_model.md",
            "features_version": FORMAT_VERSION,
            "tie_names": list(self.tie_names),
            "winner": self.winner.to_json(n_digits=4),
            "tie": self.tie.to_json(n_digits=4),
        }


def score(prompt: Texts, response_a: Texts, response_b: Texts) -> FloatArray:
    """Predict which of two responses a person prefers, with the model that ships in the package.

    Parameters
    ----------
    prompt, response_a, response_b
        A string, or a list of turns, each a string or None. Exchanging the responses exchanges the
        first two probabilities, bit for bit.

    Returns
    -------
    float64 array, shape (3,)
        P(A), P(B), P(tie), which sum to 1. The model counts marks of form and knows no facts: see
        its card, ``shipped_model.md``.

    Examples
    --------
    >>> probs = score("What is 2+2?", "2 + 2 = 4.", "I'm sorry, but I can't help with that.")
    >>> bool(probs[0] > probs[1]), round(float(probs.sum()), 6)
    (True, 1.0)
    """
    texts = ([_as_turns(text)] for text in (prompt, response_a, response_b))
    return np.asarray(load_shipped().predict(extract_features(*texts))[0])


@functools.cache
def load_shipped() -> Shipped:
    """Return the model in the package; ModelError when its file belongs to another version."""
    source = resources.files("tiewise.features").joinpath(MODEL_FILE)
    return shipped_from_json(json.loads(source.read_text(encoding="utf-8")))


def shipped_from_json(values: dict[str, Any]) -> Shipped:
    """Return the model written as JSON.

    Raises
    ------
    ModelError
        When it was fitted on features that this version does not count.
    """
    if values["features_version"] != FORMAT_VERSION:
        raise ModelError(
            f"{MODEL_FILE} was fitted on features of version {values['features_version']}, this "
            f"tiewise counts version {FORMAT_VERSION}; install the package again"
        )
    names = tuple(values["tie_names"])
    winner = Logistic.from_json(values["winner"], len(values["winner"]["weights"]))
    return Shipped(winner, Logistic.from_json(values["tie"], len(names)), names)


def join_log_odds(winner: FloatArray, tie: FloatArray) -> FloatArray:
    """Return logits of A, B and tie from the answers to two questions.

    Parameters
    ----------
    winner
        Shape (n,): log odds of A against B where there is no tie.
    tie
        Shape (n,): log odds of a tie against none.

    Returns
    -------
    float64 array, shape (n, 3)
        Negating `winner` exchanges the first two columns and leaves the third as it is.

    Examples
    --------
    >>> softmax(join_log_odds(np.array([0.0]), np.array([0.0]))).tolist()
    [[0.25, 0.25, 0.5]]
    """
    half = winner / 2
    return np.stack([half, -half, tie + np.logaddexp(half, -half)], axis=1)


def softmax(logits: FloatArray) -> FloatArray:
    """Return probabilities; adding A and B first keeps their exchange exact.

    Examples
    --------
    >>> softmax(np.zeros((1, 3))).round(3).tolist()
    [[0.333, 0.333, 0.333]]
    """
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    total = (odds[:, 0] + odds[:, 1]) + odds[:, 2]
    return np.asarray(odds / total[:, None])


def _as_turns(text: Texts) -> list[str | None]:
    return [text] if isinstance(text, str) else list(text)
