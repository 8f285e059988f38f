"""What is counted in a row is counted once, and is the same as if it were counted again."""

import numpy as np
import pandas as pd
import pytest

from tiewise.data.simulation.simulate import simulate
from tiewise.features import fold as baseline_fold
from tiewise.features.feature_model import describe_pairs
from tiewise.features.fold import FeatureMemory

PAIRS = simulate(60, seed=1)


@pytest.mark.parametrize("seed", range(3))
def test_remembered_features_are_those_counted_anew(seed):
    """For any rows in any order, repeated rows and rows of other tables among them.

    Older numpy may round a last bit otherwise beside other rows.
    """
    memory, generator = FeatureMemory(), np.random.default_rng(seed)
    for _ in range(4):
        rows = PAIRS.iloc[generator.integers(0, 60, 25)]
        expected, found = describe_pairs(rows), memory.describe(rows)
        np.testing.assert_allclose(found.signed, expected.signed, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(found.shared, expected.shared, rtol=1e-12, atol=1e-12)


def test_no_row_is_counted_twice(monkeypatch):
    """However many folds ask for it; the same texts under another id are the same row."""
    counted = []

    def count(pairs, **options):
        counted.append(len(pairs))
        return describe_pairs(pairs, **options)

    monkeypatch.setattr(baseline_fold, "describe_pairs", count)
    memory = FeatureMemory()
    memory.describe(PAIRS.head(40))
    memory.describe(PAIRS)
    memory.describe(pd.concat([PAIRS, PAIRS.assign(id=lambda table: table["id"] + 100)]))
    assert counted == [40, 20]
