"""Templates share a row's space fairly, and the turns of a row can be recovered."""

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segments import read_segments
from tiewise.errors import TemplateError
from tiewise.tokens.special_tokens import SpecialTokens
from tiewise.tokens.template import (
    Template,
    build_template,
    fill_in_order,
    notebook_template,
    share_budget,
)

SPECIAL = SpecialTokens(
    begin=(1,), prompt=(2, 50), response_a=(2, 51), response_b=(2, 52), turn=(3,), missing=(4,),
    end=(5,), pad=0,
)  # fmt: skip
lengths_of_rows = st.lists(st.tuples(*[st.integers(0, 60)] * 3), min_size=1, max_size=20)
budgets = st.integers(0, 150)


class TestShareBudget:
    """Sharing the space of a row by water-filling."""

    @given(lengths_of_rows, budgets)
    def test_budget_and_lengths_are_respected(self, lengths, budget):
        """A field keeps at most its length, a row at most the budget."""
        kept = share_budget(lengths, budget)
        assert (kept <= np.array(lengths)).all()
        assert (kept >= 0).all()
        assert (kept.sum(axis=1) <= budget).all()

    @given(lengths_of_rows, budgets)
    def test_all_the_space_is_used(self, lengths, budget):
        """At most one token is unused: when both responses are cut and the prompt is not."""
        kept = share_budget(lengths, budget)
        for row, used in zip(lengths, kept.tolist(), strict=True):
            unused = min(sum(row), budget) - sum(used)
            both_cut = used[1] < row[1] and used[2] < row[2]
            assert unused == 0 or (unused == 1 and used[0] == row[0] and both_cut)

    @given(lengths_of_rows, budgets)
    def test_fair_shares_are_never_cut(self, lengths, budget):
        """A field of at most a third of the budget is whole; a longer one keeps a third or more."""
        kept = share_budget(lengths, budget)
        fair = np.minimum(lengths, budget // 3)
        assert (kept >= fair).all()

    @given(lengths_of_rows, budgets)
    def test_responses_have_equal_caps(self, lengths, budget):
        """When both are cut they are equally long; when one is cut the other is not longer."""
        for row, used in zip(lengths, share_budget(lengths, budget).tolist(), strict=True):
            if used[1] < row[1]:
                assert used[2] <= used[1]
            if used[2] < row[2]:
                assert used[1] <= used[2]

    @given(lengths_of_rows, budgets)
    def test_sharing_commutes_with_swap(self, lengths, budget):
        """Sharing after a swap equals a swap after sharing."""
        swapped = [(prompt, second, first) for prompt, first, second in lengths]
        expected = share_budget(lengths, budget)[:, [0, 2, 1]]
        assert share_budget(swapped, budget).tolist() == expected.tolist()

    @given(st.tuples(*[st.integers(1, 60)] * 3), st.integers(3, 150))
    def test_every_field_keeps_some(self, lengths, budget):
        """With a budget of at least three, each field that has tokens keeps one or more."""
        assert share_budget([lengths], budget).min() >= 1

    @given(lengths_of_rows, budgets)
    def test_rows_are_independent(self, lengths, budget):
        """Many rows at once give the same as each row alone."""
        alone = [share_budget([row], budget)[0].tolist() for row in lengths]
        assert share_budget(lengths, budget).tolist() == alone

    @given(lengths_of_rows, budgets)
    def test_more_space_keeps_more(self, lengths, budget):
        """A larger budget never keeps fewer tokens of a row."""
        less, more = (share_budget(lengths, size).sum(axis=1) for size in (budget, budget + 1))
        assert (more >= less).all()


@given(lengths_of_rows, budgets)
def test_filling_in_order_cuts_right(lengths, budget):
    """The first `budget` tokens of the three fields, end to end, are kept."""
    kept = fill_in_order(lengths, budget)
    for row, used in zip(lengths, kept.tolist(), strict=True):
        owner = np.repeat([0, 1, 2], row)[:budget]
        assert used == np.bincount(owner, minlength=3).tolist()


class TestTemplate:
    """Templates as objects that are stored with an adapter."""

    @given(
        st.integers(11, 4096),
        st.sampled_from(["balanced", "right"]),
        st.sampled_from(["middle", "right"]),
    )
    def test_json_round_trip(self, max_length, truncation, cut):
        """A template read back from JSON is equal and has the same digest."""
        template = Template(SPECIAL, "fields", max_length, truncation, cut)
        read_back = Template.from_dict(json.loads(json.dumps(template.to_dict())))
        assert read_back == template
        assert read_back.digest == template.digest

    def test_template_of_version_0_1(self):
        """A template.json that names its special tokens ``controls`` is still read."""
        template = Template(SPECIAL, max_length=100)
        old = template.to_dict()
        old["controls"] = old.pop("special_tokens")
        assert Template.from_dict(json.loads(json.dumps(old))) == template

    def test_every_field_changes_the_digest(self):
        """Templates that render differently have different digests."""
        template = Template(SPECIAL, max_length=100)
        others = [
            dataclasses.replace(template, max_length=101),
            dataclasses.replace(template, truncation="right"),
            dataclasses.replace(template, cut="right"),
            dataclasses.replace(
                template, special_tokens=dataclasses.replace(SPECIAL, type_ids=(0, 0, 1))
            ),
        ]
        assert len({template.digest, *(other.digest for other in others)}) == 5

    def test_too_short_rows_are_refused(self):
        """The message names the smallest possible max_length."""
        with pytest.raises(TemplateError, match="at least 11:"):
            Template(SPECIAL, max_length=10)
        assert Template(SPECIAL, max_length=11).budget == 3
        with pytest.raises(TemplateError, match="at least 3:"):
            notebook_template(begin=2, end=1, pad=0, max_length=2)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"turn": (4,)}, "two different ids"),
            ({"missing": (2,)}, "two different ids"),
            ({"turn": (5,)}, "two different ids"),
            ({"turn": ()}, "one id each"),
            ({"end": (5, 6)}, "one id each"),
            ({"prompt": ()}, "three slots"),
            ({"pad": 5}, "pad is 5, a delimiter"),
        ],
    )
    def test_confusable_delimiters_are_refused(self, changes, message):
        """Special tokens that make a row ambiguous are refused before any row is built."""
        with pytest.raises(TemplateError, match=message):
            Template(dataclasses.replace(SPECIAL, **changes))

    def test_unknown_options_are_refused(self):
        """The message names the known values."""
        with pytest.raises(TemplateError, match="balanced, right"):
            Template(SPECIAL, truncation="left")
        with pytest.raises(TemplateError, match="not a template"):
            Template.from_dict({"max_length": 5})


