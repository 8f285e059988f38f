"""Splitting rows into steps, processes and micro-batches loses nothing and changes nothing."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiewise.errors import ConfigError
from tiewise.tokens.batches import padding_factor, plan_batches, plan_step, restore_order, step_rows

layouts = st.sampled_from(["padded", "sorted", "packed"])
lengths_of_rows = st.lists(st.integers(1, 200), max_size=60)


def cost(lengths, layout):
    return sum(lengths) if layout == "packed" else len(lengths) * max(lengths)


class TestStepRows:
    """Which rows an optimiser step holds."""

    @given(n=st.integers(1, 60), batch=st.integers(1, 70), epochs=st.integers(0, 3))
    def test_every_epoch_sees_every_row_once(self, n, batch, epochs):
        """The steps of an epoch are a permutation of all rows, cut into batches."""
        steps = step_rows(n, batch, epochs, seed=7)
        per_epoch = steps.steps_per_epoch
        assert len(steps) == len(list(steps)) == epochs * per_epoch
        for epoch in range(epochs):
            part = steps[epoch * per_epoch : (epoch + 1) * per_epoch]
            assert sorted(np.concatenate(part).tolist()) == list(range(n))
            assert all(len(rows) == batch for rows in part[:-1])

    @given(n=st.integers(1, 60), seed=st.integers(0, 2**32))
    def test_a_step_is_known_without_those_before_it(self, n, seed):
        """Resuming at step k reads the rows that an uninterrupted run would read."""
        whole = [rows.tolist() for rows in step_rows(n, 4, 3, seed)]
        fresh = step_rows(n, 4, 3, seed)
        for step in reversed(range(len(fresh))):
            assert fresh[step].tolist() == whole[step]
        assert fresh[-1].tolist() == whole[-1]

    def test_epochs_and_seeds_differ(self):
        """Each epoch and each seed deals its own order."""
        steps = step_rows(100, 100, 2, seed=0)
        assert steps[0].tolist() != steps[1].tolist()
        assert steps[0].tolist() != step_rows(100, 100, 2, seed=1)[0].tolist()

    def test_a_callers_change_cannot_reach_other_steps(self):
        """The rows of a step are read-only."""
        with pytest.raises(ValueError, match="read-only"):
            step_rows(10, 5, 1, seed=0)[0][0] = 3

    def test_out_of_range(self):
        """Past the last step there is nothing, and impossible numbers are named."""
        with pytest.raises(IndexError):
            step_rows(10, 5, 1, seed=0)[2]
        with pytest.raises(ConfigError, match="batch_size is 0"):
            step_rows(10, 0, 1, seed=0)


class TestPlanStep:
    """One step over processes and micro-batches."""

    @given(lengths_of_rows, layouts, st.integers(1, 400), st.integers(1, 5))
    def test_every_row_once_and_no_batch_over_budget(self, lengths, layout, budget, processes):
        """However a step is split, each row is there once, and only a lone row exceeds."""
        plan = plan_step(lengths, micro_batch_tokens=budget, layout=layout, n_processes=processes)
        assert len(plan) == processes
        batches = [batch for share in plan for batch in share]
        assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
        for batch in batches:
            assert len(batch) == 1 or cost([lengths[row] for row in batch], layout) <= budget

    @given(lengths_of_rows, layouts, st.integers(1, 8), st.integers(1, 4))
    def test_a_forced_number_of_micro_batches_is_met(self, lengths, layout, forced, processes):
        """A process with enough rows has exactly that many, none of them empty."""
        plan = plan_step(
            lengths,
            micro_batch_tokens=1,
            n_micro_batches=forced,
            layout=layout,
            n_processes=processes,
        )
        for share in plan:
            n_rows = sum(len(batch) for batch in share)
            assert len(share) == min(forced, n_rows)
            assert all(len(batch) for batch in share)
        rows = sorted(row for share in plan for batch in share for row in batch)
        assert rows == list(range(len(lengths)))

    @given(lengths_of_rows, layouts, st.integers(1, 5))
    def test_load_is_balanced(self, lengths, layout, processes):
        """The busiest process has at most one longest row more than the idlest."""
        plan = plan_step(lengths, micro_batch_tokens=300, layout=layout, n_processes=processes)
        loads = [sum(lengths[row] for batch in share for row in batch) for share in plan]
        assert max(loads) - min(loads) <= max(lengths, default=0)

    @given(st.lists(st.integers(1, 9), min_size=1, max_size=3))
    def test_a_process_without_rows_has_an_empty_list(self, lengths):
        """With fewer rows than processes nobody gets a row twice."""
        plan = plan_step(lengths, micro_batch_tokens=100, layout="sorted", n_processes=5)
        assert sorted(len(share) for share in plan) == [0] * (5 - len(lengths)) + [1] * len(lengths)

    @given(lengths_of_rows, layouts, st.integers(1, 400))
    def test_the_plan_is_a_function_of_the_lengths(self, lengths, layout, budget):
        """Two processes that plan alone agree, and one process plans as scoring does."""
        first, second = (
            plan_step(lengths, micro_batch_tokens=budget, layout=layout) for _ in range(2)
        )
        alone = plan_batches(lengths, max_tokens=budget, layout=layout)
        for plan in (second[0], alone):
            assert [batch.tolist() for batch in plan] == [batch.tolist() for batch in first[0]]

    def test_padded_keeps_the_given_order(self):
        """The notebook's order is what ``padded`` means."""
        plan = plan_step([5, 1, 9, 2], micro_batch_tokens=10, layout="padded")
        assert [batch.tolist() for batch in plan[0]] == [[0, 1], [2], [3]]

    def test_impossible_requests_are_named(self):
        """An unknown layout, a row without tokens and a zero budget are errors."""
        with pytest.raises(ConfigError, match="choose one of padded, sorted, packed"):
            plan_batches([1], max_tokens=1, layout="loose")
        with pytest.raises(ConfigError, match="Row 1 has 0 tokens"):
            plan_batches([1, 0], max_tokens=1, layout="sorted")
        with pytest.raises(ConfigError, match="max_tokens is 0"):
            plan_batches([1], max_tokens=0, layout="sorted")


