"""The two orders of a pair are held against each other, alike in every layout."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from fitting import Fitter, configure
from tiewise.config.loading import config_from_dict
from tiewise.errors import ConfigError, RunError
from tiewise.fitting.consistency import order_divergence
from tiewise.network.model import PairClassifier
from tiewise.simulation.simulate import simulate

FIELDS = {
    "both_orders": True,
    "consistency_weight": 1.0,
    "dtype": "float64",
    "batch_size": 7,
    "n_epochs": 1,
    "max_grad_norm": 0.0,
    "swap": False,
}
logits = arrays.arrays(
    np.float64, st.tuples(st.integers(1, 5), st.just(3)), elements=st.floats(-8, 8)
).map(torch.from_numpy)


def permute(rows):
    """Exchange A and B."""
    return rows[:, [1, 0, 2]]


@given(logits)
def test_orders_that_agree_cost_nothing_and_pull_nowhere(rows):
    """The term and its gradient are 0 exactly where p(swap) = permute(p)."""
    both = torch.cat([rows, permute(rows)]).requires_grad_()
    divergence = order_divergence(both)
    divergence.sum().backward()
    assert not divergence.any()
    assert both.grad.abs().max() < 1e-12


@given(logits, st.data())
def test_it_is_the_mean_of_both_divergences_whichever_order_is_given(rows, data):
    """By torch's own KL; and exchanging the two orders changes nothing."""
    other = data.draw(arrays.arrays(np.float64, tuple(rows.shape), elements=st.floats(-8, 8)))
    other = torch.from_numpy(other)
    found = order_divergence(torch.cat([rows, other]))
    p, q = rows.log_softmax(1), permute(other).log_softmax(1)
    divergences = [
        torch.nn.functional.kl_div(first, second, reduction="none", log_target=True).sum(1)
        for first, second in ((p, q), (q, p))
    ]
    torch.testing.assert_close(found, (sum(divergences) / 2).tile(2))
    torch.testing.assert_close(found, order_divergence(torch.cat([other, rows])))
    assert (found >= 0).all()


def steps(folder):
    """Return loss and gradient norm of every step."""
    lines = [json.loads(line) for line in folder.history_path.read_text().splitlines()]
    return np.array([(line["loss"], line["grad_norm"]) for line in lines])


@pytest.fixture(scope="module")
def fitter(tmp_path_factory, cache_dir):
    """Fit a few pairs only."""
    return Fitter(tmp_path_factory.mktemp("fits"), cache_dir, simulate(20, seed=0))


@pytest.fixture(scope="module")
def whole(fitter):
    """Fit with each step in one piece."""
    return steps(fitter("whole", configure(n_micro_batches=1, layout="padded", **FIELDS))[0])


@pytest.mark.parametrize(
    ("layout", "n_micro_batches", "micro_batch_tokens"),
    [("padded", 7, 8192), ("sorted", None, 300), ("packed", 3, 8192)],
)
def test_the_gradient_is_the_same_however_a_step_is_split(
    fitter, whole, layout, n_micro_batches, micro_batch_tokens
):
    """Both orders of a pair are always together, so the term is exact in every layout."""
    split = {"n_micro_batches": n_micro_batches, "micro_batch_tokens": micro_batch_tokens}
    folder, _ = fitter(f"{layout} {n_micro_batches}", configure(layout=layout, **split, **FIELDS))
    np.testing.assert_allclose(steps(folder), whole, rtol=0, atol=1e-9)


def test_the_loss_holds_so_many_times_the_divergence(fitter, whole):
    """At the first step, from the same weights: nothing, once and three times the term."""
    first = {1.0: whole[0, 0]}
    for weight in (0.0, 3.0):
        config = configure(**FIELDS | {"consistency_weight": weight})
        first[weight] = steps(fitter(f"weight {weight}", config)[0])[0, 0]
    assert first[1.0] > first[0.0]
    np.testing.assert_allclose(first[3.0] - first[0.0], 3 * (first[1.0] - first[0.0]), rtol=1e-9)


def test_a_pair_is_not_split_for_lack_of_memory(fitter, monkeypatch):
    """When one pair in both orders does not fit, the way out is named."""

    def never(self, batch):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(PairClassifier, "forward", never)
    with pytest.raises(RunError, match="--micro-batch-tokens"):
        fitter("run", configure(n_micro_batches=None, checkpointing="none", **FIELDS))


@pytest.mark.parametrize("both_orders", [True, False])
def test_without_both_orders_there_is_nothing_to_compare(both_orders):
    """The flag alone is refused, naming the other."""
    values = {"train": {"both_orders": both_orders, "consistency_weight": 0.5}}
    if both_orders:
        assert config_from_dict(values).train.consistency_weight == 0.5
        return
    with pytest.raises(ConfigError, match="add --both-orders"):
        config_from_dict(values)
