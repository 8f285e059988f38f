"""Special tokens are tokens that no text can produce, and no two delimiters are confused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiewise.errors import TemplateError
from tiewise.tokens.special_tokens import choose_special_tokens
from tiewise.tokens.template import Template

GEMMA = {"<pad>": 0, "<eos>": 1, "<bos>": 2, "<unused0>": 7, "<start_of_turn>": 106}
GEMMA |= {"<end_of_turn>": 107, "<mask>": 4}
SMOLLM = {"<|endoftext|>": 0, "<|im_start|>": 1, "<|im_end|>": 2, "<repo_name>": 3}
SMOLLM |= {"<empty_output>": 16}
BERT = {"[PAD]": 0, "[unused1]": 2, "[CLS]": 101, "[SEP]": 102, "[MASK]": 103}
LLAMA = {"<|begin_of_text|>": 10, "<|end_of_text|>": 11, "<|start_header_id|>": 16}
LLAMA |= {"<|eot_id|>": 19, "<|reserved_special_token_0|>": 12, "<|reserved_special_token_1|>": 13}


def spell(text):
    return [1000 + ord(letter) for letter in text]


def test_gemma_has_turn_tokens():
    """Gemma's own turn tokens delimit; a row ends in ``<eos>``, which is not the padding."""
    special = choose_special_tokens(GEMMA, spell, pad="<pad>")
    assert (special.begin, special.end, special.pad) == ((2,), (1,), 0)
    assert [slot[0] for slot in special.slots] == [106, 106, 106]
    assert (special.turn, special.missing) == ((107,), (7,))


def test_shared_padding_is_replaced():
    """SmolLM2 pads with its end token; padding gets an id that no delimiter has."""
    special = choose_special_tokens(SMOLLM, spell, pad="<|im_end|>")
    assert special.turn == (2,)
    assert special.pad not in special.reserved
    assert special.end == (0,)


def test_bert_has_segments():
    """Encoders get type ids, and a row begins with [CLS]."""
    special = choose_special_tokens(BERT, spell, pad="[PAD]")
    assert special.prompt[0] == 101
    assert (special.end, special.type_ids) == ((102,), (0, 0, 1))


def test_llama_3_tokens():
    """Llama 3 uses its header token, its end of turn and a reserved token."""
    special = choose_special_tokens(LLAMA, spell)
    assert (special.begin, special.turn, special.missing) == ((10,), (19,), (12,))
    assert special.pad == 13


def test_label_follows_special_token():
    """A slot is a special token, then a label that a pretrained model can read."""
    special = choose_special_tokens(GEMMA, spell, pad="<pad>")
    assert list(special.response_a) == [106, *spell("Response A\n")]


names = ["<pad>", "</s>", "<s>", "[SEP]", "[CLS]", "<mask>", "<bos>", "<x>", "<y>", "<z>"]
names += ["<|im_start|>", "<|im_end|>", "<start_of_turn>", "<end_of_turn>", "<|eot_id|>"]


@given(st.lists(st.sampled_from(names), unique=True), st.sampled_from([None, "<pad>", "</s>"]))
def test_any_four_tokens_suffice(tokens, pad):
    """Whatever the tokens are called, delimiters differ from one another and from padding."""
    reserved = {token: position for position, token in enumerate(tokens)}
    if len(reserved) < 4:
        with pytest.raises(TemplateError, match="add_special_tokens"):
            choose_special_tokens(reserved, spell, pad=pad)
    else:
        special = choose_special_tokens(reserved, spell, pad=pad)
        template = Template(special, max_length=100)
        assert template.special_tokens.reserved <= set(reserved.values())


def test_three_tokens_are_refused():
    """Slots and end may share an id; turn, missing and padding may not."""
    four = {"</s>": 2, "<x>": 5, "<y>": 6, "<pad>": 1}
    assert choose_special_tokens(four, spell, pad="<pad>").pad == 1
    with pytest.raises(TemplateError, match="has 3 token"):
        choose_special_tokens({"</s>": 2, "<x>": 5, "<pad>": 1}, spell, pad="<pad>")
