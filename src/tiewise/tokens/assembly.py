"""Rows of ids from stored turns, by array operations alone.

Template, length, truncation and the order of the responses are decided here, so that changing any
of them costs no tokenisation. A field's *stream* is its turns with a turn mark between them and a
missing mark in place of each null; what is kept of a stream is a head and a tail.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tiewise.errors import TemplateError
from tiewise.tokens.ragged import IntArray, chunks, gather, offsets_of, ranges
from tiewise.tokens.template import Template, fill_in_order, share_budget
from tiewise.tokens.turns import Ragged

Int32Array = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Turns:
    """The token ids of every turn of one field.

    values : int32 (n_tokens,). offsets : int64 (n_turns + 1,): turn t is
    ``values[offsets[t]:offsets[t + 1]]``. rows : int64 (n + 1,): row i owns turns
    ``rows[i]:rows[i + 1]``. missing : bool (n_turns,). n_original : int64 (n_turns,), the turn's
    tokens before it was bounded.
    """

    values: Int32Array
    offsets: IntArray
    rows: IntArray
    missing: npt.NDArray[np.bool_]
    n_original: IntArray


@dataclass(frozen=True)
class TokenizedPairs:
    """The turns of all three fields; everything that templates are applied to."""

    prompt: Turns
    response_a: Turns
    response_b: Turns

    def __len__(self) -> int:
        return len(self.prompt.rows) - 1

    @property
    def fields(self) -> tuple[Turns, Turns, Turns]:
        """Prompt, response A, response B."""
        return self.prompt, self.response_a, self.response_b


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
        """Join rows of several tables into one, in this order."""
        type_ids = [part.type_ids for part in parts if part.type_ids is not None]
        return TokenRows(
            values=np.concatenate([part.values for part in parts]),
            offsets=offsets_of(np.concatenate([part.lengths for part in parts])),
            n_truncated=np.concatenate([part.n_truncated for part in parts]),
            type_ids=np.concatenate(type_ids) if len(type_ids) == len(parts) else None,
        )


def assemble(
    tokenized: TokenizedPairs, template: Template, *, is_swapped: bool = False
) -> TokenRows:
    """Render every pair with a ``fields`` template.

    Parameters
    ----------
    tokenized
        The turns of n pairs.
    template
        Delimiters, length and truncation.
    is_swapped
        Show response B first, as A.

    Returns
    -------
    TokenRows
        n rows, each at most ``template.max_length`` long.

    Raises
    ------
    TemplateError
        When a text holds one of the template's control ids: it belongs to another tokenizer.
    """
    prompt, first, second = tokenized.fields
    fields = (prompt, second, first) if is_swapped else (prompt, first, second)
    streams = np.stack([_stream_lengths(field) for field in fields], axis=1)
    share = share_budget if template.truncation == "balanced" else fill_in_order
    kept = share(streams, template.budget)
    starts, offsets = _layout(kept, template)
    values = np.empty(offsets[-1], dtype=np.int32)
    n_truncated: IntArray = token_lengths(tokenized).sum(axis=1)
    for slot, field in enumerate(fields):
        n_truncated -= _write_field(values, field, starts[:, slot], kept[:, slot], template)
    _write_controls(values, starts, offsets, template)
    return TokenRows(values, offsets, n_truncated, _type_ids(starts, offsets, template))


def assemble_strings(strings: Ragged, template: Template) -> TokenRows:
    """Render whole tokenised strings with the ``notebook`` template: begin, a right cut, end."""
    controls, lengths = template.controls, np.diff(strings.offsets)
    kept = np.minimum(lengths, template.budget)
    offsets = offsets_of(kept + len(controls.begin) + len(controls.end))
    values = np.empty(offsets[-1], dtype=np.int32)
    starts = offsets[:-1] + len(controls.begin)
    for rows in chunks(len(kept)):
        text = gather(strings.values, strings.offsets[:-1][rows], kept[rows])
        values[ranges(starts[rows], kept[rows])] = text
    _write_constant(values, offsets[:-1], controls.begin)
    _write_constant(values, offsets[1:] - len(controls.end), controls.end)
    return TokenRows(values, offsets, strings.n_original - kept)


def token_lengths(tokenized: TokenizedPairs) -> IntArray:
    """Return the text tokens of prompt, response A and response B before any cut, int64 (n, 3)."""
    return np.stack([_per_row(field.n_original, field) for field in tokenized.fields], axis=1)


def _layout(kept: IntArray, template: Template) -> tuple[IntArray, IntArray]:
    """Return where each field's text starts, (n, 3), and where each row starts, (n + 1,)."""
    controls = template.controls
    slots = np.array([len(slot) for slot in controls.slots])
    ends = np.cumsum(kept + slots, axis=1) + len(controls.begin)
    offsets = offsets_of(ends[:, -1] + len(controls.end))
    return offsets[:-1, None] + ends - kept, offsets


