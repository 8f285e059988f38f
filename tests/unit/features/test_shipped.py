"""The model in the package answers at once, symmetrically, and needs numpy alone."""

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
from tiewise.features.shipped import (
    MODEL_FILE,
    join_log_odds,
    load_shipped,
    score,
    shipped_from_json,
    softmax,
)

TEXTS = clean_text(60) | st.lists(st.none() | clean_text(20), max_size=3)
ODDS = st.floats(-30, 30)


@given(TEXTS, TEXTS, TEXTS)
def test_exchange_exchanges_the_probabilities_bit_for_bit(prompt, first, second) -> None:
    """Nothing favours a position."""
    probs = score(prompt, first, second)
    assert np.array_equal(score(prompt, second, first), probs[[1, 0, 2]])
    assert np.isclose(probs.sum(), 1, atol=1e-12)
    assert probs.min() > 0


@given(clean_text(40), clean_text(40), clean_text(40))
def test_a_string_is_a_list_of_one_turn(prompt: str, first: str, second: str) -> None:
    """Both spellings give the same answer."""
    assert np.array_equal(score(prompt, first, second), score([prompt], [first], [second]))


def test_equal_responses_are_a_toss_up_that_mostly_ties() -> None:
    """P(A) = P(B) < P(tie)."""
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
def test_it_prefers_an_answer_to_none(worse: str) -> None:
    """A refusal, silence and babble lose to a short answer."""
    better = "Waves roll in beneath the moon,\nsalt and silver, soft as tune.\n\nGulls cry."
    probs = score("Write a short poem about the sea.", better, worse)
    assert probs[0] > probs[1]


@given(st.lists(st.tuples(ODDS, ODDS), min_size=1))
def test_log_odds_join_to_the_probabilities_they_stand_for(odds) -> None:
    """P(tie) and P(A | no tie) are the logistic functions of the two log odds."""
    winner, tie = np.array(odds).T
    probs = softmax(join_log_odds(winner, tie))
    assert np.allclose(probs[:, 2], 1 / (1 + np.exp(-tie)), rtol=1e-9)
    assert np.allclose(probs[:, 0] * np.exp(-winner / 2), probs[:, 1] * np.exp(winner / 2))


def test_the_file_is_small_and_holds_numbers_only() -> None:
    """A few kB, and no word but the names of its fields and features."""
    text = resources.files("tiewise.features").joinpath(MODEL_FILE).read_text(encoding="utf-8")
    assert len(text) < 8000
    values = json.loads(text)
    assert set(values) == {"about", "features_version", "tie_names", "winner", "tie"}
    for part in ("winner", "tie"):
        numbers = [x for name in ("centre", "scale", "weights") for x in values[part][name]]
        assert all(isinstance(x, float) for x in numbers)


def test_it_was_made_for_the_features_of_this_version() -> None:
    """Every signed feature has a weight."""
    assert load_shipped().winner.weights.shape == (72,)


def test_json_gives_the_model_back() -> None:
    """Four digits are what the file holds, so writing it again changes nothing."""
    values = load_shipped().to_json()
    assert shipped_from_json(values).to_json() == values


def test_another_version_is_refused() -> None:
    """The message says which versions do not fit."""
    with pytest.raises(ModelError, match="version 0"):
        shipped_from_json({**load_shipped().to_json(), "features_version": 0})


def test_the_card_is_in_the_package() -> None:
    """It says what the model cannot do, and whom to credit."""
    card = (
        resources.files("tiewise.features").joinpath("shipped_model.md").read_text(encoding="utf-8")
    )
    for words in ("cannot do", "CC-BY-4.0", "Apache-2.0", "benchmarks/shipped_model.py"):
        assert words in card


def test_scoring_loads_nothing_heavy() -> None:
    """A fresh process that scores a pair has numpy, and neither pandas nor scikit-learn."""
    code = (
        "import sys; from tiewise.features.shipped import score; score('p', 'a', 'b'); "
        "print([m for m in ('pandas', 'scipy', 'sklearn', 'torch', 'pyarrow') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
