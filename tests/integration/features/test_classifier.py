"""Tests of the scikit-learn estimator of the feature model."""

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GroupKFold, cross_val_predict, cross_val_score

import tiewise as tw
from tiewise.data.pairs import swap_pairs
from tiewise.data.simulation.simulate import simulate
from tiewise.errors import PairsError, TiewiseError
from tiewise.features import binary_models
from tiewise.features.feature_model import fit_feature_model

PAIRS = simulate(120, seed=2)
LABELS = PAIRS["label"].to_numpy(int)
ONE_GROUP = ["one"] * 120


@pytest.fixture(autouse=True)
def few_trees(monkeypatch):
    """Grow few trees, and choose their number from few."""
    monkeypatch.setattr(binary_models, "_MAX_TREES", 20)


@pytest.fixture
def classifier():
    return tw.PreferenceClassifier().fit(PAIRS, LABELS, groups=ONE_GROUP)


@pytest.mark.parametrize("groups", [None, ONE_GROUP])
def test_classifier_equals_feature_model(groups):
    """The probabilities are those of the feature model with the same seed and groups."""
    expected = fit_feature_model(PAIRS, groups=groups, seed=3).predict(PAIRS)
    fitted = tw.PreferenceClassifier(seed=3).fit(PAIRS, LABELS, groups=groups)
    assert np.array_equal(fitted.predict_proba(PAIRS), expected)


def test_text_columns_are_enough(classifier):
    """A table of the three texts alone, with any index, gives the same model."""
    texts = PAIRS[["prompt", "response_a", "response_b"]].set_index(np.arange(120) + 7)
    fitted = tw.PreferenceClassifier().fit(texts, LABELS, groups=ONE_GROUP)
    assert np.array_equal(fitted.predict_proba(texts), classifier.predict_proba(PAIRS))


def test_given_labels_count(classifier):
    """The labels are those of the argument, not those in the table."""
    others = PAIRS.assign(label=0, winner="model_a", prob_a=1.0, prob_b=0.0, prob_tie=0.0)
    fitted = tw.PreferenceClassifier().fit(others, LABELS, groups=ONE_GROUP)
    assert np.array_equal(fitted.predict_proba(PAIRS), classifier.predict_proba(PAIRS))


def test_predicted_labels_are_most_probable(classifier):
    """Classes are A, B, tie; swapped responses swap the labels."""
    assert classifier.classes_.tolist() == [0, 1, 2]
    labels = classifier.predict(PAIRS)
    assert np.array_equal(labels, classifier.predict_proba(PAIRS).argmax(axis=1))
    assert np.array_equal(classifier.predict(swap_pairs(PAIRS)), tw.swap_labels(labels))
    assert classifier.score(PAIRS, LABELS) == (labels == LABELS).mean()


@pytest.mark.parametrize("labels", [["a"] * 120, [3] * 120, [None] * 120, [0] * 7])
def test_invalid_labels_are_refused(labels):
    """The message says what a label is."""
    with pytest.raises(TiewiseError):
        tw.PreferenceClassifier().fit(PAIRS, labels)


def test_parameters_follow_scikit_learn(classifier):
    """Parameters can be read, set and cloned; a clone is not fitted."""
    assert classifier.get_params() == {"seed": 0, "new_sources": False}
    copy = clone(classifier).set_params(seed=4)
    assert copy.get_params() == {"seed": 4, "new_sources": False}
    with pytest.raises(NotFittedError):
        copy.predict_proba(PAIRS)


def test_scikit_learn_cross_validates():
    """Out-of-fold probabilities and scores work as for any estimator."""
    options = {"groups": PAIRS["group"], "cv": GroupKFold(2)}
    probs = cross_val_predict(
        tw.PreferenceClassifier(), PAIRS, LABELS, method="predict_proba", **options
    )
    assert probs.shape == (120, 3)
    losses = cross_val_score(
        tw.PreferenceClassifier(), PAIRS, LABELS, scoring="neg_log_loss", **options
    )
    assert np.isfinite(losses).all()


@pytest.mark.parametrize(
    ("change", "labels"),
    [({"prompt": "no list of turns"}, LABELS), ({}, np.full(120, 3)), ({}, [pd.NA] * 120)],
    ids=["strings", "unknown label", "no label"],
)
def test_bad_rows_are_refused(change, labels):
    """Strings in place of turns, and labels other than 0, 1, 2 raise an error of the package."""
    with pytest.raises(tw.TiewiseError):
        tw.PreferenceClassifier().fit(PAIRS.assign(**change), labels)


def test_strings_are_not_predicted(classifier):
    """A string is not a list of turns."""
    with pytest.raises(PairsError):
        classifier.predict_proba(PAIRS.assign(response_b="no list of turns"))
