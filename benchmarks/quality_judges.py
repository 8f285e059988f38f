"""The judges that `benchmarks.quality` compares.

Judges that read tokens have all-MiniLM-L6-v2 as their backbone and at most 256 tokens per row; they
are trained on rows in a seeded order until the tokens, counted in every order and epoch, reach the
budget. The others count features of every row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.peers import fit_pairjudge
from tiewise.config import RunConfig, load_preset, override
from tiewise.data.folds import fold_by_group, split
from tiewise.data.formats import read_pairs
from tiewise.data.labels import PROB_COLUMNS
from tiewise.data.targets import mark_no_tie_rows
from tiewise.evaluation.references import predict_class_prior, predict_length_only
from tiewise.features.feature_model import fit_feature_model
from tiewise.files import read_json
from tiewise.runs.fold_lock import FoldTask
from tiewise.runs.folder import FoldFolder
from tiewise.runs.training_rows import find_leaking_rows
from tiewise.tokens.rows import token_rows
from tiewise.training.fit import fit_fold
from tiewise.training.steps import open_backbone

N_SPLITS = 5
MAIN = "main"
"""Name of the way to predict that a judge's line in the table shows."""
N_TOKENS = 100_000
"""Number of training tokens of each judge."""
DECISIVE = "lmsys_decisive.csv"
"""File of votes without ties, in the folder of the data."""


@dataclass(frozen=True)
class Task:
    """Input of a judge: training rows, held-out rows, a seed, and folders for its files."""

    train: pd.DataFrame
    held_out: pd.DataFrame
    seed: int
    folder: Path
    cache_dir: Path
    data_path: Path


@dataclass(frozen=True)
class Outcome:
    """Output of a judge: probabilities of the held-out rows, by the name of the way to predict."""

    probs: dict[str, np.ndarray]
    n_rows: int
    n_tokens: int


Fit = Callable[[Task], Outcome]


# ---- judges that count ----------------------------------------------------------------------


def simple(predict: Callable[[pd.DataFrame, pd.DataFrame], np.ndarray]) -> Fit:
    """Return the judge that is a function of the training rows and the held-out rows."""
    return lambda task: Outcome({MAIN: predict(task.train, task.held_out)}, len(task.train), 0)


def fit_features(task: Task) -> Outcome:
    """Fit the feature model."""
    probs = fit_feature_model(task.train, seed=task.seed).predict(task.held_out)
    return Outcome({MAIN: probs}, len(task.train), 0)


def fit_with_decisive(task: Task, *, teaches_ties: bool) -> Outcome:
    """Fit the feature model with arena votes added, none from a held-out prompt group."""
    extra = read_pairs(task.data_path.with_name(DECISIVE)).assign(source=DECISIVE)
    in_one_fold = np.zeros(len(task.held_out), dtype=int)
    is_leaking = find_leaking_rows(task.held_out, in_one_fold, extra, 1)[:, 0]
    train = pd.concat([task.train, extra[~is_leaking]], ignore_index=True)
    train = mark_no_tie_rows(train, [] if teaches_ties else [DECISIVE])
    probs = fit_feature_model(train, seed=task.seed).predict(task.held_out)
    return Outcome({MAIN: probs}, len(train), 0)


# ---- judges that read tokens ----------------------------------------------------------------


def adapted(config: RunConfig) -> Fit:
    """Return the judge that a configuration describes."""
    return lambda task: fit_configured(config, task)


def fit_configured(config: RunConfig, task: Task) -> Outcome:
    """Fit on as many rows as the budget of tokens allows."""
    config = replace(config, train=replace(config.train, seed=task.seed, device="cpu"))
    backbone = open_backbone(config, task.cache_dir)
    drawn = task.train.sample(frac=1, random_state=task.seed)
    rows = token_rows(drawn, backbone.tokenizer, backbone.template, cache_dir=task.cache_dir)
    n_passes = config.train.n_epochs * (2 if config.train.both_orders else 1)
    seen = np.cumsum(rows.lengths) * n_passes
    n_rows = int(np.searchsorted(seen, N_TOKENS, side="right"))
    fold = FoldTask(FoldFolder(task.folder), task.seed, "", task.cache_dir)
    table = fit_fold(config, drawn.iloc[:n_rows], task.held_out, fold)
    assert table is not None
    probs = {MAIN: table[PROB_COLUMNS].to_numpy()}
    if "prob_a_given" in table:
        probs["one order"] = table[[f"{name}_given" for name in PROB_COLUMNS]].to_numpy()
    return Outcome(probs, n_rows, int(seen[n_rows - 1]))


