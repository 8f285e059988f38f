"""Blend the probabilities of several runs, with weights that are fitted out of fold.

A blend is a run with the backbone `blend`. It is a weighted sum of the log-probabilities of its
members, normalised. The weights are not negative and their sum is free: above one it sharpens,
below one it softens. Their prior is normal around equal shares with standard deviation 1, so that
few rows do not give a weak member a large weight.

The rows of each fold are mixed with weights fitted on the other folds, which are made of whole
prompt groups. New rows get the weights fitted on all rows. Mixing commutes with the swap of A and B
bit for bit.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.optimize import minimize
from scipy.special import log_softmax

from tiewise.config import BLEND, ModelConfig, RunConfig
from tiewise.data.folds import fold_by_group, split
from tiewise.data.labels import LOGIT_COLUMNS, PROB_COLUMNS
from tiewise.errors import RunError
from tiewise.evaluation.paired import PairedDifferences
from tiewise.evaluation.references import RunScores
from tiewise.files import digest_json, read_json, write_json
from tiewise.judges.labelled_predictions import compare_runs
from tiewise.runs.fold_lock import begin_fold, check_fingerprint, remove_folders
from tiewise.runs.folder import RunFolder, name_run, open_run
from tiewise.runs.references import score_finished_folds
from tiewise.runs.tables import (
    digest_predictions,
    drop_ties,
    has_ties,
    is_joined,
    pairs_digest,
    read_data,
    read_folds,
    read_oof,
    read_shared,
    save_data,
    save_folds,
    save_scored,
    table_logits,
)

Floats = npt.NDArray[np.float64]
_LARGEST_WEIGHT = 10.0


@dataclass(frozen=True)
class Mixture:
    """Names of the members of a blend, and a non-negative weight for each."""

    members: tuple[str, ...]
    weights: tuple[float, ...]

    def apply(self, logits: Sequence[npt.ArrayLike]) -> Floats:
        """Return log-probabilities, shape (n, 3), from the logits (n, 3) of each member.

        Examples
        --------
        >>> even = Mixture(("one", "two"), (0.5, 0.5))
        >>> np.exp(even.apply([np.log([[0.5, 0.25, 0.25]]), np.log([[0.25, 0.5, 0.25]])])).round(3)
        array([[0.369, 0.369, 0.261]])
        """
        log_probs = np.stack([log_softmax(part, axis=1) for part in logits])
        return mix(log_probs, np.asarray(self.weights))

    def save(self, path: Path) -> None:
        """Write members and weights as JSON."""
        write_json(path, asdict(self))


def load_mixture(path: Path) -> Mixture:
    """Read what `Mixture.save` wrote; RunError is raised when the file is missing or damaged."""
    try:
        values: dict[str, Any] = read_json(path)
        members, weights = tuple(values["members"]), tuple(map(float, values["weights"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{path} cannot be read: {error!r}. Blend the runs again.") from error
    if len(members) != len(weights) or not members:
        raise RunError(
            f"{path} has {len(weights)} weights for {len(members)} members; expected one for each. "
            "Blend the runs again."
        )
    return Mixture(members, weights)


def mix(log_probs: Floats, weights: Floats) -> Floats:
    """Return the log-probabilities (n, c) of a mixture of k members, given theirs (k, n, c)."""
    mixed = sum(w * part for w, part in zip(weights, log_probs, strict=True))
    return np.asarray(log_softmax(mixed, axis=1))


def fit_weights(labels: npt.NDArray[np.int64], log_probs: Floats) -> Floats:
    """Return the weights (k,) in [0, 10] that minimise log loss and the penalty of their prior.

    `labels` are in [0, c), shape (n,); `log_probs` are those of k members, shape (k, n, c).

    Examples
    --------
    >>> sure, vague = np.log([[[0.8, 0.1, 0.1]] * 5, [[0.4, 0.3, 0.3]] * 5])
    >>> weights = fit_weights(np.array([0, 0, 0, 0, 1]), np.stack([sure, vague]))
    >>> bool(weights[0] > 0.5)
    True
    """
    n_members = len(log_probs)
    share = 1 / n_members
    rows = np.arange(len(labels))
    chosen = log_probs[:, rows, labels]  # (k, n)

    def loss_and_gradient(weights: Floats) -> tuple[float, Floats]:
        mixed = mix(log_probs, weights)
        expected = (np.exp(mixed) * log_probs).sum(axis=2)
        pull = (weights - share) / len(labels)  # gradient of the prior's penalty per row
        loss = -mixed[rows, labels].mean() + pull @ (weights - share) / 2
        return float(loss), (expected - chosen).mean(axis=1) + pull

    found = minimize(
        loss_and_gradient,
        np.full(n_members, share),
        jac=True,
        method="L-BFGS-B",
        bounds=[(0.0, _LARGEST_WEIGHT)] * n_members,
        options={"ftol": 1e-13, "gtol": 1e-8, "maxiter": 500},
    )
    return np.asarray(found.x, dtype=np.float64)


def add_token_counts(table: pd.DataFrame, members: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Add to a blend's predictions the token counts of its members that are language models.

    ``n_tokens`` is the sum over members and orders, ``n_truncated`` the largest of the members.
    """
    tables = [member for member in members if "n_tokens" in member]
    if not tables:
        return table
    n_orders = [2 if "prob_a_swapped" in member else 1 for member in tables]
    n_tokens = [
        n * member["n_tokens"].to_numpy() for n, member in zip(n_orders, tables, strict=True)
    ]
    n_truncated = [member["n_truncated"].to_numpy() for member in tables if "n_truncated" in member]
    return table.assign(
        n_tokens=np.sum(n_tokens, axis=0).astype(np.int64),
        n_truncated=np.max(n_truncated, axis=0).astype(np.int64) if n_truncated else 0,
    )


