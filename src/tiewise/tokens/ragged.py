"""Arrays of unequal lengths, kept end to end in one flat array."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]

_CHUNK = 2048  # so that the indices of a chunk stay in the processor's cache


def offsets_of(lengths: IntArray) -> IntArray:
    """Return where each part starts and, last, where the last one ends: int64 (n + 1,).

    Examples
    --------
    >>> offsets_of(np.array([2, 0, 3]))
    array([0, 2, 2, 5])
    """
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])


def ranges(starts: IntArray, lengths: IntArray) -> IntArray:
    """Return the integers of all ranges [start, start + length), end to end.

    Examples
    --------
    >>> ranges(np.array([10, 5]), np.array([2, 3]))
    array([10, 11,  5,  6,  7])
    """
    offsets = offsets_of(lengths)
    indices = np.arange(offsets[-1])
    indices += np.repeat(starts - offsets[:-1], lengths)
    return indices


def chunks(n: int) -> Iterator[slice]:
    """Cut n parts into slices small enough to work on at once.

    Examples
    --------
    >>> list(chunks(3000))
    [slice(0, 2048, None), slice(2048, 3000, None)]
    """
    return (slice(start, min(start + _CHUNK, n)) for start in range(0, n, _CHUNK))


def gather(
    values: npt.NDArray[np.int32], starts: IntArray, lengths: IntArray
) -> npt.NDArray[np.int32]:
    """Return the parts of `values` that begin at `starts`, end to end.

    Examples
    --------
    >>> gather(np.arange(9, dtype=np.int32), np.array([7, 0]), np.array([2, 3]))
    array([7, 8, 0, 1, 2], dtype=int32)
    """
    offsets = offsets_of(lengths)
    gathered = np.empty(offsets[-1], dtype=np.int32)
    for parts in chunks(len(lengths)):
        place = slice(offsets[parts.start], offsets[parts.stop])
        gathered[place] = values[ranges(starts[parts], lengths[parts])]
    return gathered
