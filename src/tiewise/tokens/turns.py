"""Texts to ids, with a bound on what one absurd text may cost.

A long text is cut to characters first, six for each token wanted and more where that falls short,
so megabytes in one turn are never tokenised. Equal texts are tokenised once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tiewise.progress import progress_bar
from tiewise.tokens.ragged import IntArray, gather, offsets_of

Encode = Callable[[Sequence[str]], list[list[int]]]

_CHARACTERS_PER_TOKEN = 6
_MARGIN = 256  # tokens beside an artificial cut may differ from those of the whole text
_BATCH = 256


class Bound(NamedTuple):
    """How many tokens are kept from a text's start and from its end."""

    head: int
    tail: int


class Ids(NamedTuple):
    """The kept ids of one text, and how many the whole text has."""

    kept: list[int]
    n_original: int


@dataclass(frozen=True)
class Ragged:
    """The ids of many texts, end to end: values int32, offsets (n + 1,), n_original (n,)."""

    values: npt.NDArray[np.int32]
    offsets: IntArray
    n_original: IntArray

    def take(self, index: IntArray) -> Ragged:
        """Return the texts at `index`, in its order, repeated where it repeats."""
        lengths = np.diff(self.offsets)[index]
        values = gather(self.values, self.offsets[:-1][index], lengths)
        return Ragged(values, offsets_of(lengths), self.n_original[index])


def encode_texts(texts: Sequence[str], encode: Encode, bound: Bound) -> Ragged:
    """Encode every text in batches, with a progress bar on a terminal.

    Parameters
    ----------
    texts
        The texts; n of them.
    encode
        Ids of each text of a batch.
    bound
        Of a text with more tokens only the outermost are kept.

    Returns
    -------
    Ragged
        n entries. `n_original` is exact up to six characters for each token of the bound, and an
        estimate from the density of what was tokenised beyond.

    Examples
    --------
    >>> spell = lambda texts: [[ord(letter) for letter in text] for text in texts]
    >>> encoded = encode_texts(["abcdef", "b"], spell, Bound(head=2, tail=1))
    >>> encoded.values, encoded.offsets, encoded.n_original
    (array([ 97,  98, 102,  98], dtype=int32), array([0, 3, 4]), array([6, 1]))
    """
    values, lengths, originals = [np.empty(0, dtype=np.int32)], [0], [0]
    with progress_bar(len(texts), name="tokenize", unit="text", delay=2) as progress:
        for start in range(0, len(texts), _BATCH):
            batch = list(_encode_batch(texts[start : start + _BATCH], encode, bound))
            values += [np.array(ids.kept, dtype=np.int32) for ids in batch]
            lengths += [len(ids.kept) for ids in batch]
            originals += [ids.n_original for ids in batch]
            progress.update(len(batch))
    offsets = np.cumsum(lengths, dtype=np.int64)
    return Ragged(np.concatenate(values), offsets, np.array(originals[1:], dtype=np.int64))


def _encode_batch(texts: Sequence[str], encode: Encode, bound: Bound) -> Iterator[Ids]:
    limit = sum(bound) * _CHARACTERS_PER_TOKEN
    whole = iter(encode([text for text in texts if len(text) <= limit]))
    for text in texts:
        yield _bounded(next(whole), bound) if len(text) <= limit else _long(text, encode, bound)


def _bounded(ids: list[int], bound: Bound) -> Ids:
    if len(ids) <= sum(bound):
        return Ids(ids, len(ids))
    return Ids(ids[: bound.head] + ids[len(ids) - bound.tail :], len(ids))


def _long(text: str, encode: Encode, bound: Bound) -> Ids:
    """Encode no more of a long text than its bound needs."""
    per_token = _CHARACTERS_PER_TOKEN
    while sum(bound) * per_token < len(text):
        parts = [text[: bound.head * per_token], text[len(text) - bound.tail * per_token :]]
        head, tail = encode(parts)
        if _suffices(head, bound.head) and _suffices(tail, bound.tail):
            n_encoded = sum(len(part) for part in parts)
            n_original = round(len(text) * (len(head) + len(tail)) / n_encoded)
            return Ids(head[: bound.head] + tail[len(tail) - bound.tail :], n_original)
        per_token *= 2
    return _bounded(encode([text])[0], bound)


def _suffices(ids: list[int], wanted: int) -> bool:
    return not wanted or len(ids) >= wanted + _MARGIN
