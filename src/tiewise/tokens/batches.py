"""Which rows share an optimiser step, a process and a micro-batch; and the way back.

A step's rows are fixed by `step_rows` alone. How they are then split (over processes, under a
token budget, sorted or packed) changes speed and memory and never the rows, so every layout must
give one gradient. The layouts:

``padded``
    the given order; a micro-batch costs its rows times its longest row.
``sorted``
    longest rows first; the same cost. What memory has to bear comes first, not last.
``packed``
    rows stand end to end without padding; a micro-batch costs the sum of its lengths.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, get_args, overload

import numpy as np
import numpy.typing as npt

from tiewise.errors import ConfigError
from tiewise.tokens.packing import IntArray, Layout, divide, fill, spread

__all__ = [
    "IntArray",
    "Layout",
    "StepRows",
    "padding_factor",
    "plan_batches",
    "plan_step",
    "restore_order",
    "step_rows",
]


@dataclass(frozen=True)
class StepRows(Sequence[IntArray]):
    """The rows of every optimiser step; any step can be asked for without the ones before it."""

    n_rows: int
    batch_size: int
    n_epochs: int
    seed: int

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps in one epoch; the last may have fewer rows."""
        return math.ceil(self.n_rows / self.batch_size)

    def __len__(self) -> int:
        return self.steps_per_epoch * self.n_epochs

    @overload
    def __getitem__(self, step: int) -> IntArray: ...
    @overload
    def __getitem__(self, step: slice) -> list[IntArray]: ...
    def __getitem__(self, step: int | slice) -> IntArray | list[IntArray]:
        if isinstance(step, slice):
            return [self[position] for position in range(*step.indices(len(self)))]
        step = range(len(self))[step]
        epoch, position = divmod(step, self.steps_per_epoch)
        order = _epoch_order(self.n_rows, self.seed, epoch)
        return order[position * self.batch_size : (position + 1) * self.batch_size]


def step_rows(n: int, batch_size: int, n_epochs: int, seed: int) -> StepRows:
    """Deal `n` rows into optimiser steps, in a fresh order each epoch.

    Parameters
    ----------
    n
        Number of rows, at least 1.
    batch_size
        Rows of a step (the global batch), at least 1. The last step of an epoch takes what is left.
    n_epochs
        Times every row is seen.
    seed
        Of the permutations, at least 0.

    Returns
    -------
    StepRows
        A sequence of int64 arrays, shape (batch_size,) or less, each in [0, n).

    Raises
    ------
    ConfigError
        When a number is out of range.

    Examples
    --------
    >>> steps = step_rows(5, batch_size=2, n_epochs=2, seed=0)
    >>> len(steps), [len(rows) for rows in steps]
    (6, [2, 2, 1, 2, 2, 1])
    >>> sorted(int(row) for rows in steps[:3] for row in rows)
    [0, 1, 2, 3, 4]
    """
    _require(n=(n, 1), batch_size=(batch_size, 1), n_epochs=(n_epochs, 0), seed=(seed, 0))
    return StepRows(n, batch_size, n_epochs, seed)


def plan_step(
    lengths: npt.ArrayLike,
    *,
    micro_batch_tokens: int,
    n_micro_batches: int | None = None,
    layout: Layout,
    n_processes: int = 1,
) -> list[list[IntArray]]:
    """Split one step's rows over processes and micro-batches.

    Parameters
    ----------
    lengths
        Tokens of each row of the step, shape (n,), integers, at least 1.
    micro_batch_tokens
        Most tokens (padding included) of a micro-batch. A single longer row stands alone.
    n_micro_batches
        Exactly so many non-empty micro-batches for each process that has as many rows; with fewer
        rows, one for each. It replaces the token budget.
    layout
        See the module.
    n_processes
        Processes that share the step. The token load is balanced to within the longest row.

    Returns
    -------
    list of list of int64 arrays
        For each process its micro-batches: positions into `lengths`, each exactly once over all.
        A process without a row gets an empty list.

    Raises
    ------
    ConfigError
        When a number is out of range or the layout is unknown.

    Examples
    --------
    >>> plan = plan_step([9, 1, 8, 2], micro_batch_tokens=10, layout="packed")
    >>> [batch.tolist() for batch in plan[0]]
    [[0, 1], [2, 3]]
    >>> plan = plan_step([9, 1, 8, 2], micro_batch_tokens=10, layout="padded", n_processes=2)
    >>> [[batch.tolist() for batch in batches] for batches in plan]
    [[[0], [1]], [[2], [3]]]
    """
    _require(n_processes=(n_processes, 1), n_micro_batches=(n_micro_batches or 1, 1))
    lengths = _checked_lengths(lengths, micro_batch_tokens, layout)
    shares = spread(lengths, n_processes)
    if n_micro_batches is None:
        return [fill(lengths, share, micro_batch_tokens, layout) for share in shares]
    return [divide(lengths, share, n_micro_batches, layout) for share in shares]


