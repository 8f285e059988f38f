"""Every turn is tokenised once, and rows come out right for any template."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from small_tokenizers import FAMILIES, byte_level, gemma_like, word_piece
from strategies import clean_text
from tiewise.errors import PairsError, TemplateError
from tiewise.tokens import rows
from tiewise.tokens.rows import (
    FIELDS,
    TextTokenizer,
    build_template,
    token_lengths,
    token_rows,
    tokenize,
)
from tiewise.tokens.template import Template, read_segments

BUILT = [family() for family in FAMILIES]
GEMMA = BUILT[FAMILIES.index(gemma_like)]
PLAIN_GEMMA = Tokenizer.from_str(GEMMA.state)


@st.composite
def tables(draw, tokenizer):
    """Pairs whose turns spell control tokens, repeat one another, are empty, missing or none."""
    pieces = st.sampled_from([*sorted(tokenizer.reserved), "prompt", "Response B\n"])
    text = st.lists(pieces | clean_text(5), max_size=5).map("".join)
    cell = st.lists(st.none() | text, max_size=3)
    rows = draw(st.lists(st.tuples(cell, cell, cell), min_size=1, max_size=4))
    return pd.DataFrame(rows, columns=list(FIELDS))


def ids_of(tokenizer, cell):
    """Give the tokens of a cell's turns, the plain way."""
    return [None if turn is None else tokenizer.encode(turn) for turn in cell or [None]]


class Spy(TextTokenizer):
    """Counts the texts it is given."""

    n_texts = 0

    def encode_turns(self, texts):
        self.n_texts += len(texts)
        return super().encode_turns(texts)

    encode_strings = encode_turns


def spy_on(family):
    return Spy(family().state, family().special)


PAIRS = pd.DataFrame(
    {
        "prompt": [["Which of two answers is right?", None], ["How sure is that?"], []],
        "response_a": [["The first answer.", "longer"], ["The first answer."], [""]],
        "response_b": [["The second answer is longer, but wrong.", ""], [None], ["null"]],
    }
)


@pytest.mark.parametrize("tokenizer", BUILT)
@given(data=st.data())
def test_segments_can_be_recovered_from_hostile_text(tokenizer, data):
    """Whatever the texts spell, each row reads back as exactly the tokens of its turns."""
    pairs = data.draw(tables(tokenizer))
    template = build_template(tokenizer, max_length=5000)
    rows = token_rows(pairs, tokenizer, template, cache_dir=None)
    for position, row in enumerate(pairs.itertuples(index=False)):
        expected = tuple(ids_of(tokenizer, cell) for cell in row)
        assert read_segments(template, rows.row(position)) == expected
    assert rows.n_truncated.sum() == 0


@pytest.mark.parametrize("tokenizer", BUILT)
@given(data=st.data(), max_length=st.integers(30, 60))
def test_delimiters_survive_every_cut(tokenizer, data, max_length):
    """Control ids stand once for each slot, and the last id is never one of the text's."""
    pairs = data.draw(tables(tokenizer))
    template = build_template(tokenizer, max_length=max_length)
    rows = token_rows(pairs, tokenizer, template, cache_dir=None)
    controls = template.controls
    expected = [*controls.begin, *(slot[0] for slot in controls.slots), *controls.end]
    inner = {*controls.turn, *controls.missing}
    for position in range(len(rows)):
        found = [token for token in rows.row(position) if token in controls.reserved - inner]
        assert found == expected
        assert rows.row(position)[-1] == controls.end[0] != controls.pad


@pytest.mark.parametrize("family", FAMILIES)
class TestCache:
    """The second call reads."""

    def test_a_second_call_tokenises_nothing(self, tmp_path, family):
        """Also with another template, length, cut and order: all of them are arrays' work."""
        first, second = spy_on(family), spy_on(family)
        template = build_template(family())
        rows = token_rows(PAIRS, first, template, cache_dir=tmp_path)
        again = token_rows(PAIRS, second, template, cache_dir=tmp_path)
        assert first.n_texts == 7  # equal texts once
        assert again.values.tolist() == rows.values.tolist()
        for length, truncation, cut in ((30, "balanced", "middle"), (40, "right", "right")):
            other = Template(template.controls, "fields", length, truncation, cut)
            token_rows(PAIRS, second, other, cache_dir=tmp_path, is_swapped=True)
        assert second.n_texts == 0

    def test_using_the_tokenizer_in_between_changes_nothing(self, tmp_path, family):
        """Truncating and padding leave their state in the caller's object, not in the key."""
        callers = Tokenizer.from_str(family().state)
        tokenize(PAIRS, TextTokenizer.from_tokenizer(callers), cache_dir=tmp_path)
        callers.enable_truncation(5)
        callers.enable_padding()
        callers.encode_batch(["a", "b c d e f g h"])
        spy = Spy(callers.to_str())
        tokenize(PAIRS, spy, cache_dir=tmp_path)
        assert spy.n_texts == 0

    def test_the_notebooks_strings_are_cached_too(self, tmp_path, family):
        """They have entries of their own, for each order one."""
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
    for field, expected in zip(cached.fields, fresh.fields, strict=True):
        for name, array in vars(expected).items():
            assert getattr(field, name).tolist() == array.tolist()


