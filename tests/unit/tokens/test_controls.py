"""Delimiters come from tokens that text cannot produce, and are never confused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiewise.errors import TemplateError
from tiewise.tokens.controls import controls_from_vocabulary
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


def test_gemma():
    """Gemma's own turn tokens delimit; the row ends in ``<eos>``, which is not the padding."""
    controls = controls_from_vocabulary(GEMMA, spell, pad="<pad>")
    assert (controls.begin, controls.end, controls.pad) == ((2,), (1,), 0)
    assert [slot[0] for slot in controls.slots] == [106, 106, 106]
    assert (controls.turn, controls.missing) == ((107,), (7,))


def test_padding_that_is_also_the_end_is_replaced():
    """SmolLM2 declares one token for both; pooling would step over the end of a row."""
    controls = controls_from_vocabulary(SMOLLM, spell, pad="<|im_end|>")
    assert controls.turn == (2,)
    assert controls.pad not in controls.reserved
    assert controls.end == (0,)


def test_bert_has_segments():
    """Encoders get type ids, and [CLS] stands first."""
    controls = controls_from_vocabulary(BERT, spell, pad="[PAD]")
    assert controls.prompt[0] == 101
    assert (controls.end, controls.type_ids) == ((102,), (0, 0, 1))


def test_llama_3():
    """Header, end of turn and a reserved token serve."""
    controls = controls_from_vocabulary(LLAMA, spell)
    assert (controls.begin, controls.turn, controls.missing) == ((10,), (19,), (12,))
    assert controls.pad == 13


def test_labels_follow_the_control_id():
    """A slot reads: control id, then what a pretrained model can read."""
    controls = controls_from_vocabulary(GEMMA, spell, pad="<pad>")
    assert list(controls.response_a) == [106, *spell("Response A\n")]


names = ["<pad>", "</s>", "<s>", "[SEP]", "[CLS]", "<mask>", "<bos>", "<x>", "<y>", "<z>"]
names += ["<|im_start|>", "<|im_end|>", "<start_of_turn>", "<end_of_turn>", "<|eot_id|>"]


@given(st.lists(st.sampled_from(names), unique=True), st.sampled_from([None, "<pad>", "</s>"]))
def test_any_four_tokens_give_a_valid_template(tokens, pad):
    """Whatever a vocabulary calls its tokens, delimiters are told apart and are not padding."""
    reserved = {token: position for position, token in enumerate(tokens)}
    if len(reserved) < 4:
        with pytest.raises(TemplateError, match="add_special_tokens"):
            controls_from_vocabulary(reserved, spell, pad=pad)
    else:
        controls = controls_from_vocabulary(reserved, spell, pad=pad)
        assert Template(controls, max_length=100).controls.reserved <= set(reserved.values())


def test_four_tokens_are_enough_and_three_are_not():
    """Slots and end may share an id; turn, missing and padding may not."""
    four = {"</s>": 2, "<x>": 5, "<y>": 6, "<pad>": 1}
    assert controls_from_vocabulary(four, spell, pad="<pad>").pad == 1
    with pytest.raises(TemplateError, match="has 3 token"):
        controls_from_vocabulary({"</s>": 2, "<x>": 5, "<pad>": 1}, spell, pad="<pad>")
