"""Binary models: exact symmetry, and settings chosen on held-out prompt groups."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
from hypothesis import given

from strategies import text_fields
from tiewise.data.simulation.simulate import simulate
from tiewise.features import binary_models
from tiewise.features.binary_models import BinaryModel, Settings, fit_binary_model
from tiewise.features.pair_features import PairFeatures, extract_features

PAIRS = simulate(200)
FIELDS = [list(PAIRS[name]) for name in ("prompt", "response_a", "response_b")]
FEATURES = extract_features(*FIELDS)
LABELS = PAIRS["label"].to_numpy(int)
GROUPS = PAIRS["group"].to_numpy(str)


@pytest.fixture(scope="module", autouse=True)
def few_trees():
    """Choose among few trees, to save time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(binary_models, "_MAX_TREES", 10)
        yield


def fit(*, is_odd: bool, groups: np.ndarray = GROUPS) -> BinaryModel:
    """Fit a model to the simulated pairs."""
    outcomes = np.where(is_odd, LABELS == 0, LABELS == 2).astype(float)
    weights = (LABELS < 2).astype(float) if is_odd else np.ones(len(LABELS))
    return fit_binary_model(FEATURES, outcomes, weights, groups, is_odd=is_odd)


@pytest.fixture(scope="module")
def winner() -> BinaryModel:
    """Fit A against B."""
    return fit(is_odd=True)


@pytest.fixture(scope="module")
def tie() -> BinaryModel:
    """Fit tie or not, with the default settings."""
    return fit(is_odd=False, groups=np.full(len(LABELS), "one"))


def mirrored(features: PairFeatures) -> PairFeatures:
    """Return the features of the swapped pairs."""
    names = (features.signed_names, features.shared_names)
    return PairFeatures(-features.signed, features.shared, *names)


@given(fields=text_fields())
def test_odd_model_negates_exactly(winner: BinaryModel, fields) -> None:
    """Exchanging the responses negates the log odds of A against B, bit for bit."""
    features = extract_features(*fields)
    assert np.array_equal(winner.log_odds(features), -winner.log_odds(mirrored(features)))


@given(fields=text_fields())
def test_even_model_stays_exactly(tie: BinaryModel, fields) -> None:
    """Exchanging the responses keeps the log odds of a tie, bit for bit."""
    features = extract_features(*fields)
    assert np.array_equal(tie.log_odds(features), tie.log_odds(mirrored(features)))


def test_settings_have_a_held_out_loss(winner: BinaryModel) -> None:
    """The held-out loss is known, and below that of even odds."""
    assert winner.settings.n_trees <= 10
    assert winner.settings.log_loss is not None
    assert winner.settings.log_loss < np.log(2)


def test_few_groups_keep_default_settings(tie: BinaryModel) -> None:
    """One group cannot be split, so nothing is chosen."""
    assert tie.settings == Settings()


def test_inner_splits_keep_groups_whole() -> None:
    """A model that remembers groups looks good only if rows of one group are on both sides.

    Each group has features and an outcome of its own, both at random: by group nothing can be
    learned, so the held-out loss is at best that of even odds.
    """
    generator = np.random.default_rng(0)
    groups = np.repeat(np.arange(40), 6)
    signed = generator.normal(size=(40, 60))[groups]
    outcomes = (generator.random(40) > 0.5)[groups].astype(float)
    names = tuple(f"column{number}" for number in range(60))
    features = PairFeatures(signed, np.zeros((240, 1)), names, ("shared",))

    def held_out_loss(names: np.ndarray) -> float:
        model = fit_binary_model(features, outcomes, np.ones(240), names, is_odd=True)
        assert model.settings.log_loss is not None
        return model.settings.log_loss

    assert held_out_loss(groups.astype(str)) > 0.67
    assert held_out_loss(np.arange(240).astype(str)) < 0.3


