"""Fit the small model that ships in the package, and write its card.

    python benchmarks/shipped_model.py ../shared/data

Reads `human_votes.csv`, `llmfao_votes.csv` and `lmsys_decisive.csv` in that folder; writes
`shipped_model.json` and `shipped_model.md` in `src/tiewise/features`. The
card's table holds out one source at a time, because the model is meant for texts of other origin.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tiewise.data.formats import read_pairs
from tiewise.evaluation.scores import compare
from tiewise.features.estimators import Logistic, fit_logistic
from tiewise.features.pair_features import FORMAT_VERSION, PairFeatures, extract_features
from tiewise.features.shipped import MODEL_FILE, ShippedModel
from tiewise.files import write_bytes

PACKAGE_DIR = Path(__file__).resolve().parents[1] / "src" / "tiewise" / "features"
FILES = ("human_votes.csv", "llmfao_votes.csv", "lmsys_decisive.csv")
TIE_NAMES = (
    *("word_overlap", "content_overlap", "bigram_overlap", "number_overlap", "contained_most"),
    *("contained_least", "same_beginning", "is_same"),
)
LENGTHS = ("log_chars", "root_chars", "kilo_chars")
FEW_PROMPTS = "llmfao_votes"
CROWD_WEIGHT = 0.3
"""Of a vote in `llmfao_votes.csv`: its 2,139 votes are about 13 prompts."""

CARD = """# The small model that ships in tiewise

What `tiewise.score(prompt, response_a, response_b)` answers with when no run is named: two logistic
regressions over counted features, {n_bytes:,} bytes of JSON (`shipped_model.json`). The first gives
P(A | no tie) from {n_signed} differences between the responses (length, layout, repetition, overlap
with the prompt, refusals, …); the second gives P(tie) from {n_tie} measures of how alike the two
responses are. Exchanging the responses exchanges P(A) and P(B) exactly.

## What it cannot do
It knows no facts and understands nothing: a fluent wrong answer beats a clumsy right one. It was
fitted mostly on English, and on models of 2023. The rate of ties differs so much from one crowd to
another (11 % to 50 % in its sources) that P(tie) is an average over them. Use it for a first look
and as the reference that a real model must beat; not to decide about people, and not as a reward.

## Made from
| file | rows | used for | licence and credit |
| --- | --- | --- | --- |
{sources}
The files are not part of the package. No text can be recovered from the model: it holds one scale
and one weight for each feature, sums over thousands of rows.

`lmsys_decisive.csv` holds no ties and was chosen by label, so it teaches A against B only; P(tie)
is fitted on the other two, where a vote in `llmfao_votes.csv` weighs {crowd_weight}.

Command: `python benchmarks/shipped_model.py DATA_DIR`, penalty {penalty} for A against B and
{tie_penalty} for ties.

## How well it does on a source it has not seen
Mean log loss on each source, fitted on the others without their prompts (nats; smaller is better).
*Length only*: the same regression on lengths alone, with the paired difference and its 95 %
interval by prompt group. *Rate*: the constant tie rate of the others. llmfao_votes has 13 prompts,
too few for an interval.

