"""Tests of `Judge.from_pretrained` with language models."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from fitting import configure
from loaded_runs import open_tiny
from tiewise.data.labels import swap_probs
from tiewise.data.pairs import swap_pairs
from tiewise.data.simulation.simulate import simulate
from tiewise.errors import ModelError, RunError
from tiewise.files import write_json
from tiewise.judges.judge import Judge
from tiewise.runs.folder import start_run
from tiewise.runs.manifest import verify_manifest
from tiewise.serving.export import export_adapter

PAIRS = simulate(8, seed=5)


@pytest.fixture(scope="module")
def saved(cache_dir, tmp_path_factory):
    """Write a run with one fold, and its export."""
    folder = tmp_path_factory.mktemp("saved")
    run = start_run(folder / "artifacts", configure(dtype="float32", lora_r=4), name="done")
    opened = open_tiny("tiny", cache_dir, dtype="float32")
    opened.save(run.fold(0).adapter_dir)
    write_json(run.fold(0).scores_path, {})
    export_adapter(run.fold(0).adapter_dir, opened.backbone_dir, folder / "plain")
    return folder, run


def load(saved, name):
    """Load a judge with the artifacts folder of the fixture."""
    return Judge.from_pretrained(name, artifacts=saved[0] / "artifacts", device="cpu")


def test_run_name_and_folder_agree(saved):
    """A run is loaded by its name or by the path of its folder."""
    by_name = load(saved, "done").predict_proba(PAIRS)
    np.testing.assert_array_equal(load(saved, saved[1].path).predict_proba(PAIRS), by_name)
    assert by_name.shape == (8, 3)


def test_export_scores_like_its_run(saved):
    """An exported folder gives the probabilities of the run to 1e-5."""
    expected = load(saved, "done").predict_proba(PAIRS)
    np.testing.assert_allclose(
        load(saved, saved[0] / "plain").predict_proba(PAIRS), expected, atol=1e-5
    )


def test_export_is_symmetric(saved):
    """Swapping the responses swaps the first two probabilities exactly."""
    judge = load(saved, saved[0] / "plain")
    probs, swapped = (judge.predict_proba(pairs) for pairs in (PAIRS, swap_pairs(PAIRS)))
    np.testing.assert_array_equal(swap_probs(swapped), probs)


def test_edited_card_is_accepted(saved, tmp_path):
    """The card of an exported folder is not in its manifest, so that people can edit it."""
    folder = shutil.copytree(saved[0] / "plain", tmp_path / "copy")
    (folder / "README.md").write_text("Our model.")
    assert load(saved, folder).predict_proba(PAIRS).shape == (8, 3)


def test_export_is_verified_once(saved, monkeypatch):
    """Loading an exported folder computes the digests of its files one time."""
    verified = []

    def verify(folder, **options):
        verified.append(folder)
        return verify_manifest(folder, **options)

    monkeypatch.setattr("tiewise.models.adapters.verify_manifest", verify)
    load(saved, saved[0] / "plain")
    assert verified == [saved[0] / "plain"]


def test_damaged_export_is_refused(saved, tmp_path):
    """A folder with one changed byte in its weights is refused."""
    folder = shutil.copytree(saved[0] / "plain", tmp_path / "copy")
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(ModelError, match="damaged"):
        load(saved, folder)


def test_unknown_name_lists_runs(saved):
    """The message names the runs in the artifacts folder."""
    with pytest.raises(RunError, match="`tiewise runs` lists them"):
        load(saved, "missing")
