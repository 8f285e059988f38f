"""Space is shared fairly, and a row can be taken apart again."""

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiewise.errors import TemplateError
from tiewise.tokens.controls import Controls
from tiewise.tokens.template import (
    Template,
    fill_in_order,
    notebook_template,
    read_segments,
    share_budget,
)

CONTROLS = Controls(
    begin=(1,), prompt=(2, 50), response_a=(2, 51), response_b=(2, 52), turn=(3,), missing=(4,),
    end=(5,), pad=0,
)  # fmt: skip
lengths_of_rows = st.lists(st.tuples(*[st.integers(0, 60)] * 3), min_size=1, max_size=20)
budgets = st.integers(0, 150)


class TestShareBudget:
    """Water-filling."""

    @given(lengths_of_rows, budgets)
    def test_never_over_budget_and_nothing_invented(self, lengths, budget):
        """A field keeps at most its length, a row at most the budget."""
        kept = share_budget(lengths, budget)
        assert (kept <= np.array(lengths)).all()
        assert (kept >= 0).all()
        assert (kept.sum(axis=1) <= budget).all()

    @given(lengths_of_rows, budgets)
    def test_leftover_is_given_back(self, lengths, budget):
        """All the space is used; one token at most stays when it cannot be halved."""
        kept = share_budget(lengths, budget)
        for row, used in zip(lengths, kept.tolist(), strict=True):
            unused = min(sum(row), budget) - sum(used)
            both_cut = used[1] < row[1] and used[2] < row[2]
            assert unused == 0 or (unused == 1 and used[0] == row[0] and both_cut)

    @given(lengths_of_rows, budgets)
    def test_no_field_below_its_fair_share_is_cut(self, lengths, budget):
        """Who asks for a third or less gets all of it, and nobody gets less than a third."""
        kept = share_budget(lengths, budget)
        fair = np.minimum(lengths, budget // 3)
        assert (kept >= fair).all()

    @given(lengths_of_rows, budgets)
    def test_both_responses_have_equal_caps(self, lengths, budget):
        """When both are cut they are equally long; when one is cut the other is not longer."""
        for row, used in zip(lengths, share_budget(lengths, budget).tolist(), strict=True):
            if used[1] < row[1]:
                assert used[2] <= used[1]
            if used[2] < row[2]:
                assert used[1] <= used[2]

    @given(lengths_of_rows, budgets)
    def test_it_commutes_with_the_swap(self, lengths, budget):
        """Sharing after a swap is the swap of sharing."""
        swapped = [(prompt, second, first) for prompt, first, second in lengths]
        expected = share_budget(lengths, budget)[:, [0, 2, 1]]
        assert share_budget(swapped, budget).tolist() == expected.tolist()

    @given(st.tuples(*[st.integers(1, 60)] * 3), st.integers(3, 150))
    def test_both_responses_are_present(self, lengths, budget):
        """With three tokens of space every field that has text keeps some."""
        assert share_budget([lengths], budget).min() >= 1

    @given(lengths_of_rows, budgets)
    def test_rows_do_not_depend_on_their_neighbours(self, lengths, budget):
        """Many rows at once give what each gives alone."""
        alone = [share_budget([row], budget)[0].tolist() for row in lengths]
        assert share_budget(lengths, budget).tolist() == alone

    @given(lengths_of_rows, budgets)
    def test_more_space_keeps_no_less(self, lengths, budget):
        """One more token of budget takes nothing from the responses together with the prompt."""
        less, more = (share_budget(lengths, size).sum(axis=1) for size in (budget, budget + 1))
        assert (more >= less).all()


@given(lengths_of_rows, budgets)
def test_filling_in_order_is_the_right_cut(lengths, budget):
    """What is kept is the first `budget` tokens of the three fields end to end."""
    kept = fill_in_order(lengths, budget)
    for row, used in zip(lengths, kept.tolist(), strict=True):
        owner = np.repeat([0, 1, 2], row)[:budget]
        assert used == np.bincount(owner, minlength=3).tolist()


class TestTemplate:
    """The object that travels with an adapter."""

    @given(
        st.integers(11, 4096),
        st.sampled_from(["balanced", "right"]),
        st.sampled_from(["middle", "right"]),
    )
    def test_json_round_trip_keeps_the_digest(self, max_length, truncation, cut):
        """A template read back from a run is the one that trained it."""
        template = Template(CONTROLS, "fields", max_length, truncation, cut)
        read_back = Template.from_dict(json.loads(json.dumps(template.to_dict())))
        assert read_back == template
        assert read_back.digest == template.digest

    def test_every_field_changes_the_digest(self):
        """Two templates that render differently have two digests."""
        template = Template(CONTROLS, max_length=100)
        others = [
            dataclasses.replace(template, max_length=101),
            dataclasses.replace(template, truncation="right"),
            dataclasses.replace(template, cut="right"),
            dataclasses.replace(
                template, controls=dataclasses.replace(CONTROLS, type_ids=(0, 0, 1))
            ),
        ]
        assert len({template.digest, *(other.digest for other in others)}) == 5

    def test_no_room_for_text_is_an_error_that_names_the_least(self):
        """The message says how long a row must be at least."""
        with pytest.raises(TemplateError, match="must be at least 11"):
            Template(CONTROLS, max_length=10)
        assert Template(CONTROLS, max_length=11).budget == 3
        with pytest.raises(TemplateError, match="must be at least 3"):
            notebook_template(begin=2, end=1, pad=0, max_length=2)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"turn": (4,)}, "must differ"),
            ({"missing": (2,)}, "must differ"),
            ({"turn": (5,)}, "must differ"),
            ({"turn": ()}, "one id each"),
            ({"end": (5, 6)}, "one id each"),
            ({"prompt": ()}, "three slots"),
            ({"pad": 5}, "also a delimiter"),
        ],
    )
    def test_delimiters_that_could_be_confused_are_refused(self, changes, message):
        """Whoever builds controls by hand hears about it before training, not after."""
        with pytest.raises(TemplateError, match=message):
            Template(dataclasses.replace(CONTROLS, **changes))

    def test_unknown_words_are_refused(self):
        """A misspelt option names the known ones."""
        with pytest.raises(TemplateError, match="balanced, right"):
            Template(CONTROLS, truncation="left")
        with pytest.raises(TemplateError, match="not a template"):
            Template.from_dict({"max_length": 5})


class TestReadSegments:
    """Rows can be taken apart."""

    def test_a_missing_turn_is_neither_empty_nor_a_word(self):
        """None, the empty string and a text are three things."""
        template = Template(CONTROLS, max_length=100)
        ids = [1, 2, 50, 4, 2, 51, 70, 3, 3, 4, 2, 52, 5]
        assert read_segments(template, ids) == ([None], [[70], [], None], [[]])

    @pytest.mark.parametrize("position", [0, 1, 2, 4, 5, 7, 8, 9])
    def test_foreign_rows_are_refused(self, position):
        """A row that lost one of its delimiters' ids was not written by this template."""
        ids = [1, 2, 50, 90, 2, 51, 91, 2, 52, 5]
        assert read_segments(Template(CONTROLS), ids) == ([[90]], [[91]], [[]])
        damaged = [*ids[:position], 99, *ids[position + 1 :]]
        with pytest.raises(TemplateError, match="not written by this template"):
            read_segments(Template(CONTROLS), damaged)
