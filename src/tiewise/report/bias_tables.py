"""What a model might lean on instead of reading, as numbers: length, and who stands first."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from tiewise.data.labels import PROB_COLUMNS
from tiewise.evaluation.intervals import FloatArray, Interval
from tiewise.evaluation.metrics import confidence_bins, log_losses
from tiewise.report.diagnostics import bin_means, dense, n_bins_for, probs_of


def length_gap(
    oof: pd.DataFrame, folds: pd.DataFrame, references: Mapping[str, FloatArray] | None = None
) -> pd.DataFrame:
    """See what the relative length of the two responses does to votes, predictions and loss.

    Parameters
    ----------
    oof
        Out-of-fold predictions, labelled, n rows.
    folds
        The run's table of folds, with ``n_chars_a`` and ``n_chars_b``.
    references
        Probabilities (n, 3) of other predictors of the same rows, by name.

    Returns
    -------
    DataFrame
        As :func:`bin_means`, and ``ratio``: the median of log2 of A's length over B's within the
        bin. Quantities: ``observed lead`` and ``predicted lead`` (share of A minus share of B),
        ``log loss``, and ``log loss of NAME`` for each reference.
    """
    ratio = _length_ratio(oof, folds)
    bins = dense(confidence_bins(ratio, n_bins_for(oof["group"].nunique())))
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
    return table.assign(ratio=medians.loc[table["bin"]].to_numpy())


def lead_of_longer(oof: pd.DataFrame, folds: pd.DataFrame) -> dict[str, Interval]:
    """Measure how far the longer response leads, in votes and in predictions.

    Returns
    -------
    dict
        ``votes``: share of rows won by the longer response minus share won by the shorter, ties
        counting for neither, in [-1, 1]; ``predictions``: the same of the mean probabilities;
        ``difference``: predictions minus votes. Rows of equal length are left out; NaN where none
        is left.
    """
    longer = np.sign(_length_ratio(oof, folds))
    known = longer != 0
    if not known.any():
        return dict.fromkeys(("votes", "predictions", "difference"), Interval(*[np.nan] * 3))
    rows = oof[known]
    labels, probs = rows["label"].to_numpy(int), probs_of(rows)
    votes = longer[known] * ((labels == 0).astype(float) - (labels == 1))
    predictions = longer[known] * (probs[:, 0] - probs[:, 1])
    columns = {"votes": votes, "predictions": predictions, "difference": predictions - votes}
    table = bin_means(np.zeros(len(rows), np.int64), columns, rows["group"])
    ends = table[["value", "low", "high"]].itertuples(index=False)
    return {name: Interval(*end) for name, end in zip(columns, ends, strict=True)}


def both_orders(oof: pd.DataFrame) -> pd.DataFrame | None:
    """Set each row's prediction in the order given beside that with A and B exchanged.

    Returns
    -------
    DataFrame or None
        ``given`` and ``swapped``: P(A) - P(B) of the row's own A and B in either order, in
        [-1, 1]; ``is_flipped``: whether the likeliest outcome changes. None where only one order
        was scored.
    """
    if not {f"{name}_swapped" for name in PROB_COLUMNS} <= set(oof.columns):
        return None
    given, swapped = probs_of(oof, "_given"), probs_of(oof, "_swapped")
    return pd.DataFrame(
        {
            "given": given[:, 0] - given[:, 1],
            "swapped": swapped[:, 0] - swapped[:, 1],
            "is_flipped": given.argmax(1) != swapped.argmax(1),
        }
    )


def _length_ratio(oof: pd.DataFrame, folds: pd.DataFrame) -> FloatArray:
    """Log2 of A's length over B's: float64 (n,); a character more each, so that none is empty."""
    lengths = folds.set_index("id").loc[oof["id"], ["n_chars_a", "n_chars_b"]].to_numpy(np.float64)
    return np.asarray(np.log2((lengths[:, 0] + 1) / (lengths[:, 1] + 1)))
