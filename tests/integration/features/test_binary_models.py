"""Each question about a pair is answered with the symmetry it has."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given

from strategies import text_fields
from tiewise.data.simulation.simulate import simulate
from tiewise.features import binary_models as parts
from tiewise.features.binary_models import Part, fit_part
from tiewise.features.pair_features import PairFeatures, extract_features

PAIRS = simulate(200)
FIELDS = [list(PAIRS[name]) for name in ("prompt", "response_a", "response_b")]
FEATURES = extract_features(*FIELDS)
LABELS = PAIRS["label"].to_numpy(int)
GROUPS = PAIRS["group"].to_numpy(str)


def fit(*, is_odd: bool, groups: np.ndarray = GROUPS) -> Part:
    """Fit one part to the simulated pairs."""
    outcomes = np.where(is_odd, LABELS == 0, LABELS == 2).astype(float)
    weights = (LABELS < 2).astype(float) if is_odd else np.ones(len(LABELS))
    return fit_part(FEATURES, outcomes, weights, groups, is_odd=is_odd)


@pytest.fixture(scope="module")
def winner() -> Part:
    """Fit A against B, settings chosen among few trees."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts, "_MOST_TREES", 10)
        return fit(is_odd=True)


@pytest.fixture(scope="module")
def tie() -> Part:
    """Fit tie or not, with the default settings."""
    return fit(is_odd=False, groups=np.full(len(LABELS), "one"))


def mirrored(features: PairFeatures) -> PairFeatures:
    """Features of the exchanged pairs."""
    names = (features.signed_names, features.shared_names)
    return PairFeatures(-features.signed, features.shared, *names)


@given(fields=text_fields())
def test_the_odd_part_negates_bit_for_bit(winner: Part, fields) -> None:
    """Exchanging the responses negates the log odds of A against B."""
    features = extract_features(*fields)
    assert np.array_equal(winner.log_odds(features), -winner.log_odds(mirrored(features)))


@given(fields=text_fields())
def test_the_even_part_stays_bit_for_bit(tie: Part, fields) -> None:
    """Exchanging the responses leaves the log odds of a tie as they are."""
    features = extract_features(*fields)
    assert np.array_equal(tie.log_odds(features), tie.log_odds(mirrored(features)))


def test_settings_are_chosen_on_held_out_groups(winner: Part) -> None:
    """The held-out loss is known, and below that of even odds."""
    assert winner.settings.n_trees <= 10
    assert winner.settings.log_loss is not None
    assert winner.settings.log_loss < np.log(2)


def test_few_groups_leave_the_defaults(tie: Part) -> None:
    """Nothing can be held out of one group."""
    assert tie.settings == parts.Settings()


def test_rows_without_weight_are_left_out(winner: Part) -> None:
    """Ties do not change what is learnt of A against B."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts, "_MOST_TREES", 10)
        decided = LABELS < 2
        alone = fit_part(
            FEATURES.rows(decided),
            (LABELS[decided] == 0).astype(float),
            np.ones(decided.sum()),
            GROUPS[decided],
            is_odd=True,
        )
    assert np.array_equal(alone.log_odds(FEATURES), winner.log_odds(FEATURES))


def test_what_was_never_seen_is_not_impossible() -> None:
    """Without a tie among the rows, ties are rare but possible."""
    n = len(LABELS)
    part = fit_part(FEATURES, np.zeros(n), np.ones(n), np.full(n, "one"), is_odd=False)
    assert (part.log_odds(FEATURES) > -15).all()
    assert (part.log_odds(FEATURES) < -2).all()