@dataclass(frozen=True)
class Blend:
    """A blend that was written: its run, weights, out-of-fold scores and comparisons.

    `mixture` has the weights for new rows, fitted on all rows; `fold_weights` those of the rows of
    each fold, fitted on the other folds. `against` compares the blend with each member, and
    `n_left_out` counts the rows of each member that another member has not predicted.
    """

    run: RunFolder
    mixture: Mixture
    fold_weights: tuple[tuple[float, ...], ...]
    scores: RunScores
    against: tuple[PairedDifferences, ...]
    n_left_out: dict[str, int]

    def to_dict(self) -> dict[str, Any]:
        """Return the blend as a dictionary that JSON can hold."""
        about = {
            "run": self.run.name,
            "path": str(self.run.path),
            "n_left_out": self.n_left_out,
            "weights": dict(zip(self.mixture.members, self.mixture.weights, strict=True)),
            "fold_weights": [list(weights) for weights in self.fold_weights],
            "against": [comparison.to_dict() for comparison in self.against],
        }
        return about | self.scores.to_dict()

    def __str__(self) -> str:
        of_folds = np.transpose(self.fold_weights)
        members = zip(self.mixture.members, self.mixture.weights, of_folds, strict=True)
        lines = [
            f"{name}: weight {weight:.3f} ({own.min():.3f} to {own.max():.3f} over the folds)"
            for name, weight, own in members
        ]
        left_out = [f"{name}: {n} rows left out" for name, n in self.n_left_out.items() if n]
        return "\n".join([*lines, *left_out, str(self.scores), *map(str, self.against)])


def blend_runs(
    runs: Sequence[RunFolder], artifacts_dir: Path, *, name: str | None = None, overwrite: bool
) -> Blend:
    """Fit the weights of a blend of at least two runs in `artifacts_dir` and write it as a run.

    Without `name` it is called by time and configuration; `overwrite` replaces a blend of that
    name. RunError is raised when the runs share no rows or have different labels, or another kind
    of run has the name; FoldError when there are fewer prompt groups than folds.
    """
    _check_members(runs, artifacts_dir, name)
    for member in runs:
        if not is_joined(member):  # the blend names the member's predictions by their SHA-256
            score_finished_folds(member)
    tables = read_shared(runs)
    n_classes = 3 if any(map(has_ties, runs)) else 2  # without ties: A and B alone are mixed
    logits = [table_logits(table)[:, :n_classes] for table in tables]
    log_probs = np.stack([log_softmax(part, axis=1) for part in logits])
    rows = _assign_folds(runs[0], tables[0])
    first = runs[0].config
    is_symmetric = all(run.config.predict.swap for run in runs)
    config = RunConfig(
        data=replace(first.data, fold_rule="group"),
        model=ModelConfig(backbone=BLEND),
        predict=replace(first.predict, swap=is_symmetric),
    )
    if overwrite and name is not None:
        _remove_blend(name, artifacts_dir)
    run = name_run(artifacts_dir, config, name=name)
    n_left_out = {member.name: len(read_oof(member)) - len(rows) for member in runs}

    def save(run: RunFolder) -> None:
        save_folds(run, rows)
        save_data(run, _describe_data(runs, len(rows), n_left_out))

    counted = add_token_counts(rows, tables)
    weights = [
        _write_fold(run, runs, counted, log_probs, fold, save)
        for fold in range(config.data.n_splits)
    ]
    final = _fit(rows, log_probs, rows["label"].notna().to_numpy())
    mixture = Mixture(tuple(member.name for member in runs), tuple(final.tolist()))
    mixture.save(run.mixture_path)
    return Blend(
        run,
        mixture,
        tuple(tuple(part.tolist()) for part in weights),
        score_finished_folds(run),
        tuple(compare_runs(run, member) for member in runs),
        n_left_out,
    )