def plan_batches(lengths: npt.ArrayLike, *, max_tokens: int, layout: Layout) -> list[IntArray]:
    """Split rows to be scored into batches of at most `max_tokens` tokens.

    Parameters
    ----------
    lengths
        Tokens of each row, shape (n,), integers, at least 1.
    max_tokens
        Most tokens (padding included) of a batch. A single longer row stands alone.
    layout
        See the module.

    Returns
    -------
    list of int64 arrays
        Positions into `lengths`, each exactly once. `restore_order` undoes the order.

    Examples
    --------
    >>> [batch.tolist() for batch in plan_batches([3, 9, 4], max_tokens=9, layout="sorted")]
    [[1], [2, 0]]
    """
    lengths = _checked_lengths(lengths, max_tokens, layout)
    return fill(lengths, np.arange(len(lengths)), max_tokens, layout)


def restore_order(
    batches: Sequence[IntArray], values: Sequence[npt.NDArray[Any]]
) -> npt.NDArray[Any]:
    """Put what was computed batch by batch back into the order of the rows.

    Parameters
    ----------
    batches
        As `plan_batches` gave them: together each position in [0, n) exactly once.
    values
        For each batch an array of shape (rows of the batch, …).

    Returns
    -------
    array
        Shape (n, …).

    Examples
    --------
    >>> restore_order([np.array([2, 0]), np.array([1])], [np.array([20, 0]), np.array([10])])
    array([ 0, 10, 20])
    """
    if not batches:
        return np.empty(0)
    joined = np.concatenate(values)
    restored = np.empty_like(joined)
    restored[np.concatenate(batches)] = joined
    return restored


def padding_factor(lengths: npt.ArrayLike, batches: Sequence[IntArray], layout: Layout) -> float:
    """Return what `batches` cost in tokens, divided by the tokens that are text: at least 1.

    Examples
    --------
    >>> padding_factor([4, 2], [np.array([0, 1])], "padded")
    1.3333333333333333
    >>> padding_factor([4, 2], [np.array([0, 1])], "packed")
    1.0
    """
    lengths = np.asarray(lengths, dtype=np.int64)
    costs = [_cost(lengths[batch], layout) for batch in batches if len(batch)]
    real = sum(int(lengths[batch].sum()) for batch in batches)
    return sum(costs) / real if real else 1.0


@functools.lru_cache(maxsize=2)
def _epoch_order(n_rows: int, seed: int, epoch: int) -> IntArray:
    order = np.random.default_rng([seed, epoch]).permutation(n_rows).astype(np.int64)
    order.flags.writeable = False  # it is shared between the steps of the epoch
    return order


def _cost(lengths: IntArray, layout: Layout) -> int:
    if layout == "packed":
        return int(lengths.sum())
    return len(lengths) * int(lengths.max())


def _checked_lengths(lengths: npt.ArrayLike, budget: int, layout: str) -> IntArray:
    if layout not in get_args(Layout):
        known = ", ".join(get_args(Layout))
        message = f"Layout {layout!r} is not known; choose one of {known}."
        raise ConfigError(message)
    _require(max_tokens=(budget, 1))
    lengths = np.asarray(lengths, dtype=np.int64)
    if (lengths < 1).any():
        position = int(np.argmin(lengths))
        message = f"Row {position} has {lengths[position]} tokens; each row needs at least 1."
        raise ConfigError(message)
    return lengths


def _require(**numbers: tuple[int, int]) -> None:
    for name, (value, least) in numbers.items():
        if value < least:
            message = f"{name} is {value}; it must be at least {least}."
            raise ConfigError(message)
