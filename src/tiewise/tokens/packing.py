"""Rows into parts: under a token budget, or into a given number of parts of equal load."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

Layout = Literal["padded", "sorted", "packed"]
IntArray = npt.NDArray[np.int64]


def spread(lengths: IntArray, n_parts: int) -> list[IntArray]:
    """Deal rows, longest first, to the part with the least load; keep each part's given order."""
    if n_parts == 1:
        return [np.arange(len(lengths))]
    loads = np.zeros(n_parts, dtype=np.int64)
    part_of = np.empty(len(lengths), dtype=np.int64)
    for row in _longest_first(lengths):
        part_of[row] = loads.argmin()
        loads[part_of[row]] += lengths[row]
    return [np.flatnonzero(part_of == part) for part in range(n_parts)]


def fill(lengths: IntArray, rows: IntArray, budget: int, layout: Layout) -> list[IntArray]:
    """Cut `rows` into micro-batches of at most `budget` tokens; a longer row stands alone.

    Examples
    --------
    >>> lengths = np.array([3, 9, 4])
    >>> [part.tolist() for part in fill(lengths, np.arange(3), 9, "packed")]
    [[1], [2, 0]]
    """
    if layout == "padded":
        return _fill_in_order(lengths, rows, budget)
    rows = rows[_longest_first(lengths[rows])]
    if layout == "sorted":
        return _fill_in_order(lengths, rows, budget)
    return _fill_first_fit(lengths, rows, budget)


def divide(lengths: IntArray, rows: IntArray, n_parts: int, layout: Layout) -> list[IntArray]:
    """Cut `rows` into exactly `n_parts` parts, or one for each row where rows are fewer.

    Examples
    --------
    >>> lengths = np.array([3, 9, 4])
    >>> [part.tolist() for part in divide(lengths, np.arange(3), 2, "packed")]
    [[1], [0, 2]]
    """
    if not len(rows):
        return []
    n_parts = min(n_parts, len(rows))
    if layout == "packed":
        return [rows[part] for part in spread(lengths[rows], n_parts)]
    if layout == "sorted":
        rows = rows[_longest_first(lengths[rows])]
    return list(np.array_split(rows, n_parts))


def _longest_first(lengths: IntArray) -> IntArray:
    return np.argsort(-lengths, kind="stable").astype(np.int64)


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
