"""Tokenise each turn once and cache its ids.

The cache contains the first and last 4,096 ids of every turn. Its key covers the texts, the
tokenizer, the code that tokenises and the version of the library, and nothing of the template. Of a
long text only six characters for each wanted token are tokenised at each end, doubled while
they give too few tokens. Equal texts are tokenised once.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.resources
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
import tokenizers

from tiewise.console import progress_bar
from tiewise.errors import PairsError
from tiewise.files import digest_bytes, digest_json
from tiewise.tokens.array_cache import Arrays, load_or_compute
from tiewise.tokens.ragged import IntArray, Ragged, offsets_of
from tiewise.tokens.tokenizer import TextTokenizer

FIELDS = ("prompt", "response_a", "response_b")

Encode = Callable[[Sequence[str]], list[list[int]]]

_CHARACTERS_PER_TOKEN = 6
_MARGIN = 256  # tokens near an artificial cut may differ from those of the whole text
_BATCH = 256


class Bound(NamedTuple):
    """Numbers of tokens that are kept from the start and from the end of a text."""

    head: int
    tail: int


_TURN_BOUND = Bound(head=4096, tail=4096)


@dataclass(frozen=True)
class Turns(Ragged):
    """Token ids of every turn of one field.

    rows : int64 (n + 1,): row i has the turns ``rows[i]:rows[i + 1]``. missing : bool (n_turns,).
    """

    rows: IntArray
    missing: npt.NDArray[np.bool_]


class TokenizedPairs(NamedTuple):
    """The turns of all three fields of n pairs; templates are applied to them."""

    prompt: Turns
    response_a: Turns
    response_b: Turns


def tokenize(
    pairs: pd.DataFrame, tokenizer: TextTokenizer, *, cache_dir: Path | str | None
) -> TokenizedPairs:
    """Tokenise every turn of every field, or read the ids from the cache (None: no cache).

    Each cell of the columns `prompt`, `response_a` and `response_b` is a list of str or None; an
    empty list counts as one missing turn. Arrays from the cache are read-only. The original length
    of a turn is exact up to 49,152 characters and an estimate beyond.
    """
    columns = [TextColumn.of(pairs[name]) for name in FIELDS]
    key = _key("turns", tokenizer, [column.digest() for column in columns])
    arrays = load_or_compute(cache_dir, key, lambda: _encode_columns(columns, tokenizer))
    parts = Turns.__dataclass_fields__
    return TokenizedPairs(
        *(Turns(**{part: arrays[f"{name}.{part}"] for part in parts}) for name in FIELDS)
    )


def tokenize_strings(
    pairs: pd.DataFrame,
    tokenizer: TextTokenizer,
    *,
    max_length: int,
    cache_dir: Path | str | None,
    is_swapped: bool = False,
) -> Ragged:
    """Tokenise each pair as the notebook does: one string, special tokens in the text parsed.

    The template keeps `max_length` ids; at least 8,192 are cached. When `is_swapped`, response B
    comes first, as A.
    """
    names = ("prompt", "response_b", "response_a") if is_swapped else FIELDS
    columns = [TextColumn.of(pairs[name]) for name in names]
    bound = Bound(head=max(max_length, sum(_TURN_BOUND)), tail=0)
    key = _key("strings", tokenizer, [bound, *(column.digest() for column in columns)])

    def encode() -> Arrays:
        return dict(vars(encode_texts(_join_fields(columns), tokenizer.encode_strings, bound)))

    return Ragged(**load_or_compute(cache_dir, key, encode))


def token_lengths(tokenized: TokenizedPairs) -> IntArray:
    """Return the text tokens of prompt, response A and response B before any cut, int64 (n, 3)."""
    return np.stack([sum_by_row(field.n_original, field) for field in tokenized], axis=1)


def sum_by_row(values: IntArray, field: Turns) -> IntArray:
    """Sum a value of each turn, (n_turns,), over the turns of each row, (n,)."""
    sums: IntArray = np.add.reduceat(values, field.rows[:-1], dtype=np.int64)
    return sums


@dataclass(frozen=True)
class TextColumn:
    """One field of all pairs, its turns end to end; a null is an empty text marked as missing."""

    texts: list[str]
    missing: npt.NDArray[np.bool_]
    rows: IntArray

    @classmethod
    def of(cls, cells: Iterable[list[str | None]]) -> TextColumn:
        """Flatten a column of the pairs table; a cell without a turn is a missing turn.

        >>> column = TextColumn.of([["one", None], []])
        >>> column.texts, column.missing.tolist(), column.rows.tolist()
        (['one', '', ''], [False, True, True], [0, 2, 3])
        """
        turns = [cell if len(cell) else (None,) for cell in cells]
        rows = offsets_of(np.fromiter(map(len, turns), np.int64, len(turns)))
        flat = list(itertools.chain.from_iterable(turns))
        missing = np.fromiter((turn is None for turn in flat), np.bool_, len(flat))
        return cls(["" if turn is None else turn for turn in flat], missing, rows)

    def cells(self) -> Iterator[list[str]]:
        """Yield the turns of each row, a missing one as an empty text."""
        return (self.texts[start:end] for start, end in itertools.pairwise(self.rows.tolist()))

    def digest(self) -> str:
        """Return a digest of texts, nulls and rows: 64 hex digits, equal only for equal columns.

        A text that cannot be encoded as UTF-8 is a PairsError.
        """
        lengths = np.fromiter(map(len, self.texts), np.int64, len(self.texts))
        digest = hashlib.sha256(f"{len(self.texts)} {len(self.rows)} ".encode())
        for part in (lengths, self.missing, self.rows):
            digest.update(part.tobytes())
        try:
            for start in range(0, len(self.texts), _BATCH):  # small enough for the cache
                digest.update(b"".join(map(str.encode, self.texts[start : start + _BATCH])))
        except UnicodeEncodeError as error:
            raise PairsError(
                f"The text {error.object[:40]!r} holds half a surrogate pair, which no encoding "
                "accepts. Read the file with read_pairs, which repairs it."
            ) from error
        return digest.hexdigest()


def encode_texts(texts: Sequence[str], encode: Encode, bound: Bound) -> Ragged:
    """Encode the ends of every text in batches, with a progress bar on a terminal.

    `n_original` of the result is exact up to six characters for each token of the bound, and an
    estimate beyond, from the tokens per character at both ends.

    >>> spell = lambda texts: [[ord(letter) for letter in text] for text in texts]
    >>> encoded = encode_texts(["abcdef", "b"], spell, Bound(head=2, tail=1))
    >>> encoded.values, encoded.offsets, encoded.n_original
    (array([ 97,  98, 102,  98], dtype=int32), array([0, 3, 4]), array([6, 1]))
    """
    values, lengths, originals = [np.empty(0, dtype=np.int32)], [], []
    with progress_bar(len(texts), name="tokenize", unit="text", delay=2) as progress:
        for start in range(0, len(texts), _BATCH):
            batch = list(_encode_batch(texts[start : start + _BATCH], encode, bound))
            values += [np.array(kept, dtype=np.int32) for kept, _ in batch]
            lengths += [len(kept) for kept, _ in batch]
            originals += [n_original for _, n_original in batch]
            progress.update(len(batch))
    offsets = offsets_of(np.array(lengths, dtype=np.int64))
    return Ragged(np.concatenate(values), offsets, np.array(originals, dtype=np.int64))


def _encode_batch(
    texts: Sequence[str], encode: Encode, bound: Bound
) -> Iterator[tuple[list[int], int]]:
    """Yield for each text the kept ids, and how many ids the whole text has."""
    limit = sum(bound) * _CHARACTERS_PER_TOKEN
    short = iter(encode([text for text in texts if len(text) <= limit]))
    for text in texts:
        if len(text) <= limit:
            yield _keep_ends(next(short), bound)
        else:
            yield _encode_long(text, encode, bound)


def _keep_ends(ids: list[int], bound: Bound) -> tuple[list[int], int]:
    if len(ids) <= sum(bound):
        return ids, len(ids)
    return ids[: bound.head] + ids[len(ids) - bound.tail :], len(ids)


def _encode_long(text: str, encode: Encode, bound: Bound) -> tuple[list[int], int]:
    """Encode only as many characters at both ends as the bound needs."""
    per_token = _CHARACTERS_PER_TOKEN
    while sum(bound) * per_token < len(text):
        parts = [text[: bound.head * per_token], text[len(text) - bound.tail * per_token :]]
        head, tail = encode(parts)
        if all(
            not n or len(ids) >= n + _MARGIN for ids, n in zip((head, tail), bound, strict=True)
        ):
            n_encoded = sum(len(part) for part in parts)
            n_original = round(len(text) * (len(head) + len(tail)) / n_encoded)
            return head[: bound.head] + tail[len(tail) - bound.tail :], n_original
        per_token *= 2
    return _keep_ends(encode([text])[0], bound)


def _encode_columns(columns: Sequence[TextColumn], tokenizer: TextTokenizer) -> Arrays:
    texts = dict.fromkeys(itertools.chain.from_iterable(column.texts for column in columns))
    position = {text: index for index, text in enumerate(texts)}
    unique = encode_texts(list(texts), tokenizer.encode_turns, _TURN_BOUND)
    arrays: Arrays = {}
    for name, column in zip(FIELDS, columns, strict=True):
        index = np.fromiter(map(position.__getitem__, column.texts), np.int64, len(column.texts))
        parts = vars(unique.take(index)) | {"rows": column.rows, "missing": column.missing}
        arrays |= {f"{name}.{part}": array for part, array in parts.items()}
    return arrays


def _join_fields(columns: Sequence[TextColumn]) -> list[str]:
    """Return the notebook's string of each pair."""
    headers = ("<prompt>: ", "\n\n<response_a>: ", "\n\n<response_b>: ")
    fields = (
        [header + " ".join(turns) for turns in column.cells()]
        for header, column in zip(headers, columns, strict=True)
    )
    return ["".join(parts) for parts in zip(*fields, strict=True)]


def _key(kind: str, tokenizer: TextTokenizer, contents: Sequence[object]) -> str:
    return digest_json([kind, _digest_code(), tokenizers.__version__, tokenizer.digest, *contents])


@functools.cache
def _digest_code() -> str:
    """Digest the code that decides the ids of a text: changed code must not find old entries."""
    package = importlib.resources.files("tiewise.tokens")
    names = ("tokenization.py", "tokenizer.py", "ragged.py")
    return digest_bytes(b"".join(package.joinpath(name).read_bytes() for name in names))
