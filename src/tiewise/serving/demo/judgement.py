"""Judge the responses to one prompt, and describe the result as tables of texts."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from tiewise.data.labels import PROB_COLUMNS
from tiewise.errors import PairsError
from tiewise.judges.judge import arrange_probs, pair_responses, predict
from tiewise.judges.response_ranking import rank_answers

MAX_CHARS = 40_000
"""Largest length of a prompt or response."""

LETTERS = "ABCDEFGH"
"""Names of the responses; their number is the largest number of responses."""

_ORDERS = {order: [f"{name}_{order}" for name in PROB_COLUMNS] for order in ("given", "swapped")}


@dataclass(frozen=True)
class Judgement:
    """Prediction for the responses to one prompt."""

    pairs: pd.DataFrame
    """For each pair of responses one row: first, second, P(first), P(second), P(tie), averaged over
    both orders."""

    orders: dict[tuple[str, str], pd.DataFrame]
    """For each pair a table with a row per order, as texts; empty if both orders are the same by
    construction."""

    truncation: str
    """Sentence that says what did not fit into the rows of the model."""

    ranking: pd.DataFrame
    """Rank, response, interval of the rank and P(best), best first; empty for two responses."""


def judge_responses(prompt: str, responses: Sequence[str], *, run: Path | None = None) -> Judgement:
    """Compare two to eight responses to a prompt.

    Blank responses are skipped, and the others keep their letters. `run` is the folder of a run, or
    None for the model in the package. PairsError is raised if fewer than two responses have text,
    or a text has more than `MAX_CHARS` characters.

    Examples
    --------
    >>> found = judge_responses("2 + 2?", ["4", "", "I can't say."])
    >>> found.pairs[["first", "second"]].to_numpy().tolist()
    [['A', 'C']]
    """
    named = {f"Response {name}": text for name, text in zip(LETTERS, responses, strict=False)}
    for name, text in {"The prompt": prompt, **named}.items():
        if len(text) > MAX_CHARS:
            raise PairsError(f"{name} has more than {MAX_CHARS:,} characters. Shorten it.")
    texts = {name: text for name, text in zip(LETTERS, responses, strict=False) if text.strip()}
    if len(texts) < 2:
        raise PairsError("Write at least two responses.")
    names = list(itertools.combinations(texts, 2))
    table = predict(pair_responses((prompt, list(texts.values()))), run=run, swap=True)
    pairs = pd.DataFrame(names, columns=["first", "second"])
    pairs[PROB_COLUMNS] = table[PROB_COLUMNS].to_numpy()
    rows = zip(names, table.to_dict("records"), strict=True)
    has_orders = _ORDERS["given"][0] in table
    return Judgement(
        pairs,
        {pair: _list_orders(pair, row) for pair, row in rows} if has_orders else {},
        _describe_truncation(table),
        _rank(list(texts), table) if len(texts) > 2 else pd.DataFrame(),
    )


def _list_orders(pair: tuple[str, str], row: Mapping[Any, Any]) -> pd.DataFrame:
    """Return the probabilities of a pair in both orders, as texts."""
    first, second = pair
    lines = []
    for order, shown in (("given", f"{first}, {second}"), ("swapped", f"{second}, {first}")):
        probs = (row[name] for name in _ORDERS[order])
        named = zip((f"{first} preferred", f"{second} preferred", "tie"), probs, strict=True)
        lines.append({"shown": shown, **{name: f"{prob:.3f}" for name, prob in named}})
    return pd.DataFrame(lines)


def _describe_truncation(table: pd.DataFrame) -> str:
    if "n_truncated" not in table:
        return "Nothing was truncated: this model uses the whole text."
    n_lost = table["n_truncated"].to_numpy()
    if not n_lost.any():
        return (
            f"Nothing was truncated; the longest row has {int(table['n_tokens'].max()):,} tokens."
        )
    return (
        f"{int((n_lost > 0).sum())} of {len(n_lost)} rows were truncated, by up to "
        f"{int(n_lost.max()):,} tokens, shared fairly between the responses."
    )


def _rank(names: list[str], table: pd.DataFrame) -> pd.DataFrame:
    """Rank responses by the probabilities of all their pairs."""
    ranking = rank_answers(arrange_probs(table[PROB_COLUMNS].to_numpy(float), len(names)))
    lines = [
        {
            "rank": int(ranking.places[k]),
            "response": names[k],
            "95 % interval": f"{ranking.place_low[k]} to {ranking.place_high[k]}",
            "P(best)": f"{ranking.prob_best[k]:.2f}",
        }
        for k in ranking.order.tolist()
    ]
    return pd.DataFrame(lines)
