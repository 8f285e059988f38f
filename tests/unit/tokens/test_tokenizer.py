"""The tokenizer wrapper emits no special token, whatever a text spells."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

from small_tokenizers import FAMILIES, byte_level, gemma_like, word_piece
from strategies import clean_text
from tiewise.errors import ModelError
from tiewise.tokens.tokenizer import TextTokenizer, load_tokenizer

BUILT = [family() for family in FAMILIES]


@st.composite
def hostile_texts(draw, tokenizer):
    """Draw texts that spell special tokens between other characters."""
    pieces = st.sampled_from(sorted(tokenizer.reserved)) | clean_text(6)
    return "".join(draw(st.lists(pieces, max_size=8)))


@pytest.mark.parametrize("tokenizer", BUILT)
@given(data=st.data())
def test_no_text_produces_special_tokens(tokenizer, data):
    """The ids of a text contain no reserved id."""
    text = data.draw(hostile_texts(tokenizer))
    assert not set(tokenizer.encode(text)) & set(tokenizer.reserved.values())


def test_special_tokens_are_reserved():
    """Special tokens and unmarked tokens of that kind are reserved; the unknown token is not."""
    assert "<unused0>" in gemma_like().reserved
    assert "<unk>" not in gemma_like().reserved
    assert {"[CLS]", "[unused1]"} <= set(word_piece().reserved)
    assert "[UNK]" not in word_piece().reserved
    assert "<|im_start|>" in byte_level().reserved


@pytest.mark.parametrize(
    ("name", "is_reserved"),
    [
        *[(f"<{word}0>", True) for word in ("unused", "reserved_", "extra_id_", "special-")],
        *[("<|anything|>", True), ("[unused_3]", True), ("[control_8]", True), ("<mask>", True)],
        *[("[MASK]", True), ("<2mass>", True), ("[@BOS@]", True)],
        *[("<table>", False), ("    ", False), ("[unused_x]", False), ("x<|a|>", False)],
    ],
)
def test_unmarked_tokens_are_reserved_by_name(name, is_reserved):
    """Added tokens without the mark "special" are reserved where their name says so."""
    tokenizer = Tokenizer.from_str(gemma_like().state)
    tokenizer.add_tokens([AddedToken(name, normalized=False, special=False)])
    assert (name in TextTokenizer(tokenizer.to_str()).reserved) == is_reserved


def test_words_that_can_be_typed_are_not_reserved():
    """A token marked as special that its own text, alone or in a word, encodes to is ordinary."""
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0, "stop": 1, "</s>": 2}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens(["stop", "</s>"])
    plain = TextTokenizer(tokenizer.to_str())
    assert plain.encode("stop </s>") == [1, 2]
    assert plain.reserved == {}


def test_notebook_parses_special_tokens():
    """The notebook's way reads ``<eos>`` in a text as the end token."""
    tokenizer = gemma_like()
    assert tokenizer.reserved["<eos>"] in tokenizer.encode_strings(["a<eos>b"])[0]
    assert tokenizer.reserved["<unused0>"] in tokenizer.encode_strings(["a<unused0>b"])[0]


@pytest.mark.parametrize("family", FAMILIES)
def test_callers_tokenizer_stays_independent(family):
    """Truncation and padding of the caller's object change neither digest nor ids, nor it."""
    fresh = family()
    callers = Tokenizer.from_str(fresh.state)
    before = TextTokenizer(callers.to_str())
    callers.enable_truncation(4)
    callers.enable_padding(length=6)
    state = callers.to_str()
    after = TextTokenizer(callers.to_str())
    text = "Which of two answers does a person prefer?"
    assert before.digest == after.digest
    assert before.encode(text) == after.encode(text) == fresh.encode(text)
    assert len(after.encode(text)) > 6
    assert callers.to_str() == state
    assert not callers.encode_special_tokens


@pytest.mark.parametrize("family", FAMILIES)
def test_vocabulary_changes_the_digest(family):
    """One added token gives another digest."""
    callers = Tokenizer.from_str(family().state)
    callers.add_tokens(["brandnew"])
    assert TextTokenizer(callers.to_str()).digest != family().digest


class TestLoading:
    """Reading the tokenizer from a backbone's folder."""

    def test_unchanged_file_is_read_once(self, tmp_path):
        """An unchanged file gives the same object, a changed one a new tokenizer."""
        path = tmp_path / "tokenizer.json"
        path.write_text(byte_level().state)
        first = load_tokenizer(tmp_path)
        assert load_tokenizer(tmp_path) is first
        path.write_text(word_piece().state)
        assert load_tokenizer(tmp_path).digest == word_piece().digest

    def test_roles_come_from_configuration(self, tmp_path):
        """Tokens are declared as text or as objects, in either of two files."""
        (tmp_path / "tokenizer.json").write_text(byte_level().state)
        declared = {"eos_token": {"content": "<|im_end|>"}, "model_max_length": 5}
        (tmp_path / "special_tokens_map.json").write_text(json.dumps(declared))
        config = {"pad_token": "<|im_end|>", "bos_token": None, "add_bos_token": True}
        config |= {"tokenizer_class": "GPT2Tokenizer"}
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
        expected = {"eos_token": "<|im_end|>", "pad_token": "<|im_end|>"}
        assert load_tokenizer(tmp_path).special == expected

    def test_configuration_overrides_the_map(self, tmp_path):
        """Where both files name a role, tokenizer_config.json decides, as in transformers."""
        (tmp_path / "tokenizer.json").write_text(byte_level().state)
        (tmp_path / "special_tokens_map.json").write_text('{"eos_token": "<|endoftext|>"}')
        (tmp_path / "tokenizer_config.json").write_text('{"eos_token": "<|im_end|>"}')
        assert load_tokenizer(tmp_path).special == {"eos_token": "<|im_end|>"}

    def test_missing_file_is_refused(self, tmp_path):
        """The message says how to write the fast tokenizer of a backbone."""
        with pytest.raises(ModelError, match="save_pretrained"):
            load_tokenizer(tmp_path)

    @pytest.mark.parametrize("content", ["", "[]", '{"version": "1.0"}', "{}", "\x00", "1"])
    def test_damaged_file_is_refused(self, tmp_path, content):
        """A file that is not a tokenizer is refused by name."""
        (tmp_path / "tokenizer.json").write_text(content)
        with pytest.raises(ModelError, match=r"tokenizer\.json is not a tokenizer"):
            load_tokenizer(tmp_path)

    def test_damaged_model_is_refused(self, tmp_path):
        """An error of the tokenizers library becomes a ModelError."""
        (tmp_path / "tokenizer.json").write_text('{"version": "1.0", "model": {"type": "BPE"}}')
        with pytest.raises(ModelError, match="state is damaged"):
            load_tokenizer(tmp_path).encode("a")
