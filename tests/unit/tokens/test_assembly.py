"""Array assembly equals rendering row by row, and never loses or forges a delimiter."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiewise.errors import TemplateError
from tiewise.tokens import ragged
from tiewise.tokens.assembly import (
    TokenizedPairs,
    TokenRows,
    Turns,
    assemble,
    assemble_strings,
    token_lengths,
)
from tiewise.tokens.controls import Controls
from tiewise.tokens.ragged import offsets_of
from tiewise.tokens.template import (
    Template,
    fill_in_order,
    notebook_template,
    read_segments,
    share_budget,
)
from tiewise.tokens.turns import Ragged

CONTROLS = Controls(
    begin=(1,), prompt=(2, 50), response_a=(2, 51), response_b=(2, 52), turn=(3,), missing=(4,),
    end=(5,), pad=0,
)  # fmt: skip
turns = st.none() | st.lists(st.integers(100, 110), max_size=12)
fields = st.lists(turns, min_size=1, max_size=4)
tables = st.lists(st.tuples(fields, fields, fields), min_size=1, max_size=6)
templates = st.builds(
    Template,
    st.sampled_from([CONTROLS, dataclasses.replace(CONTROLS, begin=(), type_ids=(0, 0, 1))]),
    max_length=st.integers(11, 90),
    truncation=st.sampled_from(["balanced", "right"]),
    cut=st.sampled_from(["middle", "right"]),
)


def pack(cells):
    """Store one field as `tokenize` does."""
    flat = [turn for cell in cells for turn in cell]
    lengths = np.array([len(turn or ()) for turn in flat], dtype=np.int64)
    return Turns(
        values=np.array([token for turn in flat for token in turn or ()], dtype=np.int32),
        offsets=offsets_of(lengths),
        rows=offsets_of(np.array([len(cell) for cell in cells], dtype=np.int64)),
        missing=np.array([turn is None for turn in flat]),
        n_original=lengths,
    )


def pack_table(table):
    return TokenizedPairs(*(pack([row[field] for row in table]) for field in range(3)))


def stream_of(turns):
    parts = [[4] if turn is None else turn for turn in turns]
    return [token for part in parts for token in [3, *part]][1:]


def kept_of(template, row):
    share = share_budget if template.truncation == "balanced" else fill_in_order
    return share([[len(stream_of(turns)) for turns in row]], template.budget)[0].tolist()


def render(template, row):
    """Render one pair the plain way: the second implementation."""
    ids = list(template.controls.begin)
    for slot, turns, kept in zip(template.controls.slots, row, kept_of(template, row), strict=True):
        stream = stream_of(turns)
        tail = kept // 2 if template.cut == "middle" and kept < len(stream) else 0
        ids += [*slot, *stream[: kept - tail], *stream[len(stream) - tail :]]
    return [*ids, *template.controls.end]


@given(tables, templates)
def test_assembly_equals_rendering_row_by_row(table, template):
    """Two implementations, one result, and n_truncated counts exactly the text that is gone."""
    rows = assemble(pack_table(table), template)
    assert [rows.row(i).tolist() for i in range(len(rows))] == [render(template, r) for r in table]
    for position, row in enumerate(table):
        n_text = sum(len(turn) for turns in row for turn in turns if turn is not None)
        n_kept = (rows.row(position) >= 100).sum()
        assert rows.n_truncated[position] == n_text - n_kept


@given(tables, templates)
def test_no_row_is_longer_than_allowed(table, template):
    """The length is a promise to whoever budgets memory."""
    rows = assemble(pack_table(table), template)
    assert rows.lengths.max() <= template.max_length
    assert rows.lengths.sum() == len(rows.values)


@given(tables, templates)
def test_truncation_commutes_with_the_swap(table, template):
    """Showing B first gives the row of the swapped pair; balanced, it keeps the same tokens."""
    tokenized = pack_table(table)
    swapped = assemble(tokenized, template, is_swapped=True)
    of_swapped = assemble(pack_table([(p, b, a) for p, a, b in table]), template)
    assert swapped.values.tolist() == of_swapped.values.tolist()
    if template.truncation == "balanced":
        given_order = assemble(tokenized, template)
        assert swapped.lengths.tolist() == given_order.lengths.tolist()
        assert swapped.n_truncated.tolist() == given_order.n_truncated.tolist()
        for position in range(len(table)):
            prompt, first, second = read_segments(template, swapped.row(position))
            expected = read_segments(template, given_order.row(position))
            assert (prompt, second, first) == expected


@given(tables)
def test_without_a_cut_a_row_can_be_read_back(table):
    """So no two different pairs share their ids: turn boundaries and nulls are all there."""
    template = Template(CONTROLS, max_length=1000)
    rows = assemble(pack_table(table), template)
    for position, row in enumerate(table):
        assert read_segments(template, rows.row(position)) == tuple(row)
        assert rows.n_truncated[position] == 0


@given(tables, templates)
def test_every_delimiter_stands_exactly_once(table, template):
    """However much is cut, three slots and one end are there, the end last."""
    rows = assemble(pack_table(table), template)
    for position in range(len(rows)):
        ids = rows.row(position).tolist()
        assert ids.count(2) == 3
        assert ids.count(5) == 1
        assert ids[-1] == 5


@given(tables, st.integers(11, 90))
def test_both_responses_are_present(table, max_length):
    """A response that has tokens keeps some, whatever the others take."""
    template = Template(CONTROLS, max_length=max_length)
    rows = assemble(pack_table(table), template)
    for position, row in enumerate(table):
        segments = read_segments(template, rows.row(position))
        for turns, kept in zip(row, segments, strict=True):
            assert (stream_of(turns) == []) == (kept == [[]])


@given(tables, templates, st.integers(1, 3))
def test_chunks_do_not_show(table, template, chunk):
    """Rows are assembled some at a time; how many changes nothing."""
    whole = assemble(pack_table(table), template)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ragged, "_CHUNK", chunk)
        parts = assemble(pack_table(table), template)
    assert whole.values.tolist() == parts.values.tolist()
    assert whole.n_truncated.tolist() == parts.n_truncated.tolist()


@given(tables)
def test_segment_ids_follow_the_slots(table):
    """Prompt and A are segment 0, B is segment 1, up to the end of the row."""
    controls = dataclasses.replace(CONTROLS, type_ids=(0, 0, 1))
    rows = assemble(pack_table(table), Template(controls, max_length=60))
    for position in range(len(rows)):
        span = slice(rows.offsets[position], rows.offsets[position + 1])
        ids, type_ids = rows.values[span].tolist(), rows.type_ids[span].tolist()
        third_slot = [i for i, token in enumerate(ids) if token == 2][2]
        assert type_ids == [0] * third_slot + [1] * (len(ids) - third_slot)


@given(tables)
def test_lengths_before_any_cut(table):
    """What an audit counts are the text tokens of each field."""
    expected = [[sum(len(turn or ()) for turn in turns) for turns in row] for row in table]
    assert token_lengths(pack_table(table)).tolist() == expected


def test_a_text_with_a_control_id_is_refused():
    """Tokens of another tokenizer, or of a forged cache, do not become delimiters."""
    tokenized = pack_table([([[101]], [[102, 5]], [[103]])])
    with pytest.raises(TemplateError, match="control id 5"):
        assemble(tokenized, Template(CONTROLS))


def test_bounded_turns_count_as_truncated():
    """What the bound took from an absurd turn is counted too."""
    tokenized = pack_table([([[101]], [[102]], [[103]])])
    longer = dataclasses.replace(tokenized.response_a, n_original=np.array([10_001]))
    rows = assemble(dataclasses.replace(tokenized, response_a=longer), Template(CONTROLS))
    assert rows.n_truncated.tolist() == [10_000]


@given(st.lists(st.lists(st.integers(100, 110), max_size=9), min_size=1, max_size=5))
def test_strings_are_cut_right(strings):
    """The notebook's rule: begin, as much of the start as fits, end."""
    lengths = np.array([len(ids) for ids in strings], dtype=np.int64)
    flat = np.array([token for ids in strings for token in ids], dtype=np.int32)
    template = notebook_template(begin=2, end=1, pad=0, max_length=6)
    rows = assemble_strings(Ragged(flat, offsets_of(lengths), lengths), template)
    assert [rows.row(i).tolist() for i in range(len(rows))] == [[2, *s[:4], 1] for s in strings]
    assert rows.n_truncated.tolist() == [max(len(ids) - 4, 0) for ids in strings]


@given(tables, templates)
def test_rows_of_several_tables_join(table, template):
    """Both orders of a pair, or two files, become one table of rows."""
    rows = assemble(pack_table(table), template)
    joined = TokenRows.concatenate([rows, rows])
    assert len(joined) == 2 * len(rows)
    assert joined.row(len(rows)).tolist() == rows.row(0).tolist()
    assert joined.row(-1).tolist() == rows.row(-1).tolist()
    assert (joined.type_ids is None) == (rows.type_ids is None)


def test_no_pairs_give_no_rows():
    """An empty table is a table."""
    rows = assemble(pack_table([]), Template(CONTROLS))
    assert (len(rows), len(rows.values)) == (0, 0)
