"""Finished run folders of simulated pairs, written without a fit.

The predictions are the true probabilities with noise and a position bias, so that no figure of a
report is empty.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tiewise.config import load_preset
from tiewise.crossfit import cross_fit
from tiewise.data.folds import fold_by_group
from tiewise.data.pairs import text_lengths
from tiewise.data.simulation.simulate import BAYES_COLUMNS, simulate, write_simulation
from tiewise.evaluation.references import evaluate_tables
from tiewise.features import binary_models
from tiewise.files import write_json
from tiewise.runs.folder import RunFolder, start_run
from tiewise.runs.references import score_finished_folds
from tiewise.runs.tables import save_data, save_folds, save_scored

N_SPLITS = 5
OUTCOMES = ("a", "b", "tie")
LEAD_OF_FIRST = 0.2


def simulated_tables(n: int, *, seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Return pairs, folds and out-of-fold predictions in both orders."""
    pairs = simulate(n, seed=seed)
    generator = np.random.default_rng(seed)
    labels = pairs["label"].to_numpy(int)
    table = pairs[["id", "label", "group"]].copy()
    table.insert(1, "fold", fold_by_group(pairs["group"].to_numpy(), labels, N_SPLITS))
    folds = pd.concat([table, text_lengths(pairs)], axis=1)
    truth = np.log(pairs[BAYES_COLUMNS].to_numpy() + 1e-3)
    given, swapped = (
        _softmax(truth * 0.8 + generator.normal(0, 0.5, truth.shape) + sign * _lead())
        for sign in (1, -1)
    )
    oof = table[["id", "fold", "label", "group"]].copy()
    for k, name in enumerate(OUTCOMES):
        oof[f"prob_{name}"] = (given[:, k] + swapped[:, k]) / 2
        oof[f"logit_{name}"] = np.log(oof[f"prob_{name}"])
        oof[f"prob_{name}_given"], oof[f"prob_{name}_swapped"] = given[:, k], swapped[:, k]
    oof["n_tokens"] = generator.integers(50, 300, n)
    oof["n_truncated"] = np.where(generator.random(n) < 0.1, 40, 0)
    oof["is_degenerate"] = False
    return pairs, folds, oof


def simulated_run(
    artifacts_dir: Path, n: int = 300, *, preset: str = "quickstart", seed: int = 0
) -> tuple[RunFolder, pd.DataFrame]:
    """Write a finished run and return it with its pairs; the feature model has no history."""
    pairs, folds, oof = simulated_tables(n, seed=seed)
    return write_run(artifacts_dir, folds, oof, preset=preset), pairs


def write_run(
    artifacts_dir: Path,
    folds: pd.DataFrame,
    oof: pd.DataFrame,
    *,
    name: str = "simulated",
    preset: str = "quickstart",
    is_scored: bool = True,
    digest: str = "d" * 64,
) -> RunFolder:
    """Write a finished run with these predictions; computing the scores takes a second."""
    run = start_run(artifacts_dir, load_preset(preset), name=name)
    is_baseline = preset == "baseline"
    if is_baseline:  # symmetric by construction: one order is enough
        oof = oof[[name for name in oof if not name.endswith(("_given", "_swapped"))]]
    save_folds(run, folds)
    source = f"simulated.csv {'d' * 64}"
    save_data(run, {"digest": digest, "sources": [source], "counts": {"n_read": len(folds)}})
    save_scored(run, oof, evaluate_tables(oof, folds).to_dict() if is_scored else {})
    for fold in range(N_SPLITS):
        write_fold(run, fold, oof[oof["fold"] == fold], has_history=not is_baseline)
    return run


def fit_small(artifacts_dir: Path, name: str, *, seed: int = 0) -> RunFolder:
    """Fit the feature model, with few trees, to a few simulated pairs, all folds."""
    path = artifacts_dir / "pairs.csv"
    if not path.is_file():
        write_simulation(simulate(150, seed=3), path)
    config = load_preset("baseline")
    config = replace(
        config,
        data=replace(config.data, data=(str(path),), n_splits=2),
        train=replace(config.train, seed=seed),
    )
    folds = list(range(config.data.n_splits))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(binary_models, "_MAX_TREES", min(10, binary_models._MAX_TREES))
        run, _ = cross_fit(config, folds, artifacts_dir, name=name)
    score_finished_folds(run)
    return run


def write_fold(run: RunFolder, fold: int, oof: pd.DataFrame, *, has_history: bool = True) -> None:
    """Write the files of one finished fold."""
    folder = run.fold(fold)
    digests = {name: name[0] * 64 for name in ("data", "backbone", "template")}
    write_json(folder.fingerprint_path, {**digests, "fold": fold})
    if has_history:
        folder.history_path.write_text("".join(f"{line}\n" for line in _history(fold)))
    save_scored(folder, oof, {"n": len(oof)})


def _history(seed: int) -> list[str]:
    generator = np.random.default_rng(seed)
    steps = np.arange(5, 200, 5)
    loss = 1.1 * np.exp(-steps / 300) + generator.normal(0, 0.05, len(steps))
    fixed = {"grad_norm": 1.0, "learning_rate": 1e-4, "rows": 80, "tokens": 9_000}
    pieces = zip(steps.tolist(), loss.tolist(), strict=True)
    return [json.dumps({"step": step, "loss": value, **fixed}) for step, value in pieces]


def _lead() -> np.ndarray:
    return np.array([LEAD_OF_FIRST, -LEAD_OF_FIRST, 0.0])


def _softmax(logits: np.ndarray) -> np.ndarray:
    odds = np.exp(logits)
    return odds / odds.sum(axis=1, keepdims=True)
