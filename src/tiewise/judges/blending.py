"""Blends of runs: weights fitted out of fold, and a run folder that reports them out of fold.

A blend is a run whose backbone is `blend`. Its members' out-of-fold predictions are mixed
(:mod:`tiewise.judges.mixture`); each row is mixed with weights fitted on other conversations,
so its scores are of rows that neither the members nor the weights have seen. For new rows the
weights are those fitted on all rows.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import log_softmax

from tiewise.config import BLEND, ModelConfig, RunConfig
from tiewise.data.folds import fold_by_group, split
from tiewise.data.labels import LOGIT_COLUMNS, PROB_COLUMNS
from tiewise.errors import RunError
from tiewise.evaluation.paired import PairedDifferences
from tiewise.evaluation.references import RunScores
from tiewise.files import digest_json
from tiewise.judges.comparison import compare_runs, read_shared
from tiewise.judges.mixture import Mixture, fit_weights, mix
from tiewise.judges.prediction_stats import add_costs
from tiewise.runs.fold_lock import check_fingerprint, lock_fold
from tiewise.runs.folder import RunFolder, open_run, start_run
from tiewise.runs.references import score_finished_folds
from tiewise.runs.tables import (
    digest_predictions,
    pairs_digest,
    read_data,
    read_folds,
    read_oof,
    save_data,
    save_folds,
    save_scored,
    table_logits,
)

_KNOWN = ["id", "fold", "label", "group"]


@dataclass(frozen=True)
class Blend:
    """A blend that was written.

    run
        Its folder.
    mixture
        The weights fitted on all rows, which new rows get.
    fold_weights
        The weights each fold's rows were mixed with, fitted without them.
    scores
        Out of fold, beside the references.
    against
        The blend compared with each member.
    n_left_out
        Rows of each member that another member has not predicted.
    """

    run: RunFolder
    mixture: Mixture
    fold_weights: tuple[tuple[float, ...], ...]
    scores: RunScores
    against: tuple[PairedDifferences, ...]
    n_left_out: dict[str, int]

    def to_dict(self) -> dict[str, Any]:
        """Return the blend as JSON can hold it."""
        about = {"run": self.run.name, "path": str(self.run.path), "n_left_out": self.n_left_out}
        weights = {
            "weights": dict(zip(self.mixture.members, self.mixture.weights, strict=True)),
            "fold_weights": [list(weights) for weights in self.fold_weights],
        }
        against = {"against": [comparison.to_dict() for comparison in self.against]}
        return about | weights | against | self.scores.to_dict()

    def __str__(self) -> str:
        spread = np.asarray(self.fold_weights)
        lines = [
            f"{name}: weight {weight:.3f} ({low:.3f} to {high:.3f} over the folds)"
            for name, weight, low, high in zip(
                *(self.mixture.members, self.mixture.weights, spread.min(0), spread.max(0)),
                strict=True,
            )
        ]
        left_out = [f"{name}: {n} rows left out" for name, n in self.n_left_out.items() if n]
        return "\n".join([*lines, *left_out, str(self.scores), *map(str, self.against)])


def blend_runs(
    runs: Sequence[RunFolder], artifacts_dir: Path, *, name: str | None = None, overwrite: bool
) -> Blend:
    """Fit a blend's weights, and write it as a run.

    Parameters
    ----------
    runs
        At least two, below `artifacts_dir`, that have predicted the same rows.
    artifacts_dir
        Where the blend's folder goes.
    name
        Of the blend; made from time and configuration when None.
    overwrite
        Replace a blend of that name.

    Raises
    ------
    RunError
        When there are fewer than two runs, they share no rows or disagree about labels, or
        something other than this blend has its name.
    FoldError
        When the shared rows come from fewer conversations than there are folds.
    """
    _check_members(runs, artifacts_dir, name)
    tables = read_shared(runs)
    log_probs = np.stack([log_softmax(table_logits(table), axis=1) for table in tables])
    known = _deal_anew(runs[0], tables[0])
    config = _describe(runs)
    if overwrite and name is not None:
        _remove_blend(name, artifacts_dir)
    run = start_run(artifacts_dir, config, name=name)
    save_folds(run, known)
    save_data(run, _describe_data(runs, len(known)))
    known = add_costs(known, tables)
    weights = [_write_fold(run, runs, known, log_probs, k) for k in range(config.data.n_splits)]
    is_labelled = known["label"].notna().to_numpy()
    final = _fit(known, log_probs, is_labelled)
    mixture = Mixture(tuple(each.name for each in runs), tuple(final.tolist()))
    mixture.save(run.mixture_path)
    return Blend(
        run,
        mixture,
        tuple(tuple(part.tolist()) for part in weights),
        score_finished_folds(run),
        tuple(compare_runs(run, member) for member in runs),
        {member.name: _count_rows(member) - len(known) for member in runs},
    )


def _check_members(runs: Sequence[RunFolder], artifacts_dir: Path, name: str | None) -> None:
    names = [run.name for run in runs]
    if name in names:
        raise RunError(f"A blend cannot be its own member: take another --run than {name}.")
    if len(set(names)) < 2 or len(set(names)) < len(names):
        raise RunError(f"A blend needs two or more different runs, not {', '.join(names)}.")
    runs_dir = (artifacts_dir / "runs").resolve()
    for run in runs:
        if run.path.resolve().parent != runs_dir:
            raise RunError(
                f"{run.path} is not below {runs_dir}: a blend stands beside its members."
            )


def _deal_anew(first: RunFolder, table: pd.DataFrame) -> pd.DataFrame:
    """Return the folds of the shared rows, whole conversations, as the first run would deal."""
    folds = read_folds(first).set_index("id").loc[table["id"]].reset_index()
    data = first.config.data
    dealt = fold_by_group(folds["group"], folds["label"], data.n_splits, seed=data.data_seed)
    return folds.assign(fold=dealt)


def _describe(runs: Sequence[RunFolder]) -> RunConfig:
    first = runs[0].config
    is_symmetric = all(run.config.predict.swap for run in runs)
    return RunConfig(
        data=replace(first.data, fold_rule="group"),
        model=ModelConfig(backbone=BLEND),
        predict=replace(first.predict, swap=is_symmetric),
    )


def _describe_data(runs: Sequence[RunFolder], n_rows: int) -> dict[str, Any]:
    data = [read_data(run) for run in runs]
    digests = [pairs_digest(part) for part in data]
    counts = {f"n_left_out_{run.name}": _count_rows(run) - n_rows for run in runs}
    return {
        "digest": digests[0] if len(set(digests)) == 1 else digest_json(digests),
        "sources": data[0].get("sources", []),
        "counts": {"n_read": n_rows} | counts,
    }


def _write_fold(
    run: RunFolder, members: Sequence[RunFolder], known: pd.DataFrame, log_probs: Any, fold: int
) -> Any:
    """Mix the rows of one fold with weights fitted on the others; return the weights."""
    train_idx, eval_idx = split(known["fold"].to_numpy(), fold)
    is_fitted = np.isin(np.arange(len(known)), train_idx) & known["label"].notna().to_numpy()
    weights = _fit(known, log_probs, is_fitted)
    mixed = mix(log_probs[:, eval_idx], weights)
    costs = [name for name in ("n_tokens", "n_truncated") if name in known]
    oof = known.iloc[eval_idx][[*_KNOWN, *costs]].reset_index(drop=True)
    oof[PROB_COLUMNS] = np.exp(mixed)
    oof[LOGIT_COLUMNS] = mixed
    folder = run.fold(fold)
    identity = {
        "members": digest_predictions(members),
        "data": read_data(run)["digest"],
        "fold": fold,
    }
    with lock_fold(folder):
        check_fingerprint(folder, identity, resume=False)
        mixture = Mixture(tuple(member.name for member in members), tuple(weights.tolist()))
        mixture.save(folder.adapter_dir / run.mixture_path.name)
        save_scored(folder, oof, {"n": len(oof)})
    return weights


def _fit(known: pd.DataFrame, log_probs: Any, is_fitted: Any) -> Any:
    labels = known["label"][is_fitted].to_numpy(np.int64)
    return fit_weights(labels, log_probs[:, is_fitted])


def _remove_blend(name: str, artifacts_dir: Path) -> None:
    path = artifacts_dir / "runs" / name
    with contextlib.suppress(RunError):
        existing = open_run(path, artifacts_dir)
        if existing.config.model.backbone == BLEND:
            shutil.rmtree(path)


def _count_rows(run: RunFolder) -> int:
    return len(read_oof(run))