| held-out source | rows | A or B, where decided | length only | difference | tie or not | rate |
| --- | --- | --- | --- | --- | --- | --- |
{table}
"""
CREDITS = {
    "human_votes.csv": (
        "A against B, ties",
        "MT-bench: CC-BY-4.0, Zheng et al. 2023, arXiv 2306.05685, LMSYS (votes and texts "
        "re-joined, turns split, majority taken); Tulu and PandaLM: Apache-2.0, "
        "allenai/open-instruct and WeOpenML/PandaLM",
    ),
    "llmfao_votes.csv": ("A against B, ties", "CC-BY-4.0, Dmitry Ustalov"),
    "lmsys_decisive.csv": (
        "A against B",
        "Apache-2.0, LMSYS: rows of lmsys-arena-human-preference-55k",
    ),
}
PENALTY, TIE_PENALTY = 0.3, 1.0


def main(data_dir: Path) -> None:
    """Fit on everything, judge by held-out sources, write the model and its card."""
    pairs = read_sources(data_dir)
    features = extract_features(pairs["prompt"], pairs["response_a"], pairs["response_b"])
    everything = np.ones(len(pairs), dtype=bool)
    model = fit(pairs, features, everything)
    text = json.dumps(to_json(model), separators=(",", ":")) + "\n"
    write_bytes(PACKAGE_DIR / MODEL_FILE, text.encode())
    card = CARD.format(
        n_bytes=len(text),
        n_signed=len(features.signed_names),
        n_tie=len(TIE_NAMES),
        sources=describe_sources(pairs),
        crowd_weight=CROWD_WEIGHT,
        penalty=PENALTY,
        tie_penalty=TIE_PENALTY,
        table="\n".join(judge(pairs, features)),
    )
    write_bytes(PACKAGE_DIR / "shipped_model.md", card.encode())
    print(card)


def to_json(model: ShippedModel) -> dict[str, Any]:
    """Return the model as JSON values with four significant digits."""
    return {
        "about": "tiewise's small model; see shipped_model.md",
        "features_version": FORMAT_VERSION,
        "tie_names": list(model.tie_names),
        "winner": logistic_to_json(model.winner),
        "tie": logistic_to_json(model.tie),
    }


def logistic_to_json(model: Logistic) -> dict[str, Any]:
    """Return a logistic regression as JSON values with four significant digits."""
    arrays = {
        name: [float(f"{x:.4g}") for x in getattr(model, name)]
        for name in ("centre", "scale", "weights")
    }
    return {**arrays, "intercept": float(f"{model.intercept:.4g}")}


def read_sources(data_dir: Path) -> pd.DataFrame:
    """Read the files as one table; a file without sources is a source of its own."""
    tables = []
    for name in FILES:
        table = read_pairs(data_dir / name)
        table["source"] = table["source"].fillna(name.removesuffix(".csv"))
        tables.append(table.assign(file=name))
    return pd.concat(tables, ignore_index=True)


def fit(pairs: pd.DataFrame, features: PairFeatures, rows: np.ndarray) -> ShippedModel:
    """Fit both regressions on some of the rows."""
    winner, tie = fit_winner(pairs, features, rows), fit_tie(pairs, features, rows)
    return ShippedModel(winner, tie, TIE_NAMES)


def fit_winner(
    pairs: pd.DataFrame,
    features: PairFeatures,
    rows: np.ndarray,
    names: tuple[str, ...] | None = None,
) -> Logistic:
    """Fit A against B on the decided rows, from all signed features or from some."""
    label = pairs["label"].to_numpy(int)
    chosen = np.flatnonzero(rows & (label < 2))
    table = features.signed if names is None else columns(features, names)
    outcomes = (label[chosen] == 0).astype(float)
    equal = np.ones(len(chosen))
    return fit_logistic(table[chosen], outcomes, equal, penalty=PENALTY, is_odd=True)


def fit_tie(pairs: pd.DataFrame, features: PairFeatures, rows: np.ndarray) -> Logistic:
    """Fit tie or not on the rows of files that have ties."""
    chosen = np.flatnonzero(rows & (pairs["file"] != "lmsys_decisive.csv").to_numpy())
    outcomes = (pairs["label"].to_numpy(int)[chosen] == 2).astype(float)
    table = likeness(features)[chosen]
    return fit_logistic(table, outcomes, weigh(pairs)[chosen], penalty=TIE_PENALTY)


def columns(features: PairFeatures, names: tuple[str, ...]) -> np.ndarray:
    """Return some of the signed features."""
    return features.signed[:, [features.signed_names.index(name) for name in names]]


def likeness(features: PairFeatures) -> np.ndarray:
    """Return what the tie model sees."""
    return features.shared[:, [features.shared_names.index(name) for name in TIE_NAMES]]


def weigh(pairs: pd.DataFrame) -> np.ndarray:
    """Return the weight of each row in the model of ties."""
    return np.where(pairs["file"] == "llmfao_votes.csv", CROWD_WEIGHT, 1.0)


def judge(pairs: pd.DataFrame, features: PairFeatures) -> list[str]:
    """Return the lines of the card's table, a source held out in each."""
    label, groups = pairs["label"].to_numpy(int), pairs["group"].to_numpy()
    lines = []
    for source in pairs["source"].unique():
        held = (pairs["source"] == source).to_numpy()
        rows = ~pairs["group"].isin(set(pairs["group"][held])).to_numpy()
        decided = held & (label < 2)
        winner = fit_winner(pairs, features, rows).log_odds(features.signed[decided])
        by_length = fit_winner(pairs, features, rows, LENGTHS)
        length = by_length.log_odds(columns(features, LENGTHS)[decided])
        first_wins = label[decided] == 0
        models = (winner, length)
        gap = compare(label[decided], *map(to_probs, models), groups=groups[decided])
        cells = [f"{binary_loss(model, first_wins):.3f}" for model in models]
        cells.append(f"{gap.value:+.3f}" if source == FEW_PROMPTS else f"{gap:+.3f}")
        ties = judge_ties(pairs, features, rows, held)
        cells += ["–" if score is None else f"{score:.3f}" for score in ties]
        lines.append(f"| {source} | {held.sum():,} | {' | '.join(cells)} |")
    return lines


def to_probs(winner: np.ndarray) -> np.ndarray:
    """Return P(A), P(B) and a P(tie) of 0 from log odds of A against B."""
    first = 1 / (1 + np.exp(-winner))
    return np.stack([first, 1 - first, np.zeros(len(winner))], axis=1)


def judge_ties(
    pairs: pd.DataFrame, features: PairFeatures, rows: np.ndarray, held: np.ndarray
) -> list[float | None]:
    """Return log loss of tie or not by the model and by a constant; None without ties."""
    is_tie = pairs["label"].to_numpy(int) == 2
    if not is_tie[held].any():
        return [None, None]
    tie = fit_tie(pairs, features, rows).log_odds(likeness(features)[held])
    teaches = rows & (pairs["file"] != "lmsys_decisive.csv").to_numpy()
    rate = np.average(is_tie[teaches], weights=weigh(pairs)[teaches])
    constant = np.full(held.sum(), np.log(rate / (1 - rate)))
    return [binary_loss(tie, is_tie[held]), binary_loss(constant, is_tie[held])]


def binary_loss(log_odds: np.ndarray, outcomes: np.ndarray) -> float:
    """Return the mean log loss of log odds."""
    return float((np.logaddexp(0, log_odds) - outcomes * log_odds).mean())


def describe_sources(pairs: pd.DataFrame) -> str:
    """Return the lines of the card's table of files."""
    counts = pairs["file"].value_counts()
    lines = [
        f"| `{name}` | {counts[name]:,} | {use} | {credit} |"
        for name, (use, credit) in CREDITS.items()
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
