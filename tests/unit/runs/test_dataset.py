"""Tests of the data set of a run: the rows that a limit draws, and unique ids."""

from __future__ import annotations

import numpy as np
import pytest

from tiewise.config import DataConfig
from tiewise.data.formats import write_pairs
from tiewise.data.pairs import COLUMNS
from tiewise.data.simulation.simulate import simulate
from tiewise.errors import PairsError
from tiewise.runs.dataset import assign_folds, load_dataset

PAIRS = simulate(60)[list(COLUMNS)]


@pytest.fixture
def path(tmp_path):
    """Write 60 pairs and return the name of the file."""
    write_pairs(PAIRS, tmp_path / "pairs.csv")
    return str(tmp_path / "pairs.csv")


def test_limit_draws_at_random(path):
    """The rows of a limit are drawn by the seed from the whole file, and keep its order."""
    drawn = [load_dataset(DataConfig(data=(path,), limit=20, data_seed=seed)) for seed in (0, 0, 1)]
    ids = [dataset.pairs["id"].tolist() for dataset in drawn]
    assert ids[0] == ids[1] != ids[2]
    for own in ids:
        assert len(own) == 20
        assert own == sorted(own, key=PAIRS["id"].tolist().index)
        assert set(own) - set(PAIRS["id"].head(40))
    assert drawn[0].counts["n_left_out_by_limit"] == 40


def test_digest_covers_the_draw(path):
    """Other rows of the same file have another digest; without a limit the seed is no matter."""

    def digest(**fields):
        return load_dataset(DataConfig(data=(path,), **fields)).digest

    draws = [{}, {"limit": 20}, {"limit": 20, "data_seed": 1}, {"limit": 21}]
    assert len({digest(**fields) for fields in draws}) == len(draws)
    assert digest(data_seed=1) == digest()
    assert digest(limit=20) == digest(limit=20)


def test_repeated_ids_are_refused(path):
    """Predictions are joined by id, so that the folds of a file with a repeated id are refused."""
    dataset = load_dataset(DataConfig(data=(path,)))
    table = assign_folds(dataset, DataConfig(n_splits=3))
    assert table["id"].tolist() == PAIRS["id"].tolist()
    assert np.unique(table["fold"]).tolist() == [0, 1, 2]
    dataset.pairs.loc[7, "id"] = dataset.pairs["id"][3]
    with pytest.raises(PairsError, match=rf"id={PAIRS['id'][3]} occurs more than once"):
        assign_folds(dataset, DataConfig(n_splits=3))
