"""Find equal rows of tokens, and an order of rows that depends only on their contents.

Floating-point sums depend on which rows share a batch. Therefore nothing depends on the order of
the file: equal rows are scored once, and rows are batched by length and content. Swapping pairs,
shuffling them or repeating some leads to the same forward passes, and to results that are equal to
the last bit.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import xxhash

from tiewise.tokens.ragged import IntArray, offsets_of, ranges

if TYPE_CHECKING:
    from tiewise.tokens.rows import TokenRows


def find_distinct(rows: TokenRows) -> tuple[IntArray, IntArray]:
    """Find the distinct rows, in an order that depends only on their contents.

    Parameters
    ----------
    rows
        n rows of tokens.

    Returns
    -------
    representatives : int64 array, shape (m,)
        One row for each distinct content, ordered by length, then by digest.
    inverse : int64 array, shape (n,)
        ``representatives[inverse[i]]`` has the same content as row i.
    """
    keys = [(len(row), xxhash.xxh3_128_digest(row)) for row in _contents(rows)]
    first = {key: position for position, key in reversed(list(enumerate(keys)))}
    ordered = sorted(first)
    place = {key: position for position, key in enumerate(ordered)}
    representatives = np.array([first[key] for key in ordered], dtype=np.int64)
    return representatives, np.array([place[key] for key in keys], dtype=np.int64)


def take_rows(rows: TokenRows, indices: IntArray) -> TokenRows:
    """Return some rows, in the order of `indices`."""
    lengths = rows.lengths[indices]
    tokens = ranges(rows.offsets[indices], lengths)
    return dataclasses.replace(
        rows,
        values=rows.values[tokens],
        offsets=offsets_of(lengths),
        n_truncated=rows.n_truncated[indices],
        type_ids=None if rows.type_ids is None else rows.type_ids[tokens],
    )


def _contents(rows: TokenRows) -> Iterator[bytes]:
    for start, stop in itertools.pairwise(rows.offsets.tolist()):
        types = b"" if rows.type_ids is None else rows.type_ids[start:stop].tobytes()
        yield rows.values[start:stop].tobytes() + types