class TestPlanBatches:
    """Batches for scoring, and the way back."""

    @given(lengths_of_rows, layouts, st.integers(1, 400))
    def test_restore_order_undoes_the_plan(self, lengths, layout, budget):
        """What was computed for a row ends at that row."""
        batches = plan_batches(lengths, max_tokens=budget, layout=layout)
        values = [np.stack([batch, batch * 10], axis=1) for batch in batches]
        restored = restore_order(batches, values)
        assert restored.tolist() == [[row, row * 10] for row in range(len(lengths))] or not lengths

    @given(st.lists(st.integers(1, 200), min_size=1, max_size=60), st.integers(1, 2000))
    def test_packing_wastes_no_room(self, lengths, budget):
        """The longest row of a batch had no room in any batch before it; nothing is padded."""
        batches = plan_batches(lengths, max_tokens=budget, layout="packed")
        loads = [sum(lengths[row] for row in batch) for batch in batches]
        for position, batch in enumerate(batches):
            longest = max(lengths[row] for row in batch)
            assert all(load + longest > budget for load in loads[:position])
        assert padding_factor(lengths, batches, "packed") == 1.0

    def test_sorting_saves_padding_at_real_lengths(self):
        """At log-normal lengths random batches of eight waste what sorting keeps."""
        lengths = np.random.default_rng(0).lognormal(6, 0.8, 4000).astype(int) + 1
        given_order = np.array_split(np.arange(4000), 500)
        by_length = plan_batches(lengths, max_tokens=8192, layout="sorted")
        assert padding_factor(lengths, given_order, "padded") > 1.5
        assert padding_factor(lengths, by_length, "sorted") < 1.05
