"""Plans of batches: the rows that share an optimiser step, a process and a micro-batch.

`StepRows` alone decides the rows of a step. How they are then split changes speed and memory but
not the rows, so every layout must give the same gradient. The layouts:

``padded``
    the given order; a micro-batch costs its number of rows times its longest row.
``sorted``
    longest rows first, at the same cost.
``packed``
    rows end to end without padding; a micro-batch costs the sum of its lengths.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from tiewise.errors import ConfigError
from tiewise.tokens.ragged import IntArray

Layout = Literal["padded", "sorted", "packed"]


@dataclass(frozen=True)
class StepRows:
    """The `n_rows` rows assigned to optimiser steps, in a new order each epoch.

    Step k is an int64 array of row numbers, shape (batch_size,), or the rest at the end of an
    epoch. It is computed without the steps before it.

    >>> steps = StepRows(5, batch_size=2, n_epochs=2, seed=0)
    >>> len(steps), [len(rows) for rows in steps]
    (6, [2, 2, 1, 2, 2, 1])
    """

    n_rows: int
    batch_size: int
    n_epochs: int
    seed: int

    def __post_init__(self) -> None:
        _require(n_rows=(self.n_rows, 1), batch_size=(self.batch_size, 1))
        _require(n_epochs=(self.n_epochs, 0), seed=(self.seed, 0))

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps in one epoch."""
        return math.ceil(self.n_rows / self.batch_size)

    def __len__(self) -> int:
        return self.steps_per_epoch * self.n_epochs

    def __getitem__(self, step: int) -> IntArray:
        epoch, position = divmod(range(len(self))[step], self.steps_per_epoch)
        order = _epoch_order(self.n_rows, self.seed, epoch)
        return order[position * self.batch_size : (position + 1) * self.batch_size]


def plan_step(
    lengths: npt.ArrayLike,
    *,
    micro_batch_tokens: int,
    layout: Layout,
    n_processes: int = 1,
) -> list[list[IntArray]]:
    """Split a step's rows of `lengths` tokens, (n,), over processes and micro-batches.

    The result has for each process its micro-batches, as positions into `lengths`. Token loads of
    processes differ by at most the longest row. A micro-batch has at most `micro_batch_tokens`
    tokens, padding included; a longer row is its own.

    >>> plan = plan_step([9, 1, 8, 2], micro_batch_tokens=10, layout="padded", n_processes=2)
    >>> [[batch.tolist() for batch in batches] for batches in plan]
    [[[0], [1]], [[2], [3]]]
    """
    _require(n_processes=(n_processes, 1))
    lengths = _checked_lengths(lengths, micro_batch_tokens, layout)
    shares = balance(lengths, n_processes)
    return [pack(lengths, share, micro_batch_tokens, layout) for share in shares]


def plan_batches(lengths: npt.ArrayLike, *, max_tokens: int, layout: Layout) -> list[IntArray]:
    """Split rows of `lengths` tokens, (n,), into batches to be scored; return their positions.

    A batch has at most `max_tokens` tokens, padding included; a longer row is its own batch.

    >>> [batch.tolist() for batch in plan_batches([3, 9, 4], max_tokens=9, layout="sorted")]
    [[1], [2, 0]]
    """
    lengths = _checked_lengths(lengths, max_tokens, layout)
    return pack(lengths, np.arange(len(lengths)), max_tokens, layout)


def balance(lengths: IntArray, n_parts: int) -> list[IntArray]:
    """Assign rows, longest first, to the part with the least load; parts keep the given order.

    >>> [part.tolist() for part in balance(np.array([9, 1, 8, 2]), 2)]
    [[0, 1], [2, 3]]
    """
    if n_parts == 1:
        return [np.arange(len(lengths))]
    loads = np.zeros(n_parts, dtype=np.int64)
    part_of = np.empty(len(lengths), dtype=np.int64)
    for row in _longest_first(lengths):
        part_of[row] = loads.argmin()
        loads[part_of[row]] += lengths[row]
    return [np.flatnonzero(part_of == part) for part in range(n_parts)]


def pack(lengths: IntArray, rows: IntArray, budget: int, layout: Layout) -> list[IntArray]:
    """Divide `rows` into micro-batches of at most `budget` tokens; a longer row is its own."""
    if layout == "padded":
        return _pack_in_order(lengths, rows, budget)
    rows = rows[_longest_first(lengths[rows])]
    if layout == "sorted":
        return _pack_in_order(lengths, rows, budget)
    return _pack_first_fit(lengths, rows, budget)


def _longest_first(lengths: IntArray) -> IntArray:
    return np.argsort(-lengths, kind="stable").astype(np.int64)


def _pack_in_order(lengths: IntArray, rows: IntArray, budget: int) -> list[IntArray]:
    """Cut `rows` where one more row would make rows times longest exceed the budget."""
    starts, longest = [0] if len(rows) else [], 0
    for position, length in enumerate(lengths[rows].tolist()):
        longest = max(longest, length)
        if position > starts[-1] and (position + 1 - starts[-1]) * longest > budget:
            starts.append(position)
            longest = length
    return np.split(rows, starts[1:]) if starts else []


def _pack_first_fit(lengths: IntArray, rows: IntArray, budget: int) -> list[IntArray]:
    """Put each row, longest first, into the first micro-batch with enough space."""
    batches: list[list[int]] = []
    loads = np.zeros(len(rows), dtype=np.int64)
    shortest, first_open = int(lengths[rows].min(initial=budget)), 0
    for row in rows.tolist():
        fits = loads[first_open : len(batches)] + lengths[row] <= budget
        chosen = first_open + int(fits.argmax()) if fits.any() else len(batches)
        if chosen == len(batches):
            batches.append([])
        batches[chosen].append(row)
        loads[chosen] += lengths[row]
        while first_open < len(batches) and loads[first_open] + shortest > budget:
            first_open += 1
    return [np.array(batch, dtype=np.int64) for batch in batches]


@functools.lru_cache(maxsize=2)
def _epoch_order(n_rows: int, seed: int, epoch: int) -> IntArray:
    order = np.random.default_rng([seed, epoch]).permutation(n_rows).astype(np.int64)
    order.flags.writeable = False  # the steps of the epoch share it
    return order


def _checked_lengths(lengths: npt.ArrayLike, budget: int, layout: str) -> IntArray:
    if layout not in get_args(Layout):
        raise ConfigError(f"layout is {layout!r}; expected one of {', '.join(get_args(Layout))}.")
    _require(max_tokens=(budget, 1))
    lengths = np.asarray(lengths, dtype=np.int64)
    if (lengths < 1).any():
        position = int(np.argmin(lengths))
        raise ConfigError(f"Row {position} has {lengths[position]} tokens; expected at least 1.")
    return lengths


def _require(**numbers: tuple[int, int]) -> None:
    for name, (value, least) in numbers.items():
        if value < least:
            raise ConfigError(f"{name} is {value}; expected at least {least}.")
