"""Templates: how a pair becomes one row of token ids, and what is cut when space is short.

A row reads ``begin, prompt slot, prompt, response_a slot, response A, response_b slot, response B,
end``, where a slot is a special token and a label. Delimiters are special tokens, which no text can
produce; pooling reads the last one. Within a field the *middle* is cut: a response begins with its
subject and ends with its conclusion.
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

    ``fields`` tokenises each turn by itself, ``notebook`` the whole string; a row has at most
    `max_length` ids. ``balanced`` shares the space (`share_budget`), ``right`` fills prompt, A, B
    in this order. Within a field ``middle`` keeps head and tail, ``right`` keeps the head.
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
                raise TemplateError(
                    f"Template {field} is {value!r}; expected one of {', '.join(allowed)}."
                )
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
        """Build a template from the result of `to_dict`, also after a round trip through JSON."""
        try:
            rest = {**value}
            tokens = rest.pop("special_tokens", None) or rest.pop("controls")  # 0.1
            ids: dict[str, Any] = {
                key: tuple(v) if isinstance(v, list) else v for key, v in tokens.items()
            }
            return cls(SpecialTokens(**ids), **rest)
        except (KeyError, TypeError, AttributeError) as error:
            raise TemplateError(
                f"This is not a template: {error}. Expected what Template.to_dict returns."
            ) from error


def build_template(
    tokenizer: TextTokenizer,
    *,
    name: Name = "fields",
    max_length: int = 2048,
    truncation: Truncation = "balanced",
) -> Template:
    """Build the template for a backbone's tokenizer."""
    special, ids = tokenizer.special, tokenizer.vocabulary
    if name != "notebook":
        pad_token = special.get("pad_token")
        tokens = choose_special_tokens(tokenizer.reserved, tokenizer.encode, pad=pad_token)
        return Template(tokens, name, max_length, truncation)
    begin = ids.get(special.get("bos_token") or special.get("cls_token") or "<bos>")
    end = ids.get(special.get("eos_token") or special.get("sep_token") or "<eos>")
    pad = ids.get(special.get("pad_token") or "<pad>", end)
    if begin is None or end is None or pad is None:
        raise TemplateError(
            f"The tokenizer's special tokens are {special or 'none'}; expected one that begins and "
            "one that ends a text, for the notebook's template. Name them in tokenizer_config.json."
        )
    return notebook_template(begin=begin, end=end, pad=pad, max_length=max_length)


def notebook_template(*, begin: int, end: int, pad: int, max_length: int = 1024) -> Template:
    """Return the Kaggle notebook's template: ``<bos>``, the whole string cut right, ``<eos>``."""
    tokens = SpecialTokens(begin=(begin,), end=(end,), pad=pad)
    return Template(tokens, "notebook", max_length, truncation="right", cut="right")


def share_budget(lengths: npt.ArrayLike, budget: int) -> npt.NDArray[np.int64]:
    """Return the tokens kept of prompt, response A and response B, int64 (n, 3), by water-filling.

    A field shorter than its fair share is whole, and its rest goes to the others. A and B always
    have equal caps; a single token that remains goes to the prompt or stays unused.

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
        raise TemplateError(
            f"The special tokens are {special}; expected three slots, and one id each for turn, "
            "missing and end."
        )
    outer = [*(slot[0] for slot in special.slots), *special.end]
    inner = {*special.turn, *special.missing}
    if len(inner) < 2 or inner & set(outer):
        raise TemplateError(
            f"turn is {special.turn} and missing is {special.missing}; expected two different ids, "
            f"both different from the first ids of slots and end, {outer}."
        )
    if special.pad in special.reserved:
        raise TemplateError(
            f"pad is {special.pad}, a delimiter; expected another id. "
            "Exported models pool at the last token that is not padding."
        )


def _check_budget(template: Template) -> None:
    least = 3 if template.name == "fields" else 1
    if template.budget < least:
        raise TemplateError(
            f"max_length is {template.max_length}; expected at least "
            f"{template.max_length - template.budget + least}: delimiters need the rest."
        )


def _water_level(lengths: npt.NDArray[np.int64], budget: int) -> npt.NDArray[np.int64]:
    """Return for each row the highest cap on all three fields that fits the budget."""
    short, middle, long = np.sort(lengths, axis=1).T
    return np.select(
        [budget < 3 * short, budget < short + 2 * middle, budget < short + middle + long],
        [np.full_like(short, budget // 3), (budget - short) // 2, budget - short - middle],
        default=long,
    )
