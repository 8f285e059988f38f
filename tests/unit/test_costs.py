"""Cost of pairs by formula: the passes of each mode, and properties that always hold."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

_PATH = Path(__file__).parents[2] / "benchmarks" / "costs.py"
_SPEC = importlib.util.spec_from_file_location("costs", _PATH)
costs = importlib.util.module_from_spec(_SPEC)
sys.modules["costs"] = costs
_SPEC.loader.exec_module(costs)

LARGE = costs.SHAPES["Gemma-2-9b"]
MODES = st.builds(
    costs.Mode,
    n_frozen=st.integers(0, 30),
    rank=st.sampled_from([0, 16, 64]),
    n_adapted=st.integers(1, 7),
    is_recomputed=st.booleans(),
)
LENGTHS = st.integers(1, 8192)


def test_the_large_backbone_has_the_weights_it_is_named_for():
    """9.24 billion numbers, embedding included, as its card says."""
    assert LARGE.n_parameters == pytest.approx(9.24e9, rel=2e-3)
    assert costs.SHAPES["Gemma-2-2b"].n_parameters == pytest.approx(2.61e9, rel=2e-3)
    assert costs.SHAPES["Gemma-2-27b"].n_parameters == pytest.approx(27.2e9, rel=2e-3)
    assert costs.SHAPES["SmolLM2-135M"].n_parameters == pytest.approx(134.5e6, rel=2e-3)


def test_passes_are_counted_as_one_counts_them_by_hand():
    """Three times 42; 16 once and 26 twice, less what the pooled last layer saves twice."""
    assert costs.count_passes(LARGE, costs.MODES["the notebook's way"]) == pytest.approx(126)
    keys = 2 * LARGE.hidden * LARGE.keys / LARGE.layer_weights
    passes = costs.count_passes(LARGE, costs.NOTEBOOK)
    assert passes == pytest.approx(16 + 2 * 25 + 2 * keys)
    recomputed = costs.count_passes(LARGE, replace(costs.NOTEBOOK, is_recomputed=True))
    assert recomputed == pytest.approx(16 + 3 * 25 + 3 * keys)
    assert costs.count_passes(LARGE, costs.SCORING) == pytest.approx(41 + keys)


@given(MODES, LENGTHS)
def test_more_is_never_cheaper(mode, length):
    """A longer row, a layer more to train, a pass more, more adapters, training at all."""

    def work(mode, n=length):
        return float(costs.row_work(LARGE, mode, n))

    assert work(mode) < work(mode, length + 1)
    assert work(replace(mode, n_frozen=mode.n_frozen + 1)) < work(mode)
    assert work(replace(mode, is_recomputed=False)) <= work(mode)
    assert work(mode) <= work(replace(mode, rank=mode.rank + 1))
    assert work(replace(mode, is_training=False)) < work(mode)
    assert work(mode) < work(replace(mode, is_notebook=True, is_recomputed=True, n_frozen=0))


@given(st.lists(LENGTHS, min_size=1, max_size=5), MODES)
def test_rows_cost_what_each_costs(lengths, mode):
    """Packed rows share nothing: the work of many is the sum of the work of each."""
    together = costs.row_work(LARGE, mode, lengths)
    assert together == pytest.approx([costs.row_work(LARGE, mode, [n])[0] for n in lengths])


def test_padding_adds_and_never_cuts():
    """Every padded row is as long as its own at least, two by two alike."""
    lengths = costs.row_lengths(1024)
    padded = costs.padded_lengths(lengths)
    assert padded.sum() >= lengths.sum()
    assert np.array_equal(padded[::2], padded[1::2])
    assert lengths.max() == 1024
