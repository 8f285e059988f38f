"""Chunks and probabilities for tests of `predict_stream`, also for those in another process.

A new process imports what it runs by name, so its function is in a module that is on the path.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tiewise.judges.streaming import predict_stream


def predict(pairs: pd.DataFrame) -> pd.DataFrame:
    """Return probabilities that depend only on the row."""
    weights = np.stack([pairs["length"] + 1, pairs["length"] * 0 + 2, pairs["length"] * 0 + 3], 1)
    probs = weights / weights.sum(axis=1, keepdims=True)
    return pd.DataFrame(
        {"id": pairs["id"], "prob_a": probs[:, 0], "prob_b": probs[:, 1], "prob_tie": probs[:, 2]}
    )


def cut(table: pd.DataFrame, size: int) -> list[Callable[[], pd.DataFrame]]:
    """Return functions that return the chunks of a table."""
    starts = range(0, len(table), size)
    return [lambda start=start: table.iloc[start : start + size] for start in starts]


def predict_and_wait(path: Path, data_length: int, ready: Any, go_on: Any) -> None:
    """Predict into `path`; say when the first chunk is being predicted, and wait before it ends."""

    def wait_and_predict(pairs: pd.DataFrame) -> pd.DataFrame:
        ready.set()
        assert go_on.wait(60)
        return predict(pairs)

    table = pd.DataFrame({"id": np.arange(4), "length": np.full(4, data_length)})
    predict_stream(cut(table, 1), path, wait_and_predict, fingerprint={"data": data_length})
