"""The shipped model is symmetric, small, and needs numpy alone."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import resources

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from strategies import clean_text
from tiewise.errors import ModelError
from tiewise.features.pair_features import extract_features
from tiewise.features.shipped import (
    MODEL_FILE,
    join_log_odds,
    load_shipped,
    shipped_from_json,
)

TEXTS = st.lists(st.none() | clean_text(20), max_size=3)
ODDS = st.floats(-30, 30)


def score(*texts) -> np.ndarray:
    """Return the probabilities of one pair: prompt, response A, response B; text is one turn."""
    turns = ([text] if isinstance(text, str) else text for text in texts)
    return load_shipped().predict(extract_features(*([cell] for cell in turns)))[0]


@given(TEXTS, TEXTS, TEXTS)
def test_swap_exchanges_probabilities(prompt, first, second) -> None:
    """Exchanging the responses exchanges P(A) and P(B) exactly."""
    probs = score(prompt, first, second)
    assert np.array_equal(score(prompt, second, first), probs[[1, 0, 2]])
    assert np.isclose(probs.sum(), 1, atol=1e-12)
    assert probs.min() > 0


def test_equal_responses_mostly_tie() -> None:
    """For equal responses P(A) = P(B) < P(tie)."""
    probs = score("What is 2+2?", "It is four.", "It is four.")
    assert probs[0] == probs[1] < probs[2]


@pytest.mark.parametrize(
    "worse",
    [
        "I'm sorry, but I cannot help with that.",
        "",
        "The sea the sea the sea the sea the sea the sea the sea the sea the sea the sea the sea.",
    ],
)
def test_answer_beats_no_answer(worse: str) -> None:
    """A refusal, an empty response and endless repetition lose to a short answer."""
    better = "Waves roll in beneath the moon,\nsalt and silver, soft as tune.\n\nGulls cry."
    probs = score("Write a short poem about the sea.", better, worse)
    assert probs[0] > probs[1]


@given(st.lists(st.tuples(ODDS, ODDS), min_size=1))
def test_log_odds_become_probabilities(odds) -> None:
    """P(tie) and P(A | no tie) are the logistic functions of the two log odds."""
    winner, tie = np.array(odds).T
    probs = join_log_odds(winner, tie)
    assert np.allclose(probs[:, 2], 1 / (1 + np.exp(-tie)), rtol=1e-9)
    assert np.allclose(probs[:, 0] * np.exp(-winner / 2), probs[:, 1] * np.exp(winner / 2))


def test_file_is_small_and_numeric() -> None:
    """The file has a few kB: names of fields and features, and numbers."""
    text = resources.files("tiewise.features").joinpath(MODEL_FILE).read_text(encoding="utf-8")
    assert len(text) < 8000
    values = json.loads(text)
    assert set(values) == {"about", "features_version", "tie_names", "winner", "tie"}
    for part in ("winner", "tie"):
        numbers = [x for name in ("centre", "scale", "weights") for x in values[part][name]]
        assert all(isinstance(x, float) for x in numbers)


def test_each_signed_feature_has_a_weight() -> None:
    """The model in the package was fitted on the features of this version."""
    n_features = len(extract_features([["p"]], [["a"]], [["b"]]).signed_names)
    assert load_shipped().winner.weights.shape == (n_features,) == (72,)


def test_other_version_is_refused() -> None:
    """The message names the version of the features."""
    with pytest.raises(ModelError, match="version 0; expected version 1"):
        shipped_from_json({"features_version": 0})


def test_card_is_in_the_package() -> None:
    """The card says what the model cannot do, and names the sources and licences."""
    card = (
        resources.files("tiewise.features").joinpath("shipped_model.md").read_text(encoding="utf-8")
    )
    for words in ("cannot do", "CC-BY-4.0", "Apache-2.0", "benchmarks/shipped_model.py"):
        assert words in card


def test_scoring_imports_numpy_only() -> None:
    """A new process that scores a pair imports neither pandas nor scikit-learn."""
    code = (
        "import sys; from tiewise.features import pair_features, shipped; "
        "shipped.load_shipped().predict(pair_features.extract_features(['p'], ['a'], ['b'])); "
        "print([m for m in ('pandas', 'scipy', 'sklearn', 'torch', 'pyarrow') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_extreme_log_odds_stay_finite() -> None:
    """Odds beyond the range of floats are certain, and do not overflow."""
    probs = join_log_odds(np.array([2000.0, -2000.0, 0.0]), np.array([0.0, -3000.0, 3000.0]))
    assert np.allclose(probs, [[0.5, 0, 0.5], [0, 1, 0], [0, 0, 1]], atol=1e-12)
