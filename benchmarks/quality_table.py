"""The pages about quality: the cost of each judge, its scores, and their intervals."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.quality_judges import JUDGES, LEVERS, MAIN, N_TOKENS
from tiewise.data.labels import PROB_COLUMNS
from tiewise.evaluation.paired import PairedDifference, compare_many
from tiewise.evaluation.scores import evaluate
from tiewise.evaluation.slices import adjust_holm
from tiewise.files import digest_file
from tiewise.judges.blending import fit_weights, mix

SEEDS = (0, 1, 2)
PRIMARY = "recipe"
BLENDS = {
    "blend of baseline and recipe": ("baseline", "recipe"),
    "blend of all but the simple": (),
}
"""Members of each blend; empty: all judges except those that read no response."""
SIMPLE = ("class prior", "length only")


def render_judges(data_path: Path, work: Path) -> str:
    """Return the page that compares judges."""
    abouts, tables = read_tables(data_path, work, [*JUDGES])
    fitted = dict(tables)
    tables["uniform"] = tables[PRIMARY].assign(**dict.fromkeys(PROB_COLUMNS, 1 / 3))
    tables |= {name: blend(fitted, members) for name, members in BLENDS.items()}
    lines = describe_all(tables, abouts, {name: reference_of(name) for name in tables})
    title = "# Judges of real votes at the same compute"
    head = introduce(title, "table", "quality.md", data_path, tables[PRIMARY])
    return "\n".join([*head, *lines, *explain(PLANNED), ""])


def render_levers(data_path: Path, work: Path) -> str:
    """Return the page that compares each option with the recipe."""
    abouts, tables = read_tables(data_path, work, [PRIMARY, *LEVERS])
    references = {name: None if name == PRIMARY else PRIMARY for name in tables}
    lines = describe_all(tables, abouts, references)
    title = "# Levers on the recipe at the same compute"
    head = introduce(title, "levers", "quality_levers.md", data_path, tables[PRIMARY])
    return "\n".join([*head, *lines, *explain(UNPLANNED), ""])


def read_tables(
    data_path: Path, work: Path, names: list[str]
) -> tuple[list[dict[str, Any]], dict[str, pd.DataFrame]]:
    """Return facts about each fit, and the predictions of each judge joined over the seeds.

    A judge that was not fitted with every seed is skipped with a message.
    """
    abouts, tables = [], {}
    for name in names:
        folders = [work / f"{name.replace(' ', '_')}-{seed}" for seed in SEEDS]
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
            tables[title] = pd.concat(parts, keys=SEEDS, names=["seed"]).reset_index("seed")
    return abouts, tables


def blend(fitted: dict[str, pd.DataFrame], members: tuple[str, ...]) -> pd.DataFrame:
    """Blend judges as `tiewise blend` does, with weights fitted on the rows of the other seeds."""
    names = members or tuple(name for name in fitted if name not in SIMPLE)
    first = fitted[names[0]]
    log_probs = np.stack([np.log(fitted[name][PROB_COLUMNS].to_numpy()) for name in names])
    labels = first["label"].to_numpy(int)
    mixed = np.empty((len(first), 3))
    for seed in SEEDS:
        is_own = (first["seed"] == seed).to_numpy()
        weights = fit_weights(labels[~is_own], log_probs[:, ~is_own])
        mixed[is_own] = np.exp(mix(log_probs[:, is_own], weights))
    return first.assign(**dict(zip(PROB_COLUMNS, mixed.T, strict=True)))


def reference_of(name: str) -> str | None:
    """Return the judge that a judge is compared with, or None."""
    if name in {"notebook", *SIMPLE, "uniform"}:
        return None
    if name.startswith("notebook") or name == PRIMARY:
        return "notebook"
    if name.startswith(("recipe", "pairjudge")) or name == "baseline":
        return "recipe"
    return "baseline"


def compare(
    tables: dict[str, pd.DataFrame], references: dict[str, str | None]
) -> dict[str, tuple[str, PairedDifference]]:
    """Compare each judge with its reference; all but the planned comparison are Holm-adjusted."""
    found = {}
    for name, reference in references.items():
        if reference is not None:
            [difference] = compare_many({name: tables[name]}, tables[reference]).overall
            found[name] = (reference, difference)
    rest = [name for name in found if name != PRIMARY]
    corrected = adjust_holm([found[name][1].p_value for name in rest])
    for name, p_holm in zip(rest, corrected.tolist(), strict=True):
        reference, difference = found[name]
        found[name] = (reference, replace(difference, p_holm=p_holm))
    return found


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


def introduce(
    title: str, action: str, page: str, data_path: Path, reference: pd.DataFrame
) -> list[str]:
    """Return the page up to the head of the table."""
    head = ["judge", "rows", "tokens", "CPU minutes", "log loss", "accuracy"]
    head += ["difference of log loss", "from", "p"]
    command = "    python -m benchmarks.quality"
    options = "../shared/data/human_votes.csv --work quality"
    return [
        title,
        "",
        f"`{data_path.name}` (sha256 {digest_file(data_path)[:12]}…): {len(reference):,} rows in "
        f"{reference['group'].nunique()} prompt groups, each predicted by models that were not "
        "trained on it: seeds 0, 1 and 2 hold out folds 0, 1 and 2 of five. Log loss in nats, with "
        "95 % intervals by bootstrap over groups. Judges that read tokens are trained on "
        f"{N_TOKENS:,} tokens, 256 per row, with all-MiniLM-L6-v2 as their backbone; the others "
        "are trained on every row.",
        "",
        f"{command} fit {options}",
        *([f"{command} fit {options} --judges recipe --seeds 3 4"] if action == "table" else []),
        f"{command} {action} {options} --out benchmarks/{page}",
        "",
        f"| {' | '.join(head)} |",
        f"|{' --- |'}{' ---: |' * 3}{' --- |' * 5}",
    ]


PLANNED = (
    "One comparison was planned, the recipe with the notebook's way; its p-value is not adjusted. "
    "The others are Holm-adjusted together."
)
UNPLANNED = "No comparison here was planned; all p-values are Holm-adjusted together."


def explain(comparisons: str) -> list[str]:
    """Return the end of the page."""
    return [
        "",
        f"{comparisons} *Rows*, *tokens* and *CPU minutes* (prediction of the held-out rows "
        "included) are means over the seeds. `benchmarks/quality_judges.py` defines each judge "
        "under its name.",
    ]
