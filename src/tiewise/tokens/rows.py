"""Assemble rows of token ids from tokenised pairs, by array operations alone.

Changing the template, the length or the order of the responses costs no tokenisation. The *stream*
of a field is its turns, with the special token `turn` between them and `missing` for each null.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from tiewise.errors import TemplateError
from tiewise.tokens.ragged import Int32Array, IntArray, Ragged, chunks, gather, offsets_of, ranges
from tiewise.tokens.template import Template, fill_in_order, share_budget
from tiewise.tokens.tokenization import (
    TokenizedPairs,
    Turns,
    sum_by_row,
    token_lengths,
    tokenize,
    tokenize_strings,
)
from tiewise.tokens.tokenizer import TextTokenizer


@dataclass(frozen=True)
class TokenRows:
    """One row of ids for each pair, end to end.

    values : int32 (n_tokens,). offsets : int64 (n + 1,). n_truncated : int64 (n,), text tokens
    that were cut. type_ids : int8 (n_tokens,) or None, segment ids for encoders.
    """

    values: Int32Array
    offsets: IntArray
    n_truncated: IntArray
    type_ids: npt.NDArray[np.int8] | None = None

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> IntArray:
        """Ids of each row, int64 (n,)."""
        return np.diff(self.offsets)

    def row(self, position: int) -> Int32Array:
        """Return the ids of one row, int32 (length,)."""
        position = range(len(self))[position]
        return self.values[self.offsets[position] : self.offsets[position + 1]]

    @staticmethod
    def concatenate(parts: Sequence[TokenRows]) -> TokenRows:
        """Join the rows of several tables, in this order."""
        type_ids = [part.type_ids for part in parts if part.type_ids is not None]
        return TokenRows(
            values=np.concatenate([part.values for part in parts]),
            offsets=offsets_of(np.concatenate([part.lengths for part in parts])),
            n_truncated=np.concatenate([part.n_truncated for part in parts]),
            type_ids=np.concatenate(type_ids) if len(type_ids) == len(parts) else None,
        )


def token_rows(
    pairs: pd.DataFrame,
    tokenizer: TextTokenizer,
    template: Template,
    *,
    cache_dir: Path | str | None,
    is_swapped: bool = False,
) -> TokenRows:
    """Turn a pairs table into one row of ids for each pair.

    `cache_dir` is the folder of the token cache; None caches nothing. When `is_swapped`, response
    B comes first, as A.
    """
    if template.name == "notebook":
        strings = tokenize_strings(
            pairs,
            tokenizer,
            max_length=template.max_length,
            cache_dir=cache_dir,
            is_swapped=is_swapped,
        )
        return assemble_strings(strings, template)
    tokenized = tokenize(pairs, tokenizer, cache_dir=cache_dir)
    return assemble(tokenized, template, is_swapped=is_swapped)


def assemble(
    tokenized: TokenizedPairs, template: Template, *, is_swapped: bool = False
) -> TokenRows:
    """Render n pairs with a ``fields`` template: n rows, each at most ``max_length`` long.

    TemplateError means that a text contains a special token of the template.
    """
    prompt, first, second = tokenized
    fields = (prompt, second, first) if is_swapped else (prompt, first, second)
    streams = np.stack([_stream_lengths(field) for field in fields], axis=1)
    share = share_budget if template.truncation == "balanced" else fill_in_order
    kept = share(streams, template.budget)
    starts, offsets = _place_fields(kept, template)
    values = np.empty(offsets[-1], dtype=np.int32)
    n_truncated: IntArray = token_lengths(tokenized).sum(axis=1)
    for slot, field in enumerate(fields):
        n_truncated -= _write_field(values, field, starts[:, slot], kept[:, slot], template)
    special = template.special_tokens
    _write_constant(values, offsets[:-1], special.begin)
    for slot, ids in enumerate(special.slots):
        _write_constant(values, starts[:, slot] - len(ids), ids)
    _write_constant(values, offsets[1:] - len(special.end), special.end)
    return TokenRows(values, offsets, n_truncated, _type_ids(starts, offsets, template))


def assemble_strings(strings: Ragged, template: Template) -> TokenRows:
    """Render whole tokenised strings with the ``notebook`` template: begin, a right cut, end."""
    special, lengths = template.special_tokens, np.diff(strings.offsets)
    kept = np.minimum(lengths, template.budget)
    offsets = offsets_of(kept + len(special.begin) + len(special.end))
    values = np.empty(offsets[-1], dtype=np.int32)
    starts = offsets[:-1] + len(special.begin)
    for rows in chunks(len(kept)):
        text = gather(strings.values, strings.offsets[:-1][rows], kept[rows])
        values[ranges(starts[rows], kept[rows])] = text
    _write_constant(values, offsets[:-1], special.begin)
    _write_constant(values, offsets[1:] - len(special.end), special.end)
    return TokenRows(values, offsets, strings.n_original - kept)


def find_distinct(rows: TokenRows) -> tuple[IntArray, IntArray]:
    """Return `representatives`, int64 `(m,)`, and `inverse`, int64 `(n,)`, of n rows.

    The representatives are one row for each distinct content, by length, then by digest. Row i has
    the content of row ``representatives[inverse[i]]``.
    """
    keys = [
        (len(row), hashlib.blake2b(row, digest_size=16).digest()) for row in _row_contents(rows)
    ]
    first = {key: position for position, key in reversed(list(enumerate(keys)))}
    ordered = sorted(first)
    place = {key: position for position, key in enumerate(ordered)}
    representatives = np.array([first[key] for key in ordered], dtype=np.int64)
    return representatives, np.array([place[key] for key in keys], dtype=np.int64)


def _row_contents(rows: TokenRows) -> Iterator[bytes]:
    for start, stop in itertools.pairwise(rows.offsets.tolist()):
        types = b"" if rows.type_ids is None else rows.type_ids[start:stop].tobytes()
        yield rows.values[start:stop].tobytes() + types


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


def _stream_lengths(field: Turns) -> IntArray:
    """Return for each row its text tokens, missing tokens and turn tokens together, (n,)."""
    n_turns = np.diff(field.rows)
    return sum_by_row(np.diff(field.offsets) + field.missing, field) + n_turns - 1


def _place_fields(kept: IntArray, template: Template) -> tuple[IntArray, IntArray]:
    """Return the start of each field's text, (n, 3), and the start of each row, (n + 1,)."""
    special = template.special_tokens
    slots = np.array([len(slot) for slot in special.slots])
    ends = np.cumsum(kept + slots, axis=1) + len(special.begin)
    offsets = offsets_of(ends[:, -1] + len(special.end))
    return offsets[:-1, None] + ends - kept, offsets


