"""Tests of mixtures and of the fit of their weights."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy.special import log_softmax

from tiewise.data.labels import swap_probs
from tiewise.errors import RunError
from tiewise.judges.blending import Mixture, add_token_counts, fit_weights, load_mixture, mix

members = arrays.arrays(
    np.float64,
    st.tuples(st.integers(1, 3), st.integers(1, 6), st.just(3)),
    elements=st.floats(-9, 9),
)


def loss(labels, log_probs, weights):
    """Return the mean log loss of the mixture plus the penalty of the prior."""
    log_loss = -mix(log_probs, weights)[np.arange(len(labels)), labels].mean()
    return float(log_loss + ((weights - 1 / len(weights)) ** 2).sum() / (2 * len(labels)))


@given(members)
def test_unit_weight_gives_the_member(logits):
    """Weight 1 for one member and 0 for the others gives that member."""
    log_probs = np.stack([log_softmax(part, axis=1) for part in logits])
    for k, part in enumerate(log_probs):
        np.testing.assert_allclose(mix(log_probs, np.eye(len(logits))[k]), part, atol=1e-12)


@given(members, st.data())
def test_mixing_commutes_with_swap(logits, data):
    """With any weights, swapped members give the swapped mixture bit for bit."""
    weights = data.draw(arrays.arrays(np.float64, len(logits), elements=st.floats(0, 3)))
    log_probs = np.stack([log_softmax(part, axis=1) for part in logits])
    swapped = np.stack([swap_probs(part) for part in log_probs])
    assert np.array_equal(mix(swapped, weights), swap_probs(mix(log_probs, weights)))


@given(st.integers(0, 10_000))
def test_fitted_weights_are_optimal(seed):
    """Neither a single member nor a step in any direction has a lower loss on the fitted rows."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(size=(3, 40, 3))
    labels = generator.integers(0, 3, 40)
    log_probs = np.stack([log_softmax(part, axis=1) for part in logits])
    weights = fit_weights(labels, log_probs)
    best = loss(labels, log_probs, weights)
    assert weights.min() >= 0
    others = [*np.eye(3), *np.maximum(weights + generator.normal(0, 0.1, (20, 3)), 0)]
    assert all(best <= loss(labels, log_probs, other) + 1e-7 for other in others)


def test_prior_limits_weak_members():
    """With few rows the weight of a weak member stays small; with many rows it can be large."""
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 3, 6000)
    weak = 0.05 * (np.eye(3)[labels] + generator.normal(size=(6000, 3)))
    log_probs = log_softmax(weak, axis=1)[None]
    few, many = (fit_weights(labels[:n], log_probs[:, :n])[0] for n in (40, 6000))
    assert few < 3 < many


def test_better_member_has_larger_weight():
    """A member whose logits depend on the labels outweighs one with random logits."""
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 3, 300)
    informed = generator.normal(size=(300, 3)) + 2 * np.eye(3)[labels]
    random = generator.normal(size=(300, 3))
    weights = fit_weights(
        labels, np.stack([log_softmax(informed, axis=1), log_softmax(random, axis=1)])
    )
    assert weights[0] > 0.5 > 5 * weights[1]


def test_saved_mixture_is_loaded(tmp_path):
    """A mixture keeps its weights to the last bit in JSON."""
    mixture = Mixture(("one", "two"), (1 / 3, 0.1))
    mixture.save(tmp_path / "mixture.json")
    assert load_mixture(tmp_path / "mixture.json") == mixture


@pytest.mark.parametrize("content", [None, "{", "{}", '{"members": ["a"], "weights": []}', "[]"])
def test_damaged_mixture_is_refused(tmp_path, content):
    """A missing or invalid file raises RunError."""
    if content is not None:
        (tmp_path / "mixture.json").write_text(content)
    with pytest.raises(RunError, match="Blend the runs again"):
        load_mixture(tmp_path / "mixture.json")


def test_token_counts_are_of_both_orders():
    """A member that judged both orders read its tokens twice; others have no tokens."""
    table = pd.DataFrame({"id": [1, 2]})
    once = table.assign(n_tokens=[10, 20], n_truncated=[0, 1])
    twice = table.assign(n_tokens=[3, 5], n_truncated=[2, 0], prob_a_swapped=0.5)
    counted = add_token_counts(table, [once, twice, table])
    assert counted["n_tokens"].tolist() == [10 + 2 * 3, 20 + 2 * 5]
    assert counted["n_truncated"].tolist() == [2, 1]
    assert add_token_counts(table, [table]).equals(table)
