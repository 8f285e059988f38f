"""The inverse of a template: recover the turns from the ids of a row."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from tiewise.errors import TemplateError
from tiewise.tokens.special_tokens import SpecialTokens
from tiewise.tokens.template import Template

Segment = list[list[int] | None]

_FOREIGN = "These ids were not written by this template: a delimiter is missing or misplaced."


def read_segments(template: Template, ids: Sequence[int]) -> tuple[Segment, Segment, Segment]:
    """Return the turns of prompt, response A and response B; None for a missing turn.

    `ids` is a row of a ``fields`` template, without padding. A row that the template did not write
    raises TemplateError.
    """
    special = template.special_tokens
    position, found = len(special.begin), []
    if tuple(ids[:position]) != special.begin:
        raise TemplateError(_FOREIGN)
    for mark, following in itertools.pairwise([*special.slots, special.end]):
        start = position + len(mark)
        position = _find(ids, following[0], start)
        if tuple(ids[start - len(mark) : start]) != mark:
            raise TemplateError(_FOREIGN)
        found.append(_split_turns(ids[start:position], special))
    if tuple(ids[position:]) != special.end:
        raise TemplateError(_FOREIGN)
    prompt, response_a, response_b = found
    return prompt, response_a, response_b


def _find(ids: Sequence[int], wanted: int, start: int) -> int:
    for position in range(start, len(ids)):
        if ids[position] == wanted:
            return position
    raise TemplateError(_FOREIGN)


def _split_turns(ids: Sequence[int], special: SpecialTokens) -> Segment:
    turns: Segment = [[]]
    for token in ids:
        if token in special.turn:
            turns.append([])
        elif token in special.missing:
            turns[-1:] = [turns[-1], None] if turns[-1] else [None]
        elif turns[-1] is None:  # the cut removed the turn token between them
            turns.append([int(token)])
        else:
            turns[-1].append(int(token))
    return turns
