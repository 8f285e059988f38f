"""The page about quality: the cost of each judge, its scores, and their intervals."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.quality_judges import JUDGES, MAIN, N_TOKENS
from tiewise.data.labels import PROB_COLUMNS
from tiewise.evaluation.paired import PairedDifference, compare_many
from tiewise.evaluation.scores import evaluate
from tiewise.evaluation.slices import adjust_holm
from tiewise.files import digest_file
from tiewise.judges.blending import fit_weights, mix

SEEDS = (0, 1, 2)
FEATURES, LENGTHS, STATES = "feature model", "length only", "feature model with states"
TUNED, LONG = "SmolLM2, one epoch", "SmolLM2, one epoch of 512 tokens"
BLENDS = {
    "blend of feature model and SmolLM2": (FEATURES, TUNED),
    "blend of feature model with states and SmolLM2": (STATES, TUNED),
    "blend of feature model and SmolLM2 of 512 tokens": (FEATURES, LONG),
    "blend of feature model with states and SmolLM2 of 512 tokens": (STATES, LONG),
}
"""Members of each blend."""
REFERENCES = {
    "MiniLM": "MiniLM, notebook's way",
    "pairjudge": "MiniLM",
    TUNED: LENGTHS,
    LONG: TUNED,
    "SmolLM2, linear head": TUNED,
    "SmolLM2, linear head from random weights": "SmolLM2, linear head",
    "SmolLM2, taught": TUNED,
    "SmolLM2, taught with new pairs": TUNED,
    "SmolLM2, not trained": LENGTHS,
    FEATURES: LENGTHS,
    STATES: FEATURES,
    **dict.fromkeys(BLENDS, FEATURES),
}
"""The judge that each judge is compared with; a way to predict has its judge's."""


def render(data_path: Path, work: Path, seeds: Sequence[int]) -> str:
    """Return the page."""
    abouts, tables = read_tables(data_path, work, [*JUDGES], seeds)
    tables["uniform"] = tables[LENGTHS].assign(**dict.fromkeys(PROB_COLUMNS, 1 / 3))
    for name, members in BLENDS.items():
        if set(members) <= set(tables):
            tables[name] = blend(tables, members)
    references = {name: REFERENCES.get(judge_of(name)) for name in tables}
    lines = describe_all(tables, abouts, references)
    return "\n".join([*introduce(data_path, tables, seeds), *lines, *EXPLANATION, ""])


def read_tables(
    data_path: Path, work: Path, names: list[str], seeds: Sequence[int]
) -> tuple[list[dict[str, Any]], dict[str, pd.DataFrame]]:
    """Return facts about each fit, and the predictions of each judge joined over the seeds.

    A judge that was not fitted with every seed is skipped with a message.
    """
    abouts, tables = [], {}
    for name in names:
        folders = [work / f"{name.replace(' ', '_')}-{seed}" for seed in seeds]
        if not all((folder / "about.json").is_file() for folder in folders):
            print(f"{name}: skipped, not fitted with every seed")
            continue
        own = [json.loads((folder / "about.json").read_bytes()) for folder in folders]
        if {about["data"] for about in own} != {digest_file(data_path)}:
            raise SystemExit(f"{work} holds {name} fitted on other data than {data_path}.")
        abouts += own
        for way in own[0]["ways"]:
            title = name if way == MAIN else f"{name}, {way}"
            parts = [pd.read_parquet(folder / f"{way}.parquet") for folder in folders]
            tables[title] = pd.concat(parts, keys=seeds, names=["seed"]).reset_index("seed")
    return abouts, tables


def blend(tables: dict[str, pd.DataFrame], members: tuple[str, ...]) -> pd.DataFrame:
    """Blend judges as `tiewise blend` does, with weights fitted on the rows of the other seeds.

    Where there is one seed, the weights are equal shares.
    """
    first = tables[members[0]]
    log_probs = np.stack([np.log(tables[name][PROB_COLUMNS].to_numpy()) for name in members])
    labels = first["label"].to_numpy(int)
    mixed = np.empty((len(first), 3))
    for seed in first["seed"].unique():
        is_own = (first["seed"] == seed).to_numpy()
        weights = np.full(len(members), 1 / len(members))
        if not is_own.all():
            weights = fit_weights(labels[~is_own], log_probs[:, ~is_own])
        mixed[is_own] = np.exp(mix(log_probs[:, is_own], weights))
    return first.assign(**dict(zip(PROB_COLUMNS, mixed.T, strict=True)))


def compare(
    tables: dict[str, pd.DataFrame], references: dict[str, str | None]
) -> dict[str, tuple[str, PairedDifference]]:
    """Compare each judge with its reference; the p-values are Holm-adjusted together."""
    found = {}
    for name, reference in references.items():
        if reference in tables:
            [difference] = compare_many({name: tables[name]}, tables[reference]).overall
            found[name] = (reference, difference)
    adjusted = adjust_holm([difference.p_value for _, difference in found.values()])
    return {
        name: (reference, replace(difference, p_holm=p_holm))
        for (name, (reference, difference)), p_holm in zip(
            found.items(), adjusted.tolist(), strict=True
        )
    }