def fit_taught(task: Task) -> Outcome:
    """Fit the recipe to out-of-fold probabilities of the feature model in place of the votes."""
    folds = fold_by_group(task.train["group"], task.train["label"], N_SPLITS)
    taught_probs = np.empty((len(task.train), 3))
    for fold in range(N_SPLITS):
        train_idx, eval_idx = split(folds, fold)
        teacher = fit_feature_model(task.train.iloc[train_idx], seed=task.seed)
        taught_probs[eval_idx] = teacher.predict(task.train.iloc[eval_idx])
    taught = task.train.assign(**dict(zip(PROB_COLUMNS, taught_probs.T, strict=True)))
    return fit_configured(recipe(), replace(task, train=taught))


def fit_several(task: Task) -> Outcome:
    """Fit the recipe on two more draws and average the three predictions."""
    parts = [read_outcome(task, "recipe")]
    for k in (1, 2):
        part = replace(task, seed=task.seed + N_SPLITS * k, folder=task.folder / str(k))
        parts.append(fit_configured(recipe(), part))
    probs = {MAIN: np.mean([part.probs[MAIN] for part in parts], axis=0)}
    return Outcome(probs, sum(part.n_rows for part in parts), sum(part.n_tokens for part in parts))


def read_outcome(task: Task, name: str) -> Outcome:
    """Return the stored outcome of another judge for the same rows."""
    folder = task.folder.with_name(f"{name}-{task.seed}")
    about = read_json(folder / "about.json")
    probs = pd.read_parquet(folder / f"{MAIN}.parquet")[PROB_COLUMNS].to_numpy()
    return Outcome({MAIN: probs}, about["rows"], about["tokens"])


def recipe(**changes: object) -> RunConfig:
    """Return the recipe, the preset `quickstart`, with some fields changed."""
    return override(load_preset("quickstart"), **changes)


LORA = {"tuning": "lora", "lora_r": 16, "lora_alpha": 32.0, "learning_rate": 1e-3}
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
JUDGES: dict[str, Fit] = {
    "class prior": simple(predict_class_prior),
    "length only": simple(predict_length_only),
    "notebook": adapted(recipe(**NOTEBOOK)),
    "recipe": adapted(recipe()),
    "pairjudge": lambda task: Outcome(*fit_pairjudge(task, N_TOKENS, learning_rate=2e-4)),
    "notebook at 1e-3": adapted(recipe(**{**NOTEBOOK, "learning_rate": 1e-3})),
    "recipe taught by the baseline": fit_taught,
    "recipe with one order a step": adapted(recipe(both_orders=False)),
    "recipe with a linear head": adapted(recipe(head="linear")),
    "recipe with LoRA": adapted(recipe(**LORA)),
    "baseline": fit_features,
    "baseline with Arena votes": lambda task: fit_with_decisive(task, teaches_ties=False),
    "baseline with Arena votes as no ties": lambda task: fit_with_decisive(task, teaches_ties=True),
}
"""Judges of the first page."""
LEVERS: dict[str, Fit] = {
    "pairjudge at 1e-3": lambda task: Outcome(*fit_pairjudge(task, N_TOKENS, learning_rate=1e-3)),
    "recipe cut on the right": adapted(recipe(truncation="right")),
    "recipe with 128 tokens a row": adapted(recipe(max_length=128)),
    "recipe with two passes": adapted(recipe(n_epochs=2)),
    "recipe, three fits averaged": fit_several,
}
"""Options of the second page, each compared with the recipe."""
