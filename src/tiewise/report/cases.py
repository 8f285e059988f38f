"""Single pairs, with their texts side by side: where the model was most wrong, for people to read.

The texts are strangers'. They are shortened with a count and their control characters are made
visible here; the templates escape them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from tiewise.data.labels import PROB_COLUMNS
from tiewise.report.diagnostics import OUTCOMES, costly_errors
from tiewise.report.excerpts import excerpt, label_text
from tiewise.report.sections import Omission, ReportData, Section

N_CASES = 20
MAX_CHARACTERS = 1_600
"""Characters shown of one field, over all its turns."""

_MAX_TURNS = 6


@dataclass(frozen=True)
class Response:
    """One of the two responses, as it is shown."""

    name: str
    model: str
    turns: list[str | None]
    is_chosen: bool


@dataclass(frozen=True)
class Case:
    """A pair and what was said of it."""

    rank: int
    id: str
    log_loss: float
    chosen: str
    likeliest: str
    shares: list[tuple[str, float]]
    """Outcome and probability, for A, B, tie."""
    notes: list[str]
    prompt: list[str | None]
    responses: list[Response]


def build_cases(material: ReportData) -> Section | Omission:
    """Show the pairs that cost most, with their texts."""
    title = "The twenty most costly errors"
    if material.pairs is None:
        return Omission(title, "it needs the texts: give the data the run was made with (--data)")
    worst = costly_errors(material.oof, N_CASES)
    texts = material.pairs.set_index("id")
    cases = [
        _build_case(rank, row, texts.loc[row["id"]])
        for rank, row in enumerate(worst.to_dict("records"), 1)
    ]
    share = worst["log_loss"].sum() / (len(material.oof) * material.scores.scores.log_loss.value)
    return Section(
        "errors",
        title if len(cases) == N_CASES else f"The {len(cases)} most costly errors",
        f"These {len(cases)} of {len(material.oof):,} pairs make up {share:.1%} of the whole log "
        "loss. Look whether the vote or the model is odd.",
        cases=cases,
    )


def show_turns(turns: list[str | None]) -> list[str | None]:
    """Shorten a field's turns so that together they stay within what is shown.

    Examples
    --------
    >>> show_turns(["short", None])
    ['short', None]
    """
    shown = turns[:_MAX_TURNS]
    limit = MAX_CHARACTERS // max(1, len(shown))
    texts = [None if turn is None else excerpt(turn, limit) for turn in shown]
    n_more = len(turns) - len(shown)
    return [*texts, f"[… {n_more:,} more turns left out …]"] if n_more else texts


def _build_case(rank: int, row: Mapping[Any, Any], texts: pd.Series) -> Case:
    chosen = OUTCOMES[int(row["label"])]
    shares = [(name, float(row[key])) for name, key in zip(OUTCOMES, PROB_COLUMNS, strict=True)]
    return Case(
        rank=rank,
        id=label_text(row["id"]),
        log_loss=float(row["log_loss"]),
        chosen=chosen,
        likeliest=max(shares, key=lambda item: item[1])[0],
        shares=shares,
        notes=_notes(row, texts),
        prompt=show_turns(texts["prompt"]),
        responses=[
            Response(
                name=side,
                model=_name(texts[f"model_{side.lower()}"]),
                turns=show_turns(texts[f"response_{side.lower()}"]),
                is_chosen=chosen == side,
            )
            for side in "AB"
        ],
    )


def _notes(row: Mapping[Any, Any], texts: pd.Series) -> list[str]:
    notes = [f"fold {int(row['fold'])}"]
    if row.get("is_degenerate"):
        notes.append("responses empty or identical")
    if row.get("n_truncated", 0) > 0:
        notes.append(f"{int(row['n_truncated']):,} tokens cut")
    if pd.notna(texts["winner"]) and "bad" in str(texts["winner"]):
        notes.append("voted: both bad")
    if pd.notna(texts["source"]):
        notes.append(f"source {label_text(texts['source'])}")
    return notes


def _name(value: Any) -> str:
    return "" if pd.isna(value) else label_text(value)