@pytest.mark.parametrize("n_rows", [300, 12_300])
def test_no_group_on_both_sides(n_rows: int) -> None:
    """Of few rows all are held out once, of many rows a quarter; no group is divided."""
    groups = (np.arange(n_rows) // 3).astype(str)
    splits = binary_models._make_splits(groups, np.zeros(n_rows), seed=0)
    for train_idx, eval_idx in splits:
        assert not set(groups[train_idx]) & set(groups[eval_idx])
        assert len(train_idx) + len(eval_idx) == n_rows
    n_held_out = sum(len(eval_idx) for _, eval_idx in splits)
    assert n_held_out == (n_rows if n_rows == 300 else pytest.approx(n_rows / 4, rel=0.01))


def test_rows_without_weight_are_left_out(winner: BinaryModel) -> None:
    """Ties do not change the model of A against B."""
    decided = LABELS < 2
    alone = fit_binary_model(
        FEATURES.rows(decided),
        (LABELS[decided] == 0).astype(float),
        np.ones(decided.sum()),
        GROUPS[decided],
        is_odd=True,
    )
    assert np.array_equal(alone.log_odds(FEATURES), winner.log_odds(FEATURES))


def test_weights_change_the_model() -> None:
    """With weights that favour one outcome, its log odds rise everywhere."""
    outcomes = (LABELS == 2).astype(float)
    groups = np.full(len(LABELS), "one")
    plain, heavy = (
        fit_binary_model(FEATURES, outcomes, weights, groups, is_odd=False)
        for weights in (np.ones(len(LABELS)), 1 + 4 * outcomes)
    )
    assert (heavy.log_odds(FEATURES) > plain.log_odds(FEATURES)).all()


def test_held_out_loss_follows_the_weights() -> None:
    """A row of weight 3 counts in the held-out loss as three such rows."""
    weights = 1.0 + np.arange(len(LABELS)) % 3
    rows = binary_models._Rows(FEATURES, (LABELS == 0).astype(float), weights, is_odd=True)
    repeated = np.repeat(np.arange(len(LABELS)), weights.astype(int))
    single = binary_models._Rows(
        FEATURES.rows(repeated), rows.outcomes[repeated], np.ones(len(repeated)), is_odd=True
    )
    log_odds = np.linspace(-3, 3, len(LABELS))
    assert rows.loss(log_odds) == pytest.approx(single.loss(log_odds[repeated]), rel=1e-12)


def test_unseen_outcome_stays_possible() -> None:
    """Without a tie among the rows, ties are rare but possible."""
    n = len(LABELS)
    model = fit_binary_model(FEATURES, np.zeros(n), np.ones(n), np.full(n, "one"), is_odd=False)
    assert (model.log_odds(FEATURES) > -15).all()
    assert (model.log_odds(FEATURES) < -2).all()


def test_chosen_trees_are_a_stage(winner: BinaryModel) -> None:
    """The number of trees is a multiple of ten, and that many were grown."""
    n_trees = winner.settings.n_trees
    tables = binary_models._tree_tables(FEATURES, is_odd=True)
    stages = list(islice(winner.trees.staged_log_odds(tables[0]), 400))
    assert n_trees % 10 == 0
    assert len(stages) == n_trees + 1


def test_trees_alone_learn_which_side_wins() -> None:
    """Blended from trees only, the odd model negates when swapped and prefers the winner.

    B wins as often as A, so trees that ignore which order they see learn nothing.
    """
    rows = binary_models._Rows(FEATURES, (LABELS == 0).astype(float), np.ones(len(LABELS)), True)
    rows = rows.take(np.flatnonzero(LABELS < 2))
    logistic = binary_models._fit_logistic(rows, 1.0)
    trees = binary_models._fit_trees(rows, 30, 0)
    model = BinaryModel(logistic, trees, Settings(1.0, 30, (0.0, 1.0, 0.0), None), True)
    log_odds = model.log_odds(rows.features)
    assert np.array_equal(log_odds, -model.log_odds(mirrored(rows.features)))
    assert np.abs(log_odds).max() > 0.1
    assert ((log_odds > 0) == (rows.outcomes == 1)).mean() > 0.8