class Named:
    """A tokenizer of which only the names and ids of special tokens matter."""

    def __init__(self, special, **vocabulary):
        self.special, self.vocabulary = special, vocabulary
        self.reserved = {"<pad>": 0, "<w>": 1, "<x>": 2, "<y>": 3}

    def encode(self, text):
        return [100 + len(text)]


class TestBuild:
    """Templates of a backbone's tokenizer."""

    @pytest.mark.parametrize(
        ("special", "expected"),
        [
            ({"bos_token": "b", "eos_token": "e", "pad_token": "p"}, (10, 11, 12)),
            ({"cls_token": "c", "sep_token": "s", "pad_token": "p"}, (13, 14, 12)),
            (
                {"bos_token": "b", "cls_token": "c", "eos_token": "e", "sep_token": "s"},
                (10, 11, 11),
            ),
        ],
    )
    def test_notebook_takes_the_tokenizers_roles(self, special, expected):
        """Begin and end of a text, or those of an encoder; without padding, the end pads."""
        tokenizer = Named(special, b=10, e=11, p=12, c=13, s=14)
        template = build_template(tokenizer, name="notebook", max_length=77, truncation="right")
        begin, end, pad = expected
        assert template == notebook_template(begin=begin, end=end, pad=pad, max_length=77)

    def test_notebook_knows_the_usual_names(self):
        """Without roles, tokens of the usual names are taken."""
        template = build_template(
            Named({}, **{"<bos>": 4, "<eos>": 5, "<pad>": 6}), name="notebook"
        )
        tokens = template.special_tokens
        assert (tokens.begin, tokens.end, tokens.pad) == ((4,), (5,), 6)
        assert template.max_length == 2048

    @pytest.mark.parametrize("gone", ["<bos>", "<eos>"])
    def test_notebook_needs_begin_and_end(self, gone):
        """A tokenizer without one of them is refused; a padding token cannot replace it."""
        vocabulary = {"<bos>": 4, "<eos>": 5, "<pad>": 6}
        del vocabulary[gone]
        with pytest.raises(TemplateError, match="one that begins and one that ends a text"):
            build_template(Named({}, **vocabulary), name="notebook")

    def test_options_reach_the_template(self):
        """Length and truncation are those given; the defaults are 2,048 and balanced."""
        tokenizer = Named({"pad_token": "<pad>"})
        template = build_template(tokenizer, max_length=99, truncation="right")
        assert (template.name, template.max_length, template.truncation) == ("fields", 99, "right")
        assert template.cut == "middle"
        assert template.special_tokens.pad == 0
        default = build_template(tokenizer)
        assert (default.max_length, default.truncation) == (2048, "balanced")

    def test_notebook_defaults(self):
        """The notebook keeps the first 1,024 ids, delimiters included."""
        template = notebook_template(begin=1, end=2, pad=0)
        assert (template.max_length, template.truncation, template.cut) == (1024, "right", "right")
        assert template.budget == 1022


class TestReadSegments:
    """Recovering the turns of a row."""

    def test_missing_differs_from_empty(self):
        """None, an empty turn and a text are three different things."""
        template = Template(SPECIAL, max_length=100)
        ids = [1, 2, 50, 4, 2, 51, 70, 3, 3, 4, 2, 52, 5]
        assert read_segments(template, ids) == ([None], [[70], [], None], [[]])

    @pytest.mark.parametrize("position", [0, 1, 2, 4, 5, 7, 8, 9])
    def test_foreign_rows_are_refused(self, position):
        """A row that lacks one id of a delimiter is refused."""
        ids = [1, 2, 50, 90, 2, 51, 91, 2, 52, 5]
        assert read_segments(Template(SPECIAL), ids) == ([[90]], [[91]], [[]])
        damaged = [*ids[:position], 99, *ids[position + 1 :]]
        with pytest.raises(TemplateError, match="not written by this template"):
            read_segments(Template(SPECIAL), damaged)
