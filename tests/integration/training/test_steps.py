"""The rows of a step are divided among processes."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiewise.config import TrainConfig
from tiewise.data.targets import Targets
from tiewise.training.steps import Examples, StepDataset
from tiny_models import make_rows


@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=12),
    batch_size=st.integers(1, 6),
    n_processes=st.integers(1, 4),
    budget=st.sampled_from([1, 50, 1000]),
    both_orders=st.booleans(),
)
def test_processes_share_all_rows(lengths, batch_size, n_processes, budget, both_orders):
    """All processes run equally many micro-batches, and each row has weight in exactly one."""
    n = len(lengths)
    copies = 2 if both_orders else 1
    rows = make_rows(lengths * copies)
    weights = np.arange(1.0, n * copies + 1)
    targets = Targets(np.zeros((len(weights), 3)), weights, 0 * weights, 0 * weights)
    examples = Examples(rows, targets, np.arange(n * copies))
    config = TrainConfig(
        batch_size=batch_size,
        n_epochs=1,
        micro_batch_tokens=budget,
        both_orders=both_orders,
    )
    shares = [
        StepDataset(examples, config, layout="packed", process_index=index, n_processes=n_processes)
        for index in range(n_processes)
    ]
    seen = []
    for step in zip(*([share[k] for k in range(len(share))] for share in shares), strict=True):
        assert len({len(own.micro_batches) for own in step}) == 1
        assert len({own.weight for own in step}) == 1
        counted = [
            row
            for own in step
            for position, part in enumerate(own.micro_batches)
            if not own.is_idle(position)
            for row in part.tolist()
        ]
        assert step[0].weight == pytest.approx(len(counted) * weights.mean())
        if both_orders:
            assert {row + n for row in counted if row < n} == {row for row in counted if row >= n}
        seen += counted
    assert sorted(seen) == list(range(n * copies))


@given(weights=st.lists(st.floats(0.01, 9), min_size=1, max_size=12), batch_size=st.integers(1, 6))
def test_row_weights_are_relative(weights, batch_size):
    """The share of a row in an epoch's gradient is its weight divided by the mean weight."""
    targets = Targets(np.zeros((len(weights), 3)), np.array(weights), *np.zeros((2, len(weights))))
    examples = Examples(make_rows([5] * len(weights)), targets, np.arange(len(weights)))
    config = TrainConfig(batch_size=batch_size, n_epochs=1)
    steps = StepDataset(examples, config, layout="packed")
    shares = np.empty(len(weights))
    for k in range(len(steps)):
        rows = steps.rows_of(k)
        shares[rows] = targets.weights[rows] / steps[k].weight * len(rows)
    np.testing.assert_allclose(shares, np.array(weights) / np.mean(weights))


def test_idle_micro_batches_are_the_shortest_row():
    """A process with fewer micro-batches repeats the step's shortest row, without weight."""
    targets = Targets(np.zeros((3, 3)), np.ones(3), *np.zeros((2, 3)))
    examples = Examples(make_rows([30, 9, 20]), targets, np.arange(3))
    config = TrainConfig(batch_size=3, n_epochs=1, micro_batch_tokens=30)
    steps = [
        StepDataset(examples, config, layout="packed", process_index=index, n_processes=2)[0]
        for index in (0, 1)
    ]
    n_batches = [len(step.micro_batches) for step in steps]
    assert n_batches == [1, 1]
    config = TrainConfig(batch_size=3, n_epochs=1, micro_batch_tokens=1)
    steps = [
        StepDataset(examples, config, layout="packed", process_index=index, n_processes=2)[0]
        for index in (0, 1)
    ]
    [idle] = [step for step in steps if step.n_idle]
    assert idle.micro_batches[-1].tolist() == [1]
    assert [idle.is_idle(place) for place in (0, 1)] == [False, True]


def test_step_data_have_one_process_by_default():
    """Without weights at all, the weight of a step is its number of rows."""
    targets = Targets(np.zeros((3, 3)), np.zeros(3), *np.zeros((2, 3)))
    examples = Examples(make_rows([5, 5, 5]), targets, np.arange(3))
    config = TrainConfig(batch_size=2, n_epochs=2, micro_batch_tokens=10, seed=4)
    steps = StepDataset(examples, config, layout="packed")
    assert [steps[k].weight for k in range(len(steps))] == [2, 1, 2, 1]
    assert steps[0].n_idle == 0
    other = StepDataset(examples, replace(config, seed=5), layout="packed")
    orders = [[part.rows_of(k).tolist() for k in range(4)] for part in (steps, other)]
    assert orders[0] != orders[1]
