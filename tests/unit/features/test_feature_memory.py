"""Remembered features equal those extracted again, and each row is extracted once."""

import numpy as np
import pandas as pd
import pytest

from tiewise.data.simulation.simulate import simulate
from tiewise.features import feature_model
from tiewise.features.feature_model import FeatureMemory, extract_table_features

PAIRS = simulate(60, seed=1)


@pytest.mark.parametrize("seed", range(3))
def test_memory_changes_nothing(seed):
    """For rows in any order, with repeated rows and rows of earlier tables.

    Older versions of numpy may round the last bit of a row differently in another table.
    """
    memory, generator = FeatureMemory(), np.random.default_rng(seed)
    for _ in range(4):
        rows = PAIRS.iloc[generator.integers(0, 60, 25)]
        expected, found = extract_table_features(rows), memory.extract(rows)
        np.testing.assert_allclose(found.signed, expected.signed, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(found.shared, expected.shared, rtol=1e-12, atol=1e-12)


def test_each_row_extracted_once(monkeypatch):
    """For any number of folds; the same texts under another id are the same row."""
    extracted = []

    def extract(pairs):
        extracted.append(len(pairs))
        return extract_table_features(pairs)

    monkeypatch.setattr(feature_model, "extract_table_features", extract)
    memory = FeatureMemory()
    memory.extract(PAIRS.head(40))
    memory.extract(PAIRS)
    memory.extract(pd.concat([PAIRS, PAIRS.assign(id=lambda table: table["id"] + 100)]))
    assert extracted == [40, 20]
