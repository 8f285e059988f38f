"""What predictions are like, added up chunk by chunk: what was cut, and what the order changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from tiewise.evaluation.position import OUTCOMES

Floats = npt.NDArray[np.float64]


@dataclass
class Tally:
    """Sums over predictions, in the columns of :func:`tiewise.models.scoring.predict_pairs`.

    n_rows, n_truncated, n_degenerate
        Rows, those that were cut, and those that leave nothing to prefer.
    n_swapped, n_flips
        Rows scored in both orders, and those of them whose most likely outcome changed.
    bias
        Sum over the rows scored in both orders of P(first wins) minus P(second wins), averaged
        over both orders.
    """

    n_rows: int = 0
    n_truncated: int = 0
    n_degenerate: int = 0
    n_swapped: int = 0
    n_flips: int = 0
    bias: float = 0.0

    def add(self, table: pd.DataFrame) -> pd.DataFrame:
        """Count a table of predictions, and return it as it is."""
        self.n_rows += len(table)
        if "n_truncated" in table:
            self.n_truncated += int((table["n_truncated"] > 0).sum())
        self.n_degenerate += int(table["is_degenerate"].sum())
        if "prob_a_given" in table:
            self._add_orders(table)
        return table

    def describe(self) -> dict[str, Any]:
        """Return what was counted, and of rows in both orders ``flip_rate``, ``position_bias``."""
        facts: dict[str, Any] = {
            "n_rows": self.n_rows,
            "n_truncated": self.n_truncated,
            "n_degenerate": self.n_degenerate,
        }
        if not self.n_swapped:
            return facts
        return facts | {
            "n_swapped": self.n_swapped,
            "flip_rate": self.n_flips / self.n_swapped,
            "position_bias": self.bias / self.n_swapped,
        }

    def _add_orders(self, table: pd.DataFrame) -> None:
        given, swapped = _probs(table, "_given"), _probs(table, "_swapped")
        self.n_swapped += len(given)
        self.n_flips += int((given.argmax(axis=1) != swapped.argmax(axis=1)).sum())
        # Swapped probabilities stand in the pair's own A and B: there the first response is B.
        gap = given[:, 0] - given[:, 1] + swapped[:, 1] - swapped[:, 0]
        self.bias += float(gap.sum() / 2)


def count_tokens(table: pd.DataFrame) -> Floats:
    """Return the tokens that were read for each row, over all orders; 0 where no network reads."""
    if "n_tokens" not in table:
        return np.zeros(len(table))
    n_orders = 2 if "prob_a_swapped" in table else 1
    return table["n_tokens"].to_numpy(np.float64) * n_orders


def add_costs(table: pd.DataFrame, members: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Add to predictions that were made of others what those others read, and what they cut.

    Parameters
    ----------
    table
        n rows.
    members
        Predictions of the same rows. ``n_tokens`` becomes the sum over all their orders,
        ``n_truncated`` the most that any of them cut; neither is added where none of them reads.
    """
    readers = [member for member in members if "n_tokens" in member]
    if not readers:
        return table
    costs = {"n_tokens": np.sum([count_tokens(member) for member in readers], axis=0)}
    costs["n_truncated"] = np.max([_truncated(member) for member in readers], axis=0)
    return table.assign(**{name: value.astype(np.int64) for name, value in costs.items()})


def _truncated(table: pd.DataFrame) -> npt.NDArray[Any]:
    return table["n_truncated"].to_numpy() if "n_truncated" in table else np.zeros(len(table))


def _probs(table: pd.DataFrame, suffix: str = "") -> Floats:
    columns = [f"prob_{outcome}{suffix}" for outcome in OUTCOMES]
    return table[columns].to_numpy(np.float64)
