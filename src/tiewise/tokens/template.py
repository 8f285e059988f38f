"""Templates: how a pair becomes one row of token ids, and what is cut when space is short.

A row reads ``begin, prompt slot, prompt, response_a slot, response A, response_b slot, response B,
end``. Delimiters are special tokens, which no text can produce. The readable label that follows a
slot's special token ("Response A") only helps a pretrained model to understand. A missing turn has
a special token of its own: it is neither the word "null" nor an empty string. The last id of a row
is a special token too; pooling reads the hidden state there.

`share_budget` shares the space by water-filling. Within a field the *middle* is cut: the head of a
response says what it is, its tail what it concludes, and the newest turn is last.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from tiewise.errors import TemplateError
from tiewise.files import digest_json
from tiewise.tokens.special_tokens import SpecialTokens, choose_special_tokens
from tiewise.tokens.tokenizer import TextTokenizer

Name = Literal["fields", "notebook"]
Truncation = Literal["balanced", "right"]
Cut = Literal["middle", "right"]


@dataclass(frozen=True)
class Template:
    """The rendering of pairs; one object for training and serving.

    Parameters
    ----------
    special_tokens
        See `SpecialTokens`; `choose_special_tokens` chooses them.
    name
        ``fields`` tokenises each turn by itself, ``notebook`` the whole string.
    max_length
        Maximum number of ids in a row, delimiters included.
    truncation
        ``balanced`` shares the space (`share_budget`); ``right`` fills prompt, A, B in this order,
        as the notebook does, so that the end is cut first.
    cut
        Within a field: ``middle`` keeps head and tail, ``right`` keeps the head.

    Raises
    ------
    TemplateError
        When two delimiters could be confused, or `max_length` leaves no space for text.
    """

    special_tokens: SpecialTokens
    name: Name = "fields"
    max_length: int = 2048
    truncation: Truncation = "balanced"
    cut: Cut = "middle"

    def __post_init__(self) -> None:
        for field, known in (("name", Name), ("truncation", Truncation), ("cut", Cut)):
            value, allowed = getattr(self, field), get_args(known)
            if value not in allowed:
                message = f"Template {field} is {value!r}; expected one of {', '.join(allowed)}."
                raise TemplateError(message)
        if self.name == "fields":
            _check_special_tokens(self.special_tokens)
        _check_budget(self)

    @property
    def budget(self) -> int:
        """Ids of a row that are left for text, turn and missing tokens included."""
        special = self.special_tokens
        fixed = [special.begin, *special.slots, special.end]
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
        """Build a template from the result of `to_dict`, also after a round trip through JSON.

        Examples
        --------
        >>> template = notebook_template(begin=2, end=1, pad=0, max_length=1024)
        >>> Template.from_dict(template.to_dict()) == template
        True
        """
        try:
            rest = {**value}
            tokens = rest.pop("special_tokens", None) or rest.pop("controls")  # 0.1
            ids: dict[str, Any] = {
                key: tuple(v) if isinstance(v, list) else v for key, v in tokens.items()
            }
            return cls(SpecialTokens(**ids), **rest)
        except (KeyError, TypeError, AttributeError) as error:
            message = f"This is not a template: {error}. Expected what Template.to_dict returns."
            raise TemplateError(message) from error


def build_template(
    tokenizer: TextTokenizer,
    *,
    name: Name = "fields",
    max_length: int = 2048,
    truncation: Truncation = "balanced",
    cut: Cut = "middle",
) -> Template:
    """Build the template that fits a backbone's tokenizer.

    Parameters
    ----------
    tokenizer
        From `load_tokenizer`.
    name, max_length, truncation, cut
        See `Template`; the notebook's template always cuts right.

    Raises
    ------
    TemplateError
        When the vocabulary has no suitable tokens, or `max_length` is too short.
    """
    special, ids = tokenizer.special, tokenizer.vocabulary
    if name != "notebook":
        pad_token = special.get("pad_token")
        tokens = choose_special_tokens(tokenizer.reserved, tokenizer.encode, pad=pad_token)
        return Template(tokens, name, max_length, truncation, cut)
    begin = ids.get(special.get("bos_token") or special.get("cls_token") or "<bos>")
    end = ids.get(special.get("eos_token") or special.get("sep_token") or "<eos>")
    pad = ids.get(special.get("pad_token") or "<pad>", end)
    if begin is None or end is None or pad is None:
        message = (
            f"The tokenizer's special tokens are {special or 'none'}; expected one that begins and "
            "one that ends a text, for the notebook's template. Name them in tokenizer_config.json."
        )
        raise TemplateError(message)
    return notebook_template(begin=begin, end=end, pad=pad, max_length=max_length)


def notebook_template(*, begin: int, end: int, pad: int, max_length: int = 1024) -> Template:
    """Return the notebook's template: ``<bos>``, the whole string cut right, ``<eos>``."""
    tokens = SpecialTokens(begin=(begin,), end=(end,), pad=pad)
    return Template(tokens, "notebook", max_length, truncation="right", cut="right")


def share_budget(lengths: npt.ArrayLike, budget: int) -> npt.NDArray[np.int64]:
    """Share a row's space between its three fields by water-filling.

    No field shorter than its fair share is cut, and what it leaves goes to the others. A and B
    always have equal caps; a single token that remains goes to the prompt or stays unused.

    Parameters
    ----------
    lengths
        Shape (n, 3), integers >= 0: tokens of prompt, response A, response B.
    budget
        Tokens that a row may keep, >= 0.

    Returns
    -------
    int64 array
        Shape (n, 3): tokens kept, each at most its length, together at most `budget`.

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
    """Share a row's space in order: prompt, response A, response B.

    Examples
    --------
    >>> fill_in_order([[10, 30, 80], [70, 1, 1]], 60)
    array([[10, 30, 20],
           [60,  0,  0]])
    """
    lengths = np.asarray(lengths, dtype=np.int64).reshape(-1, 3)
    ends = np.minimum(np.cumsum(lengths, axis=1), budget)
    return np.diff(ends, axis=1, prepend=0)


def _check_special_tokens(special: SpecialTokens) -> None:
    single = (special.turn, special.missing, special.end)
    if not all(special.slots) or any(len(ids) != 1 for ids in single):
        message = (
            f"The special tokens are {special}; expected three slots, and one id each for turn, "
            "missing and end."
        )
        raise TemplateError(message)
    outer = [*(slot[0] for slot in special.slots), *special.end]
    inner = {*special.turn, *special.missing}
    if len(inner) < 2 or inner & set(outer):
        message = (
            f"turn is {special.turn} and missing is {special.missing}; expected two different ids, "
            f"both different from the first ids of slots and end, {outer}."
        )
        raise TemplateError(message)
    if special.pad in special.reserved:
        message = f"pad is {special.pad}, a delimiter; expected another id: pooling skips padding."
        raise TemplateError(message)


def _check_budget(template: Template) -> None:
    least = 3 if template.name == "fields" else 1
    if template.budget < least:
        message = (
            f"max_length is {template.max_length}; expected at least "
            f"{template.max_length - template.budget + least}: delimiters need the rest."
        )
        raise TemplateError(message)


def _water_level(lengths: npt.NDArray[np.int64], budget: int) -> npt.NDArray[np.int64]:
    """Return for each row the highest cap on all three fields that fits the budget."""
    short, middle, long = np.sort(lengths, axis=1).T
    return np.select(
        [budget < 3 * short, budget < short + 2 * middle, budget < short + middle + long],
        [np.full_like(short, budget // 3), (budget - short) // 2, budget - short - middle],
        default=long,
    )
