"""Add predictions to batches of other libraries: pyarrow tables, dictionaries of arrays, frames."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import pyarrow as pa

from tiewise.errors import PairsError

Batch = TypeVar("Batch", pa.Table, dict[str, Any], pd.DataFrame)


def add_columns(batch: Batch, predict: Callable[[pd.DataFrame], pd.DataFrame]) -> Batch:
    """Return a batch with the columns that `predict` returns for its rows as a frame.

    >>> add_columns({"n": [2, 3]}, lambda table: table.assign(square=table.pop("n") ** 2))
    {'n': [2, 3], 'square': array([4, 9])}
    """
    table = _as_frame(batch)
    added = predict(table.copy())
    if len(added) != len(table):
        raise PairsError(
            f"a batch of {len(table)} rows has {len(added)} pairs; expected one pair in each row. "
            "Run tiewise convert on the data first."
        )
    if taken := [str(name) for name in added if name in table]:
        raise PairsError(
            f"the batch has columns {', '.join(taken)} already; drop or rename them first."
        )
    columns = {str(name): added[name].to_numpy() for name in added}
    if isinstance(batch, pd.DataFrame):
        return batch.assign(**columns)
    if isinstance(batch, Mapping):
        return {**batch, **columns}
    for name, values in columns.items():
        batch = batch.append_column(name, pa.array(values))
    return batch


def _as_frame(batch: Any) -> pd.DataFrame:
    """Return the rows of a batch as a frame; a cell of several values is a list."""
    if isinstance(batch, pa.Table):
        return pd.DataFrame({name: batch[name].to_pylist() for name in batch.column_names})
    if isinstance(batch, Mapping):
        return pd.DataFrame({name: _as_cells(values) for name, values in batch.items()})
    table: pd.DataFrame = batch.reset_index(drop=True)
    return table


def _as_cells(values: Any) -> list[Any]:
    return [cell.tolist() if isinstance(cell, np.ndarray | np.generic) else cell for cell in values]
