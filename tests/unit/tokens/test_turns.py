"""Bounded encoding keeps both ends of a text and never pays for its middle."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tiewise.tokens import turns
from tiewise.tokens.turns import Bound, encode_texts


def spell(texts):
    return [[ord(letter) for letter in text] for text in texts]


class Counting:
    """Spells, and remembers how many characters it was given."""

    def __init__(self):
        self.n_characters = 0

    def __call__(self, texts):
        self.n_characters += sum(len(text) for text in texts)
        return spell(texts)


texts_of_any_length = st.lists(st.text("abc", max_size=200), max_size=8)


@given(texts_of_any_length, st.integers(1, 9), st.integers(0, 9))
def test_kept_tokens_are_the_first_and_the_last(texts, head, tail):
    """Whatever is kept is a prefix and a suffix of the whole text's tokens."""
    encoded = encode_texts(texts, spell, Bound(head, tail))
    for position, whole in enumerate(spell(texts)):
        kept = encoded.values[encoded.offsets[position] : encoded.offsets[position + 1]].tolist()
        if len(whole) <= head + tail:
            assert kept == whole
        else:
            assert kept == whole[:head] + whole[len(whole) - tail :]
        assert encoded.n_original[position] == len(whole)


def test_megabytes_in_one_turn_cost_nothing():
    """Of ten million characters the ends alone are tokenised; the length is estimated."""
    encode = Counting()
    encoded = encode_texts(["ab" * 5_000_000], encode, Bound(4096, 4096))
    assert encode.n_characters <= 2 * 4096 * 6
    assert len(encoded.values) == 8192
    assert encoded.n_original.tolist() == [10_000_000]


def test_sparse_text_is_read_further():
    """Where six characters a token fall short, more are read, until both ends are full."""

    def blanks(texts):
        return [list(range(len(text) // 50)) for text in texts]

    encoded = encode_texts(["x" * 2_000_000], blanks, Bound(4096, 4096))
    assert len(encoded.values) == 8192
    assert abs(encoded.n_original[0] - 40_000) < 10


def test_text_without_tokens_ends():
    """A text that gives next to no tokens is read whole, once."""
    encoded = encode_texts(["x" * 1_000_000], lambda texts: [[7] for _ in texts], Bound(4096, 4096))
    assert (encoded.values.tolist(), encoded.n_original.tolist()) == ([7], [1])


@given(st.lists(st.text("ab", max_size=5), min_size=1, max_size=8), st.data())
def test_take_reorders_and_repeats(texts, data):
    """Equal texts need one encoding: `take` deals it out."""
    index = data.draw(st.lists(st.integers(0, len(texts) - 1), max_size=12))
    taken = encode_texts(texts, spell, Bound(9, 9)).take(np.array(index, dtype=np.int64))
    expected = encode_texts([texts[position] for position in index], spell, Bound(9, 9))
    for one, other in zip(vars(taken).values(), vars(expected).values(), strict=True):
        assert one.tolist() == other.tolist()
        assert one.dtype == other.dtype


def test_nothing_gives_empty_arrays():
    """No texts, no tokens, and still the right types."""
    encoded = encode_texts([], spell, Bound(4, 4))
    assert (encoded.values.dtype, encoded.offsets.tolist()) == (np.int32, [0])
    assert turns.Ragged.take(encoded, np.array([], dtype=np.int64)).offsets.tolist() == [0]
