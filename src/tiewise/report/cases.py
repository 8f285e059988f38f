"""The section of a report on the costliest errors, with the texts of the pairs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from tiewise.data.labels import PROB_COLUMNS
from tiewise.report import tables
from tiewise.report.content import NEEDS_TEXTS, Omission, ReportData, Section
from tiewise.report.text import excerpt, label_text

N_CASES = 20
MAX_CHARACTERS = 1_600  # of a prompt or a response, over all its turns
_MAX_TURNS = 6


def build_errors(data: ReportData) -> Section | Omission:
    """Show the pairs with the highest log loss."""
    title = "Costliest errors"
    if data.pairs is None:
        return Omission(title, NEEDS_TEXTS)
    worst = tables.costliest_errors(data.oof, N_CASES)
    texts = data.pairs.set_index("id")
    cases = [
        _build_case(rank, row, texts.loc[row["id"]])
        for rank, row in enumerate(worst.to_dict("records"), 1)
    ]
    share = worst["log_loss"].sum() / (len(data.oof) * data.scores.log_loss.value)
    return Section(
        "errors",
        title,
        f"These {len(cases)} of {len(data.oof):,} pairs make up {share:.1%} of the total log loss. "
        "Check whether the label or the model is wrong.",
        cases=cases,
    )


def show_turns(turns: list[str | None]) -> list[str | None]:
    """Shorten the turns of a prompt or response to `MAX_CHARACTERS` together."""
    shown = turns[:_MAX_TURNS]
    limit = MAX_CHARACTERS // max(1, len(shown))
    texts = [None if turn is None else excerpt(turn, limit) for turn in shown]
    n_more = len(turns) - len(shown)
    return [*texts, f"[… {n_more:,} more turns left out …]"] if n_more else texts


def _build_case(rank: int, row: Mapping[Any, Any], texts: pd.Series) -> dict[str, Any]:
    label = tables.OUTCOMES[int(row["label"])]
    probs = {name: float(row[key]) for name, key in zip(tables.OUTCOMES, PROB_COLUMNS, strict=True)}
    models = {side: texts[f"model_{side.lower()}"] for side in "AB"}
    return {
        "rank": rank,
        "id": label_text(row["id"]),
        "log_loss": float(row["log_loss"]),
        "label": label,
        "most_probable": max(probs, key=lambda name: probs[name]),
        "probs": probs,
        "notes": _case_notes(row, texts),
        "prompt": show_turns(texts["prompt"]),
        "responses": [
            {
                "name": side,
                "model": "" if pd.isna(model) else label_text(model),
                "turns": show_turns(texts[f"response_{side.lower()}"]),
                "is_chosen": label == side,
            }
            for side, model in models.items()
        ],
    }


def _case_notes(row: Mapping[Any, Any], texts: pd.Series) -> list[str]:
    notes = [f"fold {int(row['fold'])}"]
    if row.get("is_degenerate"):
        notes.append("responses empty or identical")
    if row.get("n_truncated", 0) > 0:
        notes.append(f"{int(row['n_truncated']):,} tokens truncated")
    if pd.notna(texts["winner"]) and "bad" in str(texts["winner"]):
        notes.append("labelled: both bad")
    if pd.notna(texts["source"]):
        notes.append(f"source {label_text(texts['source'])}")
    return notes
