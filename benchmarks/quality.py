r"""Comparison of judges on real votes.

    python -m benchmarks.quality fit ../shared/data/human_votes.csv --work quality
    python -m benchmarks.quality table ../shared/data/human_votes.csv --work quality \
        --out benchmarks/quality.md

Seed s holds out fold s of the five grouped folds and draws everything with s. The table has the
seeds 0, 1 and 2 (or `--seeds`), whose held-out sets share no prompt group and are scored together.
`fit` skips what the work folder already has, so it can be interrupted, and `--judges` names the
judges to fit; by default all but those of `ON_REQUEST`.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import pandas as pd

from benchmarks.quality_judges import JUDGES, N_SPLITS, ON_REQUEST, Task
from benchmarks.quality_table import SEEDS, render
from tiewise.data.folds import fold_by_group, split
from tiewise.data.formats import read_pairs
from tiewise.data.labels import PROB_COLUMNS
from tiewise.data.pairs import text_lengths
from tiewise.files import digest_file, write_bytes, write_json, write_parquet


def main() -> None:
    """Parse the arguments; fit, or print and write a page."""
    parser = argparse.ArgumentParser(prog="quality", description=__doc__)
    parser.add_argument("action", choices=["fit", "table"])
    parser.add_argument("data", type=Path)
    parser.add_argument("--work", type=Path, required=True, help="folder of the fits")
    parser.add_argument("--out", type=Path, help="write the page to this markdown file")
    parser.add_argument(
        "--judges",
        nargs="*",
        help="fit only these",
        default=[name for name in JUDGES if name not in ON_REQUEST],
        choices=JUDGES,
    )
    parser.add_argument("--seeds", nargs="*", type=int, default=SEEDS, choices=range(N_SPLITS))
    arguments = parser.parse_args()
    if arguments.action == "fit":
        fit_all(arguments)
        return
    page = render(arguments.data, arguments.work, arguments.seeds)
    print(page)
    if arguments.out is not None:
        write_bytes(arguments.out, page.encode())


def fit_all(arguments: argparse.Namespace) -> None:
    """Fit the judges with every seed, except those that were fitted before."""
    pairs = read_pairs(arguments.data)
    pairs = pairs.join(text_lengths(pairs))
    folds = fold_by_group(pairs["group"], pairs["label"], N_SPLITS)
    for name in arguments.judges:
        for seed in arguments.seeds:
            folder = arguments.work / f"{name.replace(' ', '_')}-{seed}"
            if (folder / "about.json").is_file():
                continue
            train_idx, eval_idx = split(folds, seed)
            train, held_out = pairs.iloc[train_idx], pairs.iloc[eval_idx]
            task = Task(train, held_out, seed, folder, arguments.work / "cache", arguments.data)
            judge(name, task)


def judge(name: str, task: Task) -> None:
    """Fit one judge and store its predictions."""
    start, cpu = time.perf_counter(), time.process_time()
    outcome = JUDGES[name](task)
    known = task.held_out[["id", "label", "group", "source"]].reset_index(drop=True)
    for way, probs in outcome.probs.items():
        table = pd.concat([known, pd.DataFrame(probs, columns=PROB_COLUMNS)], axis=1)
        write_parquet(task.folder / f"{way}.parquet", table)
    about = {
        "judge": name,
        "seed": task.seed,
        "ways": list(outcome.probs),
        "rows": outcome.n_rows,
        "tokens": outcome.n_tokens,
        "minutes": (time.perf_counter() - start) / 60,
        "cpu_minutes": (time.process_time() - cpu) / 60,
        "data": digest_file(task.data_path),
    }
    write_json(task.folder / "about.json", about)
    print(json.dumps(about), flush=True)


if __name__ == "__main__":
    main()
