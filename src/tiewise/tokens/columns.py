"""A text column of the pairs table, flattened to be tokenised and digested fast."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tiewise.errors import PairsError
from tiewise.tokens.ragged import IntArray, offsets_of

_HASH_BATCH = 256


@dataclass(frozen=True)
class Column:
    """One field of all pairs, its turns end to end; a null is an empty text marked missing."""

    texts: list[str]
    missing: npt.NDArray[np.bool_]
    rows: IntArray

    @classmethod
    def of(cls, cells: Iterable[list[str | None]]) -> Column:
        """Flatten a column of the pairs table; a cell without a turn is a missing turn.

        Examples
        --------
        >>> column = Column.of([["one", None], []])
        >>> column.texts, column.missing.tolist(), column.rows.tolist()
        (['one', '', ''], [False, True, True], [0, 2, 3])
        """
        turns = [cell if len(cell) else (None,) for cell in cells]
        rows = offsets_of(np.fromiter(map(len, turns), np.int64, len(turns)))
        flat = list(itertools.chain.from_iterable(turns))
        missing = np.fromiter((turn is None for turn in flat), np.bool_, len(flat))
        return cls(["" if turn is None else turn for turn in flat], missing, rows)

    def cells(self) -> Iterator[list[str]]:
        """Yield each row's turns, a missing one as an empty text."""
        return (self.texts[start:end] for start, end in itertools.pairwise(self.rows.tolist()))

    def digest(self) -> list[str]:
        """Digest texts, nulls and rows: equal for equal columns alone.

        Raises
        ------
        PairsError
            When a text cannot be encoded as UTF-8.
        """
        arrays = [hashlib.sha256(part.tobytes()) for part in (self.missing, self.rows)]
        return [_digest_texts(self.texts), *(array.hexdigest() for array in arrays)]


def _digest_texts(texts: Sequence[str]) -> str:
    """Digest number, lengths and bytes of texts, some at a time so that they stay in the cache."""
    digest = hashlib.sha256(f"{len(texts)} ".encode())
    digest.update(np.fromiter(map(len, texts), np.int64, len(texts)).tobytes())
    try:
        for start in range(0, len(texts), _HASH_BATCH):
            digest.update(b"".join(map(str.encode, texts[start : start + _HASH_BATCH])))
    except UnicodeEncodeError as error:
        message = (
            f"The text {error.object[:40]!r} holds half a surrogate pair, which no encoding "
            "accepts. Read the file with read_pairs, which repairs it."
        )
        raise PairsError(message) from error
    return digest.hexdigest()