def _check_members(runs: Sequence[RunFolder], artifacts_dir: Path, name: str | None) -> None:
    names = [run.name for run in runs]
    if name in names:
        raise RunError(f"--run is {name}, a member of the blend; expected another name.")
    if len(set(names)) < 2 or len(set(names)) < len(names):
        raise RunError(f"members are {', '.join(names)}; expected two or more different runs.")
    runs_dir = (artifacts_dir / "runs").resolve()
    for run in runs:
        if run.path.resolve().parent != runs_dir:
            raise RunError(f"{run.path} is not in {runs_dir}, the folder of the blend. Move it.")


def _assign_folds(first: RunFolder, table: pd.DataFrame) -> pd.DataFrame:
    """Return the shared rows with folds by prompt group, by the seed of the first run."""
    rows = read_folds(first).set_index("id").loc[table["id"]].reset_index()
    data = first.config.data
    folds = fold_by_group(rows["group"], rows["label"], data.n_splits, seed=data.data_seed)
    return rows.assign(fold=folds)


def _describe_data(
    runs: Sequence[RunFolder], n_rows: int, n_left_out: dict[str, int]
) -> dict[str, Any]:
    data = [read_data(run) for run in runs]
    digests = [pairs_digest(part) for part in data]
    counts = {f"n_left_out_{name}": n for name, n in n_left_out.items()}
    return {
        "digest": digests[0] if len(set(digests)) == 1 else digest_json(digests),
        "sources": data[0].get("sources", []),
        "counts": {"n_read": n_rows} | counts,
        "has_ties": any(map(has_ties, runs)),
    }


def _write_fold(
    run: RunFolder,
    members: Sequence[RunFolder],
    rows: pd.DataFrame,
    log_probs: Any,
    fold: int,
    save: Callable[[RunFolder], None],
) -> Any:
    """Mix the rows of one fold with weights fitted on the other folds; return the weights."""
    train_idx, eval_idx = split(rows["fold"].to_numpy(), fold)
    is_fitted = np.isin(np.arange(len(rows)), train_idx) & rows["label"].notna().to_numpy()
    weights = _fit(rows, log_probs, is_fitted)
    mixed = mix(log_probs[:, eval_idx], weights)
    names = ("id", "fold", "label", "group", "n_tokens", "n_truncated")
    oof = rows.iloc[eval_idx][[name for name in names if name in rows]].reset_index(drop=True)
    n_classes = mixed.shape[1]
    oof[PROB_COLUMNS] = np.pad(np.exp(mixed), ((0, 0), (0, 3 - n_classes)))
    oof[LOGIT_COLUMNS] = np.pad(mixed, ((0, 0), (0, 3 - n_classes)))
    oof = oof if n_classes == 3 else drop_ties(oof)
    folder = run.fold(fold)
    digests = digest_predictions(members)
    with begin_fold(run, fold, save):
        fingerprint = {"members": digests, "data": read_data(run)["digest"], "fold": fold}
        check_fingerprint(folder, fingerprint, resume=False)
        mixture = Mixture(tuple(digests), tuple(weights.tolist()))
        mixture.save(folder.adapter_dir / run.mixture_path.name)
        save_scored(folder, oof, {"n": len(oof)})
    return weights


def _fit(rows: pd.DataFrame, log_probs: Any, is_fitted: Any) -> Any:
    return fit_weights(rows["label"][is_fitted].to_numpy(np.int64), log_probs[:, is_fitted])


def _remove_blend(name: str, artifacts_dir: Path) -> None:
    path = artifacts_dir / "runs" / name
    with contextlib.suppress(RunError):
        found = open_run(path, artifacts_dir)
        if found.config.model.backbone == BLEND:
            remove_folders([found])