def describe_all(
    tables: dict[str, pd.DataFrame],
    abouts: list[dict[str, Any]],
    references: dict[str, str | None],
) -> list[str]:
    """Return the line of every judge, the worst first."""
    differences = compare(tables, references)
    order = sorted(tables, key=lambda name: -log_loss(tables[name]))
    return [describe(name, tables[name], abouts, differences.get(name)) for name in order]


def describe(
    name: str,
    table: pd.DataFrame,
    abouts: list[dict[str, Any]],
    compared: tuple[str, PairedDifference] | None,
) -> str:
    """Return the line of a judge."""
    own = [about for about in abouts if about["judge"] == judge_of(name)]
    scores = evaluate(table["label"], table[PROB_COLUMNS], groups=table["group"])
    cells = [name, mean(own, "rows"), mean(own, "tokens"), mean(own, "cpu_minutes", 1)]
    cells += [f"{scores.log_loss:.4f}", f"{scores.accuracy:.3f}"]
    if compared is None:
        cells += ["–", "–", "–"]
    else:
        reference, difference = compared
        cells += [f"{difference.log_loss:+.4f}", reference, f"{difference.p_holm:.3f}"]
    return f"| {' | '.join(cells)} |"


def judge_of(title: str) -> str:
    """Return the name of the judge in this title."""
    return title.removesuffix(", one order")


def mean(abouts: list[dict[str, Any]], name: str, n_digits: int = 0) -> str:
    """Return the mean over the seeds, or a dash for zero."""
    value = np.mean([about[name] for about in abouts]) if abouts else 0
    return f"{value:,.{n_digits}f}" if value else "–"


def log_loss(table: pd.DataFrame) -> float:
    """Return the mean log loss of a table of predictions."""
    chosen = table[PROB_COLUMNS].to_numpy()[np.arange(len(table)), table["label"].to_numpy(int)]
    return float(-np.log(chosen).mean())


def introduce(data_path: Path, tables: dict[str, pd.DataFrame], seeds: Sequence[int]) -> list[str]:
    """Return the page up to the head of the table."""
    reference = tables[LENGTHS]
    notes = " ".join(note for word, note in NOTES.items() if any(word in name for name in tables))
    head = ["judge", "rows", "tokens", "CPU minutes", "log loss", "accuracy"]
    head += ["difference of log loss", "from", "p"]
    command = "    python -m benchmarks.quality"
    options = "../shared/data/human_votes.csv --work quality"
    listed = ", ".join(map(str, seeds))
    out = "quality.md"
    if tuple(seeds) != SEEDS:
        options += f" --seeds {' '.join(map(str, seeds))}"
        out = f"quality_fold_{'_'.join(map(str, seeds))}.md"
    weights = "equal weights"
    if len(seeds) > 1:
        weights = "weights that were fitted on the other seeds"
    return [
        "# Judges of real votes",
        "",
        f"`{data_path.name}` (sha256 {digest_file(data_path)[:12]}…): {len(reference):,} rows in "
        f"{reference['group'].nunique()} prompt groups, each predicted by models that were not "
        f"trained on it. Of five folds by group, seed k holds out fold k; the seeds are {listed}. "
        f"Blends have {weights}. Log loss in nats, with 95 % intervals by bootstrap over groups.",
        "",
        "MiniLM is all-MiniLM-L6-v2 with the preset `quickstart`, SmolLM2 is SmolLM2-135M-Instruct "
        f"with the preset `smollm2-135m`. {notes} *MiniLM* and *MiniLM, notebook's way* have "
        f"{N_TOKENS:,} tokens, at most 256 a row. All other judges learn from every row.",
        "",
        f"{command} fit {options}",
        f"{command} table {options} --out benchmarks/{out}",
        "",
        f"| {' | '.join(head)} |",
        f"|{' --- |'}{' ---: |' * 3}{' --- |' * 5}",
    ]


NOTES = {
    "epoch": "*One epoch* is every row once, with at most 128 tokens, or as many as the name says.",
    "linear head": "*Linear head*: on the last token, where the preset's head compares both "
    "responses; one epoch of 128 tokens.",
    "taught": "*Taught*: learns the mean of the label and of the probabilities of a feature model "
    "with states that has not seen the prompt; one epoch of 128 tokens.",
    "not trained": "*Not trained*: logistic regressions on the hidden states of SmolLM2, whose "
    "weights are not changed.",
    "with states": "*With states*: the feature model with these states as further features.",
}
"""What words in the names of judges mean."""
EXPLANATION = (
    "",
    "The p-values are Holm-adjusted together. *Rows*, *tokens* and *CPU minutes* (prediction of "
    "the held-out rows included) are means over the seeds. Judges that read a response once for "
    "all seeds show the minutes of what the first seed left to do. `benchmarks/quality_judges.py` "
    "defines each judge under its name; those of its `ON_REQUEST` are fitted where `--judges` "
    "names them.",
)
