"""Hidden states are reduced to components, and the two responses are compared."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

from tiewise.features.binary_models import BinaryModel, fit_binary_model
from tiewise.features.pair_features import PairFeatures, extract_features
from tiewise.features.state_model import N_COMPONENTS, fit_projection, fit_state_model

PROMPTS = [[f"question {k}"] for k in range(40)]
TEXTS = [[f"answer {k % 7} of {k}"] for k in range(40)]
FEATURES = extract_features(PROMPTS, TEXTS, TEXTS[::-1])


def draw_states(n=40, *, seed=0, width=6, n_depths=2):
    """Draw states of n pairs, with other scales and means in each number."""
    generator = np.random.default_rng(seed)
    states = generator.normal(size=(n, 2, n_depths, width)) * generator.uniform(0.1, 9, width)
    return (states + generator.normal(size=width)).astype(np.float32)


@given(st.integers(0, 2**31), st.integers(1, 30))
def test_swapped_responses_change_the_sign_exactly(seed, n):
    """Whatever the other rows are, a pair has the same components, negated when swapped."""
    states = draw_states(40, seed=seed)
    projection = fit_projection(states)
    whole = projection.compare(states)
    chosen = np.random.default_rng(seed).permutation(40)[:n]
    np.testing.assert_array_equal(projection.compare(states[chosen]), whole[chosen])
    np.testing.assert_array_equal(projection.compare(states[chosen, ::-1]), -whole[chosen])


@pytest.mark.parametrize("width", [6, 50])
def test_components_are_those_of_scikit_learn(width):
    """Each depth is standardised and whitened over the distinct responses."""
    states = draw_states(60, width=width)
    states[1] = states[0]  # a response that occurs twice counts once
    table = fit_projection(states).compare(states).reshape(60, 2, -1)
    assert table.shape[2] == min(width, N_COMPONENTS)
    distinct = np.unique(states.reshape(120, -1), axis=0).reshape(118, 2, width)
    for depth in range(2):
        scaler = StandardScaler().fit(distinct[:, depth].astype(np.float64))
        pca = PCA(min(width, N_COMPONENTS), whiten=True, svd_solver="covariance_eigh")
        pca.fit(scaler.transform(distinct[:, depth].astype(np.float64)))
        a, b = (pca.transform(scaler.transform(states[:, side, depth])) for side in (0, 1))
        np.testing.assert_allclose(table[:, depth], a - b, atol=1e-4)


def test_constant_numbers_and_few_responses_are_finite():
    """A number that never changes, and fewer responses than components, give finite log odds."""
    states = draw_states(5, width=40)
    states[..., 3] = 2.0
    model = fit_state_model(states, np.array([1.0, 0, 1, 0, 1]), np.ones(5), is_odd=True)
    assert np.isfinite(model.log_odds(states, is_odd=True)).all()


def fit(states, outcomes, *, is_odd):
    features = PairFeatures(
        FEATURES.signed, FEATURES.shared, FEATURES.signed_names, FEATURES.shared_names, states
    )
    groups = np.array([f"group {k}" for k in range(40)], dtype=object)
    model = fit_binary_model(features, outcomes, np.ones(40), groups, is_odd=is_odd)
    return features, model


@pytest.mark.parametrize("is_odd", [True, False])
def test_informative_states_are_used(is_odd):
    """A label that follows from the states is predicted from them, in both orders alike."""
    states = draw_states()
    lead = states[:, 0, 0, 0] - states[:, 1, 0, 0]
    outcomes = (lead > 0 if is_odd else np.abs(lead) > np.median(np.abs(lead))).astype(float)
    features, model = fit(states, outcomes, is_odd=is_odd)
    assert model.settings.states > 0
    log_odds = model.log_odds(features)
    assert ((log_odds > 0) == (outcomes > 0.5)).mean() > 0.65
    swapped = PairFeatures(
        -features.signed, features.shared, *(features.signed_names, features.shared_names),
        states[:, ::-1],
    )  # fmt: skip
    np.testing.assert_array_equal(model.log_odds(swapped), -log_odds if is_odd else log_odds)


def test_model_of_states_survives_as_a_dictionary():
    """The dictionary has everything; log odds are the same, bit for bit."""
    states = draw_states()
    outcomes = (states[:, 0, 0, 0] > states[:, 1, 0, 0]).astype(float)
    features, model = fit(states, outcomes, is_odd=True)
    again = BinaryModel.from_dict(model.to_dict(), is_odd=True)
    np.testing.assert_array_equal(again.log_odds(features), model.log_odds(features))


def test_rows_keep_their_states():
    """Chosen rows have their own states."""
    features, _ = fit(draw_states(), np.tile([0.0, 1.0], 20), is_odd=True)
    np.testing.assert_array_equal(features.rows([3, 1]).states, features.states[[3, 1]])
