"""A label and its one-hot row are the same thing, also after the swap."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from strategies import labels, probs
from tiewise.data.labels import (
    WINNER_WORDS,
    WORD_OF_WINNER,
    Winner,
    derive_labels,
    label_from_winner,
    swap_labels,
    swap_probs,
    swap_winner,
)
from tiewise.errors import LabelError


def one_hot_of(label_array):
    return np.eye(3, dtype=np.int64)[label_array]


def notebook_label(a_win, b_win):
    """Return what the notebook's loop appends."""
    if a_win:
        return 0
    if b_win:
        return 1
    return 2


@given(label_array=labels(), kind=st.sampled_from([np.int64, np.int8, np.float32, np.bool_]))
def test_one_hot_and_label_are_a_bijection(label_array, kind):
    """Deriving labels undoes one-hot encoding, whatever the columns' type."""
    derived = derive_labels(*one_hot_of(label_array).astype(kind).T)
    assert derived.dtype == np.int8
    np.testing.assert_array_equal(derived, label_array)


@given(
    rows=hnp.arrays(np.int64, st.tuples(st.integers(0, 8), st.just(3)), elements=st.integers(-1, 2))
)
def test_only_one_hot_rows_have_labels(rows):
    """Any row that is not one 1 and two 0 is refused and the first such row is named."""
    is_one_hot = (np.sort(rows, axis=1) == [0, 0, 1]).all(axis=1)
    if is_one_hot.all():
        np.testing.assert_array_equal(one_hot_of(derive_labels(*rows.T)), rows)
    else:
        with pytest.raises(LabelError, match=f"row {is_one_hot.argmin()}:"):
            derive_labels(*rows.T)


@given(label_array=labels())
def test_agrees_with_the_notebook_on_one_hot_rows(label_array):
    """Where exactly one column is 1 the notebook is right."""
    winner_a, winner_b, winner_tie = one_hot_of(label_array).T
    expected = [notebook_label(a, b) for a, b in zip(winner_a, winner_b, strict=True)]
    assert derive_labels(winner_a, winner_b, winner_tie).tolist() == expected


@pytest.mark.parametrize(
    "row",
    [(0, 0, 0), (1, 1, 0), (1, 0, 1), (0, 0, float("nan")), (0.7, 0.3, 0), (float("inf"), 0, 0)],
)
def test_refuses_what_the_notebook_labels_in_silence(row):
    """All-zero rows, two winners, fractions and missing values have no label."""
    assert notebook_label(*row[:2]) in (0, 1, 2)
    with pytest.raises(LabelError, match="row 0"):
        derive_labels(*([value] for value in row))


def test_counts_the_rows_it_does_not_name():
    """A message stays short however many rows are wrong."""
    zeros = np.zeros(1000)
    with pytest.raises(LabelError, match=r"row 4: 0, 0, 0 and 995 more$"):
        derive_labels(zeros, zeros, zeros)


@pytest.mark.parametrize("column", [["a"], [None, {}], [[1, 0], [0]]])
def test_refuses_columns_that_hold_no_numbers(column):
    """Words in a winner column are a LabelError, not an error from numpy."""
    with pytest.raises(LabelError, match=r"numbers|equally long"):
        derive_labels(column, [0], [0])


def test_refuses_columns_of_different_lengths():
    """Three columns of one table have equally many rows."""
    with pytest.raises(LabelError, match="equally long"):
        derive_labels([1, 0], [0, 1], [0])


@given(label_array=labels())
def test_swapping_labels_is_the_swap_of_the_columns(label_array):
    """derive(swap(row)) equals swap(derive(row)), and swapping twice changes nothing."""
    winner_a, winner_b, winner_tie = one_hot_of(label_array).T
    swapped = swap_labels(derive_labels(winner_a, winner_b, winner_tie))
    np.testing.assert_array_equal(derive_labels(winner_b, winner_a, winner_tie), swapped)
    np.testing.assert_array_equal(swap_labels(swapped), label_array)
    assert swapped.dtype == np.int8


@pytest.mark.parametrize("label", [-1, 3, 0.5])
def test_swapping_refuses_what_is_no_label(label):
    """A masked or unknown label must not wrap around to another class."""
    with pytest.raises(LabelError, match="0, 1 or 2"):
        swap_labels(np.array([0, label]))


@given(prob_array=probs(), label_array=labels())
def test_swapping_probabilities_is_an_involution_that_moves_with_the_labels(
    prob_array, label_array
):
    """The probability of the observed class stays what it was when both are swapped."""
    n = min(len(prob_array), len(label_array))
    prob_array, label_array = prob_array[:n], label_array[:n]
    swapped = swap_probs(prob_array)
    np.testing.assert_array_equal(swap_probs(swapped), prob_array)
    rows = np.arange(n)
    np.testing.assert_array_equal(
        swapped[rows, swap_labels(label_array)], prob_array[rows, label_array]
    )


@pytest.mark.parametrize("shape", [(), (2,), (3, 2)])
def test_swapping_probabilities_refuses_another_shape(shape):
    """Two columns cannot be A, B, tie."""
    with pytest.raises(LabelError, match="A, B, tie"):
        swap_probs(np.zeros(shape))


@pytest.mark.parametrize("word", WINNER_WORDS)
def test_words_and_labels_swap_together(word):
    """The label of the swapped word is the swapped label; words for ties are kept."""
    label = label_from_winner(word)
    assert label_from_winner(swap_winner(word)) == swap_labels(np.array([label]))[0]
    assert swap_winner(swap_winner(word)) == word
    assert label is Winner.TIE or WORD_OF_WINNER[label] == word


@given(word=st.text() | st.none() | st.integers() | st.lists(st.text()))
def test_unknown_words_are_refused_with_the_known_ones(word):
    """A winner is one of six words, or a LabelError that lists them."""
    if isinstance(word, str) and word in WINNER_WORDS:
        return
    with pytest.raises(LabelError, match=r"tie \(bothbad\), both_bad"):
        label_from_winner(word)


def test_words_with_other_case_or_space_are_refused():
    """Guessing at a spelling would one day guess wrong."""
    for word in ("Model_A", "model_a ", "A", "", "nan"):
        with pytest.raises(LabelError):
            label_from_winner(word)
