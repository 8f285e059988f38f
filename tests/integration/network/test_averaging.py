"""The average of adapters does to each weight the mean of what they do."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from engines import make_rows, score
from fitting import configure
from opened import open_tiny
from tiewise.cli import main
from tiewise.errors import FilesError, ModelError, RunError
from tiewise.files import digest_file, write_json
from tiewise.network.averaging import average_adapters, average_run, find_average
from tiewise.network.model import load_classifier
from tiewise.pairs.labels import PROB_COLUMNS
from tiewise.predicting.judging import open_judge
from tiewise.predicting.predictors import PredictOptions, open_predictor
from tiewise.runs.folder import start_run
from tiewise.simulation.simulate import simulate

CASES = {
    "lora": ("tiny", {}),
    "rslora": ("tiny-llama", {"use_rslora": True, "lora_ranks": ("q_proj=2", "1.v_proj=3")}),
    "mlp": ("tiny-bert", {"head": "mlp"}),
    "full": ("tiny-bert", {"tuning": "full", "dtype": "float32"}),
}


def save_three(kind, fields, cache_dir, folder):
    """Write what three folds learned; return the folders and the backbone's."""
    opened = open_tiny(kind, cache_dir, **fields)
    folders = [opened.shake(seed).save(folder / f"fold{seed}") for seed in (1, 2, 3)]
    return folders, opened.backbone_dir


def effective_weights(adapter_dir, backbone_dir):
    """Return every weight with its adapter's update merged in, and the head."""
    network = load_classifier(adapter_dir, backbone_dir).network
    if hasattr(network, "merge_and_unload"):
        network = network.merge_and_unload()
    return dict(network.state_dict())


@pytest.mark.parametrize("case", CASES)
def test_each_weight_is_the_mean_of_the_folds_weights(case, tmp_path, cache_dir):
    """With its update merged in: whatever the scale, the ranks and the head."""
    kind, fields = CASES[case]
    folders, backbone_dir = save_three(kind, fields, cache_dir, tmp_path)
    built = average_adapters(folders, tmp_path / "average")
    averaged = effective_weights(tmp_path / "average", backbone_dir)
    each = [effective_weights(folder, backbone_dir) for folder in folders]
    tolerance = 1e-5 if fields.get("dtype") == "float32" else 1e-6
    for name, weight in averaged.items():
        mean = sum(part[name].double() for part in each) / 3
        assert float((weight.double() - mean).abs().max()) < tolerance, name
    assert built.lora_r == (12 if case != "full" else 4)


def test_the_mean_of_factors_would_be_something_else(tmp_path, cache_dir):
    """The law above can fail: A and B averaged one by one give other weights."""
    folders, _ = save_three("tiny", {}, cache_dir, tmp_path)
    tensors = [load_file(folder / "adapter_model.safetensors") for folder in folders]
    name = next(name for name in tensors[0] if ".lora_A." in name)
    pairs = [(part[name.replace("lora_A", "lora_B")], part[name]) for part in tensors]
    mean_product = sum(b @ a for b, a in pairs) / 3
    product_of_means = (sum(b for b, _ in pairs) / 3) @ (sum(a for _, a in pairs) / 3)
    assert float((mean_product - product_of_means).abs().max()) > 1e-3


def test_the_average_of_one_model_with_itself_is_that_model(tmp_path, cache_dir):
    """The same rows have the same logits."""
    folders, backbone_dir = save_three("tiny", {}, cache_dir, tmp_path)
    average_adapters([folders[0]] * 2, tmp_path / "average")
    found, expected = (
        score(load_classifier(folder, backbone_dir), make_rows())
        for folder in (tmp_path / "average", folders[0])
    )
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_what_is_not_alike_cannot_be_averaged(tmp_path, cache_dir):
    """Another rank, another template; and DoRA's adapters, which are no sums."""
    folders, _ = save_three("tiny", {}, cache_dir, tmp_path)
    other = open_tiny("tiny", cache_dir, lora_r=2).save(tmp_path / "other")
    shorter = open_tiny("tiny", cache_dir, max_length=64).save(tmp_path / "shorter")
    dora = open_tiny("tiny", cache_dir, use_dora=True).save(tmp_path / "dora")
    for pair, message in [
        ([folders[0], other], "is built otherwise"),
        ([folders[0], shorter], "is not that of"),
        ([dora, dora], "DoRA"),
    ]:
        with pytest.raises(ModelError, match=message):
            average_adapters(pair, tmp_path / "average")


@pytest.fixture
def run(tmp_path, cache_dir):
    """Make a run whose folds 0 and 2 are finished."""
    run = start_run(tmp_path / "artifacts", configure(dtype="float64", lora_r=4), name="done")
    opened = open_tiny("tiny", cache_dir)
    for fold in (0, 2):
        opened.shake(fold).save(run.fold(fold).adapter_dir)
        run.fold(fold).oof_path.write_text(f"{fold}")
        write_json(run.fold(fold).scores_path, {})
    return run


def test_a_run_predicts_with_the_average_of_its_folds(run, cache_dir, tmp_path, capsys):
    """The command writes it, predict takes it in place of the folds, and it belongs to them."""
    with pytest.raises(RunError, match="tiewise average done"):
        find_average(run)
    words = ["average", "done", "--artifacts", str(tmp_path / "artifacts"), "--json"]
    assert main(words) == 0
    assert json.loads(capsys.readouterr().out)["folds"] == [0, 2]
    judge = open_judge(run, cache_dir=cache_dir, is_averaged=True)
    assert judge.n_folds == 1
    pairs = simulate(4, seed=1)
    expected = judge.predict(pairs, is_swapped=True)

    predict = open_predictor(run, cache_dir=cache_dir, is_averaged=True)
    found = predict(pairs, PredictOptions(swap=True))
    np.testing.assert_array_equal(found[PROB_COLUMNS], expected[PROB_COLUMNS])
    with pytest.raises(FilesError, match="--overwrite"):
        average_run(run)
    run.fold(2).oof_path.write_text("fitted again")
    with pytest.raises(RunError, match="other folds than are finished now"):
        find_average(run)
    average_run(run, is_overwritten=True)
    assert digest_file(find_average(run) / "manifest.json")
    run.fold(2).scores_path.unlink()
    with pytest.raises(RunError, match="an average needs two"):
        average_run(run, is_overwritten=True)
