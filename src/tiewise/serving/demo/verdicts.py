"""Answers to one prompt, judged for a page: each two of them in both orders, and all in a ranking.

Everything is plain text and numbers in tables; how they look is the page's affair.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from tiewise.data.labels import PROB_COLUMNS, swap_probs
from tiewise.data.parse import repair_text
from tiewise.data.schema import build_pairs
from tiewise.errors import PairsError
from tiewise.judges.response_ranking import Ranking, rank_answers
from tiewise.judges.serving import predict

_GIVEN, _SWAPPED = ([f"{name}_{order}" for name in PROB_COLUMNS] for order in ("given", "swapped"))
LETTERS = "ABCDEFGH"
"""How answers are called; there may be as many."""


@dataclass(frozen=True)
class Verdicts:
    """What a model thinks of the answers to one prompt.

    names
        Of the answers judged, letters.
    orders
        A line for each two answers and each order they were read in, and their average: probability
        that the one named first wins, that the other does, of a tie.
    cut
        In words, what did not fit into the model's rows.
    ranking
        All answers ranked; None where there are two.
    """

    names: tuple[str, ...]
    orders: pd.DataFrame
    cut: str
    ranking: Ranking | None

    def rank_table(self) -> pd.DataFrame:
        """Return a line an answer, the best first: place with its interval, P(best)."""
        ranking = self.ranking
        if ranking is None:
            return pd.DataFrame(columns=["place", "answer", "95 % of places", "P(best)"])
        lines = [
            {
                "place": int(ranking.places[k]),
                "answer": self.names[k],
                "95 % of places": f"{ranking.place_low[k]} to {ranking.place_high[k]}",
                "P(best)": f"{ranking.prob_best[k]:.2f}",
            }
            for k in ranking.order.tolist()
        ]
        return pd.DataFrame(lines)


def judge_answers(prompt: str, answers: Sequence[str], *, run: Path | None = None) -> Verdicts:
    """Judge answers to a prompt.

    Parameters
    ----------
    prompt
        A text.
    answers
        Two to eight; blank ones are left out, and keep their letters.
    run
        Folder of a run; the model that ships in the package when None.

    Raises
    ------
    PairsError
        When fewer than two answers say anything.

    Examples
    --------
    >>> found = judge_answers("2 + 2?", ["4", "", "I can't say."])
    >>> found.names, found.orders["read as"].tolist()
    (('A', 'C'), ['A, C', 'C, A', 'average'])
    """
    named = [(name, text) for name, text in zip(LETTERS, answers, strict=False) if text.strip()]
    if len(named) < 2:
        raise PairsError("Write at least two answers.")
    names, texts = zip(*named, strict=True)
    table = predict(_as_pairs(prompt, texts), run=run, swap=True)
    return Verdicts(names, _tabulate(names, table), _describe_cut(table), _rank(len(names), table))


def _as_pairs(prompt: str, texts: Sequence[str]) -> pd.DataFrame:
    two = list(itertools.combinations([[repair_text(text)] for text in texts], 2))
    columns = {
        "id": range(len(two)),
        "prompt": [[repair_text(prompt)]] * len(two),
        "response_a": [first for first, _ in two],
        "response_b": [second for _, second in two],
    }
    return build_pairs(columns)


def _tabulate(names: Sequence[str], table: pd.DataFrame) -> pd.DataFrame:
    # A model that is symmetric by construction has no orders to tell apart.
    given, swapped = (order if order[0] in table else PROB_COLUMNS for order in (_GIVEN, _SWAPPED))
    lines = []
    for row, (first, second) in enumerate(itertools.combinations(names, 2)):
        orders = {
            f"{first}, {second}": given,
            f"{second}, {first}": swapped,
            "average": PROB_COLUMNS,
        }
        for order, columns in orders.items():
            shares = [f"{share:.3f}" for share in table[columns].iloc[row].astype(float)]
            lines.append({"answers": f"{first} or {second}", "read as": order, **_shares(shares)})
    return pd.DataFrame(lines)


def _shares(shares: list[str]) -> dict[str, str]:
    return dict(zip(("P(first wins)", "P(second wins)", "P(tie)"), shares, strict=True))


def _describe_cut(table: pd.DataFrame) -> str:
    if "n_truncated" not in table:
        return "Nothing was cut: this model counts the whole text."
    lost = table["n_truncated"].to_numpy()
    if not lost.any():
        return f"Nothing was cut; the longest row has {int(table['n_tokens'].max()):,} tokens."
    return (
        f"{int((lost > 0).sum())} of {len(lost)} rows did not fit: up to {int(lost.max()):,} "
        "tokens of a pair were left out, shared fairly between the answers."
    )


def _rank(n: int, table: pd.DataFrame) -> Ranking | None:
    if n == 2:
        return None
    probs = np.full((n, n, 3), np.nan)
    i, j = np.triu_indices(n, 1)  # in the order of combinations
    probs[i, j] = table[PROB_COLUMNS].to_numpy(np.float64)
    probs[j, i] = swap_probs(probs[i, j])
    return rank_answers(probs)
