"""Rows of tokens that begin alike, with each shared beginning kept once.

In a causal model the keys and values of a token depend on what stands before it and on nothing
else. Rows that begin with the same tokens therefore share them exactly: all ordered pairs of N
answers to one prompt are a tree of prompt, first answer and second answer, in which the prompt
stands once and each first answer once. Nothing here knows about templates: what is shared is found
by comparing the rows, so rows that were cut share what is left to share, and the result is exact
for any rows.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from tiewise.tokens.rows import TokenRows

IntArray = npt.NDArray[np.int64]
MIN_SHARED = 16
"""Tokens a beginning must have to be worth a node of its own."""
_KEYS_PER_TOKEN = 4
"""Rows of a tree may be this many times as long, laid end to end, as its budget: attention gathers
the keys of each row, so this bounds its memory."""


@dataclass(frozen=True)
class PrefixTree:
    """The nodes of a tree, parents before their children.

    values
        Tokens of all nodes, one node after the other: int32, shape (n_tokens,).
    positions
        Place of each token in its row, from 0: int64, shape (n_tokens,).
    offsets
        Node k owns the tokens ``offsets[k]:offsets[k + 1]``: int64, shape (n_nodes + 1,).
    parents
        The node before each node, -1 where a row begins: int64, shape (n_nodes,).
    leaves
        The node in which each row ends, with the row's last token: int64, shape (n_rows,).
    """

    values: npt.NDArray[np.int32]
    positions: IntArray
    offsets: IntArray
    parents: IntArray
    leaves: IntArray

    @property
    def last_tokens(self) -> IntArray:
        """Position of each row's last token in `values`, shape (n_rows,)."""
        return self.offsets[self.leaves + 1] - 1

    def path(self, node: int) -> list[int]:
        """Return the nodes from the row's beginning to `node`, both included."""
        nodes = [node]
        while self.parents[nodes[-1]] >= 0:
            nodes.append(int(self.parents[nodes[-1]]))
        return nodes[::-1]


def plan_trees(rows: TokenRows, *, max_tokens: int, min_shared: int = MIN_SHARED) -> list[IntArray]:
    """Split rows into trees of at most `max_tokens` tokens, alike beginnings side by side.

    Parameters
    ----------
    rows
        Token rows, n of them.
    max_tokens
        Most tokens of a tree, shared ones counted once. A single longer row stands alone.
    min_shared
        See :func:`build_tree`.

    Returns
    -------
    list of int64 arrays
        Positions of the rows of each tree, each row exactly once.
    """
    order, shared = _sort(rows, np.arange(len(rows)))
    lengths = rows.lengths[order]
    new = lengths - np.where(shared >= min_shared, shared, 0)
    starts, n_tokens, n_keys = [0], 0, 0
    for place, (length, n_new) in enumerate(zip(lengths.tolist(), new.tolist(), strict=True)):
        n_tokens, n_keys = n_tokens + n_new, n_keys + length
        is_full = n_tokens > max_tokens or n_keys > _KEYS_PER_TOKEN * max_tokens
        if is_full and place > starts[-1]:
            starts.append(place)
            n_tokens = n_keys = length
    return np.split(order, starts[1:]) if len(order) else []


def shared_tokens(rows: TokenRows, *, min_shared: int = MIN_SHARED) -> int:
    """Return how many tokens of `rows` a single tree would not compute again.

    Parameters
    ----------
    rows
        Token rows.
    min_shared
        See :func:`build_tree`.
    """
    _, shared = _sort(rows, np.arange(len(rows)))
    return int(shared[shared >= min_shared].sum())


def build_tree(rows: TokenRows, indices: IntArray, *, min_shared: int = MIN_SHARED) -> PrefixTree:
    """Build the tree of the rows `indices`, in which each shared beginning stands once.

    Parameters
    ----------
    rows
        Token rows.
    indices
        Which of them, shape (n_rows,).
    min_shared
        A beginning becomes a node when it is this many tokens longer than its parent's.

    Returns
    -------
    PrefixTree
        Every row can be read along the path to its leaf; a leaf has at least one token.
    """
    order, shared = _sort(rows, indices)
    lengths = rows.lengths[indices[order]]
    nodes: list[tuple[int, int, int, int]] = []  # parent, row it is read from, start, stop
    leaves = np.empty(len(indices), dtype=np.int64)
    open_groups = [(0, len(order), 0, -1)]  # first, last + 1, depth, parent
    while open_groups:
        first, last, depth, parent = open_groups.pop()
        for begin, end in _alike(shared, first, last, depth + min_shared):
            stop = int(lengths[begin])
            if end - begin > 1:
                stop = int(min(shared[begin + 1 : end].min(), lengths[begin:end].min() - 1))
                open_groups.append((begin, end, stop, len(nodes)))
            else:
                leaves[order[begin]] = len(nodes)
            nodes.append((parent, int(indices[order[begin]]), depth, stop))
    return _lay_out(rows, nodes, leaves)


def _alike(shared: IntArray, first: int, last: int, least: int) -> list[tuple[int, int]]:
    """Cut sorted rows first:last where neighbours share fewer than `least` tokens."""
    cuts = first + 1 + np.flatnonzero(shared[first + 1 : last] < least)
    bounds = [first, *cuts.tolist(), last]
    return list(itertools.pairwise(bounds))


def _lay_out(
    rows: TokenRows, nodes: list[tuple[int, int, int, int]], leaves: IntArray
) -> PrefixTree:
    sizes = [stop - start for _, _, start, stop in nodes]
    values = [rows.row(row)[start:stop] for _, row, start, stop in nodes]
    positions = [np.arange(start, stop, dtype=np.int64) for _, _, start, stop in nodes]
    return PrefixTree(
        values=np.concatenate(values).astype(np.int32, copy=False),
        positions=np.concatenate(positions),
        offsets=np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
        parents=np.array([parent for parent, _, _, _ in nodes], dtype=np.int64),
        leaves=leaves,
    )


def _sort(rows: TokenRows, indices: IntArray) -> tuple[IntArray, IntArray]:
    """Sort rows by their tokens; return the order, and what each shares with the one before it."""
    contents = [rows.row(int(row)) for row in indices]
    # Big-endian bytes compare as the numbers do.
    keys = [content.astype(">u4").tobytes() for content in contents]
    order = sorted(range(len(keys)), key=keys.__getitem__)
    shared = [0] + [_count_shared(contents[a], contents[b]) for a, b in itertools.pairwise(order)]
    return np.array(order, dtype=np.int64), np.array(shared[: len(order)], dtype=np.int64)


def _count_shared(first: npt.NDArray[np.int32], second: npt.NDArray[np.int32]) -> int:
    n = min(len(first), len(second))
    differs = first[:n] != second[:n]
    return int(differs.argmax()) if differs.any() else n
