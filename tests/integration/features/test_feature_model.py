"""The CPU-class model: symmetric, better than lengths, and the same after a round trip."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given

from strategies import text_fields
from tiewise.data.labels import swap_probs
from tiewise.data.schema import build_pairs
from tiewise.data.simulation.simulate import simulate
from tiewise.data.table import swap_pairs
from tiewise.errors import ModelError
from tiewise.features import binary_models as parts
from tiewise.features.feature_model import Baseline, fit_baseline, load_baseline

PAIRS = simulate(400, seed=5)
FRESH = simulate(400, seed=6)


@pytest.fixture(scope="module")
def model() -> Baseline:
    """Fit once, with few trees to choose from."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts, "_MOST_TREES", 20)
        return fit_baseline(PAIRS)


def log_loss(probs: np.ndarray, pairs: pd.DataFrame) -> float:
    """Mean negative log probability of the labels."""
    return float(-np.log(probs[np.arange(len(pairs)), pairs["label"].to_numpy(int)]).mean())


@given(fields=text_fields())
def test_exchange_exchanges_the_probabilities_bit_for_bit(model: Baseline, fields) -> None:
    """p(swap) = permute(p), exactly."""
    texts = dict(zip(("prompt", "response_a", "response_b"), fields, strict=True))
    pairs = build_pairs({"id": range(len(fields[0])), **texts})
    assert np.array_equal(model.predict(swap_pairs(pairs)), swap_probs(model.predict(pairs)))


def test_fitting_on_exchanged_rows_gives_exchanged_answers_in_the_mean() -> None:
    """Nothing in the fit favours a position."""
    one_group = ["one"] * len(PAIRS)
    first, second = (fit_baseline(rows, groups=one_group) for rows in (PAIRS, swap_pairs(PAIRS)))
    assert np.allclose(first.predict(FRESH), second.predict(FRESH), atol=0.02)


def test_rows_without_ties_teach_a_against_b_alone() -> None:
    """Whatever they are, the tie's part is that of the other rows; the winner's part is not."""
    is_no_tie_row = (PAIRS["label"] != 2) & (PAIRS.index % 2 == 0)
    marked = PAIRS.assign(is_no_tie_row=is_no_tie_row)
    one_group = np.array(["one"] * len(PAIRS))
    both = fit_baseline(marked, groups=one_group)
    without = fit_baseline(marked[~is_no_tie_row], groups=one_group[~is_no_tie_row])

    def log_odds_of_tie(model: Baseline) -> np.ndarray:
        probs = model.predict(FRESH)
        return np.log(probs[:, 2] / (1 - probs[:, 2]))

    def log_odds_of_a(model: Baseline) -> np.ndarray:
        probs = model.predict(FRESH)
        return np.log(probs[:, 0] / probs[:, 1])

    np.testing.assert_allclose(log_odds_of_tie(both), log_odds_of_tie(without), atol=1e-9)
    assert np.abs(log_odds_of_a(both) - log_odds_of_a(without)).max() > 0.01


def test_soft_labels_that_are_one_hot_are_labels() -> None:
    """And the mixture's ends are labels and soft labels."""
    one_hot = np.eye(3)[PAIRS["label"].to_numpy(int)]
    even = {"prob_a": 0.25, "prob_b": 0.25, "prob_tie": 0.5}
    sure = dict(zip(("prob_a", "prob_b", "prob_tie"), one_hot.T, strict=True))
    tables = [PAIRS, PAIRS.assign(**sure), PAIRS.assign(**even)]
    options = [{}, {}, {"soft_weight": 0.0}]
    groups = ["one"] * len(PAIRS)
    plain, soft, ignored = (
        fit_baseline(table, groups=groups, **own).predict(FRESH)
        for table, own in zip(tables, options, strict=True)
    )
    assert np.array_equal(plain, soft)
    assert np.array_equal(plain, ignored)


def test_it_beats_the_class_prior_on_new_pairs(model: Baseline) -> None:
    """What is counted tells something."""
    prior = PAIRS["label"].value_counts(normalize=True).sort_index().to_numpy(float)
    assert log_loss(model.predict(FRESH), FRESH) < log_loss(np.tile(prior, (400, 1)), FRESH) - 0.05


def test_probabilities_are_a_distribution(model: Baseline) -> None:
    """Rows sum to 1, and nothing is certain."""
    probs = model.predict(FRESH)
    assert np.allclose(probs.sum(axis=1), 1, atol=1e-12)
    assert probs.min() > 0


def test_names_and_sources_are_not_looked_at(model: Baseline) -> None:
    """Predictions depend on the texts alone."""
    anonymous = FRESH.assign(model_a=pd.NA, model_b=pd.NA, source=pd.NA, language=pd.NA)
    assert np.array_equal(model.predict(anonymous), model.predict(FRESH))


def test_a_row_is_predicted_alike_alone(model: Baseline) -> None:
    """Bit for bit, whatever the batch."""
    assert np.array_equal(model.predict(FRESH)[7:8], model.predict(FRESH.iloc[7:8]))


def test_no_rows_give_no_probabilities(model: Baseline) -> None:
    """An empty table is predicted, not refused."""
    assert model.predict(FRESH.head(0)).shape == (0, 3)


def test_saved_and_loaded_it_predicts_the_same_bits(model: Baseline, tmp_path) -> None:
    """JSON and arrays without pickle hold the whole model."""
    model.save(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["baseline.json", "trees.npz"]
    assert np.array_equal(load_baseline(tmp_path).predict(FRESH), model.predict(FRESH))


def test_no_text_of_a_response_is_in_the_files(model: Baseline, tmp_path) -> None:
    """The JSON holds names of features and numbers."""
    model.save(tmp_path)
    text = (tmp_path / "baseline.json").read_text()
    responses = [turn for turns in PAIRS["response_a"] for turn in turns if turn and len(turn) > 15]
    assert not [response for response in responses if response in text]


def change_json(folder, **changes: object) -> None:
    """Overwrite fields of a saved model."""
    path = folder / "baseline.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_damage_is_noticed(model: Baseline, tmp_path) -> None:
    """A missing folder, a changed file, another version: each is said."""
    with pytest.raises(ModelError, match="no readable baseline"):
        load_baseline(tmp_path)
    model.save(tmp_path)
    change_json(tmp_path, features_version=0)
    with pytest.raises(ModelError, match="version 0"):
        load_baseline(tmp_path)
    model.save(tmp_path)
    change_json(tmp_path, winner={})
    with pytest.raises(ModelError, match="damaged"):
        load_baseline(tmp_path)
    model.save(tmp_path)
    data = bytearray((tmp_path / "trees.npz").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "trees.npz").write_bytes(data)
    with pytest.raises(ModelError, match="changed after fitting"):
        load_baseline(tmp_path)


def test_a_class_that_never_occurs_keeps_a_small_probability() -> None:
    """Rows without ties do not make ties impossible."""
    decided = PAIRS[PAIRS["label"] < 2].head(80)
    probs = fit_baseline(decided, groups=["one"] * 80).predict(FRESH)
    assert 0 < probs[:, 2].max() < 0.1
