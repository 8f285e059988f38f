"""Special tokens of a template: the ids that delimit fields and that no text can produce.

Delimiters are written as ids, never as text, so that a response can neither forge nor remove one.
The choice depends on the vocabulary of the backbone; tokens that its pretraining used come first.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass

from tiewise.errors import TemplateError

_LABELS = ("Prompt\n", "Response A\n", "Response B\n")


@dataclass(frozen=True)
class SpecialTokens:
    """The ids that a template writes around the text.

    `prompt`, `response_a` and `response_b` are slots: a special token, then the ordinary ids of
    the field's label. `turn` separates two turns of a field, `missing` replaces a turn that is
    null, and `pad` appears in no row. `type_ids` are the segment ids of prompt, response A and
    response B, for encoders that have them.
    """

    begin: tuple[int, ...] = ()
    prompt: tuple[int, ...] = ()
    response_a: tuple[int, ...] = ()
    response_b: tuple[int, ...] = ()
    turn: tuple[int, ...] = ()
    missing: tuple[int, ...] = ()
    end: tuple[int, ...] = ()
    pad: int = 0
    type_ids: tuple[int, int, int] | None = None

    @property
    def slots(self) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
        """The slots of prompt, response A and response B, in this order."""
        return self.prompt, self.response_a, self.response_b

    @property
    def reserved(self) -> frozenset[int]:
        """The ids that the tokens of a text must not contain."""
        first_ids = [slot[0] for slot in self.slots if slot]
        return frozenset([*self.begin, *first_ids, *self.turn, *self.missing, *self.end])


def choose_special_tokens(
    reserved: Mapping[str, int], encode: Callable[[str], Sequence[int]], *, pad: str | None = None
) -> SpecialTokens:
    """Choose special tokens among those that text cannot produce, given as token -> id.

    `encode` returns the ids of a label. The backbone's padding token `pad` is used unless a
    delimiter needs the same id: an exported model would then skip the end of a row.
    """
    for family in _FAMILIES:
        with contextlib.suppress(LookupError):
            return _choose(family, reserved, encode, pad)
    raise TemplateError(
        f"The vocabulary has {len(reserved)} token(s) that text cannot produce "
        f"({', '.join(sorted(reserved)) or 'none'}); expected at least 4, for delimiters, padding "
        "and missing turns. Add special tokens to the tokenizer (tokenizer.add_special_tokens), "
        "resize the backbone's embedding, and save both."
    )


_ANY = "*"
_ENDS = ("[SEP]", "<sep>", "</s>", "<eos>", "<|endoftext|>", _ANY)


@dataclass(frozen=True)
class _Family:
    """Candidates for each role, best first; `_ANY` is any reserved token that is not used yet."""

    opening: tuple[str, ...]
    slot: tuple[str, ...] = _ENDS
    turn: tuple[str, ...] = (_ANY,)
    missing: tuple[str, ...] = ("<mask>", "[MASK]", _ANY)
    end: tuple[str, ...] = _ENDS
    begin: tuple[str, ...] = ()
    type_ids: tuple[int, int, int] | None = None


_FAMILIES = (
    _Family(  # Gemma
        begin=("<bos>",),
        opening=("<start_of_turn>",),
        slot=("<start_of_turn>",),
        turn=("<end_of_turn>",),
        missing=("<unused0>", _ANY),
        end=("<eos>",),
    ),
    _Family(  # ChatML: Qwen, SmolLM2
        opening=("<|im_start|>",),
        slot=("<|im_start|>",),
        turn=("<|im_end|>",),
        missing=("<empty_output>", "<|object_ref_start|>", _ANY),
        end=("<|endoftext|>", "</s>", _ANY),
    ),
    _Family(  # Llama 3
        begin=("<|begin_of_text|>",),
        opening=("<|start_header_id|>",),
        slot=("<|start_header_id|>",),
        turn=("<|eot_id|>",),
        missing=("<|reserved_special_token_0|>", _ANY),
        end=("<|end_of_text|>",),
    ),
    _Family(  # BERT
        opening=("[CLS]",),
        slot=("[SEP]",),
        turn=("[unused1]", _ANY),
        missing=("[MASK]",),
        end=("[SEP]",),
        type_ids=(0, 0, 1),
    ),
    _Family(opening=("<s>", "<bos>", "[CLS]", "<|startoftext|>")),  # others that mark the beginning
    _Family(opening=_ENDS),  # all others
)


def _choose(
    family: _Family,
    reserved: Mapping[str, int],
    encode: Callable[[str], Sequence[int]],
    pad: str | None,
) -> SpecialTokens:
    """Fill every role, or raise LookupError; only opening, slot and end may share an id."""
    by_id = sorted(reserved, key=reserved.__getitem__)
    without_pad = [token for token in by_id if token != pad]
    begin = tuple(reserved[token] for token in family.begin if token in reserved)
    opening = _first(family.opening, reserved, without_pad)
    slot = _first(family.slot, reserved, without_pad)
    end = _first(family.end, reserved, without_pad)
    used = {*begin, opening, slot, end}
    turn = _first(family.turn, reserved, without_pad, used)
    missing = _first(family.missing, reserved, without_pad, used | {turn})
    padding = _first((pad or _ANY, _ANY), reserved, by_id, used | {turn, missing})
    prompt_label, label_a, label_b = (tuple(encode(label)) for label in _LABELS)
    return SpecialTokens(
        begin=begin,
        prompt=(opening, *prompt_label),
        response_a=(slot, *label_a),
        response_b=(slot, *label_b),
        turn=(turn,),
        missing=(missing,),
        end=(end,),
        pad=padding,
        type_ids=family.type_ids,
    )


def _first(
    candidates: Sequence[str],
    reserved: Mapping[str, int],
    any_token: Sequence[str],
    used: Set[int] = frozenset(),
) -> int:
    """Return the id of the first candidate that is reserved and not used."""
    for candidate in candidates:
        for token in any_token if candidate == _ANY else [candidate]:
            if token in reserved and reserved[token] not in used:
                return reserved[token]
    raise LookupError
