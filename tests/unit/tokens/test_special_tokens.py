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


CANDIDATES = [
    # missing: the mask where there is one; end and slot: the first that ends a text.
    (["<s>", "</s>", "<x>", "<y>", "<mask>"], "<s>", "</s>", "<x>", "<mask>"),
    (["<s>", "</s>", "<x>", "<y>", "[MASK]"], "<s>", "</s>", "<x>", "[MASK]"),
    (["<bos>", "<eos>", "<x>", "<y>", "<z>"], "<bos>", "<eos>", "<x>", "<y>"),
    (["[CLS]", "[SEP]", "<x>", "<y>", "<z>"], "[CLS]", "[SEP]", "<x>", "<y>"),
    (["<|startoftext|>", "<|endoftext|>", "<x>", "<y>", "<z>"], "<|startoftext|>", "<|endoftext|>",
     "<x>", "<y>"),
    (["<x>", "<y>", "<sep>", "<z>", "</s>"], "<sep>", "<sep>", "<x>", "<y>"),
    (["<x>", "<y>", "</s>", "<z>", "<eos>"], "</s>", "</s>", "<x>", "<y>"),
    (["<x>", "<y>", "<eos>", "<z>", "<|endoftext|>"], "<eos>", "<eos>", "<x>", "<y>"),
    (["<x>", "<y>", "<|endoftext|>", "<z>"], "<|endoftext|>", "<|endoftext|>", "<x>", "<y>"),
    (["[SEP]", "<sep>", "<x>", "<y>", "<z>"], "[SEP]", "[SEP]", "<sep>", "<x>"),
    (["<w>", "<x>", "<y>", "<z>"], "<w>", "<w>", "<x>", "<y>"),
]  # fmt: skip


@pytest.mark.parametrize(("tokens", "opening", "end", "turn", "missing"), CANDIDATES)
def test_known_tokens_come_first(tokens, opening, end, turn, missing):
    """Tokens that pretraining used for a role are preferred, then those with the lowest ids."""
    reserved = {token: 10 + position for position, token in enumerate(tokens)}
    special = choose_special_tokens(reserved, spell)
    assert special.begin == ()
    assert special.prompt[0] == reserved[opening]
    slot = end if opening in ("<s>", "<bos>", "[CLS]", "<|startoftext|>") else opening
    assert special.response_a[0] == special.response_b[0] == reserved[slot]
    assert (special.end, special.turn, special.missing) == (
        (reserved[end],),
        (reserved[turn],),
        (reserved[missing],),
    )
    assert special.type_ids is None


def test_chatml_tokens():
    """Qwen and SmolLM2: their own turn tokens, and a token of theirs for a missing turn."""
    special = choose_special_tokens(SMOLLM, spell, pad="<|im_end|>")
    assert (special.begin, special.prompt[0], special.response_b[0]) == ((), 1, 1)
    assert (special.turn, special.missing, special.pad) == ((2,), (16,), 3)
    qwen = {"<|endoftext|>": 0, "<|im_start|>": 1, "<|im_end|>": 2, "<|object_ref_start|>": 9}
    special = choose_special_tokens(qwen | {"<x>": 4}, spell, pad="<|endoftext|>")
    assert (special.end, special.missing, special.pad) == ((0,), (9,), 4)


def test_bert_tokens():
    """BERT: slots are [SEP], a turn is [unused1] or any other, a missing turn is [MASK]."""
    special = choose_special_tokens(BERT, spell, pad="[PAD]")
    assert (special.response_a[0], special.turn, special.missing) == (102, (2,), (103,))
    assert special.pad == 0
    without = {token: number for token, number in BERT.items() if token != "[unused1]"}
    assert choose_special_tokens(without | {"<x>": 7}, spell, pad="[PAD]").turn == (7,)


def test_padding_is_used_for_nothing_else():
    """The padding token is chosen for no other role, even if it has the lowest id."""
    reserved = {"<pad>": 0, "<w>": 1, "<x>": 2, "<y>": 3}
    special = choose_special_tokens(reserved, spell, pad="<pad>")
    assert (special.end, special.turn, special.missing, special.pad) == ((1,), (2,), (3,), 0)
    assert choose_special_tokens(reserved, spell, pad="<gone>").pad == 3
