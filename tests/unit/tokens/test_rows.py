"""Assembled rows equal rows rendered one by one, and no delimiter is lost or forged."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from segments import read_segments
from small_tokenizers import FAMILIES, gemma_like, word_piece
from strategies import clean_text
from tiewise.errors import TemplateError
from tiewise.tokens import ragged
from tiewise.tokens.ragged import Ragged, offsets_of
from tiewise.tokens.rows import TokenRows, assemble, assemble_strings, token_rows
from tiewise.tokens.special_tokens import SpecialTokens
from tiewise.tokens.template import (
    Template,
    build_template,
    fill_in_order,
    notebook_template,
    share_budget,
)
from tiewise.tokens.tokenization import FIELDS, TokenizedPairs, Turns, token_lengths
from tiewise.tokens.tokenizer import TextTokenizer

SPECIAL = SpecialTokens(
    begin=(1,), prompt=(2, 50), response_a=(2, 51), response_b=(2, 52), turn=(3,), missing=(4,),
    end=(5,), pad=0,
)  # fmt: skip
turns = st.none() | st.lists(st.integers(100, 110), max_size=12)
fields = st.lists(turns, min_size=1, max_size=4)
tables = st.lists(st.tuples(fields, fields, fields), min_size=1, max_size=6)
templates = st.builds(
    Template,
    st.sampled_from([SPECIAL, dataclasses.replace(SPECIAL, begin=(), type_ids=(0, 0, 1))]),
    max_length=st.integers(11, 90),
    truncation=st.sampled_from(["balanced", "right"]),
    cut=st.sampled_from(["middle", "right"]),
)


def pack_field(cells):
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
    return TokenizedPairs(*(pack_field([row[field] for row in table]) for field in range(3)))


def stream_of(turns):
    parts = [[4] if turn is None else turn for turn in turns]
    return [token for part in parts for token in [3, *part]][1:]


def render(template, row):
    """Render one pair with lists: the second implementation."""
    special, streams = template.special_tokens, [stream_of(turns) for turns in row]
    share = share_budget if template.truncation == "balanced" else fill_in_order
    caps = share([[len(stream) for stream in streams]], template.budget)[0].tolist()
    ids = list(special.begin)
    for slot, stream, kept in zip(special.slots, streams, caps, strict=True):
        tail = kept // 2 if template.cut == "middle" and kept < len(stream) else 0
        ids += [*slot, *stream[: kept - tail], *stream[len(stream) - tail :]]
    return [*ids, *special.end]


class TestAssemble:
    """Rows of the ``fields`` template from tokens."""

    @given(tables, templates)
    def test_assembly_equals_rendering(self, table, template):
        """Two implementations give the same ids; n_truncated counts exactly the cut text."""
        rows = assemble(pack_table(table), template)
        expected = [render(template, row) for row in table]
        assert [rows.row(i).tolist() for i in range(len(rows))] == expected
        for position, row in enumerate(table):
            n_text = sum(len(turn) for turns in row for turn in turns if turn is not None)
            n_kept = (rows.row(position) >= 100).sum()
            assert rows.n_truncated[position] == n_text - n_kept

    @pytest.mark.parametrize("cut", ["middle", "right"])
    def test_every_cut_is_counted(self, cut):
        """Wherever a cut falls, next to text, a turn or a null, only lost text is counted."""
        field = [[100, 101], None, [102], [], [103, 104, 105], None, None, [106]]
        table = [(field, field[::-1], field[2:]), (field[3:], field, field[:4])]
        for max_length in range(11, 80):
            template = Template(SPECIAL, max_length=max_length, cut=cut)
            rows = assemble(pack_table(table), template)
            for position, row in enumerate(table):
                n_text = sum(len(turn or ()) for turns in row for turn in turns)
                n_kept = (rows.row(position) >= 100).sum()
                assert rows.n_truncated[position] == n_text - n_kept

    @given(tables, templates)
    def test_rows_respect_max_length(self, table, template):
        """No row is longer than the template allows, and the lengths add up."""
        rows = assemble(pack_table(table), template)
        assert rows.lengths.max() <= template.max_length
        assert rows.lengths.sum() == len(rows.values)

    @given(tables, templates)
    def test_truncation_commutes_with_swap(self, table, template):
        """B first gives the row of the swapped pair; a balanced cut keeps the same tokens."""
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
    def test_uncut_rows_read_back(self, table):
        """Turn boundaries and nulls are in the ids, so different pairs have different ids."""
        template = Template(SPECIAL, max_length=1000)
        rows = assemble(pack_table(table), template)
        for position, row in enumerate(table):
            assert read_segments(template, rows.row(position)) == tuple(row)
            assert rows.n_truncated[position] == 0

    @given(tables, templates)
    def test_delimiters_occur_exactly_once(self, table, template):
        """Every row has three slots and one end, however much is cut."""
        rows = assemble(pack_table(table), template)
        for position in range(len(rows)):
            ids = rows.row(position).tolist()
            assert ids.count(2) == 3
            assert ids.count(5) == 1
            assert ids[-1] == 5

    @given(tables, st.integers(11, 90))
    def test_every_field_keeps_tokens(self, table, max_length):
        """A field that has tokens keeps some under a balanced cut."""
        template = Template(SPECIAL, max_length=max_length)
        rows = assemble(pack_table(table), template)
        for position, row in enumerate(table):
            segments = read_segments(template, rows.row(position))
            for turns, kept in zip(row, segments, strict=True):
                assert (stream_of(turns) == []) == (kept == [[]])

    @given(tables, templates, st.integers(1, 3))
    def test_chunk_size_changes_nothing(self, table, template, chunk):
        """The number of rows assembled at once does not change them."""
        whole = assemble(pack_table(table), template)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ragged, "_CHUNK", chunk)
            parts = assemble(pack_table(table), template)
        assert whole.values.tolist() == parts.values.tolist()
        assert whole.n_truncated.tolist() == parts.n_truncated.tolist()

    @given(tables)
    def test_type_ids_follow_the_slots(self, table):
        """Prompt and A are segment 0; B and the end of the row are segment 1."""
        special = dataclasses.replace(SPECIAL, type_ids=(0, 0, 1))
        rows = assemble(pack_table(table), Template(special, max_length=60))
        for position in range(len(rows)):
            span = slice(rows.offsets[position], rows.offsets[position + 1])
            ids, type_ids = rows.values[span].tolist(), rows.type_ids[span].tolist()
            third_slot = [i for i, token in enumerate(ids) if token == 2][2]
            assert type_ids == [0] * third_slot + [1] * (len(ids) - third_slot)

    @given(tables)
    def test_lengths_before_any_cut(self, table):
        """`token_lengths` counts the text tokens of each field."""
        expected = [[sum(len(turn or ()) for turn in turns) for turns in row] for row in table]
        assert token_lengths(pack_table(table)).tolist() == expected

    def test_special_token_in_text_is_refused(self):
        """Tokens of another tokenizer, or of a forged cache, do not become delimiters."""
        tokenized = pack_table([([[101]], [[102, 5]], [[103]])])
        with pytest.raises(TemplateError, match="special token 5"):
            assemble(tokenized, Template(SPECIAL))

    def test_bounded_turns_count_as_truncated(self):
        """The tokens that the bound removed from a huge turn are counted too."""
        tokenized = pack_table([([[101]], [[102]], [[103]])])
        longer = dataclasses.replace(tokenized.response_a, n_original=np.array([10_001]))
        rows = assemble(tokenized._replace(response_a=longer), Template(SPECIAL))
        assert rows.n_truncated.tolist() == [10_000]

    @given(tables, templates)
    def test_tables_of_rows_join(self, table, template):
        """`concatenate` puts the rows of several tables into one."""
        rows = assemble(pack_table(table), template)
        joined = TokenRows.concatenate([rows, rows])
        assert len(joined) == 2 * len(rows)
        assert joined.row(len(rows)).tolist() == rows.row(0).tolist()
        assert joined.row(-1).tolist() == rows.row(-1).tolist()
        assert (joined.type_ids is None) == (rows.type_ids is None)


@given(st.lists(st.lists(st.integers(100, 110), max_size=9), min_size=1, max_size=5))
def test_strings_are_cut_right(strings):
    """The notebook's rule: begin, as much of the start as fits, end."""
    lengths = np.array([len(ids) for ids in strings], dtype=np.int64)
    flat = np.array([token for ids in strings for token in ids], dtype=np.int32)
    template = notebook_template(begin=2, end=1, pad=0, max_length=6)
    rows = assemble_strings(Ragged(flat, offsets_of(lengths), lengths), template)
    assert [rows.row(i).tolist() for i in range(len(rows))] == [[2, *s[:4], 1] for s in strings]
    assert rows.n_truncated.tolist() == [max(len(ids) - 4, 0) for ids in strings]


