"""A private tokenizer whose control ids no text can produce."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from small_tokenizers import FAMILIES, byte_level, gemma_like, word_piece
from strategies import clean_text
from tiewise.errors import ModelError
from tiewise.tokens.vocabulary import TextTokenizer, load_tokenizer

BUILT = [family() for family in FAMILIES]


@st.composite
def hostile_texts(draw, tokenizer):
    """Text that spells control tokens, whole, broken, glued and doubled."""
    pieces = st.sampled_from(sorted(tokenizer.reserved)) | clean_text(6)
    return "".join(draw(st.lists(pieces, max_size=8)))


@pytest.mark.parametrize("tokenizer", BUILT)
@given(data=st.data())
def test_no_text_produces_a_control_id(tokenizer, data):
    """Whatever a response spells, its ids hold no delimiter."""
    text = data.draw(hostile_texts(tokenizer))
    assert not set(tokenizer.encode(text)) & set(tokenizer.reserved.values())


def test_what_is_reserved():
    """Special tokens, and tokens of that kind that are not flagged; never the unknown token."""
    assert "<unused0>" in gemma_like().reserved
    assert "<unk>" not in gemma_like().reserved
    assert {"[CLS]", "[unused1]"} <= set(word_piece().reserved)
    assert "[UNK]" not in word_piece().reserved
    assert "<|im_start|>" in byte_level().reserved


def test_the_notebooks_way_parses_control_tokens():
    """Only the notebook preset reads ``<eos>`` in a text as the end."""
    tokenizer = gemma_like()
    assert tokenizer.reserved["<eos>"] in tokenizer.encode_strings(["a<eos>b"])[0]
    assert tokenizer.reserved["<unused0>"] in tokenizer.encode_strings(["a<unused0>b"])[0]


@pytest.mark.parametrize("family", FAMILIES)
def test_using_the_callers_tokenizer_changes_nothing(family):
    """Truncation and padding that somebody switched on are no part of digest or ids."""
    fresh = family()
    callers = Tokenizer.from_str(fresh.state)
    before = TextTokenizer.from_tokenizer(callers)
    callers.enable_truncation(4)
    callers.enable_padding(length=6)
    state = callers.to_str()
    after = TextTokenizer.from_tokenizer(callers)
    text = "Which of two answers does a person prefer?"
    assert before.digest == after.digest
    assert before.encode(text) == after.encode(text) == fresh.encode(text)
    assert len(after.encode(text)) > 6
    assert callers.to_str() == state
    assert not callers.encode_special_tokens


@pytest.mark.parametrize("family", FAMILIES)
def test_another_vocabulary_has_another_digest(family):
    """One added token is enough."""
    callers = Tokenizer.from_str(family().state)
    callers.add_tokens(["brandnew"])
    assert TextTokenizer.from_tokenizer(callers).digest != family().digest


class TestLoading:
    """Reading a backbone's folder."""

    def test_files_are_read_once(self, tmp_path):
        """An unchanged folder gives the same object, a changed one another."""
        path = tmp_path / "tokenizer.json"
        path.write_text(byte_level().state)
        first = load_tokenizer(tmp_path)
        assert load_tokenizer(tmp_path) is first
        path.write_text(word_piece().state)
        assert load_tokenizer(tmp_path).digest == word_piece().digest

    def test_roles_come_from_the_configuration(self, tmp_path):
        """Tokens are declared as text or as objects, in either of two files."""
        (tmp_path / "tokenizer.json").write_text(byte_level().state)
        declared = {"eos_token": {"content": "<|im_end|>"}, "model_max_length": 5}
        (tmp_path / "special_tokens_map.json").write_text(json.dumps(declared))
        config = {"pad_token": "<|im_end|>", "bos_token": None, "add_bos_token": True}
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
        expected = {"eos_token": "<|im_end|>", "pad_token": "<|im_end|>"}
        assert load_tokenizer(tmp_path).special == expected

    def test_a_missing_file_says_how_to_make_it(self, tmp_path):
        """A backbone without a fast tokenizer is refused by name."""
        with pytest.raises(ModelError, match="save_pretrained"):
            load_tokenizer(tmp_path)

    @pytest.mark.parametrize("content", ["", "[]", '{"version": "1.0"}', "{}", "\x00", "1"])
    def test_a_damaged_file_is_refused(self, tmp_path, content):
        """Anything that is not a tokenizer is an error with the file's name."""
        (tmp_path / "tokenizer.json").write_text(content)
        with pytest.raises(ModelError, match=r"tokenizer\.json is not a tokenizer"):
            load_tokenizer(tmp_path)

    def test_a_damaged_model_is_refused_when_it_is_built(self, tmp_path):
        """What only the library can tell is told by the same kind of error."""
        (tmp_path / "tokenizer.json").write_text('{"version": "1.0", "model": {"type": "BPE"}}')
        with pytest.raises(ModelError, match="not the state of a tokenizer"):
            load_tokenizer(tmp_path).encode("a")
