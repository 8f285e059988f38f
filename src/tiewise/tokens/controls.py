"""Control ids: the tokens that no text can produce, and which of them delimits what.

Delimiters are written as ids, never as text, so a response can neither forge nor lose one. Which
tokens serve depends on the backbone's vocabulary; tokens that its pretraining knew come first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from tiewise.errors import TemplateError

_LABELS = ("Prompt\n", "Response A\n", "Response B\n")


@dataclass(frozen=True)
class Controls:
    """The ids that a template writes itself.

    Each slot is a control id followed by its label's ordinary ids. `turn` stands between two turns
    of a field, `missing` in place of a turn that is null. `pad` appears in no row.
    `type_ids` are the segments of prompt, response A and response B, for encoders that have them.
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
        """The control ids: what the tokens of a text may never contain."""
        first_ids = [slot[0] for slot in self.slots if slot]
        return frozenset([*self.begin, *first_ids, *self.turn, *self.missing, *self.end])


def controls_from_vocabulary(
    reserved: Mapping[str, int], encode: Callable[[str], Sequence[int]], *, pad: str | None = None
) -> Controls:
    """Choose control ids for a backbone from the tokens that its text cannot produce.

    Parameters
    ----------
    reserved
        Token -> id of every token that text cannot produce (the unknown token is not among them).
    encode
        Ids of a plain text, special tokens left alone; for the labels.
    pad
        The backbone's padding token. It is used when no delimiter needs the same id (in some
        vocabularies padding and end are one token, and pooling would step over the end).

    Raises
    ------
    TemplateError
        When there are fewer than four such tokens.
    """
    for family in _FAMILIES:
        chosen = _choose(family, reserved, pad)
        if chosen is not None:
            return _controls(family, chosen, reserved, encode)
    message = (
        f"The vocabulary has {len(reserved)} token(s) that text cannot produce "
        f"({', '.join(sorted(reserved)) or 'none'}); delimiters, padding and the mark of a missing "
        "turn need at least 4. Add special tokens to the tokenizer "
        "(tokenizer.add_special_tokens) and resize the backbone's embedding, then save both."
    )
    raise TemplateError(message)


@dataclass(frozen=True)
class _Family:
    """Candidates for each role, best first; ``*`` stands for any reserved token not yet used."""

    opening: tuple[str, ...]
    slot: tuple[str, ...]
    turn: tuple[str, ...]
    missing: tuple[str, ...]
    end: tuple[str, ...]
    begin: tuple[str, ...] = ()
    type_ids: tuple[int, int, int] | None = None


_ENDS = ("[SEP]", "<sep>", "</s>", "<eos>", "<|endoftext|>", "*")
_FAMILIES = (
    _Family(  # Gemma
        begin=("<bos>",),
        opening=("<start_of_turn>",),
        slot=("<start_of_turn>",),
        turn=("<end_of_turn>",),
        missing=("<unused0>", "*"),
        end=("<eos>",),
    ),
    _Family(  # ChatML: Qwen, SmolLM2
        opening=("<|im_start|>",),
        slot=("<|im_start|>",),
        turn=("<|im_end|>",),
        missing=("<empty_output>", "<|object_ref_start|>", "*"),
        end=("<|endoftext|>", "</s>", "*"),
    ),
    _Family(  # Llama 3
        begin=("<|begin_of_text|>",),
        opening=("<|start_header_id|>",),
        slot=("<|start_header_id|>",),
        turn=("<|eot_id|>",),
        missing=("<|reserved_special_token_0|>", "*"),
        end=("<|end_of_text|>",),
    ),
    _Family(  # BERT
        opening=("[CLS]",),
        slot=("[SEP]",),
        turn=("[unused1]", "*"),
        missing=("[MASK]",),
        end=("[SEP]",),
        type_ids=(0, 0, 1),
    ),
    _Family(  # anything else that has a token to begin with
        opening=("<s>", "<bos>", "[CLS]", "<|startoftext|>"),
        slot=_ENDS,
        turn=("*",),
        missing=("<mask>", "[MASK]", "*"),
        end=_ENDS,
    ),
    _Family(  # anything else
        opening=_ENDS,
        slot=_ENDS,
        turn=("*",),
        missing=("<mask>", "[MASK]", "*"),
        end=_ENDS,
    ),
)


class _Chosen(NamedTuple):
    opening: int
    slot: int
    end: int
    turn: int
    missing: int
    pad: int


def _choose(family: _Family, reserved: Mapping[str, int], pad: str | None) -> _Chosen | None:
    """Fill the roles; opening, slot and end may share an id, the others must be told apart."""
    chosen: list[int] = []
    begin = _begin(family, reserved)
    shared = (family.opening, family.slot, family.end)
    for candidates in (*shared, family.turn, family.missing, (pad or "*", "*")):
        taken = [*begin, *chosen] if len(chosen) >= len(shared) else []
        kept_back = {pad} if len(chosen) < len(_Chosen._fields) - 1 else set()
        found = _first(candidates, reserved, taken=taken, kept_back=kept_back)
        if found is None:
            return None
        chosen.append(found)
    return _Chosen(*chosen)


def _begin(family: _Family, reserved: Mapping[str, int]) -> tuple[int, ...]:
    return tuple(reserved[name] for name in family.begin if name in reserved)


def _first(
    candidates: Iterable[str],
    reserved: Mapping[str, int],
    *,
    taken: Sequence[int],
    kept_back: set[str | None],
) -> int | None:
    by_id = sorted((name for name in reserved if name not in kept_back), key=reserved.__getitem__)
    for candidate in candidates:
        for name in by_id if candidate == "*" else [candidate]:
            if name in reserved and reserved[name] not in taken:
                return reserved[name]
    return None


def _controls(
    family: _Family,
    chosen: _Chosen,
    reserved: Mapping[str, int],
    encode: Callable[[str], Sequence[int]],
) -> Controls:
    prompt, response_a, response_b = (tuple(encode(label)) for label in _LABELS)
    return Controls(
        begin=_begin(family, reserved),
        prompt=(chosen.opening, *prompt),
        response_a=(chosen.slot, *response_a),
        response_b=(chosen.slot, *response_b),
        turn=(chosen.turn,),
        missing=(chosen.missing,),
        end=(chosen.end,),
        pad=chosen.pad,
        type_ids=family.type_ids,
    )
