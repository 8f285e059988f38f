"""Arrays of unequal lengths, kept end to end in one flat array."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]


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