def _write_constant(values: Int32Array, positions: IntArray, ids: tuple[int, ...]) -> None:
    for shift, token in enumerate(ids):
        values[positions + shift] = token


def _write_field(
    values: Int32Array, field: Turns, starts: IntArray, kept: IntArray, template: Template
) -> IntArray:
    """Write the kept part of one field to its place; return the text tokens kept, (n,)."""
    n_text = np.empty_like(kept)
    for rows in chunks(len(kept)):
        stream, offsets, marks = _stream(field, rows, template)
        heads = kept[rows] if template.cut == "right" else (kept[rows] + 1) // 2
        tails = np.where(np.diff(offsets) > kept[rows], kept[rows] - heads, 0)
        heads = kept[rows] - tails
        parts = np.stack([offsets[:-1], offsets[1:] - tails], axis=1)
        sources = ranges(parts.ravel(), np.stack([heads, tails], axis=1).ravel())
        values[ranges(starts[rows], kept[rows])] = stream[sources]
        n_text[rows] = kept[rows] - _count_kept(marks, offsets, heads, tails)
    return n_text


def _stream(field: Turns, rows: slice, template: Template) -> tuple[Int32Array, IntArray, IntArray]:
    """Return the streams of some rows, the start of each row, and the special tokens' positions."""
    turns = slice(field.rows[rows.start], field.rows[rows.stop])
    bounds = field.offsets[turns.start : turns.stop + 1]
    text = field.values[bounds[0] : bounds[-1]]
    _check_text(text, template)
    missing, has_separator = field.missing[turns], np.ones(turns.stop - turns.start, dtype=np.int64)
    first_turns = field.rows[rows.start : rows.stop + 1] - turns.start
    has_separator[first_turns[:-1]] = 0
    lengths = np.diff(bounds)
    ends = np.cumsum(lengths + has_separator + missing)
    stream = np.empty(ends[-1], dtype=np.int32)
    stream[ranges(ends - lengths, lengths)] = text
    nulls = ends[missing] - 1
    separators = (ends - lengths - missing - has_separator)[has_separator == 1]
    special = template.special_tokens
    stream[nulls], stream[separators] = special.missing[0], special.turn[0]
    offsets = np.concatenate([[0], ends])[first_turns]
    return stream, offsets, np.concatenate([nulls, separators])


def _count_kept(marks: IntArray, offsets: IntArray, heads: IntArray, tails: IntArray) -> IntArray:
    """Count for each row the marked positions that lie in its head or its tail."""
    row = np.searchsorted(offsets, marks, side="right") - 1
    in_head = marks - offsets[row] < heads[row]
    in_tail = offsets[row + 1] - marks <= tails[row]
    return np.bincount(row[in_head | in_tail], minlength=len(heads))


def _check_text(text: Int32Array, template: Template) -> None:
    for token in template.special_tokens.reserved:
        if (text == token).any():
            raise TemplateError(
                f"A text contains the special token {token}; expected ordinary tokens only. The "
                "template belongs to another tokenizer; build it again with build_template."
            )


def _type_ids(
    starts: IntArray, offsets: IntArray, template: Template
) -> npt.NDArray[np.int8] | None:
    special = template.special_tokens
    if special.type_ids is None:
        return None
    later = starts[:, 1:] - [len(slot) for slot in special.slots[1:]]
    bounds = np.concatenate([offsets[:-1, None], later, offsets[1:, None]], axis=1)
    segments = np.tile(np.array(special.type_ids, dtype=np.int8), len(starts))
    return np.repeat(segments, np.diff(bounds, axis=1).ravel())
