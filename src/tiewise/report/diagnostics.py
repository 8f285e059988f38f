"""The numbers behind the report's figures: tables of values with intervals, nothing drawn.

Every interval comes from :func:`tiewise.evaluation.resampling.bootstrap` over groups, so what a
figure shows is as sure as the scores beside it. Tables are tidy: a line per point, with ``value,
low, high``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from tiewise.data.labels import PROB_COLUMNS
from tiewise.evaluation.intervals import FloatArray, IntArray
from tiewise.evaluation.metrics import confidence_bins, log_losses
from tiewise.evaluation.resampling import bootstrap, group_rows

OUTCOMES = ("A", "B", "tie")
CONFIDENCE_LEVEL = 0.95
N_RESAMPLES = 499
MAX_BINS = 10
MIN_GROUPS_PER_BIN = 10


def probs_of(table: pd.DataFrame, suffix: str = "") -> FloatArray:
    """Return the columns ``prob_a, prob_b, prob_tie`` (with a suffix): float64 (n, 3)."""
    return table[[name + suffix for name in PROB_COLUMNS]].to_numpy(np.float64)


def labelled(oof: pd.DataFrame) -> pd.DataFrame:
    """Return the rows that have a label, numbered from 0."""
    return oof[oof["label"].notna()].reset_index(drop=True)


def bin_means(
    bins: IntArray, columns: Mapping[str, FloatArray], groups: npt.ArrayLike
) -> pd.DataFrame:
    """Average columns within bins, each mean with its interval.

    Parameters
    ----------
    bins
        Number of each row's bin, (n,), from 0.
    columns
        What to average, by name, each (n,).
    groups
        Group of each row, (n,): what is resampled.

    Returns
    -------
    DataFrame
        A line per bin and name: ``bin, quantity, n, value, low, high``; NaN where a bin is empty
        or lies within one group.

    Examples
    --------
    >>> means = bin_means(np.array([0, 0, 1, 1]), {"x": np.array([1.0, 3, 5, 5])}, list("abcd"))
    >>> means["value"].tolist()
    [2.0, 5.0]
    """
    member = np.eye(int(bins.max()) + 1)[bins]  # (n, n_bins)
    blocks = [member, *(member * values[:, None] for values in columns.values())]
    grouped = group_rows(groups, np.column_stack([bins, *columns.values()]))
    n_bins = member.shape[1]

    def statistic(totals: FloatArray) -> FloatArray:
        counts = np.tile(totals[..., :n_bins], len(columns))
        return np.asarray(totals[..., n_bins:] / counts)

    drawn = bootstrap(grouped.sums(np.hstack(blocks)), statistic, n_resamples=N_RESAMPLES)
    places = pd.MultiIndex.from_product([list(columns), range(n_bins)], names=["quantity", "bin"])
    table = pd.DataFrame(
        [(each.value, each.low, each.high) for each in drawn.intervals(CONFIDENCE_LEVEL)],
        index=places,
        columns=["value", "low", "high"],
    ).reset_index()
    counts = member.sum(0).astype(int)
    table.insert(2, "n", counts[table["bin"].to_numpy()])
    return table


def reliability(oof: pd.DataFrame) -> pd.DataFrame:
    """Compare what was foretold with what happened, for each outcome, in bins of equal mass.

    Parameters
    ----------
    oof
        Out-of-fold predictions, labelled.

    Returns
    -------
    DataFrame
        ``outcome`` (A, B, tie), ``bin``, ``n``, ``predicted`` (mean probability), ``value`` (share
        of rows with that outcome), ``low``, ``high``.
    """
    labels, probs = oof["label"].to_numpy(int), probs_of(oof)
    n_bins = n_bins_for(oof["group"].nunique())
    parts = []
    for k, outcome in enumerate(OUTCOMES):
        bins = dense(confidence_bins(probs[:, k], n_bins))
        happened = (labels == k).astype(float)
        part = bin_means(bins, {"observed": happened}, oof["group"])
        part["predicted"] = np.bincount(bins, probs[:, k]) / np.bincount(bins)
        parts.append(part.assign(outcome=outcome))
    columns = ["outcome", "bin", "n", "predicted", "value", "low", "high"]
    return _clipped(pd.concat(parts, ignore_index=True)[columns], 0, 1)


def confusion(oof: pd.DataFrame) -> pd.DataFrame:
    """Count rows by what people chose and what the model held likeliest.

    Returns
    -------
    DataFrame
        3 x 3, index ``A, B, tie`` (chosen by people), columns ``A, B, tie`` (likeliest), int64.

    Examples
    --------
    >>> probs = {"prob_a": [0.6, 0.2], "prob_b": [0.3, 0.2], "prob_tie": [0.1, 0.6]}
    >>> confusion(pd.DataFrame({"label": [0, 1], **probs})).to_numpy().tolist()
    [[1, 0, 0], [0, 0, 1], [0, 0, 0]]
    """
    cells = oof["label"].to_numpy(int) * 3 + probs_of(oof).argmax(1)
    counts = np.bincount(cells, minlength=9).reshape(3, 3)
    return pd.DataFrame(counts, index=list(OUTCOMES), columns=list(OUTCOMES))


def read_history(path: Path) -> pd.DataFrame:
    """Read a fold's ``history.jsonl``; a line that a killed process left unfinished is left out.

    Returns
    -------
    DataFrame
        ``step, loss, grad_norm, learning_rate, rows, tokens``, a line per logged step; no lines
        where there is no such file.
    """
    columns = ["step", "loss", "grad_norm", "learning_rate", "rows", "tokens"]
    lines = path.read_text("utf-8", errors="replace").splitlines() if path.is_file() else []
    entries = [entry for entry in map(_parse_line, lines) if entry is not None]
    table = pd.DataFrame(entries, columns=columns)
    return pd.DataFrame({name: pd.to_numeric(table[name], errors="coerce") for name in columns})


def costly_errors(oof: pd.DataFrame, n: int = 20) -> pd.DataFrame:
    """Return the rows whose outcome was held least likely, the worst first.

    Returns
    -------
    DataFrame
        At most `n` lines of `oof` with ``log_loss``; equal losses stay in the order of the rows.
    """
    losses = log_losses(oof["label"].to_numpy(int), probs_of(oof))
    worst = np.argsort(-losses, kind="stable")[:n]
    return oof.iloc[worst].assign(log_loss=losses[worst]).reset_index(drop=True)


def n_bins_for(n_groups: int) -> int:
    """Return how many bins `n_groups` groups can fill: 2 to 10.

    Examples
    --------
    >>> n_bins_for(412), n_bins_for(45), n_bins_for(3)
    (10, 4, 2)
    """
    return min(MAX_BINS, max(2, n_groups // MIN_GROUPS_PER_BIN))


def dense(bins: IntArray) -> IntArray:
    """Renumber bins so that none is empty."""
    return np.unique(bins, return_inverse=True)[1].astype(np.int64)


def _clipped(table: pd.DataFrame, least: float, most: float) -> pd.DataFrame:
    table[["low", "high"]] = table[["low", "high"]].clip(least, most)
    return table


def _parse_line(line: str) -> dict[str, Any] | None:
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) else None
