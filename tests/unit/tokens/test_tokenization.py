"""Turns are tokenised once, bounded, and cached under a key that covers all they depend on."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from small_tokenizers import FAMILIES, byte_level
from strategies import turns
from tiewise.errors import PairsError
from tiewise.tokens import tokenization
from tiewise.tokens.rows import token_rows
from tiewise.tokens.template import Template, build_template
from tiewise.tokens.tokenization import (
    Bound,
    TextColumn,
    encode_texts,
    token_lengths,
    tokenize,
)
from tiewise.tokens.tokenizer import TextTokenizer

PAIRS = pd.DataFrame(
    {
        "prompt": [["Which of two answers is right?", None], ["How sure is that?"], []],
        "response_a": [["The first answer.", "longer"], ["The first answer."], [""]],
        "response_b": [["The second answer is longer, but wrong.", ""], [None], ["null"]],
    }
)


class Spy(TextTokenizer):
    """Counts the texts that it encodes."""

    n_texts = 0

    def encode_turns(self, texts):
        self.n_texts += len(texts)
        return super().encode_turns(texts)

    encode_strings = encode_turns


def spy_on(family):
    return Spy(family().state, family().special)


tables = st.lists(turns(), max_size=5)


def canonical(cells):
    return [cell or [None] for cell in cells]


class TestTextColumn:
    """Flattened columns and their digests."""

    @given(tables)
    def test_turns_keep_their_order(self, cells):
        """Texts, nulls and rows describe the column; an empty cell is a missing turn."""
        column = TextColumn.of(cells)
        flat = [turn for cell in canonical(cells) for turn in cell]
        assert column.texts == [turn or "" for turn in flat]
        assert column.missing.tolist() == [turn is None for turn in flat]
        expected = [[turn or "" for turn in cell] for cell in canonical(cells)]
        assert list(column.cells()) == expected

    @given(tables, tables)
    def test_equal_digests_mean_equal_columns(self, one, other):
        """A moved boundary of turns or rows, or a null for an empty text, is a difference."""
        is_equal = canonical(one) == canonical(other)
        assert (TextColumn.of(one).digest() == TextColumn.of(other).digest()) == is_equal

    @pytest.mark.parametrize(
        "other",
        [
            [["ab", "c"]],
            [["a", "bc"]],
            [["a"], ["b"], ["c"]],
            [["a", "b"], ["c"]],
            [["a", "b", "c", ""]],
        ],
    )
    def test_boundaries_change_the_digest(self, other):
        """The same letters in other turns or rows are another column."""
        assert TextColumn.of(other).digest() != TextColumn.of([["a", "b", "c"]]).digest()

    @given(tables, st.integers(1, 3))
    def test_batches_keep_the_digest(self, cells, batch):
        """The number of texts that are digested at once changes nothing."""
        whole = TextColumn.of(cells).digest()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tokenization, "_BATCH", batch)
            assert TextColumn.of(cells).digest() == whole

    def test_lone_surrogate_is_refused(self):
        """A text that cannot be encoded is named before the tokenizer raises."""
        with pytest.raises(PairsError, match="half a surrogate pair"):
            TextColumn.of([["a", "b\ud83d"]]).digest()


def spell(texts):
    return [[ord(letter) for letter in text] for text in texts]


class TestEncodeTexts:
    """Bounded encoding keeps both ends of a text and does not encode its middle."""

    @given(st.lists(st.text("abc", max_size=200), max_size=8), st.integers(1, 9), st.integers(0, 9))
    def test_first_and_last_tokens_are_kept(self, texts, head, tail):
        """A prefix and a suffix of the whole text's tokens are kept."""
        encoded = encode_texts(texts, spell, Bound(head, tail))
        for position, whole in enumerate(spell(texts)):
            span = slice(encoded.offsets[position], encoded.offsets[position + 1])
            kept = encoded.values[span].tolist()
            if len(whole) <= head + tail:
                assert kept == whole
            else:
                assert kept == whole[:head] + whole[len(whole) - tail :]
            assert encoded.n_original[position] == len(whole)

    def test_huge_text_costs_little(self):
        """Of ten million characters only the ends are tokenised; the length is estimated."""
        n_characters = 0

        def encode(texts):
            nonlocal n_characters
            n_characters += sum(len(text) for text in texts)
            return spell(texts)

        encoded = encode_texts(["ab" * 5_000_000], encode, Bound(4096, 4096))
        assert n_characters <= 2 * 4096 * 6
        assert len(encoded.values) == 8192
        assert encoded.n_original.tolist() == [10_000_000]

    @pytest.mark.parametrize("bound", [Bound(0, 40), Bound(40, 0), Bound(40, 40)])
    @pytest.mark.parametrize("cut", [slice(None), slice(None, None, -1)])
    def test_cut_words_are_outside_the_bound(self, bound, cut):
        """An artificial cut changes the ids of the word that it divides; none of these is kept.

        A word is read five characters at a time, from its start or, in the other case, its end.
        """
        text = " ".join(letter * 397 for letter in "abcdefghijklmnopqrstuvwxyz" * 2)

        def spell_words(texts):
            words = ([word[cut] for word in text[cut].split(" ")][cut] for text in texts)
            pieces = ([w[i : i + 5][cut] for w in of for i in range(0, len(w), 5)] for of in words)
            return [[ord(part[0]) * 10 + len(part) for part in of] for of in pieces]

        [whole] = spell_words([text])
        kept = encode_texts([text], spell_words, bound).values.tolist()
        assert kept == whole[: bound.head] + whole[len(whole) - bound.tail :]

    def test_sparse_text_is_read_further(self):
        """Where six characters for each token are too few, more are read."""

        def blanks(texts):
            return [list(range(len(text) // 50)) for text in texts]

        encoded = encode_texts(["x" * 2_000_000], blanks, Bound(4096, 4096))
        assert len(encoded.values) == 8192
        assert abs(encoded.n_original[0] - 40_000) < 10

    def test_text_without_tokens_ends(self):
        """A text that gives almost no tokens is read whole, once."""
        text = "x" * 1_000_000
        encoded = encode_texts([text], lambda texts: [[7] for _ in texts], Bound(4096, 4096))
        assert (encoded.values.tolist(), encoded.n_original.tolist()) == ([7], [1])

    @given(st.lists(st.text("ab", max_size=5), min_size=1, max_size=8), st.data())
    def test_take_reorders_and_repeats(self, texts, data):
        """`take` gives the same as encoding the texts in the new order."""
        index = data.draw(st.lists(st.integers(0, len(texts) - 1), max_size=12))
        taken = encode_texts(texts, spell, Bound(9, 9)).take(np.array(index, dtype=np.int64))
        expected = encode_texts([texts[position] for position in index], spell, Bound(9, 9))
        for one, other in zip(vars(taken).values(), vars(expected).values(), strict=True):
            assert one.tolist() == other.tolist()
            assert one.dtype == other.dtype

    def test_no_texts_give_arrays(self):
        """No texts give empty arrays of the right types."""
        encoded = encode_texts([], spell, Bound(4, 4))
        assert (encoded.values.dtype, encoded.offsets.tolist()) == (np.int32, [0])
        assert encoded.take(np.array([], dtype=np.int64)).offsets.tolist() == [0]


@pytest.mark.parametrize("family", FAMILIES)
class TestCache:
    """The second call reads from the cache."""

    def test_second_call_tokenises_nothing(self, tmp_path, family):
        """Nor does a call with another length, truncation, cut or order."""
        first, second = spy_on(family), spy_on(family)
        template = build_template(family())
        rows = token_rows(PAIRS, first, template, cache_dir=tmp_path)
        again = token_rows(PAIRS, second, template, cache_dir=tmp_path)
        assert first.n_texts == 7  # equal texts once
        assert again.values.tolist() == rows.values.tolist()
        for length, truncation, cut in ((30, "balanced", "middle"), (40, "right", "right")):
            other = Template(template.special_tokens, "fields", length, truncation, cut)
            token_rows(PAIRS, second, other, cache_dir=tmp_path, is_swapped=True)
        assert second.n_texts == 0

    def test_used_tokenizer_finds_the_entry(self, tmp_path, family):
        """Truncation and padding of the caller's object are not part of the key."""
        callers = Tokenizer.from_str(family().state)
        tokenize(PAIRS, TextTokenizer(callers.to_str()), cache_dir=tmp_path)
        callers.enable_truncation(5)
        callers.enable_padding()
        callers.encode_batch(["a", "b c d e f g h"])
        spy = Spy(callers.to_str())
        tokenize(PAIRS, spy, cache_dir=tmp_path)
        assert spy.n_texts == 0

    def test_notebook_strings_are_cached(self, tmp_path, family):
        """Each order of the responses has an entry of its own."""
        template = build_template(family(), name="notebook", max_length=20)
        first, second = spy_on(family), spy_on(family)
        for is_swapped in (False, True):
            arguments = {"cache_dir": tmp_path, "is_swapped": is_swapped}
            rows = token_rows(PAIRS, first, template, **arguments)
            again = token_rows(PAIRS, second, template, **arguments)
            assert rows.values.tolist() == again.values.tolist()
        assert (first.n_texts, second.n_texts) == (6, 0)


@pytest.mark.parametrize(
    "change",
    [
        {"prompt": [["Which of two answers is right?"], [None], ["How sure is that?"]]},
        {"prompt": [["Which of two answers is right?", ""], ["How sure is that?"], []]},
        {"prompt": [["Which of two answers is right?", None], ["How sure is tha", "t?"], []]},
        {"response_a": PAIRS["response_b"], "response_b": PAIRS["response_a"]},
    ],
)
def test_other_texts_find_no_entry(tmp_path, change):
    """Nulls, boundaries of turns and rows, and which response is A are part of the key."""
    tokenizer = byte_level()
    tokenize(PAIRS, tokenizer, cache_dir=tmp_path)
    changed = PAIRS.assign(**change)
    cached = tokenize(changed, tokenizer, cache_dir=tmp_path)
    fresh = tokenize(changed, tokenizer, cache_dir=None)
    for field, expected in zip(cached, fresh, strict=True):
        for name, array in vars(expected).items():
            assert getattr(field, name).tolist() == array.tolist()


@pytest.mark.parametrize("name", ["fields", "notebook"])
def test_each_tokenizer_has_its_entries(tmp_path, name):
    """Two tokenizers with one cache each get their own ids of the same texts."""
    tokenizers = [family() for family in FAMILIES]
    templates = [build_template(tokenizer, name=name) for tokenizer in tokenizers]
    cached, fresh = (
        [
            token_rows(PAIRS, tokenizer, template, cache_dir=cache_dir).values.tolist()
            for tokenizer, template in zip(tokenizers, templates, strict=True)
        ]
        for cache_dir in (tmp_path, None)
    )
    assert cached == fresh
    assert len({str(ids) for ids in fresh}) == len(FAMILIES)


def test_changed_code_finds_no_entry(tmp_path, monkeypatch):
    """Changed code or another version of the tokenizers library computes again."""
    tokenize(PAIRS, byte_level(), cache_dir=tmp_path)
    for name, value in (("_digest_code", lambda: "other"), ("tokenizers.__version__", "9.9")):
        monkeypatch.setattr(f"tiewise.tokens.tokenization.{name}", value)
        spy = spy_on(byte_level)
        tokenize(PAIRS, spy, cache_dir=tmp_path)
        assert spy.n_texts == 7


def test_code_digest_is_stable():
    """The digest of the package's own files stays equal within a process."""
    digest = tokenization._digest_code()
    assert (len(digest), tokenization._digest_code()) == (64, digest)


@pytest.mark.parametrize("family", FAMILIES)
def test_long_turns_keep_their_ends(family):
    """Only a small part of a long text is read, and both ends have the same tokens as whole."""
    tokenizer = family()
    words = np.random.default_rng(0).choice(["answer", "Which", "1", "\n", "é", "longer,"], 40_000)
    text = " ".join(words)
    pairs = pd.DataFrame({"prompt": [[text]], "response_a": [["a"]], "response_b": [["b"]]})
    tokenized = tokenize(pairs, tokenizer, cache_dir=None)
    whole = tokenizer.encode(text)
    assert len(text) > 49_152
    assert tokenized.prompt.values.tolist() == whole[:4096] + whole[-4096:]
    estimate = token_lengths(tokenized)[0, 0]
    assert abs(estimate - len(whole)) < 0.02 * len(whole)


def test_empty_cells_are_missing_turns():
    """A cell without turns equals a null; an empty text does not."""
    tokenized = tokenize(PAIRS, byte_level(), cache_dir=None)
    assert tokenized.prompt.missing.tolist() == [False, True, False, True]
    assert tokenized.response_a.missing.tolist() == [False] * 4
