"""Every preset can be fitted on a CPU with a smaller backbone and smaller sizes."""

from __future__ import annotations

import json

import numpy as np
import pytest

from fitting import configure
from tiewise.config import PRESETS
from tiewise.crossfit import cross_fit
from tiewise.data.formats import write_pairs
from tiewise.data.simulation.simulate import simulate
from tiewise.runs.tables import read_fold_oof

# Changes for a small backbone and a machine without CUDA.
SMALLER = {
    "quickstart": {"n_layers": 2, "max_length": 96},
    "smollm2-135m": {"n_layers": 1, "n_frozen_layers": 0, "max_length": 64},
    "gemma2-9b": {"backbone": "tiny:0", "max_length": 96, "device": "cpu"},
    "notebook": {"backbone": "tiny:0", "max_length": 96, "device": "cpu", "n_frozen_layers": 1},
    "tiny": {},
    "baseline": {},
}


def test_every_preset_is_tested():
    """The table of changes lists all presets."""
    assert set(SMALLER) == set(PRESETS)


@pytest.mark.parametrize("preset", PRESETS)
def test_preset_fits_a_fold(preset, tmp_path, cache_dir):
    """The finished fold has probabilities of every held-out row, scores and an adapter."""
    write_pairs(simulate(40, seed=1), tmp_path / "pairs.csv")
    artifacts_dir = tmp_path / "artifacts"
    artifacts_dir.mkdir()
    (artifacts_dir / "cache").symlink_to(cache_dir)
    config = configure(preset, data=(str(tmp_path / "pairs.csv"),), **SMALLER[preset])
    run, fitted = cross_fit(config, [0], artifacts_dir, name="whole")
    assert fitted == [0]
    oof = read_fold_oof(run.fold(0))
    probs = oof[["prob_a", "prob_b", "prob_tie"]].to_numpy()
    assert len(probs) == 8
    np.testing.assert_allclose(probs.sum(1), 1, atol=1e-6)
    assert json.loads(run.fold(0).scores_path.read_bytes())["n"] == 8
    assert list(run.fold(0).adapter_dir.glob("*.*"))
