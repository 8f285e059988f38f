"""The feature model: symmetric, better than the class prior, unchanged by saving and loading."""

from __future__ import annotations

import zipfile
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
import skops.io
from hypothesis import given

from strategies import text_fields
from tiewise.data.labels import swap_probs
from tiewise.data.pairs import build_pairs, swap_pairs
from tiewise.data.simulation.simulate import simulate
from tiewise.errors import ModelError
from tiewise.features import binary_models
from tiewise.features.binary_models import FOR_NEW_SOURCES
from tiewise.features.classifier import PreferenceClassifier
from tiewise.features.feature_model import FeatureModel, fit_feature_model, load_feature_model
from tiewise.runs.manifest import write_manifest

PAIRS = simulate(400, seed=5)
FRESH = simulate(400, seed=6)


@pytest.fixture(scope="module")
def model() -> FeatureModel:
    """Fit once, with few trees to choose from."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(binary_models, "_MAX_TREES", 20)
        return fit_feature_model(PAIRS)


def log_loss(probs: np.ndarray, pairs: pd.DataFrame) -> float:
    """Mean negative log probability of the labels."""
    return float(-np.log(probs[np.arange(len(pairs)), pairs["label"].to_numpy(int)]).mean())


@given(fields=text_fields())
def test_swap_exchanges_probabilities(model: FeatureModel, fields) -> None:
    """Exchanging the responses exchanges P(A) and P(B), bit for bit."""
    texts = dict(zip(("prompt", "response_a", "response_b"), fields, strict=True))
    pairs = build_pairs({"id": range(len(fields[0])), **texts})
    assert np.array_equal(model.predict(swap_pairs(pairs)), swap_probs(model.predict(pairs)))


def test_fit_favours_no_position() -> None:
    """A model of swapped rows predicts almost the same as one of the rows."""
    one_group = ["one"] * len(PAIRS)
    first, second = (
        fit_feature_model(rows, groups=one_group) for rows in (PAIRS, swap_pairs(PAIRS))
    )
    assert np.allclose(first.predict(FRESH), second.predict(FRESH), atol=0.02)


def test_no_tie_rows_change_winner_only() -> None:
    """Rows of sources without ties change the model of A against B, not that of ties."""
    is_no_tie_row = (PAIRS["label"] != 2) & (PAIRS.index % 2 == 0)
    marked = PAIRS.assign(is_no_tie_row=is_no_tie_row)
    one_group = np.array(["one"] * len(PAIRS))
    both = fit_feature_model(marked, groups=one_group)
    without = fit_feature_model(marked[~is_no_tie_row], groups=one_group[~is_no_tie_row])

    def log_odds_of_tie(model: FeatureModel) -> np.ndarray:
        probs = model.predict(FRESH)
        return np.log(probs[:, 2] / (1 - probs[:, 2]))

    def log_odds_of_a(model: FeatureModel) -> np.ndarray:
        probs = model.predict(FRESH)
        return np.log(probs[:, 0] / probs[:, 1])

    np.testing.assert_allclose(log_odds_of_tie(both), log_odds_of_tie(without), atol=1e-9)
    assert np.abs(log_odds_of_a(both) - log_odds_of_a(without)).max() > 0.01


def test_rows_of_weight_zero_do_not_count() -> None:
    """Weights of 0 and 1 give the model of the rows of weight 1, and ratios alone count."""
    weights = (np.arange(len(PAIRS)) % 3 > 0).astype(float)
    groups = np.array(["one"] * len(PAIRS))
    kept = fit_feature_model(PAIRS[weights > 0], groups=groups[weights > 0]).predict(FRESH)
    for factor in (1, 4):
        weighted = fit_feature_model(PAIRS.assign(weight=factor * weights), groups=groups)
        np.testing.assert_allclose(weighted.predict(FRESH), kept, atol=1e-6)


def test_one_hot_soft_labels_are_labels() -> None:
    """One-hot soft labels equal labels, and with a soft weight of 0 soft labels are ignored."""
    one_hot = np.eye(3)[PAIRS["label"].to_numpy(int)]
    even = {"prob_a": 0.25, "prob_b": 0.25, "prob_tie": 0.5}
    sure = dict(zip(("prob_a", "prob_b", "prob_tie"), one_hot.T, strict=True))
    tables = [PAIRS, PAIRS.assign(**sure), PAIRS.assign(**even)]
    options = [{}, {}, {"soft_weight": 0.0}]
    groups = ["one"] * len(PAIRS)
    plain, soft, ignored = (
        fit_feature_model(table, groups=groups, **own).predict(FRESH)
        for table, own in zip(tables, options, strict=True)
    )
    assert np.array_equal(plain, soft)
    assert np.array_equal(plain, ignored)


def test_new_sources_fix_settings_of_winners(model: FeatureModel, monkeypatch) -> None:
    """For new sources, A against B has fixed settings, and the model of ties is the same.

    Exchanging the responses still exchanges the probabilities exactly.
    """
    monkeypatch.setattr(binary_models, "_MAX_TREES", 20)
    other = fit_feature_model(PAIRS, new_sources=True)
    assert other.winner.settings == FOR_NEW_SOURCES != model.winner.settings
    assert other.tie.settings == model.tie.settings
    probs = other.predict(FRESH)
    assert not np.array_equal(probs, model.predict(FRESH))
    assert np.array_equal(other.predict(swap_pairs(FRESH)), swap_probs(probs))
    fitted = PreferenceClassifier(new_sources=True).fit(PAIRS, PAIRS["label"])
    assert np.array_equal(fitted.predict_proba(FRESH), probs)


def test_beats_class_prior_on_new_pairs(model: FeatureModel) -> None:
    """The features help on pairs that the model has not seen."""
    prior = PAIRS["label"].value_counts(normalize=True).sort_index().to_numpy(float)
    assert log_loss(model.predict(FRESH), FRESH) < log_loss(np.tile(prior, (400, 1)), FRESH) - 0.05


def test_probabilities_are_a_distribution(model: FeatureModel) -> None:
    """Rows sum to 1, and nothing is certain."""
    probs = model.predict(FRESH)
    assert np.allclose(probs.sum(axis=1), 1, atol=1e-12)
    assert probs.min() > 0


def test_names_and_sources_are_ignored(model: FeatureModel) -> None:
    """Predictions depend on the texts alone."""
    anonymous = FRESH.assign(model_a=pd.NA, model_b=pd.NA, source=pd.NA, language=pd.NA)
    assert np.array_equal(model.predict(anonymous), model.predict(FRESH))


def test_row_ignores_other_rows(model: FeatureModel) -> None:
    """A row has the same probabilities alone and in a table, bit for bit."""
    assert np.array_equal(model.predict(FRESH)[7:8], model.predict(FRESH.iloc[7:8]))


def test_empty_table_is_predicted(model: FeatureModel) -> None:
    """An empty table gives an array of shape (0, 3)."""
    assert model.predict(FRESH.head(0)).shape == (0, 3)


def test_saved_model_predicts_the_same(model: FeatureModel, tmp_path) -> None:
    """A round trip through the folder keeps each bit, also of a model without trees."""
    constant = fit_feature_model(PAIRS.head(40), groups=["one"] * 40)
    for number, fitted in enumerate((model, constant)):
        folder = tmp_path / str(number)
        fitted.save(folder)
        names = sorted(path.name for path in folder.iterdir())
        assert names == ["feature_model.skops", "manifest.json"]
        loaded = load_feature_model(folder)
        assert np.array_equal(loaded.predict(FRESH), fitted.predict(FRESH))
        assert loaded.winner.settings == fitted.winner.settings


def test_files_have_no_text(model: FeatureModel, tmp_path) -> None:
    """No response is in any part of the file."""
    model.save(tmp_path / "model")
    with zipfile.ZipFile(tmp_path / "model" / "feature_model.skops") as file:
        content = b"".join(map(file.read, file.namelist()))
    responses = [turn for turns in PAIRS["response_a"] for turn in turns if turn and len(turn) > 15]
    assert not [response for response in responses if response.encode() in content]


def rewrite(folder, values: object) -> None:
    """Replace the model file by other values, with a manifest that fits."""
    folder.mkdir(exist_ok=True)
    skops.io.dump(values, folder / "feature_model.skops")
    write_manifest(folder)


def test_damaged_model_is_refused(model: FeatureModel, tmp_path) -> None:
    """A missing folder and a changed byte are found before the file is read."""
    folder = tmp_path / "model"
    with pytest.raises(ModelError, match=r"manifest\.json is missing"):
        load_feature_model(folder)
    model.save(folder)
    (folder / "README.md").write_text("The card may be added later.")
    load_feature_model(folder)
    path = folder / "feature_model.skops"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(ModelError, match="does not match"):
        load_feature_model(folder)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"features_version": 0}, "version 0; expected version 1"),
        ({"features_version": 1}, "cannot be read"),
        ({"features_version": 1, "winner": Fraction(1, 2)}, "cannot be read.*Fraction"),
    ],
    ids=["other version", "missing part", "untrusted type"],
)
def test_other_files_are_refused(values: object, message: str, tmp_path) -> None:
    """Other features, missing parts and types that are not listed cannot be loaded."""
    rewrite(tmp_path, values)
    with pytest.raises(ModelError, match=message):
        load_feature_model(tmp_path)
    (tmp_path / "feature_model.skops").write_bytes(b"no archive")
    write_manifest(tmp_path)
    with pytest.raises(ModelError, match="cannot be read"):
        load_feature_model(tmp_path)


def test_unseen_class_stays_possible() -> None:
    """Without ties among the rows, P(tie) is small but not 0."""
    decided = PAIRS[PAIRS["label"] < 2].head(80)
    probs = fit_feature_model(decided, groups=["one"] * 80).predict(FRESH)
    assert 0 < probs[:, 2].max() < 0.1
