"""References: fitted on training rows alone, and no better than they may be."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiewise.data.labels import swap_probs
from tiewise.evaluation.references import (
    LENGTH_COLUMNS,
    predict_class_prior,
    predict_length_only,
    reference_probs,
)

lengths = st.integers(0, 100_000)


@st.composite
def folds_tables(draw, n_folds=3):
    """Rows of any lengths and labels, some unlabelled, at least one labelled row in each fold."""
    row = st.tuples(st.sampled_from([0, 1, 2, None]), lengths, lengths, lengths)
    rows = draw(st.lists(row, min_size=n_folds, max_size=15))
    table = pd.DataFrame(rows, columns=["label", *LENGTH_COLUMNS])
    table["fold"] = np.arange(len(table)) % n_folds
    table.loc[: n_folds - 1, "label"] = draw(st.integers(0, 2))
    return table.astype({"label": "Int8"})


def exchanged(table):
    columns = {"n_chars_a": "n_chars_b", "n_chars_b": "n_chars_a"}
    return table.rename(columns=columns)[table.columns]


@given(folds_tables())
def test_every_reference_gives_probabilities_for_every_row(table):
    """Whatever the lengths and labels, rows sum to one and no class is impossible."""
    references, omitted = reference_probs(table, np.arange(len(table)))
    assert references.keys() == {"uniform", "class_prior", "length_only"}
    assert not omitted
    for probs in references.values():
        np.testing.assert_allclose(probs.sum(1), 1)
        assert (probs > 0).all()


@given(folds_tables())
def test_length_only_is_symmetric_under_the_swap(table):
    """Exchanging the answers exchanges P(A) and P(B), to the last bit."""
    there = predict_length_only(table.dropna(), table)
    back = predict_length_only(table.dropna(), exchanged(table))
    np.testing.assert_array_equal(there, swap_probs(back))


@given(folds_tables(), st.integers(0, 2))
def test_the_labels_of_a_held_out_fold_do_not_matter(table, label):
    """A reference never sees the fold it predicts."""
    rows = np.flatnonzero(table["fold"] == 0)
    changed = table.assign(label=table["label"].where(table["fold"] != 0, label))
    before, after = reference_probs(table, rows)[0], reference_probs(changed, rows)[0]
    for name, probs in before.items():
        np.testing.assert_array_equal(probs, after[name])


@given(st.lists(st.integers(0, 2), min_size=1), st.integers(1, 4))
def test_the_class_prior_is_the_share_of_each_class_with_one_row_more(labels, n):
    """Laplace's rule; every row gets the same."""
    probs = predict_class_prior(pd.DataFrame({"label": labels}), pd.DataFrame(index=range(n)))
    counts = np.array([labels.count(k) + 1 for k in range(3)])
    np.testing.assert_allclose(probs, np.tile(counts / counts.sum(), (n, 1)))


def test_length_only_finds_that_longer_answers_win():
    """What length alone explains is explained."""
    generator = np.random.default_rng(0)
    table = pd.DataFrame(generator.integers(50, 4000, (600, 3)), columns=LENGTH_COLUMNS)
    table["label"] = (table["n_chars_b"] > table["n_chars_a"]).astype(int)
    probs = predict_length_only(table, table)
    assert (probs.argmax(1) == table["label"]).mean() > 0.97


def test_length_only_without_ties_in_training_still_allows_one():
    """A class nobody chose is rare, not impossible."""
    table = pd.DataFrame({"label": [0, 1], "n_chars_prompt": 5, "n_chars_a": 5, "n_chars_b": 5})
    probs = predict_length_only(pd.concat([table] * 50), table)
    assert 0 < probs[0, 2] < 0.1
    assert probs[0, 0] == probs[0, 1]


def test_the_truth_is_a_reference_where_it_is_known():
    """Simulated data carry the probabilities that their labels were drawn from."""
    table = pd.DataFrame({"fold": [0, 1], "label": [0, 1]})
    table[["bayes_a", "bayes_b", "bayes_tie"]] = [[0.7, 0.1, 0.2], [0.2, 0.5, 0.3]]
    assert reference_probs(table, [1])[0]["bayes"].tolist() == [[0.2, 0.5, 0.3]]


def test_what_cannot_be_fitted_is_omitted_with_a_reason():
    """One fold has nothing outside it to learn from."""
    references, omitted = reference_probs(pd.DataFrame({"fold": [0, 0], "label": [0, 1]}), [0])
    assert references.keys() == {"uniform"}
    assert "no labelled row outside fold 0" in omitted["class_prior"]
    assert "no column n_chars_prompt" in omitted["length_only"]


@pytest.mark.parametrize("fold", [0, 1])
def test_rows_come_back_in_the_order_asked_for(fold):
    """A row's prediction does not depend on which others are asked for, but for its last bits."""
    generator = np.random.default_rng(fold)
    table = pd.DataFrame(generator.integers(0, 900, (30, 3)), columns=LENGTH_COLUMNS)
    table = table.assign(fold=np.arange(30) % 3, label=generator.integers(0, 3, 30))
    whole = reference_probs(table, np.arange(30))[0]["length_only"]
    some = reference_probs(table, [17, 3, 4])[0]["length_only"]
    np.testing.assert_allclose(some, whole[[17, 3, 4]], rtol=1e-12)
