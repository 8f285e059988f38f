"""The copied trees are scikit-learn's, and damaged ones are refused before they are walked."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier

from tiewise.errors import ModelError
from tiewise.features.trees import Trees, _copy_trees, fit_trees

GENERATOR = np.random.default_rng(0)
TABLE = GENERATOR.normal(size=(400, 5))
OUTCOMES = (TABLE[:, 0] * TABLE[:, 1] + 0.3 * GENERATOR.normal(size=400) > 0).astype(float)
WEIGHTS = np.ones(400)


@pytest.fixture(scope="module")
def trees() -> Trees:
    """Grow a few trees once."""
    return fit_trees(TABLE, OUTCOMES, WEIGHTS, n_trees=20)


def test_the_copy_equals_the_original() -> None:
    """Log odds as scikit-learn computes them, on rows it has not seen."""
    original = HistGradientBoostingClassifier(max_iter=15, max_leaf_nodes=7, random_state=0)
    original.fit(TABLE, OUTCOMES)
    rows = GENERATOR.normal(size=(300, 5))
    copy = _copy_trees(original)
    assert np.allclose(copy.log_odds(rows), original.decision_function(rows), rtol=0, atol=1e-12)


def test_they_learn_what_no_line_can_separate() -> None:
    """An interaction of two columns is found."""
    many = fit_trees(TABLE, OUTCOMES, WEIGHTS, n_trees=150)
    assert ((many.log_odds(TABLE) > 0) == OUTCOMES).mean() > 0.8


def test_stages_begin_with_the_start_and_end_with_the_whole(trees: Trees) -> None:
    """One stage more than there are trees."""
    stages = list(trees.staged_log_odds(TABLE))
    assert len(stages) == 21
    assert (stages[0] == trees.start).all()
    assert np.array_equal(stages[-1], trees.log_odds(TABLE))


def test_the_same_seed_grows_the_same_trees(trees: Trees) -> None:
    """Fitting is deterministic."""
    again = fit_trees(TABLE, OUTCOMES, WEIGHTS, n_trees=20)
    assert all(np.array_equal(a, again.to_arrays()[name]) for name, a in trees.to_arrays().items())


def test_soft_outcomes_count_in_parts() -> None:
    """All outcomes at one half leave nothing to learn."""
    even = fit_trees(TABLE, np.full(400, 0.5), WEIGHTS, n_trees=5)
    assert np.allclose(even.log_odds(TABLE), 0, atol=1e-9)


@pytest.mark.parametrize(("outcomes", "low", "high"), [([], 0, 0), ([1.0, 1.0], 1, 2)])
def test_without_contrast_no_tree_grows(outcomes: list[float], low: float, high: float) -> None:
    """No rows or one outcome give constant log odds that are not certain."""
    n = len(outcomes)
    constant = fit_trees(TABLE[:n], np.array(outcomes), WEIGHTS[:n])
    log_odds = constant.log_odds(TABLE)
    assert low <= log_odds.min() == log_odds.max() <= high


def test_no_trees_are_a_constant() -> None:
    """None asked for, none grown: the log odds of the mean outcome."""
    constant = fit_trees(TABLE, OUTCOMES, WEIGHTS, n_trees=0).log_odds(TABLE)
    assert np.allclose(1 / (1 + np.exp(-constant)), OUTCOMES.mean(), atol=0.01)


def test_arrays_give_the_trees_back(trees: Trees) -> None:
    """Stored and read, they predict the same bits."""
    read = Trees.from_arrays(trees.to_arrays(), 5)
    assert np.array_equal(read.log_odds(TABLE), trees.log_odds(TABLE))


DAMAGES = {
    "a link backwards": ("left", np.zeros_like),
    "a link out of range": ("right", lambda a: np.where(a == a.max(), len(a), a)),
    "a column out of range": ("column", lambda a: a + 5),
    "a root out of range": ("roots", lambda a: a - 1),
    "NaN in a leaf": ("value", lambda a: a * np.nan),
    "NaN as a threshold": ("threshold", lambda a: a * np.nan),
    "another type": ("column", lambda a: a.astype(float)),
    "another length": ("threshold", lambda a: a[:-1]),
    "another shape": ("start", lambda a: a[None]),
}


@pytest.mark.parametrize("damage", DAMAGES, ids=list(DAMAGES))
def test_damage_is_noticed(trees: Trees, damage: str) -> None:
    """No damaged array is walked."""
    name, change = DAMAGES[damage]
    damaged = dataclasses.replace(trees, **{name: change(getattr(trees, name))})
    with pytest.raises(ModelError, match="damaged"):
        Trees.from_arrays(damaged.to_arrays(), 5)


def test_a_missing_array_is_named(trees: Trees) -> None:
    """The message says which."""
    arrays = trees.to_arrays()
    del arrays["roots"]
    with pytest.raises(ModelError, match="roots"):
        Trees.from_arrays(arrays, 5)
