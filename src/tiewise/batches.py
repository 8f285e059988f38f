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
from typing import Any, Literal, get_args, overload

import numpy as np
import numpy.typing as npt

from tiewise.errors import ConfigError

Layout = Literal["padded", "sorted", "packed"]
IntArray = npt.NDArray[np.int64]


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
    shares = _spread(lengths, n_processes)
    if n_micro_batches is None:
        return [_fill(lengths, share, micro_batch_tokens, layout) for share in shares]
    return [_divide(lengths, share, n_micro_batches, layout) for share in shares]


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
    return _fill(lengths, np.arange(len(lengths)), max_tokens, layout)


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


def _spread(lengths: IntArray, n_parts: int) -> list[IntArray]:
    """Deal rows, longest first, to the part with the least load; keep each part's given order."""
    if n_parts == 1:
        return [np.arange(len(lengths))]
    loads = np.zeros(n_parts, dtype=np.int64)
    part_of = np.empty(len(lengths), dtype=np.int64)
    for row in _longest_first(lengths):
        part_of[row] = loads.argmin()
        loads[part_of[row]] += lengths[row]
    return [np.flatnonzero(part_of == part) for part in range(n_parts)]


def _longest_first(lengths: IntArray) -> IntArray:
    return np.argsort(-lengths, kind="stable").astype(np.int64)


def _fill(lengths: IntArray, rows: IntArray, budget: int, layout: Layout) -> list[IntArray]:
    if layout == "padded":
        return _fill_in_order(lengths, rows, budget)
    rows = rows[_longest_first(lengths[rows])]
    if layout == "sorted":
        return _fill_in_order(lengths, rows, budget)
    return _fill_first_fit(lengths, rows, budget)


def _fill_in_order(lengths: IntArray, rows: IntArray, budget: int) -> list[IntArray]:
    """Cut `rows` where one more row would bring rows times longest over the budget."""
    starts, longest = [0] if len(rows) else [], 0
    for position, length in enumerate(lengths[rows].tolist()):
        longest = max(longest, length)
        if position > starts[-1] and (position + 1 - starts[-1]) * longest > budget:
            starts.append(position)
            longest = length
    return np.split(rows, starts[1:]) if starts else []


def _fill_first_fit(lengths: IntArray, rows: IntArray, budget: int) -> list[IntArray]:
    """Put each row, longest first, into the first micro-batch that has room for it."""
    batches: list[list[int]] = []
    loads = np.zeros(len(rows), dtype=np.int64)
    shortest, first_open = int(lengths[rows].min(initial=budget)), 0
    for row in rows.tolist():
        room = loads[first_open : len(batches)] + lengths[row] <= budget
        chosen = first_open + int(room.argmax()) if room.any() else len(batches)
        if chosen == len(batches):
            batches.append([])
        batches[chosen].append(row)
        loads[chosen] += lengths[row]
        while first_open < len(batches) and loads[first_open] + shortest > budget:
            first_open += 1
    return [np.array(batch, dtype=np.int64) for batch in batches]


def _divide(lengths: IntArray, rows: IntArray, n_parts: int, layout: Layout) -> list[IntArray]:
    if not len(rows):
        return []
    n_parts = min(n_parts, len(rows))
    if layout == "packed":
        return [rows[part] for part in _spread(lengths[rows], n_parts)]
    if layout == "sorted":
        rows = rows[_longest_first(lengths[rows])]
    return list(np.array_split(rows, n_parts))


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