BUILT = [family() for family in FAMILIES]
GEMMA = BUILT[FAMILIES.index(gemma_like)]
PLAIN_GEMMA = Tokenizer.from_str(GEMMA.state)


@st.composite
def pairs_tables(draw, tokenizer):
    """Draw pairs whose turns spell special tokens, repeat, are empty, missing or absent."""
    pieces = st.sampled_from([*sorted(tokenizer.reserved), "prompt", "Response B\n"])
    text = st.lists(pieces | clean_text(5), max_size=5).map("".join)
    cell = st.lists(st.none() | text, max_size=3)
    rows = draw(st.lists(st.tuples(cell, cell, cell), min_size=1, max_size=4))
    return pd.DataFrame(rows, columns=list(FIELDS))


def ids_of(tokenizer, cell):
    """Return the tokens of a cell's turns, encoded one by one."""
    return [None if turn is None else tokenizer.encode(turn) for turn in cell or [None]]


@pytest.mark.parametrize("tokenizer", BUILT)
class TestTokenRows:
    """Rows of the ``fields`` template from text, with real tokenizers."""

    @given(data=st.data())
    def test_hostile_text_reads_back(self, tokenizer, data):
        """Each row reads back as exactly the tokens of its turns, whatever the texts spell."""
        pairs = data.draw(pairs_tables(tokenizer))
        template = build_template(tokenizer, max_length=5000)
        rows = token_rows(pairs, tokenizer, template, cache_dir=None)
        for position, row in enumerate(pairs.itertuples(index=False)):
            expected = tuple(ids_of(tokenizer, cell) for cell in row)
            assert read_segments(template, rows.row(position)) == expected
        assert rows.n_truncated.sum() == 0

    @given(data=st.data(), max_length=st.integers(30, 60))
    def test_delimiters_survive_every_cut(self, tokenizer, data, max_length):
        """Each delimiter occurs once, and the last id of a row is the end token."""
        pairs = data.draw(pairs_tables(tokenizer))
        template = build_template(tokenizer, max_length=max_length)
        rows = token_rows(pairs, tokenizer, template, cache_dir=None)
        special = template.special_tokens
        expected = [*special.begin, *(slot[0] for slot in special.slots), *special.end]
        outer = special.reserved - {*special.turn, *special.missing}
        for position in range(len(rows)):
            assert [token for token in rows.row(position) if token in outer] == expected
            assert rows.row(position)[-1] == special.end[0] != special.pad


