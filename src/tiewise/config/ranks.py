"""Ranks of adapters that differ by layer or by module, from short words.

`q_proj=8` is about a module in every layer, `0-9=4` about every module of layers 0 to 9, and
`10-15.v_proj=32` about one module of some layers. Where several fit, the last holds.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from tiewise.errors import ConfigError

_RULE = re.compile(r"(?:(\d+)(?:-(\d+))?)?(?:(?:^|\.)([A-Za-z_]\w*))?=(\d+)")


@dataclass(frozen=True)
class RankRule:
    """One rank and where it holds.

    first, last
        Layers, both included; every layer when None.
    module
        The linear layer's name; every one when None.
    """

    rank: int
    first: int | None = None
    last: int | None = None
    module: str | None = None

    def fits(self, layer: int, module: str) -> bool:
        """Tell whether the rule is about this module of this layer."""
        is_layer = self.first is None or self.last is None or self.first <= layer <= self.last
        return is_layer and self.module in {None, module}

    def __str__(self) -> str:
        layers = "" if self.first is None else f"{self.first}-{self.last}"
        return f"{'.'.join(part for part in (layers, self.module) if part)}={self.rank}"


def parse_ranks(texts: Sequence[str]) -> list[RankRule]:
    """Read rules, in order.

    Raises
    ------
    ConfigError
        When one is not written like `q_proj=8`, `0-9=4`, `3.v_proj=2`, or its rank is 0.

    Examples
    --------
    >>> [str(rule) for rule in parse_ranks(["q_proj=8", "0-9=4", "3.v_proj=2"])]
    ['q_proj=8', '0-9=4', '3-3.v_proj=2']
    """
    return [_parse(text) for text in texts]


def rank_of(rules: Sequence[RankRule], layer: int, module: str, default: int) -> int:
    """Return the rank of a module: that of the last rule that fits, or the default.

    Examples
    --------
    >>> rank_of(parse_ranks(["0-9=4", "3.v_proj=2"]), 3, "v_proj", 16)
    2
    """
    return next((rule.rank for rule in reversed(rules) if rule.fits(layer, module)), default)


def multiply_ranks(texts: Sequence[str], factor: int) -> tuple[str, ...]:
    """Return the rules with every rank so many times as large.

    Examples
    --------
    >>> multiply_ranks(["q_proj=8"], 5)
    ('q_proj=40',)
    """
    rules = parse_ranks(texts)
    return tuple(
        str(RankRule(rule.rank * factor, rule.first, rule.last, rule.module)) for rule in rules
    )


def _parse(text: str) -> RankRule:
    found = _RULE.fullmatch(text)
    if found is None or text.startswith("=") or int(found[4]) < 1:
        raise ConfigError(
            f"--lora-ranks {text}: expected a place and a rank of at least 1, such as q_proj=8, "
            "0-9=4 (layers) or 10-15.v_proj=32."
        )
    first = None if found[1] is None else int(found[1])
    last = first if found[2] is None else int(found[2])
    if first is not None and last is not None and last < first:
        raise ConfigError(f"--lora-ranks {text}: layers go from {first} to {last}; turn them.")
    return RankRule(int(found[4]), first, last, found[3])
