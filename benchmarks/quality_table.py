"""The page about quality: what was read, what it gave, and how sure that is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tiewise.files import digest_file, write_bytes
from tiewise.paired import PairedDifference, compare_many
from tiewise.scores import evaluate

PROBS = ["prob_a", "prob_b", "prob_tie"]
REFERENCE, PRIMARY = "notebook", "recipe"


def render(data_path: Path, work: Path, out: Path | None, *, n_tokens: int) -> None:
    """Print the page, and write it where asked."""
    abouts = [json.loads(path.read_bytes()) for path in sorted(work.glob("*/about.json"))]
    if {about["data"] for about in abouts} - {digest_file(data_path)}:
        raise SystemExit(f"{work} holds judges of other data than {data_path}.")
    tables = read_tables(work, abouts)
    reference = tables[REFERENCE]
    tables["uniform"] = reference.assign(**dict.fromkeys(PROBS, 1 / 3))
    differences = compare(tables, reference)
    lines = [
        describe(name, table, abouts, differences.get(name))
        for name, table in sorted(tables.items(), key=lambda item: -log_loss(item[1]))
    ]
    page = "\n".join([*introduce(data_path, reference, n_tokens), *lines, *explain(), ""])
    print(page)
    if out is not None:
        write_bytes(out, page.encode())


def read_tables(work: Path, abouts: list[dict[str, Any]]) -> dict[str, pd.DataFrame]:
    """Join each judge's predictions over the seeds; only judges that were fitted with all."""
    n_seeds = len({about["seed"] for about in abouts})
    tables = {}
    for name in sorted({about["judge"] for about in abouts}):
        own = [about for about in abouts if about["judge"] == name]
        if len(own) < n_seeds:
            print(f"{name}: left out, fitted with {len(own)} of {n_seeds} seeds")
            continue
        for way in own[0]["ways"]:
            folders = [work / f"{name.replace(' ', '_')}-{about['seed']}" for about in own]
            parts = [pd.read_parquet(folder / f"{way}.parquet") for folder in folders]
            title = name if way == "main" else f"{name}, {way}"
            tables[title] = pd.concat(parts, ignore_index=True)
    return tables


def compare(
    tables: dict[str, pd.DataFrame], reference: pd.DataFrame
) -> dict[str, PairedDifference]:
    """Hold every judge against the reference: one comparison alone, the rest under Holm's rule."""
    rest = {name: table for name, table in tables.items() if name not in (REFERENCE, PRIMARY)}
    alone = compare_many({PRIMARY: tables[PRIMARY]}, reference).overall
    return {row.run: row for row in (*alone, *compare_many(rest, reference).overall)}


def describe(
    name: str,
    table: pd.DataFrame,
    abouts: list[dict[str, Any]],
    difference: PairedDifference | None,
) -> str:
    """Return a judge's line."""
    own = [about for about in abouts if about["judge"] == name.split(", ", maxsplit=1)[0]]
    scores = evaluate(table["label"], table[PROBS], groups=table["group"])
    cells = [name, mean(own, "rows"), mean(own, "tokens"), mean(own, "cpu_minutes", 1)]
    cells += [f"{scores.log_loss:.4f}", f"{scores.accuracy:.3f}"]
    if difference is None:
        cells += ["–", "–"]
    else:
        cells += [f"{difference.log_loss:+.4f}", f"{difference.p_holm:.3f}"]
    return f"| {' | '.join(cells)} |"


def mean(abouts: list[dict[str, Any]], name: str, n_digits: int = 0) -> str:
    """Return the mean over the seeds, or a dash where there is nothing to count."""
    value = np.mean([about[name] for about in abouts]) if abouts else 0
    return f"{value:,.{n_digits}f}" if value else "–"


def log_loss(table: pd.DataFrame) -> float:
    """Return the mean log loss of a table of predictions."""
    chosen = table[PROBS].to_numpy()[np.arange(len(table)), table["label"].to_numpy(int)]
    return float(-np.log(chosen).mean())


def introduce(data_path: Path, reference: pd.DataFrame, n_tokens: int) -> list[str]:
    """Return the page's beginning, down to the table's head."""
    head = ["judge", "rows", "tokens", "CPU minutes", "log loss", "accuracy"]
    head += ["minus the notebook's way", "p"]
    return [
        "# Judges of real votes at the same compute",
        "",
        f"`{data_path.name}` (sha256 {digest_file(data_path)[:12]}…): {len(reference):,} rows in "
        f"{reference['group'].nunique()} conversations, each judged by models that have not seen "
        "its conversation: seed 0, 1 and 2 hold out folds 0, 1 and 2 of five. Log loss in nats, "
        "with 95 % intervals by bootstrap over conversations. Judges that read tokens learn from "
        f"{n_tokens:,} of them, 256 a row, with all-MiniLM-L6-v2 as their backbone.",
        "",
        "    python -m benchmarks.quality fit ../shared/data/human_votes.csv --work quality",
        "    python -m benchmarks.quality table ../shared/data/human_votes.csv --work quality "
        "--out benchmarks/quality.md",
        "",
        f"| {' | '.join(head)} |",
        f"|{' --- |' * 2}{' ---: |' * 2}{' --- |' * 4}",
    ]


def explain() -> list[str]:
    """Return the page's end."""
    return [
        "",
        "The one comparison that was planned is the recipe with the notebook's way; its p stands "
        "as it is. The others' are corrected by Holm's rule, all together. *Rows*, *tokens* and "
        "*minutes* are means over the seeds.",
    ]
