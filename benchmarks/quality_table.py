"""The page about quality: what was read, what it gave, and how sure that is."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tiewise.evaluation.paired import PairedDifference, compare_many
from tiewise.evaluation.scores import evaluate
from tiewise.evaluation.slices import correct_holm
from tiewise.files import digest_file, write_bytes
from tiewise.pairs.labels import PROB_COLUMNS
from tiewise.predicting.mixture import fit_weights, mix

SEEDS = (0, 1, 2)
PRIMARY = "recipe"
BLENDS = {
    "blend of baseline and recipe": ("baseline", "recipe"),
    "blend of the baselines": (
        "baseline",
        "baseline with sentence vectors",
        "baseline with hidden states",
        "baseline on the recipe",
    ),
    "blend of all but the simple": (),
}
"""Members of each blend; none are all that were fitted, but for those that read no response."""
SIMPLE = ("class prior", "length only")
DEAR_SHARE = 0.2
"""Share of the rows that a cascade hands on, those of the largest entropy."""


def render(data_path: Path, work: Path, out: Path | None, *, n_tokens: int) -> None:
    """Print the page, and write it where asked."""
    abouts = [json.loads(path.read_bytes()) for path in sorted(work.glob("*/about.json"))]
    abouts = [about for about in abouts if about["seed"] in SEEDS]
    if {about["data"] for about in abouts} - {digest_file(data_path)}:
        raise SystemExit(f"{work} holds judges of other data than {data_path}.")
    tables = read_tables(work, abouts)
    fitted = dict(tables)
    tables["uniform"] = tables[PRIMARY].assign(**dict.fromkeys(PROB_COLUMNS, 1 / 3))
    tables |= {name: blend(fitted, members) for name, members in BLENDS.items()}
    tables["cascade from baseline to recipe"] = cascade(fitted["baseline"], fitted["recipe"])
    differences = compare(tables)
    lines = [
        describe(name, table, abouts, differences.get(name))
        for name, table in sorted(tables.items(), key=lambda item: -log_loss(item[1]))
    ]
    page = "\n".join([*introduce(data_path, tables[PRIMARY], n_tokens), *lines, *explain(), ""])
    print(page)
    if out is not None:
        write_bytes(out, page.encode())


def read_tables(work: Path, abouts: list[dict[str, Any]]) -> dict[str, pd.DataFrame]:
    """Join each judge's predictions over the seeds; only judges that were fitted with all."""
    tables = {}
    for name in sorted({about["judge"] for about in abouts}):
        own = [about for about in abouts if about["judge"] == name]
        if len(own) < len(SEEDS):
            print(f"{name}: left out, fitted with {len(own)} of {len(SEEDS)} seeds")
            continue
        for way in own[0]["ways"]:
            title = name if way == "main" else f"{name}, {way}"
            parts = [
                pd.read_parquet(work / f"{name.replace(' ', '_')}-{seed}" / f"{way}.parquet")
                for seed in SEEDS
            ]
            tables[title] = pd.concat(parts, keys=SEEDS, names=["seed"]).reset_index("seed")
    return tables


def blend(fitted: dict[str, pd.DataFrame], members: tuple[str, ...]) -> pd.DataFrame:
    """Mix judges as `tiewise blend` does: each seed's rows by weights that the others' gave."""
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


def cascade(cheap: pd.DataFrame, dear: pd.DataFrame) -> pd.DataFrame:
    """Let a dear judge answer where a cheap one is least sure."""
    probs = cheap[PROB_COLUMNS].to_numpy()
    entropy = -(probs * np.log(probs)).sum(axis=1)
    goes_on = entropy >= np.quantile(entropy, 1 - DEAR_SHARE)
    mixed = np.where(goes_on[:, None], dear[PROB_COLUMNS].to_numpy(), probs)
    return cheap.assign(**dict(zip(PROB_COLUMNS, mixed.T, strict=True)))


def reference_of(name: str) -> str | None:
    """Return what a judge is held against: that which it changes, or that which it should beat."""
    if name in {"notebook", *SIMPLE, "uniform"}:
        return None
    if name.startswith("notebook") or name == PRIMARY:
        return "notebook"
    if name.startswith(("recipe", "pairjudge")) or name == "baseline":
        return "recipe"
    return "baseline"


def compare(tables: dict[str, pd.DataFrame]) -> dict[str, tuple[str, PairedDifference]]:
    """Compare every judge with its reference: one comparison alone, the rest by Holm's rule."""
    found = {}
    for name, table in tables.items():
        if (reference := reference_of(name)) is not None:
            [difference] = compare_many({name: table}, tables[reference]).overall
            found[name] = (reference, difference)
    rest = [name for name in found if name != PRIMARY]
    corrected = correct_holm([found[name][1].p_value for name in rest])
    for name, p_holm in zip(rest, corrected.tolist(), strict=True):
        reference, difference = found[name]
        found[name] = (reference, replace(difference, p_holm=p_holm))
    return found


def describe(
    name: str,
    table: pd.DataFrame,
    abouts: list[dict[str, Any]],
    compared: tuple[str, PairedDifference] | None,
) -> str:
    """Return a judge's line."""
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
    """Return the name of the judge whose way of reading has this title."""
    for way in (", one order", ", mean weights"):
        title = title.removesuffix(way)
    return title


def mean(abouts: list[dict[str, Any]], name: str, n_digits: int = 0) -> str:
    """Return the mean over the seeds, or a dash where there is nothing to count."""
    value = np.mean([about[name] for about in abouts]) if abouts else 0
    return f"{value:,.{n_digits}f}" if value else "–"


def log_loss(table: pd.DataFrame) -> float:
    """Return the mean log loss of a table of predictions."""
    chosen = table[PROB_COLUMNS].to_numpy()[np.arange(len(table)), table["label"].to_numpy(int)]
    return float(-np.log(chosen).mean())


def introduce(data_path: Path, reference: pd.DataFrame, n_tokens: int) -> list[str]:
    """Return the page's beginning, down to the table's head."""
    head = ["judge", "rows", "tokens", "CPU minutes", "log loss", "accuracy"]
    head += ["difference of log loss", "from", "p"]
    return [
        "# Judges of real votes at the same compute",
        "",
        f"`{data_path.name}` (sha256 {digest_file(data_path)[:12]}…): {len(reference):,} rows in "
        f"{reference['group'].nunique()} conversations, each judged by models that have not seen "
        "its conversation: seed 0, 1 and 2 hold out folds 0, 1 and 2 of five. Log loss in nats, "
        "with 95 % intervals by bootstrap over conversations. Judges that read tokens learn from "
        f"{n_tokens:,} of them, 256 a row, with all-MiniLM-L6-v2 as their backbone; the others "
        "learn from every row.",
        "",
        "    python -m benchmarks.quality fit ../shared/data/human_votes.csv --work quality",
        "    python -m benchmarks.quality fit ../shared/data/human_votes.csv --work quality "
        "--judges recipe --seeds 3 4",
        "    python -m benchmarks.quality table ../shared/data/human_votes.csv --work quality "
        "--out benchmarks/quality.md",
        "",
        f"| {' | '.join(head)} |",
        f"|{' --- |'}{' ---: |' * 3}{' --- |' * 5}",
    ]


def explain() -> list[str]:
    """Return the page's end."""
    return [
        "",
        "The one comparison that was planned is the recipe with the notebook's way; its p stands "
        "as it is. The others' are corrected by Holm's rule, all together. *Rows*, *tokens* and "
        "*CPU minutes* (the judging of the rows held out included) are means over the seeds. A "
        "judge's definition stands in `benchmarks/quality_judges.py` under its name.",
    ]
