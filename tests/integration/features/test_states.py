"""The feature model with the states of a language model: fitted, opened, packed and refused."""

import json
import shutil
import sys
from dataclasses import replace
from zipfile import ZipFile

import numpy as np
import pandas as pd
import pytest

import tiewise as tw
from tiewise.cli import main
from tiewise.data.formats import write_pairs
from tiewise.data.labels import PROB_COLUMNS
from tiewise.data.pairs import swap_pairs
from tiewise.data.simulation.simulate import simulate
from tiewise.errors import ConfigError, DeviceError, ModelError
from tiewise.features import binary_models as parts
from tiewise.features.feature_model import load_feature_model
from tiewise.judges.kinds import device_of, open_feature_judge
from tiewise.models.backbones import resolve_backbone
from tiewise.report.heading import describe_model
from tiewise.runs.folder import open_run
from tiewise.runs.references import predict_by_baseline
from tiewise.serving.pack import pack_run

PAIRS = simulate(90, seed=5)
FIT = ["fit", "--preset", "baseline", "--data", "train.parquet", "--n-splits", "3"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Fit the feature model with the states of ``tiny:0``, and without."""
    folder = tmp_path_factory.mktemp("states")
    write_pairs(PAIRS, folder / "train.parquet")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(parts, "_MAX_TREES", 10)
        assert main([*FIT, "--states", "tiny:0", "--folds", "all", "--run", "states"]) == 0
        assert main([*FIT, "--folds", "all", "--run", "plain"]) == 0
        yield folder


def open_states(folder):
    return open_run("states", folder / "artifacts")


def test_fold_is_predicted_as_it_was_scored(folder):
    """A fold's adapter, opened by its path, repeats the predictions of the held-out rows."""
    run = open_states(folder)
    oof = pd.read_parquet(run.fold(1).oof_path)
    held_out = PAIRS[PAIRS["id"].isin(oof["id"])].reset_index(drop=True)
    judge = tw.Judge.from_pretrained(run.fold(1).adapter_dir, artifacts=folder / "artifacts")
    probs = judge.predict(held_out).set_index("id").loc[oof["id"], PROB_COLUMNS]
    np.testing.assert_allclose(probs.to_numpy(), oof[PROB_COLUMNS].to_numpy(), atol=1e-12)
    assert load_feature_model(run.fold(1).adapter_dir).reader["states"] == "tiny:0"


def test_prediction_caches_no_states(folder):
    """A prediction of new pairs leaves no file for each response, as a fit does."""
    cache = folder / "artifacts" / "cache"
    before = sorted(cache.rglob("*.arrays"))
    assert before
    judge = tw.Judge.from_pretrained("states", artifacts=folder / "artifacts")
    judge.predict(simulate(20, seed=9))
    assert sorted(cache.rglob("*.arrays")) == before


def test_swap_is_exact(folder):
    """Exchanging the responses exchanges the probabilities exactly."""
    judge = tw.Judge.from_pretrained("states", artifacts=folder / "artifacts")
    given, swapped = judge.predict_proba(PAIRS), judge.predict_proba(swap_pairs(PAIRS))
    np.testing.assert_array_equal(given, swapped[:, [1, 0, 2]])
    plain = tw.Judge.from_pretrained("plain", artifacts=folder / "artifacts").predict_proba(PAIRS)
    assert np.abs(given - plain).max() > 1e-4


def test_run_is_described_and_compared(folder, capsys):
    """Its description names the backbone, and the plain feature model is its reference."""
    run = open_states(folder)
    shown = "preset baseline, changed: n_splits, states (feature model with states of tiny:0)"
    assert describe_model(run.config) == shown
    ids = pd.read_parquet(run.fold(0).oof_path)["id"]
    probs, why = predict_by_baseline(run, ids)
    assert probs is not None
    assert why == ""
    assert predict_by_baseline(open_run("plain", folder / "artifacts"), ids) == (None, "")
    assert main(["evaluate", "states", "--json", "--artifacts", str(folder / "artifacts")]) == 0
    assert "baseline" in json.loads(capsys.readouterr().out)["baselines"]


def test_judge_needs_the_states(folder):
    """Without states, the model says what is missing."""
    model = load_feature_model(open_states(folder).fold(0).adapter_dir)
    assert model.reads_states
    with pytest.raises(ModelError, match="fitted with hidden states"):
        model.predict(PAIRS)


def test_backbone_is_not_read_for_nothing(folder):
    """Where the states have no weight in any fold, no backbone is loaded."""
    model = load_feature_model(open_states(folder).fold(0).adapter_dir)
    parts_of = {"winner": model.winner, "tie": model.tie}
    without = replace(model, **{k: replace(v, states=None) for k, v in parts_of.items()})
    assert open_feature_judge([without], cache_dir=folder, device="cpu").reader is None


def test_backbone_is_loaded_with_the_run(folder):
    """An opened judge is ready: no request waits for the backbone."""
    run = open_states(folder)
    models = [load_feature_model(run.fold(0).adapter_dir)]
    judge = open_feature_judge(models, cache_dir=folder / "artifacts" / "cache", device="cpu")
    assert "_body" in vars(judge.reader)
    judge.reader.device = "cuda:1"
    assert device_of(judge) == "cuda:1"


def test_device_is_that_of_the_fit(folder, tmp_path, monkeypatch):
    """A run that was fitted on a GPU is not opened on a CPU unless this is asked for."""
    shutil.copytree(folder / "artifacts", tmp_path / "artifacts")
    path = tmp_path / "artifacts" / "runs" / "states" / "config.json"
    path.write_text(path.read_text().replace('"device": "cpu"', '"device": "cuda"'))
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(DeviceError, match="--device cpu"):
        tw.Judge.from_pretrained("states", artifacts=tmp_path / "artifacts")
    tw.Judge.from_pretrained("states", artifacts=tmp_path / "artifacts", device="cpu")


def test_states_without_weight_are_reported(folder, capsys):
    """With few prompt groups the states are read and not used, and a warning says so."""
    write_pairs(PAIRS.head(6), folder / "few.parquet")
    few = ["--data", "few.parquet", "--states", "tiny:0", "--fold", "0", "--run", "few"]
    assert main([*FIT, *few]) == 0
    assert "the hidden states have no weight" in capsys.readouterr().err


def test_card_names_the_backbone_without_a_path(folder):
    """The card of a fold says which model reads, and no path of this machine."""
    card = (open_states(folder).fold(0).adapter_dir / "README.md").read_text()
    assert r"on the backbone tiny\:0. This folder holds a model of features" in card


@pytest.fixture(scope="module")
def local(folder):
    """Fit with the states of a backbone in a folder."""
    backbone = folder / "secret" / "backbone"
    shutil.copytree(resolve_backbone("tiny:0", cache_dir=folder / "artifacts/cache"), backbone)
    fit = [*FIT, "--states", str(backbone), "--run", "local"]
    assert main([*fit, "--fold", "0"]) == 0
    return fit, backbone


def test_no_path_is_published(folder, local):
    """An adapter's files and the report name the folder of a backbone without its path."""
    del local
    assert main(["report", "local"]) == 0
    assert (
        "secret" not in (open_run("local", folder / "artifacts").path / "report.html").read_text()
    )
    for path in open_run("local", folder / "artifacts").fold(0).adapter_dir.iterdir():
        content = path.read_bytes()
        if path.suffix == ".skops":
            content = b"".join(ZipFile(path).read(name) for name in ZipFile(path).namelist())
        assert b"secret" not in content, path


def test_pack_has_the_backbone(folder, local, tmp_path, monkeypatch):
    """A packed run has the weights of a local backbone, and wheels for a language model."""
    del local
    names = []
    monkeypatch.setattr(
        "tiewise.serving.pack._write_wheels", lambda found, _: names.append(found) or 1
    )
    run = open_run("local", folder / "artifacts")
    pack_run(run, tmp_path / "pack", cache_dir=folder / "artifacts" / "cache")
    assert names == [{run.config.model.states}]
    assert (tmp_path / "pack" / "backbones" / "0" / "model.safetensors").is_file()


def test_changed_weights_are_refused(folder, local, capsys):
    """Neither a prediction nor a resumed fit uses other weights than the first fold did."""
    fit, backbone = local
    other = resolve_backbone("tiny:1", cache_dir=folder / "artifacts" / "cache")
    shutil.copyfile(other / "model.safetensors", backbone / "model.safetensors")
    predict = ["predict", "--run", "local", "--data", "train.parquet", "--out", "new.csv"]
    assert main(predict) == 2
    assert "Use the same backbone" in capsys.readouterr().err
    assert main([*fit, "--fold", "0", "--resume"]) == 2
    assert "states" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--new-sources"], "--states is given with --new-sources"),
        (["--backbone", "tiny:0"], "--states is given with --backbone tiny:0"),
        (["--states", "nowhere/at/all"], "there is no such folder"),
        (["--states", "package:nothing"], "Backbone package:nothing is not known"),
    ],
)
def test_contradictions_are_refused(folder, flags, message, capsys):
    """States belong to the feature model, and may harm on new sources."""
    del folder
    assert main([*FIT, "--states", "tiny:0", *flags]) == 2
    assert message in capsys.readouterr().err


def test_states_need_the_package(folder, monkeypatch):
    """Where torch is missing, the message names the extra, and nothing is fitted."""
    monkeypatch.setitem(sys.modules, "tiewise.models.states", None)
    assert main([*FIT, "--states", "tiny:0", "--run", "none"]) != 0
    assert not (folder / "artifacts" / "runs" / "none").exists()


def test_full_config_is_checked():
    """The contradiction is found in a configuration too."""
    with pytest.raises(ConfigError, match="--preset baseline"):
        tw.fit(PAIRS, preset="tiny", states="tiny:0")
