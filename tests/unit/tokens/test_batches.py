"""Plans of steps, processes and micro-batches contain every row exactly once."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiewise.errors import ConfigError
from tiewise.tokens.batches import StepRows, balance, pack, plan_batches, plan_step

layouts = st.sampled_from(["padded", "sorted", "packed"])
lengths_of_rows = st.lists(st.integers(1, 200), max_size=60)


def cost(lengths, layout):
    return sum(lengths) if layout == "packed" else len(lengths) * max(lengths)


class TestStepRows:
    """The rows of an optimiser step."""

    @given(n=st.integers(1, 60), batch=st.integers(1, 70), epochs=st.integers(0, 3))
    def test_every_epoch_sees_every_row_once(self, n, batch, epochs):
        """The steps of an epoch are a permutation of all rows, cut into batches."""
        steps = StepRows(n, batch, epochs, seed=7)
        per_epoch = steps.steps_per_epoch
        assert len(steps) == len(list(steps)) == epochs * per_epoch
        for epoch in range(epochs):
            part = [steps[epoch * per_epoch + step] for step in range(per_epoch)]
            assert sorted(np.concatenate(part).tolist()) == list(range(n))
            assert all(len(rows) == batch for rows in part[:-1])

    @given(n=st.integers(1, 60), seed=st.integers(0, 2**32))
    def test_steps_are_independent(self, n, seed):
        """A fit resumed at step k reads the same rows as an uninterrupted fit."""
        whole = [rows.tolist() for rows in StepRows(n, 4, 3, seed)]
        fresh = StepRows(n, 4, 3, seed)
        for step in reversed(range(len(fresh))):
            assert fresh[step].tolist() == whole[step]
        assert fresh[-1].tolist() == whole[-1]

    def test_epochs_and_seeds_differ(self):
        """Each epoch of each seed has its own order, also a later epoch of a lower seed."""
        orders = [rows.tolist() for seed in range(3) for rows in StepRows(100, 100, 3, seed)]
        assert len({tuple(order) for order in orders}) == 9

    def test_rows_are_read_only(self):
        """A caller cannot change the rows of other steps."""
        with pytest.raises(ValueError, match="read-only"):
            StepRows(10, 5, 1, seed=0)[0][0] = 3

    def test_values_out_of_range(self):
        """A step after the last raises IndexError; an impossible number is named."""
        with pytest.raises(IndexError):
            StepRows(10, 5, 1, seed=0)[2]
        for name in ("n_rows", "batch_size", "n_epochs", "seed"):
            numbers = {"n_rows": 1, "batch_size": 1, "n_epochs": 0, "seed": 0}
            assert len(StepRows(**numbers)) == 0
            least = numbers[name]
            with pytest.raises(ConfigError, match=f"{name} is {least - 1}; .* at least {least}"):
                StepRows(**numbers | {name: least - 1})


class TestPlanStep:
    """One step divided over processes and micro-batches."""

    @given(lengths_of_rows, layouts, st.integers(1, 400), st.integers(1, 5))
    def test_every_row_within_budget(self, lengths, layout, budget, processes):
        """Each row occurs once, and only a single row may exceed the budget."""
        plan = plan_step(lengths, micro_batch_tokens=budget, layout=layout, n_processes=processes)
        assert len(plan) == processes
        batches = [batch for share in plan for batch in share]
        assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
        for batch in batches:
            assert len(batch) == 1 or cost([lengths[row] for row in batch], layout) <= budget

    @given(lengths_of_rows, layouts, st.integers(1, 5))
    def test_load_is_balanced(self, lengths, layout, processes):
        """The loads of two processes differ by at most the longest row."""
        plan = plan_step(lengths, micro_batch_tokens=300, layout=layout, n_processes=processes)
        loads = [sum(lengths[row] for batch in share for row in batch) for share in plan]
        assert max(loads) - min(loads) <= max(lengths, default=0)

    @given(st.lists(st.integers(1, 9), min_size=1, max_size=3))
    def test_process_without_rows(self, lengths):
        """With fewer rows than processes, the others have an empty list."""
        plan = plan_step(lengths, micro_batch_tokens=100, layout="sorted", n_processes=5)
        assert sorted(len(share) for share in plan) == [0] * (5 - len(lengths)) + [1] * len(lengths)

    @given(lengths_of_rows, layouts, st.integers(1, 400))
    def test_plan_depends_on_lengths_only(self, lengths, layout, budget):
        """Two processes make the same plan, and one process plans as scoring does."""
        first, second = (
            plan_step(lengths, micro_batch_tokens=budget, layout=layout) for _ in range(2)
        )
        alone = plan_batches(lengths, max_tokens=budget, layout=layout)
        for plan in (second[0], alone):
            assert [batch.tolist() for batch in plan] == [batch.tolist() for batch in first[0]]

    def test_padded_keeps_the_order(self):
        """The layout ``padded`` keeps the given order, as the notebook does."""
        plan = plan_step([5, 1, 9, 2], micro_batch_tokens=10, layout="padded")
        assert [batch.tolist() for batch in plan[0]] == [[0, 1], [2], [3]]

    def test_impossible_requests_are_refused(self):
        """An unknown layout, a row without tokens and a zero budget are errors."""
        with pytest.raises(ConfigError, match="expected one of padded, sorted, packed"):
            plan_batches([1], max_tokens=1, layout="loose")
        with pytest.raises(ConfigError, match="Row 1 has 0 tokens"):
            plan_batches([1, 0], max_tokens=1, layout="sorted")
        with pytest.raises(ConfigError, match="max_tokens is 0"):
            plan_batches([1], max_tokens=0, layout="sorted")
        with pytest.raises(ConfigError, match="n_processes is -1; expected at least 1"):
            plan_step([1], micro_batch_tokens=1, layout="sorted", n_processes=-1)


class TestPlanBatches:
    """Batches for scoring."""

    @given(st.lists(st.integers(1, 200), min_size=1, max_size=60), st.integers(1, 2000))
    def test_packing_wastes_no_space(self, lengths, budget):
        """The longest row of a batch fits no batch before it."""
        batches = plan_batches(lengths, max_tokens=budget, layout="packed")
        loads = [sum(lengths[row] for row in batch) for batch in batches]
        for position, batch in enumerate(batches):
            longest = max(lengths[row] for row in batch)
            assert all(load + longest > budget for load in loads[:position])

    def test_sorting_saves_padding(self):
        """At log-normal lengths, sorting removes the padding of random batches of eight."""
        lengths = np.random.default_rng(0).lognormal(6, 0.8, 4000).astype(int) + 1
        given_order = np.array_split(np.arange(4000), 500)
        by_length = plan_batches(lengths, max_tokens=8192, layout="sorted")
        costs = [
            sum(len(batch) * lengths[batch].max() for batch in batches)
            for batches in (given_order, by_length)
        ]
        assert costs[0] > 1.5 * lengths.sum()
        assert costs[1] < 1.05 * lengths.sum()


row_lengths = st.lists(st.integers(1, 100), max_size=40).map(lambda rows: np.array(rows, np.int64))


@given(row_lengths, st.integers(1, 6))
def test_balance_keeps_the_order(lengths, n_parts):
    """Parts are ascending, contain every row, and their loads differ by at most one row."""
    parts = balance(lengths, n_parts)
    assert sorted(row for part in parts for row in part) == list(range(len(lengths)))
    assert all((np.diff(part) > 0).all() for part in parts)
    loads = [lengths[part].sum() for part in parts]
    assert max(loads) - min(loads) <= lengths.max(initial=0)


@given(row_lengths, layouts, st.data())
def test_pack_keeps_the_rows(lengths, layout, data):
    """The given rows, and no others, occur once each, in parts that are not empty."""
    rows = np.flatnonzero(data.draw(st.lists(st.booleans(), min_size=len(lengths), max_size=50)))
    rows = rows[rows < len(lengths)]
    parts = pack(lengths, rows, 120, layout)
    assert sorted(row for part in parts for row in part) == rows.tolist()
    assert all(len(part) for part in parts)


@pytest.mark.parametrize("layout", ["packed", "sorted", "padded"])
def test_batches_are_filled_to_the_budget(layout):
    """Rows that use the budget exactly share a batch; with one token less they do not."""
    assert len(plan_batches([5, 5], max_tokens=10, layout=layout)) == 1
    assert len(plan_batches([5, 5], max_tokens=9, layout=layout)) == 2
