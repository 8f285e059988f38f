"""Tables behind the figures of the report, each value with its interval.

A table has one row per point, with the columns ``value, low, high``: bootstrap intervals over
prompt groups. Every `oof` has labelled out-of-fold predictions; `folds` is ``folds.parquet``.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from tiewise.data.labels import PROB_COLUMNS
from tiewise.evaluation.intervals import FloatArray, IntArray, Interval, bootstrap, group_rows
from tiewise.evaluation.metrics import confidence_bins, log_losses
from tiewise.evaluation.references import RunScores
from tiewise.report.text import show, words_of

OUTCOMES = ("A", "B", "tie")
ENDS = ["value", "low", "high"]
_N_RESAMPLES = 499
_MAX_BINS = 10
_MIN_GROUPS_PER_BIN = 10
_HISTORY_COLUMNS = ["step", "loss", "grad_norm", "learning_rate", "rows", "tokens"]


def probs_of(table: pd.DataFrame, suffix: str = "") -> FloatArray:
    """Return the columns ``prob_a, prob_b, prob_tie`` with a suffix: float64 (n, 3)."""
    return table[[name + suffix for name in PROB_COLUMNS]].to_numpy(np.float64)


def bin_means(
    bins: IntArray,
    columns: Mapping[str, FloatArray],
    groups: npt.ArrayLike,
    *,
    is_share: bool = False,
) -> pd.DataFrame:
    """Average `columns`, each (n,), within the `bins` (n,), which are numbered from 0.

    The table has one row per column and bin: ``quantity, bin, n, value, low, high``. The ends are
    NaN for a bin with rows of a single group. `is_share` says that the columns are 0 or 1.

    >>> bin_means(np.array([0, 0, 1]), {"x": np.array([1.0, 3, 5])}, list("abc"))["value"].tolist()
    [2.0, 5.0]
    """
    member = np.eye(int(bins.max()) + 1)[bins]  # (n, n_bins)
    n_bins = member.shape[1]
    sums = [member, *(member * values[:, None] for values in columns.values())]
    grouped = group_rows(groups, np.column_stack([bins, *columns.values()]))

    def means(totals: FloatArray) -> FloatArray:
        return np.asarray(totals[..., n_bins:] / np.tile(totals[..., :n_bins], len(columns)))

    by_group = grouped.sums(np.hstack(sums))
    drawn = bootstrap(by_group, means, n_resamples=_N_RESAMPLES)
    counts = np.tile(by_group[:, :n_bins], len(columns))
    intervals = drawn.share_intervals(counts) if is_share else drawn.intervals()
    index = pd.MultiIndex.from_product([list(columns), range(n_bins)], names=["quantity", "bin"])
    ends = [(each.value, each.low, each.high) for each in intervals]
    table = pd.DataFrame(ends, index=index, columns=ENDS).reset_index()
    table.insert(2, "n", member.sum(0).astype(int)[table["bin"].to_numpy()])
    return table


def log_losses_of(scores: RunScores) -> pd.DataFrame:
    """Return the log loss of a run, then of its references, lowest first, the Bayes optimum last.

    The columns are ``name, value, low, high, is_run``.
    """
    losses = {name: of.log_loss for name, of in scores.baselines.items()}
    ranked = sorted(losses, key=lambda name: (name == "bayes", losses[name].value))
    rows = [("this run", scores.log_loss, True)]
    rows += [(words_of(name), losses[name], False) for name in ranked]
    lines = [(name, *vars(interval).values(), is_run) for name, interval, is_run in rows]
    return pd.DataFrame(lines, columns=["name", *ENDS, "is_run"])


def reliability(oof: pd.DataFrame) -> pd.DataFrame:
    """Compare predicted probabilities with outcomes, per outcome, in bins of equal size.

    The columns are ``outcome`` (A, B, tie), ``bin``, ``n``, ``predicted`` (mean probability),
    ``value`` (share of rows with that outcome), ``low``, ``high``.
    """
    labels, probs = oof["label"].to_numpy(int), probs_of(oof)
    parts = []
    for k, outcome in enumerate(OUTCOMES):
        bins = _equal_bins(probs[:, k], oof["group"])
        share = {"share": (labels == k).astype(float)}
        part = bin_means(bins, share, oof["group"], is_share=True)
        part["predicted"] = np.bincount(bins, probs[:, k]) / np.bincount(bins)
        parts.append(part.assign(outcome=outcome))
    table = pd.concat(parts, ignore_index=True)
    return table[["outcome", "bin", "n", "predicted", *ENDS]]


def confusion(oof: pd.DataFrame) -> pd.DataFrame:
    """Count rows by label (index A, B, tie) and most probable outcome (columns): int64 (3, 3).

    >>> probs = {"prob_a": [0.6, 0.2], "prob_b": [0.3, 0.2], "prob_tie": [0.1, 0.6]}
    >>> confusion(pd.DataFrame({"label": [0, 1], **probs})).to_numpy().tolist()
    [[1, 0, 0], [0, 0, 1], [0, 0, 0]]
    """
    cells = oof["label"].to_numpy(int) * 3 + probs_of(oof).argmax(1)
    counts = np.bincount(cells, minlength=9).reshape(3, 3)
    return pd.DataFrame(counts, index=list(OUTCOMES), columns=list(OUTCOMES))


def recall_by_class(oof: pd.DataFrame) -> dict[str, Interval]:
    """Return the share of pairs of each label whose most probable outcome is the label."""
    labels, bins = np.unique(oof["label"].to_numpy(int), return_inverse=True)
    is_right = (probs_of(oof).argmax(1) == oof["label"].to_numpy(int)).astype(float)
    table = bin_means(bins, {"recall": is_right}, oof["group"], is_share=True)
    return dict(zip([OUTCOMES[label] for label in labels], intervals_of(table), strict=True))


def length_gap(
    oof: pd.DataFrame, folds: pd.DataFrame, references: Mapping[str, FloatArray] | None = None
) -> pd.DataFrame:
    """Relate votes, predictions and log loss to the relative length of the responses.

    `references` has probabilities (n, 3) of references for the rows of `oof`, by name. The table
    has the columns of :func:`bin_means` and ``ratio``, the median in the bin of the length of A
    over that of B. A lead is the share of A minus the share of B.
    """
    ratio = _length_ratio(oof, folds)
    bins = _equal_bins(ratio, oof["group"])
    labels, probs = oof["label"].to_numpy(int), probs_of(oof)
    columns = {
        "observed lead": (labels == 0).astype(float) - (labels == 1),
        "predicted lead": probs[:, 0] - probs[:, 1],
        "log loss": log_losses(labels, probs),
    }
    for name, others in (references or {}).items():
        columns[f"log loss of {name}"] = log_losses(labels, others)
    table = bin_means(bins, columns, oof["group"])
    medians = pd.Series(ratio).groupby(bins).median()
    table.insert(3, "ratio", medians.loc[table["bin"]].to_numpy())
    return table


def lead_of_longer(oof: pd.DataFrame, folds: pd.DataFrame) -> dict[str, Interval]:
    """Measure the lead of the longer response: its share minus that of the shorter, in [-1, 1].

    The keys are ``votes``, ``predictions`` (mean probabilities) and their ``difference``. Rows of
    equal length do not count; NaN if there are no others.
    """
    longer = np.sign(np.log(_length_ratio(oof, folds)))
    rows, longer = oof[longer != 0], longer[longer != 0]
    if rows.empty:
        return dict.fromkeys(("votes", "predictions", "difference"), Interval(*[np.nan] * 3))
    labels, probs = rows["label"].to_numpy(int), probs_of(rows)
    votes = longer * ((labels == 0).astype(float) - (labels == 1))
    predictions = longer * (probs[:, 0] - probs[:, 1])
    columns = {"votes": votes, "predictions": predictions, "difference": predictions - votes}
    table = bin_means(np.zeros(len(rows), np.int64), columns, rows["group"])
    bounds = (1, 1, 2)
    found = zip(columns, intervals_of(table), bounds, strict=True)
    return {name: interval.clip(-bound, bound) for name, interval, bound in found}


def costliest_errors(oof: pd.DataFrame, n: int) -> pd.DataFrame:
    """Return the `n` rows with the highest ``log_loss``, highest first."""
    losses = log_losses(oof["label"].to_numpy(int), probs_of(oof))
    worst = np.argsort(-losses, kind="stable")[:n]
    return oof.iloc[worst].assign(log_loss=losses[worst]).reset_index(drop=True)


def loss_by_fold(oof: pd.DataFrame) -> dict[int, Interval]:
    """Return the log loss of the held-out rows of each fold."""
    folds, bins = np.unique(oof["fold"], return_inverse=True)
    losses = log_losses(oof["label"].to_numpy(int), probs_of(oof))
    table = bin_means(bins, {"log loss": losses}, oof["group"])
    return dict(zip(map(int, folds), intervals_of(table), strict=True))


def read_history(path: Path) -> pd.DataFrame:
    """Read a fold's ``history.jsonl``, one row per logged step; empty if there is no such file.

    An incomplete line of a killed process is skipped.
    """
    lines = path.read_text("utf-8", errors="replace").splitlines() if path.is_file() else []
    entries = []
    for line in lines:
        with contextlib.suppress(ValueError):
            entries.append(json.loads(line))
    rows = [entry for entry in entries if isinstance(entry, dict)]
    table = pd.DataFrame(rows, columns=_HISTORY_COLUMNS)
    return pd.DataFrame({name: pd.to_numeric(table[name], errors="coerce") for name in table})


def intervals_of(table: pd.DataFrame) -> list[Interval]:
    """Return the columns ``value, low, high`` as intervals."""
    return [Interval(*ends) for ends in table[ENDS].itertuples(index=False)]


def to_texts(table: pd.DataFrame) -> pd.DataFrame:
    """Format the columns of a table; ``value, low, high`` become one column ``value``."""
    texts = table.drop(columns=["low", "high"], errors="ignore").astype(object)
    for name in texts:
        if name == "value":
            texts[name] = [show(interval) for interval in intervals_of(table)]
        elif pd.api.types.is_float_dtype(table[name]):
            texts[name] = ["" if np.isnan(x) else f"{x:.3f}" for x in table[name]]
        elif pd.api.types.is_integer_dtype(table[name]):
            texts[name] = [f"{x:,}" for x in table[name]]
    return texts


def _equal_bins(values: FloatArray, groups: pd.Series) -> IntArray:
    """Assign values to 2 to 10 bins of equal size, none of them empty: int64 (n,)."""
    n_bins = min(_MAX_BINS, max(2, groups.nunique() // _MIN_GROUPS_PER_BIN))
    return np.unique(confidence_bins(values, n_bins), return_inverse=True)[1].astype(np.int64)


def _length_ratio(oof: pd.DataFrame, folds: pd.DataFrame) -> FloatArray:
    """Length of A over that of B, float64 (n,); both count one more character than they have."""
    lengths = folds.set_index("id").loc[oof["id"], ["n_chars_a", "n_chars_b"]].to_numpy(np.float64)
    return np.asarray((lengths[:, 0] + 1) / (lengths[:, 1] + 1))
