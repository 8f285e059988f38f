"""Labels, one-hot rows and words agree, also after A and B are swapped."""

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
    derive_labels,
    label_from_winner,
    standard_word,
    swap_labels,
    swap_probs,
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
def test_labels_invert_one_hot_rows(label_array, kind):
    """derive_labels inverts one-hot encoding for columns of every numeric type."""
    derived = derive_labels(*one_hot_of(label_array).astype(kind).T)
    assert derived.dtype == np.int8
    np.testing.assert_array_equal(derived, label_array)


@given(
    rows=hnp.arrays(np.int64, st.tuples(st.integers(0, 8), st.just(3)), elements=st.integers(-1, 2))
)
def test_invalid_one_hot_rows_are_refused(rows):
    """A row that is not one 1 and two 0 is refused; the message names the first such row."""
    is_one_hot = (np.sort(rows, axis=1) == [0, 0, 1]).all(axis=1)
    if is_one_hot.all():
        np.testing.assert_array_equal(one_hot_of(derive_labels(*rows.T)), rows)
    else:
        with pytest.raises(LabelError, match=f"in row {is_one_hot.argmin()};"):
            derive_labels(*rows.T)


@given(label_array=labels())
def test_valid_rows_match_the_notebook(label_array):
    """Labels are those of the notebook where exactly one column is 1."""
    winner_a, winner_b, winner_tie = one_hot_of(label_array).T
    expected = [notebook_label(a, b) for a, b in zip(winner_a, winner_b, strict=True)]
    assert derive_labels(winner_a, winner_b, winner_tie).tolist() == expected


def test_message_names_all_words():
    """Every form that is read is in the message about a word that is not."""
    with pytest.raises(LabelError) as caught:
        standard_word("X")
    for word in ("A", "B", "C", "[[A]]", "Response A", *WINNER_WORDS):
        assert word in str(caught.value)
        standard_word(word)


@pytest.mark.parametrize(
    "row",
    [(0, 0, 0), (1, 1, 0), (1, 0, 1), (0, 0, float("nan")), (0.7, 0.3, 0), (float("inf"), 0, 0)],
)
def test_rows_the_notebook_mislabels_are_refused(row):
    """Rows of zeros, two winners, fractions and missing values are errors, not labels."""
    assert notebook_label(*row[:2]) in (0, 1, 2)
    with pytest.raises(LabelError, match="row 0"):
        derive_labels(*([value] for value in row))


def test_long_messages_count_further_rows():
    """A message names five wrong rows and counts the others."""
    zeros = np.zeros(1000)
    with pytest.raises(LabelError, match=r"in row 4; and 995 more rows; exactly one must be 1$"):
        derive_labels(zeros, zeros, zeros)


@pytest.mark.parametrize("column", [["a"], [None, {}], [[1, 0], [0]]])
def test_columns_of_words_are_refused(column):
    """A winner column without numbers raises LabelError, not an error of numpy."""
    with pytest.raises(LabelError, match=r"not numeric|equal lengths"):
        derive_labels(column, [0], [0])


def test_columns_of_unequal_length_are_refused():
    """The three columns need one value for each row."""
    with pytest.raises(LabelError, match="equal lengths"):
        derive_labels([1, 0], [0, 1], [0])


@given(label_array=labels())
def test_swapped_labels_match_swapped_columns(label_array):
    """derive(swap(row)) equals swap(derive(row)), and swapping twice restores the labels."""
    winner_a, winner_b, winner_tie = one_hot_of(label_array).T
    swapped = swap_labels(derive_labels(winner_a, winner_b, winner_tie))
    np.testing.assert_array_equal(derive_labels(winner_b, winner_a, winner_tie), swapped)
    np.testing.assert_array_equal(swap_labels(swapped), label_array)
    assert swapped.dtype == np.int8


@pytest.mark.parametrize("label", [-1, 3, 0.5])
def test_swapping_refuses_invalid_labels(label):
    """A label such as -1 must not be used as an index of another class."""
    with pytest.raises(LabelError, match="0, 1 or 2"):
        swap_labels(np.array([0, label]))


@given(prob_array=probs(), label_array=labels())
def test_swapped_probabilities_match_swapped_labels(prob_array, label_array):
    """The observed class keeps its probability; swapping twice restores the probabilities."""
    n = min(len(prob_array), len(label_array))
    prob_array, label_array = prob_array[:n], label_array[:n]
    swapped = swap_probs(prob_array)
    np.testing.assert_array_equal(swap_probs(swapped), prob_array)
    rows = np.arange(n)
    np.testing.assert_array_equal(
        swapped[rows, swap_labels(label_array)], prob_array[rows, label_array]
    )


@pytest.mark.parametrize("shape", [(), (2,), (3, 2)])
def test_swapping_refuses_other_shapes(shape):
    """Probabilities need a last axis of length 3."""
    with pytest.raises(LabelError, match=r"expected \(..., 3\)"):
        swap_probs(np.zeros(shape))


@pytest.mark.parametrize(("winner", "word"), WORD_OF_WINNER.items())
def test_own_words_are_known(winner, word):
    """The word for a label has this label."""
    assert label_from_winner(word) is winner


def test_words_for_ties_are_ties():
    """Both answers bad, in each known spelling, is a tie."""
    for word in set(WINNER_WORDS) - {"model_a", "model_b"}:
        assert label_from_winner(word) == 2


@given(word=st.text(min_size=10) | st.none() | st.integers() | st.lists(st.text()))
def test_unknown_words_are_refused(word):
    """Any other word raises a LabelError that lists the known words."""
    if isinstance(word, str) and word.strip().lower() in WINNER_WORDS:
        return
    with pytest.raises(LabelError, match=r"tie \(bothbad\), both_bad"):
        label_from_winner(word)


def test_other_words_are_not_guessed():
    """A word that only begins like a known one, brackets that do not match, or an empty word."""
    for word in ("D", "", "nan", "A wins", "[[A]", "AB", "model_c", "ties", "1", "both"):
        with pytest.raises(LabelError):
            label_from_winner(word)