def _write_controls(
    values: Int32Array, starts: IntArray, offsets: IntArray, template: Template
) -> None:
    controls = template.controls
    _write_constant(values, offsets[:-1], controls.begin)
    for slot, ids in enumerate(controls.slots):
        _write_constant(values, starts[:, slot] - len(ids), ids)
    _write_constant(values, offsets[1:] - len(controls.end), controls.end)


def _write_constant(values: Int32Array, positions: IntArray, ids: tuple[int, ...]) -> None:
    for shift, token in enumerate(ids):
        values[positions + shift] = token


def _write_field(
    values: Int32Array, field: Turns, starts: IntArray, kept: IntArray, template: Template
) -> IntArray:
    """Write what is kept of one field into its place; return the text tokens kept, (n,)."""
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
    """Return the streams of some rows, where each row starts, and which positions are marks."""
    turns = slice(field.rows[rows.start], field.rows[rows.stop])
    bounds = field.offsets[turns.start : turns.stop + 1]
    text = field.values[bounds[0] : bounds[-1]]
    _check_text(text, template)
    missing, has_mark = field.missing[turns], np.ones(turns.stop - turns.start, dtype=np.int64)
    first_turns = field.rows[rows.start : rows.stop + 1] - turns.start
    has_mark[first_turns[:-1]] = 0
    ends = np.cumsum(np.diff(bounds) + has_mark + missing)
    contents = ends - np.diff(bounds)
    stream = np.empty(ends[-1], dtype=np.int32)
    stream[ranges(contents, np.diff(bounds))] = text
    nulls = ends[missing] - 1
    separators = (ends - np.diff(bounds) - missing - has_mark)[has_mark == 1]
    stream[nulls], stream[separators] = template.controls.missing[0], template.controls.turn[0]
    offsets = np.concatenate([[0], ends])[first_turns]
    return stream, offsets, np.concatenate([nulls, separators])


def _count_kept(marks: IntArray, offsets: IntArray, heads: IntArray, tails: IntArray) -> IntArray:
    """Count the marks of each row that stand in its head or its tail."""
    row = np.searchsorted(offsets, marks, side="right") - 1
    in_head = marks - offsets[row] < heads[row]
    in_tail = offsets[row + 1] - marks <= tails[row]
    return np.bincount(row[in_head | in_tail], minlength=len(heads))


def _check_text(text: Int32Array, template: Template) -> None:
    for token in template.controls.reserved:
        if (text == token).any():
            message = (
                f"A text holds the control id {token}, which no text may produce. The template "
                "was made for another tokenizer; build it anew with build_template."
            )
            raise TemplateError(message)


def _stream_lengths(field: Turns) -> IntArray:
    """Return for each row its text tokens, missing marks and turn marks together, (n,)."""
    turns = np.diff(field.rows)
    return _per_row(np.diff(field.offsets) + field.missing, field) + turns - 1


def _per_row(values: IntArray, field: Turns) -> IntArray:
    sums: IntArray = np.add.reduceat(values, field.rows[:-1], dtype=np.int64)
    return sums


def _type_ids(
    starts: IntArray, offsets: IntArray, template: Template
) -> npt.NDArray[np.int8] | None:
    controls = template.controls
    if controls.type_ids is None:
        return None
    later = starts[:, 1:] - [len(slot) for slot in controls.slots[1:]]
    bounds = np.concatenate([offsets[:-1, None], later, offsets[1:, None]], axis=1)
    segments = np.tile(np.array(controls.type_ids, dtype=np.int8), len(starts))
    return np.repeat(segments, np.diff(bounds, axis=1).ravel())