def test_changed_code_and_libraries_find_no_entry(tmp_path, monkeypatch):
    """Who changes how texts are tokenised cannot get what the old code made."""
    tokenize(PAIRS, byte_level(), cache_dir=tmp_path)
    for name, value in (("_digest_code", lambda: "other"), ("tokenizers.__version__", "9.9")):
        monkeypatch.setattr(f"tiewise.tokens.rows.{name}", value)
        spy = spy_on(byte_level)
        tokenize(PAIRS, spy, cache_dir=tmp_path)
        assert spy.n_texts == 7


@pytest.mark.parametrize("family", FAMILIES)
def test_long_turns_keep_their_true_ends(family):
    """The pre-cut reads little of a long text and gets the same tokens at both ends."""
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


def test_a_field_without_turns_is_a_missing_turn():
    """Nothing there and a null there are one; an empty text is another."""
    tokenized = tokenize(PAIRS, byte_level(), cache_dir=None)
    assert tokenized.prompt.missing.tolist() == [False, True, False, True]
    assert tokenized.response_a.missing.tolist() == [False] * 4


def test_half_a_surrogate_pair_is_refused():
    """Read by hand, such a text would make the tokenizer raise without saying where."""
    pairs = pd.DataFrame({"prompt": [["\ud83d"]], "response_a": [["a"]], "response_b": [["b"]]})
    with pytest.raises(PairsError, match="half a surrogate pair"):
        tokenize(pairs, byte_level(), cache_dir=None)


def test_no_pairs():
    """An empty table gives no rows, with every template."""
    for name in ("fields", "notebook"):
        template = build_template(gemma_like(), name=name)
        assert len(token_rows(PAIRS[:0], gemma_like(), template, cache_dir=None)) == 0


class TestNotebook:
    """The notebook's own ids."""

    @given(data=st.data(), max_length=st.integers(3, 40))
    def test_ids_are_those_of_the_whole_string(self, data, max_length):
        """Begin, the string's own tokens cut right, end; control tokens in it are parsed."""
        pairs = data.draw(tables(GEMMA))
        template = build_template(GEMMA, name="notebook", max_length=max_length)
        rows = token_rows(pairs, GEMMA, template, cache_dir=None)
        for position, row in enumerate(pairs.itertuples(index=False)):
            fields = [" ".join(turn or "" for turn in cell) for cell in row]
            headers = ("<prompt>: ", "\n\n<response_a>: ", "\n\n<response_b>: ")
            string = "".join(part for both in zip(headers, fields, strict=True) for part in both)
            ids = PLAIN_GEMMA.encode(string, add_special_tokens=False).ids
            assert rows.row(position).tolist() == [2, *ids[: max_length - 2], 1]
            assert rows.n_truncated[position] == max(len(ids) - (max_length - 2), 0)

    def test_encoders_begin_and_end_in_their_own_way(self):
        """Where there is no beginning of a sequence, [CLS] and [SEP] stand."""
        template = build_template(word_piece(), name="notebook")
        vocabulary = word_piece().vocabulary
        assert template.controls.begin == (vocabulary["[CLS]"],)
        assert template.controls.end == (vocabulary["[SEP]"],)

    def test_a_tokenizer_without_an_end_is_refused(self):
        """The message says what is missing and where it is declared."""
        undeclared = TextTokenizer(word_piece().state)
        with pytest.raises(TemplateError, match=r"tokenizer_config\.json"):
            build_template(undeclared, name="notebook")


def test_the_code_that_tokenises_is_part_of_the_key():
    """The digest is of this package's own files, and stays equal inside one process."""
    assert rows._digest_code() == rows._digest_code()
    assert len(rows._digest_code()) == 64
