"""The doctor's arithmetic, and that looking costs nothing."""

from __future__ import annotations

import dataclasses
import doctest

import pytest

from tiewise import doctor
from tiewise.config.loading import load_preset
from tiewise.doctor import examine, measure_rate, operations_a_token


def test_examples_are_true():
    """The unit tests leave leaves out."""
    assert doctest.testmod(doctor).failed == 0


@pytest.mark.parametrize("preset", ["quickstart", "smollm2-135m", "gemma2-9b", "notebook"])
def test_a_trained_layer_costs_more_than_a_frozen_one(preset):
    """Freezing a layer saves its way back; forward it is computed all the same."""
    config = load_preset(preset)
    fewer = dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, n_frozen_layers=config.model.n_frozen_layers + 1),
    )
    n_layers, n_weights = doctor.N_WEIGHTS[config.model.backbone]
    n_layers = config.model.n_layers or n_layers
    saved = operations_a_token(config) - operations_a_token(fewer)
    assert 2 * n_weights <= saved <= 4 * n_weights
    assert operations_a_token(fewer) > 2 * n_weights * n_layers


def test_without_torch_it_still_looks(monkeypatch, tmp_path):
    """What needs torch does not run, and why; the rest does. Nothing is written."""
    monkeypatch.setattr(doctor, "_import_torch", lambda: None)
    found = examine(tmp_path / "artifacts")
    assert found.presets["quickstart"].startswith("does not run: torch is not installed")
    assert found.presets["baseline"].startswith("runs")
    assert measure_rate(None, "cpu") > 1e8
    assert list(tmp_path.iterdir()) == []