class TestNotebook:
    """Rows of the ``notebook`` template."""

    @given(data=st.data(), max_length=st.integers(3, 40))
    def test_ids_of_the_whole_string(self, data, max_length):
        """Begin, the string's own tokens cut right, end; special tokens in it are parsed."""
        pairs = data.draw(pairs_tables(GEMMA))
        template = build_template(GEMMA, name="notebook", max_length=max_length)
        rows = token_rows(pairs, GEMMA, template, cache_dir=None)
        for position, row in enumerate(pairs.itertuples(index=False)):
            fields = [" ".join(turn or "" for turn in cell) for cell in row]
            headers = ("<prompt>: ", "\n\n<response_a>: ", "\n\n<response_b>: ")
            string = "".join(part for both in zip(headers, fields, strict=True) for part in both)
            ids = PLAIN_GEMMA.encode(string, add_special_tokens=False).ids
            assert rows.row(position).tolist() == [2, *ids[: max_length - 2], 1]
            assert rows.n_truncated[position] == max(len(ids) - (max_length - 2), 0)

    def test_encoders_use_cls_and_sep(self):
        """Without a token that begins a sequence, [CLS] and [SEP] enclose the row."""
        template = build_template(word_piece(), name="notebook")
        vocabulary = word_piece().vocabulary
        assert template.special_tokens.begin == (vocabulary["[CLS]"],)
        assert template.special_tokens.end == (vocabulary["[SEP]"],)

    def test_tokenizer_without_end_is_refused(self):
        """The message says which file declares the missing token."""
        undeclared = TextTokenizer(word_piece().state)
        with pytest.raises(TemplateError, match=r"tokenizer_config\.json"):
            build_template(undeclared, name="notebook")


@pytest.mark.parametrize("name", ["fields", "notebook"])
def test_no_pairs_no_rows(name):
    """An empty table gives no rows."""
    pairs = pd.DataFrame({field: [] for field in FIELDS})
    template = build_template(gemma_like(), name=name)
    rows = token_rows(pairs, gemma_like(), template, cache_dir=None)
    assert (len(rows), len(rows.values)) == (0, 0)
