"""Who predicts best at the same compute: judges on real votes, each given the same tokens.

    python benchmarks/quality.py fit ../shared/data/human_votes.csv --work quality
    python benchmarks/quality.py table ../shared/data/human_votes.csv --work quality \
        --out benchmarks/quality.md

Three seeds. Seed s holds out fold s of the five grouped folds, and draws what is drawn with s, so
the three sets held out share no conversation and together are judged once. Judges that read tokens
have all-MiniLM-L6-v2 as their backbone, 256 tokens a row, and rows in a seeded order until their
tokens, counted in every order and pass, reach the budget. `fit` skips what it finds in the work
folder, and takes names of judges to fit only those.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.peers import fit_pairjudge
from benchmarks.quality_table import render
from tiewise.baseline import fit_baseline
from tiewise.config import RunConfig, load_preset
from tiewise.files import digest_file, write_json, write_parquet
from tiewise.fit import fit_fold, open_backbone
from tiewise.folds import fold_by_group, split
from tiewise.formats import read_pairs
from tiewise.pairs import text_lengths
from tiewise.reference_models import predict_class_prior, predict_length_only
from tiewise.runs import FoldFolder, FoldTask
from tiewise.tokens import token_rows

PROBS = ["prob_a", "prob_b", "prob_tie"]
N_SPLITS = 5
MAIN = "main"
"""The way of reading a judge that its line in the table is about."""
N_TOKENS = 100_000
"""What a judge may read while it learns."""


@dataclass(frozen=True)
class Task:
    """What a judge gets: rows to learn from, rows to predict, a seed, and room for its files."""

    train: pd.DataFrame
    held_out: pd.DataFrame
    seed: int
    folder: Path
    cache_dir: Path


@dataclass(frozen=True)
class Outcome:
    """What a judge gives: probabilities of the rows held out, by name of the way they are read."""

    probs: dict[str, np.ndarray]
    n_rows: int
    n_tokens: int


Judge = Callable[[Task], Outcome]


def main() -> None:
    """Parse the arguments; fit, or print and write the table."""
    parser = argparse.ArgumentParser(prog="quality", description=__doc__)
    parser.add_argument("action", choices=["fit", "table"])
    parser.add_argument("data", type=Path)
    parser.add_argument("--work", type=Path, required=True, help="folder of what was fitted")
    parser.add_argument("--out", type=Path, help="write the table to this markdown file")
    parser.add_argument("--judges", nargs="*", help="fit only these", default=list(JUDGES))
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    arguments = parser.parse_args()
    if arguments.action == "fit":
        fit_all(arguments)
    else:
        render(arguments.data, arguments.work, arguments.out, n_tokens=N_TOKENS)


def fit_all(arguments: argparse.Namespace) -> None:
    """Fit every judge with every seed, but those that were fitted before."""
    pairs = read_pairs(arguments.data)
    pairs = pairs.join(text_lengths(pairs))
    folds = fold_by_group(pairs["group"], pairs["label"], N_SPLITS)
    for seed in arguments.seeds:
        train_idx, eval_idx = split(folds, seed)
        for name in arguments.judges:
            folder = arguments.work / f"{name.replace(' ', '_')}-{seed}"
            if (folder / "about.json").is_file():
                continue
            train, held_out = pairs.iloc[train_idx], pairs.iloc[eval_idx]
            task = Task(train, held_out, seed, folder, arguments.work / "cache")
            judge(name, task, data_digest=digest_file(arguments.data))


def judge(name: str, task: Task, *, data_digest: str) -> None:
    """Fit one judge and keep its predictions."""
    start, cpu = time.perf_counter(), time.process_time()
    outcome = JUDGES[name](task)
    known = task.held_out[["id", "label", "group", "source"]].reset_index(drop=True)
    for way, probs in outcome.probs.items():
        table = pd.concat([known, pd.DataFrame(probs, columns=PROBS)], axis=1)
        write_parquet(task.folder / f"{way}.parquet", table)
    about = {
        "judge": name,
        "seed": task.seed,
        "ways": list(outcome.probs),
        "rows": outcome.n_rows,
        "tokens": outcome.n_tokens,
        "minutes": (time.perf_counter() - start) / 60,
        "cpu_minutes": (time.process_time() - cpu) / 60,
        "data": data_digest,
    }
    write_json(task.folder / "about.json", about)
    print(json.dumps(about), flush=True)


# ---- judges that read no tokens -------------------------------------------------------------


def simple(predict: Callable[[pd.DataFrame, pd.DataFrame], np.ndarray]) -> Judge:
    """Return a judge that is one function of the rows to learn from and those to predict."""
    return lambda task: Outcome({MAIN: predict(task.train, task.held_out)}, len(task.train), 0)


def fit_features(task: Task) -> Outcome:
    """Fit the CPU-class model."""
    probs = fit_baseline(task.train, seed=task.seed).predict(task.held_out)
    return Outcome({MAIN: probs}, len(task.train), 0)


# ---- judges that do -------------------------------------------------------------------------


def adapted(config: RunConfig) -> Judge:
    """Return a judge that a configuration of this package describes."""
    return lambda task: fit_configured(config, task)


def fit_configured(config: RunConfig, task: Task) -> Outcome:
    """Fit through the package, on as many rows as the budget of tokens allows."""
    config = replace(config, train=replace(config.train, seed=task.seed, device="cpu"))
    backbone = open_backbone(config, task.cache_dir)
    drawn = task.train.sample(frac=1, random_state=task.seed)
    rows = token_rows(drawn, backbone.tokenizer, backbone.template, cache_dir=task.cache_dir)
    seen = np.cumsum(rows.lengths) * (2 if config.train.both_orders else 1)
    n_rows = int(np.searchsorted(seen, N_TOKENS, side="right"))
    fold = FoldTask(FoldFolder(task.folder), task.seed, "", task.cache_dir)
    table = fit_fold(config, drawn.iloc[:n_rows], task.held_out, fold)
    assert table is not None
    probs = {MAIN: table[PROBS].to_numpy()}
    if "prob_a_given" in table:
        probs["one order"] = table[[f"{name}_given" for name in PROBS]].to_numpy()
    return Outcome(probs, n_rows, int(seen[n_rows - 1]))


def recipe(**changes: object) -> RunConfig:
    """Return the recipe for a backbone this small: the preset `quickstart`, changed here and there.

    A change is a field's name; which section it belongs to follows from the name.
    """
    config = load_preset("quickstart")
    for section in ("template", "model", "train", "predict"):
        part = getattr(config, section)
        own = {name: value for name, value in changes.items() if hasattr(part, name)}
        config = replace(config, **{section: replace(part, **own)})
    return config


LORA = {"tuning": "lora", "lora_r": 16, "lora_alpha": 32.0}
NOTEBOOK = {
    **LORA,
    "template": "notebook",
    "truncation": "right",
    "lora_dropout": 0.05,
    "lora_targets": ("query", "key", "value"),
    "n_frozen_layers": 2,  # of 6, as 16 of 42
    "head": "linear",
    "both_orders": False,
    "learning_rate": 2e-4,
    "head_learning_rate": None,
    "weight_decay": 0.0,
    "n_warmup_steps": 20,
    "swap": False,
}
JUDGES: dict[str, Judge] = {
    "class prior": simple(predict_class_prior),
    "length only": simple(predict_length_only),
    "baseline": fit_features,
    "notebook": adapted(recipe(**NOTEBOOK)),
    "notebook at 1e-3": adapted(recipe(**{**NOTEBOOK, "learning_rate": 1e-3})),
    "recipe": adapted(recipe()),
    "recipe with one order a step": adapted(recipe(both_orders=False)),
    "recipe with a linear head": adapted(recipe(head="linear")),
    "recipe with LoRA": adapted(recipe(**LORA, learning_rate=1e-3)),
    "recipe cut on the right": adapted(recipe(truncation="right")),
    "pairjudge": lambda task: Outcome(*fit_pairjudge(task, N_TOKENS, learning_rate=2e-4)),
    "pairjudge at 1e-3": lambda task: Outcome(*fit_pairjudge(task, N_TOKENS, learning_rate=1e-3)),
}


if __name__ == "__main__":
    main()
