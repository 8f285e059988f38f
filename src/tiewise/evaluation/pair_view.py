"""One pair as a person reads it: prompt above, A and B side by side, what was voted and thought.

Texts are strangers': every one is escaped, keeps its spaces and lines, and finds its own direction.
"""

from __future__ import annotations

import html
import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from tiewise.errors import PairsError
from tiewise.evaluation.metrics import check_probs
from tiewise.pairs.schema import TEXT_COLUMNS

Turns = Sequence[str | None]
_MISSING = "(missing)"
_WIDTH = 38
_NAMES = ("A", "B", "tie")
_commanding = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # what would command a terminal
_CELL = "vertical-align: top; text-align: start; white-space: pre-wrap; overflow-wrap: anywhere"


@dataclass(frozen=True)
class PairView:
    """A pair to look at; in a notebook a table, printed two columns of text.

    prompt, response_a, response_b
        Turns; None is a missing one.
    winner
        The word that was voted, or None.
    models
        Of A and B, where they are known.
    probs
        P(A), P(B), P(tie), or None.
    """

    prompt: Turns
    response_a: Turns
    response_b: Turns
    winner: str | None = None
    models: tuple[str | None, str | None] = (None, None)
    probs: tuple[float, float, float] | None = None

    def __str__(self) -> str:
        lines = []
        for turn, (asked, one, other) in enumerate(self._exchanges(), 1):
            lines += [f"prompt {turn}", *_wrap(asked, 2 * _WIDTH + 3), ""]
            columns = [
                [head, *_wrap(text, _WIDTH)]
                for head, text in zip(self._heads(), (one, other), strict=True)
            ]
            n_lines = max(map(len, columns))
            padded = [column + [""] * (n_lines - len(column)) for column in columns]
            lines += [
                f"{left:<{_WIDTH}} | {right}".rstrip() for left, right in zip(*padded, strict=True)
            ]
            lines.append("")
        return "\n".join([*lines, self.describe()])

    def describe(self) -> str:
        """Say who won and what was thought, in one line."""
        said = [] if self.winner is None else [f"voted: {self.winner}"]
        if self.probs is not None:
            shares = zip(_NAMES, self.probs, strict=True)
            said.append(", ".join(f"P({name}) {share:.3f}" for name, share in shares))
        return "; ".join(said)

    def _repr_html_(self) -> str:
        heads = "".join(f"<th>{html.escape(head)}</th>" for head in self._heads())
        rows = "".join(
            f'<tr><td colspan="2" dir="auto" style="{_CELL}; opacity: .75">{_escape(asked)}</td>'
            f'</tr><tr><td dir="auto" style="{_CELL}">{_escape(one)}</td>'
            f'<td dir="auto" style="{_CELL}">{_escape(other)}</td></tr>'
            for asked, one, other in self._exchanges()
        )
        return (
            '<table style="table-layout: fixed; width: 100%">'
            f"<caption>{html.escape(self.describe())}</caption>"
            f"<thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>"
        )

    def _heads(self) -> list[str]:
        won = {"model_a": (" (won)", ""), "model_b": ("", " (won)")}.get(
            self.winner or "", ("", "")
        )
        names = (
            name if model is None else f"{name}: {model}"
            for name, model in zip("AB", self.models, strict=True)
        )
        return [f"{name}{mark}" for name, mark in zip(names, won, strict=True)]

    def _exchanges(self) -> list[tuple[str | None, ...]]:
        """Return the turns of prompt, A and B side by side; a side that ends early is missing."""
        sides = (self.prompt, self.response_a, self.response_b)
        n_turns = max(1, *map(len, sides))
        padded = [[*side, *[None] * (n_turns - len(side))] for side in sides]
        return list(zip(*padded, strict=True))


def show_pair(
    pair: Mapping[str, Any] | pd.Series | pd.DataFrame, probs: npt.ArrayLike | None = None
) -> PairView:
    """Show one pair: A and B side by side.

    Parameters
    ----------
    pair
        A row of a pairs table (as ``pairs.iloc[3]``), a table of one row, or a mapping that has
        ``prompt``, ``response_a`` and ``response_b``, each a text or a list of turns.
    probs
        P(A), P(B), P(tie), shape (3,), to be shown beneath.

    Returns
    -------
    PairView

    Raises
    ------
    PairsError
        Where it is no single pair.

    Examples
    --------
    >>> pair = {"prompt": "2 + 2?", "response_a": "4", "response_b": "5", "winner": "model_a"}
    >>> print(show_pair(pair, [0.8, 0.1, 0.1]))
    prompt 1
    2 + 2?
    <BLANKLINE>
    A (won)                                | B
    4                                      | 5
    <BLANKLINE>
    voted: model_a; P(A) 0.800, P(B) 0.100, P(tie) 0.100
    """
    row = _as_row(pair)
    known = None if probs is None else check_probs(np.asarray(probs)[None], 1)[0].tolist()
    return PairView(
        **{name: _as_turns(row[name]) for name in TEXT_COLUMNS},
        winner=_word(row.get("winner")),
        models=(_word(row.get("model_a")), _word(row.get("model_b"))),
        probs=None if known is None else tuple(known),
    )


def _as_row(pair: Mapping[str, Any] | pd.Series | pd.DataFrame) -> Any:
    if isinstance(pair, pd.DataFrame):
        if len(pair) != 1:
            raise PairsError(f"expected one pair, found {len(pair)}; take one with .iloc[[0]]")
        pair = pair.iloc[0]
    missing = [name for name in TEXT_COLUMNS if name not in pair]
    if missing:
        raise PairsError(f"a pair has {', '.join(TEXT_COLUMNS)}; {', '.join(missing)} is missing")
    return pair


def _as_turns(cell: Any) -> Turns:
    return [cell] if isinstance(cell, str) else list(cell)


def _word(value: Any) -> str | None:
    return None if value is None or pd.isna(value) else str(value)


def _wrap(text: str | None, width: int) -> list[str]:
    inert = _commanding.sub(lambda found: ascii(found[0])[1:-1], _MISSING if text is None else text)
    lines = inert.splitlines() or [""]
    return [part for line in lines for part in (textwrap.wrap(line, width) or [""])]


def _escape(text: str | None) -> str:
    return f"<em>{_MISSING}</em>" if text is None else html.escape(text)
