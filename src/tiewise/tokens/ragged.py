"""Arrays of unequal lengths, stored end to end in one flat array."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]
Int32Array = npt.NDArray[np.int32]

_CHUNK = 2048  # parts; their indices fit the processor's cache


@dataclass(frozen=True)
class Ragged:
    """Token ids of n texts; of long texts only the first and last tokens are kept.

    values : int32 (n_tokens,). offsets : int64 (n + 1,): text t is
    ``values[offsets[t]:offsets[t + 1]]``. n_original : int64 (n,), its tokens before the bound.
    """

    values: Int32Array
    offsets: IntArray
    n_original: IntArray

    def take(self, index: IntArray) -> Ragged:
        """Return the texts at `index`, in its order, repeated where it repeats."""
        lengths = np.diff(self.offsets)[index]
        values = gather(self.values, self.offsets[:-1][index], lengths)
        return Ragged(values, offsets_of(lengths), self.n_original[index])


def offsets_of(lengths: IntArray) -> IntArray:
    """Return the start of each part and, last, the end of the last part: int64 (n + 1,).

    >>> offsets_of(np.array([2, 0, 3]))
    array([0, 2, 2, 5])
    """
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])


def ranges(starts: IntArray, lengths: IntArray) -> IntArray:
    """Return the integers of all ranges [start, start + length), end to end.

    >>> ranges(np.array([10, 5]), np.array([2, 3]))
    array([10, 11,  5,  6,  7])
    """
    offsets = offsets_of(lengths)
    indices = np.arange(offsets[-1])
    indices += np.repeat(starts - offsets[:-1], lengths)
    return indices


def chunks(n: int) -> Iterator[slice]:
    """Yield slices that cut n parts into chunks small enough to process at once.

    >>> list(chunks(3000))
    [slice(0, 2048, None), slice(2048, 3000, None)]
    """
    return (slice(start, min(start + _CHUNK, n)) for start in range(0, n, _CHUNK))


def gather(values: Int32Array, starts: IntArray, lengths: IntArray) -> Int32Array:
    """Return the parts of `values` that begin at `starts`, end to end.

    >>> gather(np.arange(9, dtype=np.int32), np.array([7, 0]), np.array([2, 3]))
    array([7, 8, 0, 1, 2], dtype=int32)
    """
    offsets = offsets_of(lengths)
    gathered = np.empty(offsets[-1], dtype=np.int32)
    for parts in chunks(len(lengths)):
        target = slice(offsets[parts.start], offsets[parts.stop])
        gathered[target] = values[ranges(starts[parts], lengths[parts])]
    return gathered
