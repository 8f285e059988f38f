"""How a pair becomes one row of token ids: delimiters, and who gives way when space is short.

A row reads ``begin, prompt slot, prompt, response_a slot, response A, response_b slot, response B,
end``. Delimiters are *control ids*, which no text can produce, so a response can neither forge nor
lose one; the readable label that follows a slot's control id ("Response A") only helps a pretrained
model to understand. A missing turn has a control id of its own: it is neither the word "null" nor
an empty string. The last id of a row is a control id too; pooling stands there.

Space is shared by water-filling (`share_budget`). Inside a field the *middle* is cut: the head of
an answer says what it is and its tail what it concludes, and the newest turn stands last.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from tiewise.errors import TemplateError
from tiewise.files import digest_json
from tiewise.tokens.controls import Controls

Name = Literal["fields", "notebook"]
Truncation = Literal["balanced", "right"]
Cut = Literal["middle", "right"]
Segment = list[list[int] | None]


@dataclass(frozen=True)
class Template:
    """How pairs are rendered; one object for training and serving.

    Parameters
    ----------
    controls
        See `Controls`; `controls_from_vocabulary` chooses them.
    name
        ``fields`` tokenises each turn by itself, ``notebook`` the whole string.
    max_length
        Most ids of a row, delimiters included.
    truncation
        ``balanced`` shares the space (`share_budget`); ``right`` fills prompt, A, B in this order,
        so what comes last is lost first. The notebook's rule is ``right``.
    cut
        Within a field: ``middle`` keeps head and tail, ``right`` keeps the head alone.

    Raises
    ------
    TemplateError
        When two delimiters could be confused, or `max_length` has no room for text.
    """

    controls: Controls
    name: Name = "fields"
    max_length: int = 2048
    truncation: Truncation = "balanced"
    cut: Cut = "middle"

    def __post_init__(self) -> None:
        for value, known in ((self.name, Name), (self.truncation, Truncation), (self.cut, Cut)):
            if value not in get_args(known):
                message = f"{value!r} is not one of {', '.join(get_args(known))}."
                raise TemplateError(message)
        _check_controls(self.controls, self.name)
        _check_budget(self)

    @property
    def budget(self) -> int:
        """Ids of a row that are left for text, turn marks included."""
        controls = self.controls
        fixed = [controls.begin, *controls.slots, controls.end]
        return self.max_length - sum(len(ids) for ids in fixed)

    @property
    def digest(self) -> str:
        """SHA-256 of everything that decides a row's ids: 64 hex digits."""
        return digest_json(self.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """Return plain lists, numbers and strings; `from_dict` is the inverse."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Template:
        """Build the template that `to_dict` described, also after a journey through JSON.

        Examples
        --------
        >>> template = notebook_template(begin=2, end=1, pad=0, max_length=1024)
        >>> Template.from_dict(template.to_dict()) == template
        True
        """
        try:
            controls: dict[str, Any] = {
                name: tuple(part) if isinstance(part, (list, tuple)) else part
                for name, part in value["controls"].items()
            }
            rest = {name: part for name, part in value.items() if name != "controls"}
            return cls(controls=Controls(**controls), **rest)
        except (KeyError, TypeError, AttributeError) as error:
            message = f"This is not a template: {error}. Expected what Template.to_dict wrote."
            raise TemplateError(message) from error


def notebook_template(*, begin: int, end: int, pad: int, max_length: int = 1024) -> Template:
    """Return the notebook's template: ``<bos>``, the whole string cut right, ``<eos>``."""
    controls = Controls(begin=(begin,), end=(end,), pad=pad)
    return Template(controls, "notebook", max_length, truncation="right", cut="right")


def share_budget(lengths: npt.ArrayLike, budget: int) -> npt.NDArray[np.int64]:
    """Share a row's space between its three fields by water-filling.

    No field shorter than its fair share is cut, and what it leaves is given to the others. A and B
    have equal caps always; a token that cannot be halved goes to the prompt, or to nobody.

    Parameters
    ----------
    lengths
        Shape (n, 3), integers >= 0: tokens of prompt, response A, response B.
    budget
        Tokens of a row that may be kept, >= 0.

    Returns
    -------
    int64 array
        Shape (n, 3): tokens kept, each at most its length, at most `budget` in a row.

    Examples
    --------
    >>> share_budget([[10, 50, 80], [40, 40, 40], [0, 90, 3]], 60)
    array([[10, 25, 25],
           [20, 20, 20],
           [ 0, 57,  3]])
    """
    lengths = np.asarray(lengths, dtype=np.int64).reshape(-1, 3)
    level = _water_level(lengths, budget)
    kept = np.minimum(lengths, level[:, None])
    spare = budget - kept.sum(axis=1)
    wants = lengths > level[:, None]
    to_both = (spare == 2) & wants.all(axis=1)
    kept[:, 1:] += to_both[:, None]
    kept[:, 0] += (spare > 0) & wants[:, 0] & ~to_both
    return kept


def fill_in_order(lengths: npt.ArrayLike, budget: int) -> npt.NDArray[np.int64]:
    """Share a row's space first come, first served: what stands last is lost first.

    Examples
    --------
    >>> fill_in_order([[10, 30, 80], [70, 1, 1]], 60)
    array([[10, 30, 20],
           [60,  0,  0]])
    """
    lengths = np.asarray(lengths, dtype=np.int64).reshape(-1, 3)
    ends = np.minimum(np.cumsum(lengths, axis=1), budget)
    return np.diff(ends, axis=1, prepend=0)


def read_segments(template: Template, ids: Sequence[int]) -> tuple[Segment, Segment, Segment]:
    """Take a row apart again: the turns of prompt, response A and response B.

    Parameters
    ----------
    template
        A ``fields`` template.
    ids
        The ids of one row, without padding.

    Returns
    -------
    tuple of three lists
        For each field its turns: a list of ids, or None for a missing turn.

    Raises
    ------
    TemplateError
        When the row was not written by this template.

    Examples
    --------
    >>> controls = Controls((1,), (2, 50), (2, 51), (2, 52), turn=(3,), missing=(4,), end=(5,))
    >>> ids = [1, 2, 50, 90, 91, 3, 92, 2, 51, 4, 2, 52, 5]
    >>> read_segments(Template(controls), ids)
    ([[90, 91], [92]], [None], [[]])
    """
    controls = template.controls
    position, found = len(controls.begin), []
    marks = [*controls.slots, controls.end]
    if tuple(ids[:position]) != controls.begin:
        raise TemplateError(_FOREIGN)
    for mark, following in itertools.pairwise(marks):
        start = position + len(mark)
        position = _find(ids, following[0], start)
        if tuple(ids[start - len(mark) : start]) != mark:
            raise TemplateError(_FOREIGN)
        found.append(_split_turns(ids[start:position], controls))
    if tuple(ids[position:]) != controls.end:
        raise TemplateError(_FOREIGN)
    prompt, response_a, response_b = found
    return prompt, response_a, response_b


_FOREIGN = "These ids were not written by this template: a delimiter is missing or misplaced."


def _check_controls(controls: Controls, name: Name) -> None:
    if name == "notebook":
        return
    single = (controls.turn, controls.missing, controls.end)
    if not all(controls.slots) or any(len(ids) != 1 for ids in single):
        message = "A template needs three slots, and one id each for turn, missing and end."
        raise TemplateError(message)
    marks = [slot[0] for slot in controls.slots] + list(controls.end)
    inner = {*controls.turn, *controls.missing}
    if len(inner) < 2 or inner & set(marks):
        message = (
            f"turn {controls.turn} and missing {controls.missing} must differ from one another and "
            f"from the first ids of slots and end, {marks}; otherwise a row cannot be taken apart."
        )
        raise TemplateError(message)
    if controls.pad in controls.reserved:
        message = f"pad {controls.pad} is also a delimiter; pooling would step over it."
        raise TemplateError(message)


def _check_budget(template: Template) -> None:
    least = 3 if template.name == "fields" else 1
    if template.budget < least:
        message = (
            f"max_length {template.max_length} leaves {template.budget} id(s) for text; delimiters "
            f"take the rest. It must be at least {template.max_length - template.budget + least}."
        )
        raise TemplateError(message)


def _find(ids: Sequence[int], wanted: int, start: int) -> int:
    for position in range(start, len(ids)):
        if ids[position] == wanted:
            return position
    raise TemplateError(_FOREIGN)


def _split_turns(ids: Sequence[int], controls: Controls) -> Segment:
    turns: Segment = [[]]
    for token in ids:
        if token in controls.turn:
            turns.append([])
        elif token in controls.missing:
            turns[-1:] = [turns[-1], None] if turns[-1] else [None]
        elif turns[-1] is None:  # the cut took the turn mark between them
            turns.append([int(token)])
        else:
            turns[-1].append(int(token))
    return turns


def _water_level(lengths: npt.NDArray[np.int64], budget: int) -> npt.NDArray[np.int64]:
    """Return for each row the highest cap that, given to all three fields, fits the budget."""
    short, middle, long = np.sort(lengths, axis=1).T
    return np.select(
        [budget < 3 * short, budget < short + 2 * middle, budget < short + middle + long],
        [np.full_like(short, budget // 3), (budget - short) // 2, budget - short - middle],
        default=long,
    )
