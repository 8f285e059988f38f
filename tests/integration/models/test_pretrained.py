"""Tests of a finished run that predicts pairs."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

from fitting import configure
from loaded_runs import open_tiny
from tiewise.data.labels import PROB_COLUMNS
from tiewise.data.simulation.simulate import simulate
from tiewise.errors import DeviceError, ModelError, RunError
from tiewise.evaluation.position import average_folds
from tiewise.files import write_json
from tiewise.judges.judge import predict, rank, score
from tiewise.judges.kinds import open_judge
from tiewise.models.pretrained import find_device, load_folds
from tiewise.models.scoring import predict_pairs
from tiewise.runs.folder import start_run
from tiewise.runs.manifest import write_manifest

WEIGHTS = "adapter_model.safetensors"


@pytest.fixture
def two_folds(cache_dir, tmp_path):
    """Give what two folds learned, with each fold's own predictions."""
    opened = open_tiny("tiny", cache_dir, dtype="float32")
    pairs = simulate(8, seed=5)
    folders, tables = [], []
    for seed in (1, 2):
        opened.shake(seed)
        tables.append(predict_pairs(opened.classifier, pairs, opened.tokenizer, opened.template))
        folders.append(opened.save(tmp_path / f"fold{seed}"))
    return opened, folders, tables, pairs


def tamper(folder, change):
    """Change the saved tensors and make the manifest vouch for them."""
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    write_manifest(folder)


def head_of(tensors):
    """Give the name of the head's weight."""
    return next(name for name in tensors if "score" in name)


def test_folds_are_averaged_on_one_backbone(two_folds):
    """One backbone with each fold's weights in turn gives their mean, again and again."""
    opened, folders, tables, pairs = two_folds
    judge = load_folds(folders, opened.backbone_dir)
    assert len(judge.folds) == 2
    expected = average_folds(tables)
    for _ in range(2):
        np.testing.assert_array_equal(judge.predict(pairs)[PROB_COLUMNS], expected[PROB_COLUMNS])


def test_a_fresh_process_predicts_the_same_bits(two_folds, tmp_path):
    """Saved, loaded elsewhere, scored: difference 0.0."""
    opened, folders, tables, _ = two_folds
    program = f"""
import sys, torch
torch.set_num_threads(1)
from pathlib import Path
from tiewise.models.pretrained import load_folds
from tiewise.data.simulation.simulate import simulate
judge = load_folds([Path({str(folders[0])!r})], Path({str(opened.backbone_dir)!r}))
judge.predict(simulate(8, seed=5)).to_parquet({str(tmp_path / "out.parquet")!r})
"""
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, timeout=200)
    again = pd.read_parquet(tmp_path / "out.parquet")
    assert (again[PROB_COLUMNS] - tables[0][PROB_COLUMNS]).abs().to_numpy().max() == 0.0


def test_a_missing_head_is_refused(two_folds):
    """An adapter without its head would predict something else each time."""
    opened, folders, *_ = two_folds
    tamper(folders[0], lambda tensors: tensors.pop(head_of(tensors)))
    with pytest.raises(ModelError, match=r"score\.weight is missing"):
        load_folds(folders, opened.backbone_dir)


def test_a_head_of_two_classes_is_refused(two_folds):
    """A reward model's or a two-class head is named as such."""
    opened, folders, *_ = two_folds

    def cut(tensors):
        tensors[head_of(tensors)] = tensors[head_of(tensors)][:2].clone()

    tamper(folders[1], cut)
    with pytest.raises(ModelError, match=r"expected \(3, 64\)"):
        load_folds(folders, opened.backbone_dir)


def test_an_adapter_of_another_backbone_is_refused(two_folds, cache_dir):
    """The digests of both backbones are told."""
    _, folders, *_ = two_folds
    other = open_tiny("tiny-llama", cache_dir)
    with pytest.raises(ModelError, match="was fitted on"):
        load_folds(folders, other.backbone_dir)


def test_folds_with_different_templates_are_not_averaged(two_folds, cache_dir, tmp_path):
    """Probabilities of differently cut rows are not of the same thing."""
    opened, folders, *_ = two_folds
    shorter = open_tiny("tiny", cache_dir, dtype="float32", max_length=50)
    folders.append(shorter.save(tmp_path / "short"))
    with pytest.raises(RunError, match="different templates"):
        load_folds(folders, opened.backbone_dir)
    (folders[0] / "template.json").unlink()
    with pytest.raises(ModelError, match=r"template\.json is missing"):
        load_folds(folders, opened.backbone_dir)


@pytest.mark.parametrize("name", ["template.json", "classifier.json", WEIGHTS, "tokenizer.json"])
def test_a_flipped_bit_in_an_adapter_is_refused(two_folds, name):
    """No file of a fold's model is read when one bit of any of them is another."""
    opened, folders, *_ = two_folds
    shutil.copyfile(opened.backbone_dir / "tokenizer.json", folders[0] / "tokenizer.json")
    write_manifest(folders[0])
    content = bytearray((folders[0] / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folders[0] / name).write_bytes(content)
    with pytest.raises(ModelError, match=f"is damaged: {name} does not match"):
        load_folds(folders, opened.backbone_dir)


def test_another_tokenizer_than_the_fits_is_refused(two_folds, tmp_path):
    """Equal weights under another tokenizer would read other words."""
    opened, folders, *_ = two_folds
    content = (opened.backbone_dir / "tokenizer.json").read_bytes()
    (folders[0] / "tokenizer.json").write_bytes(content)
    backbone_dir = shutil.copytree(opened.backbone_dir, tmp_path / "backbone")
    changed = json.loads(content)
    changed["model"]["byte_fallback"] = not changed["model"]["byte_fallback"]
    (backbone_dir / "tokenizer.json").write_text(json.dumps(changed))
    load_folds(folders[:1], opened.backbone_dir)
    with pytest.raises(ModelError, match="has changed since the fit"):
        load_folds(folders[:1], backbone_dir)


@pytest.fixture
def run(tmp_path, cache_dir, monkeypatch):
    """Make a run whose folds 0 and 2 are finished."""
    config = configure(dtype="float32", lora_r=4)
    run = start_run(tmp_path / "artifacts", config, name="done")
    opened = open_tiny("tiny", cache_dir, dtype="float32")
    for fold in (0, 2):
        opened.shake(fold).save(run.fold(fold).adapter_dir)
        write_json(run.fold(fold).scores_path, {})
    monkeypatch.setenv("TIEWISE_ARTIFACTS", str(tmp_path / "artifacts"))
    return run


def test_all_finished_folds_of_a_run_judge(run, cache_dir):
    """Unfinished folds are left out, or refused when they are asked for by number."""
    assert len(open_judge(run, cache_dir=cache_dir).judge.folds) == 2
    assert len(open_judge(run, cache_dir=cache_dir, folds=[2]).folds) == 1
    with pytest.raises(RunError, match="fold 1 is not finished"):
        open_judge(run, cache_dir=cache_dir, folds=[0, 1])
    run.fold(0).scores_path.unlink()
    run.fold(2).scores_path.unlink()
    with pytest.raises(RunError, match="no fold is finished"):
        open_judge(run, cache_dir=cache_dir)


def test_a_device_that_is_not_there_is_named(run, cache_dir):
    """No CUDA: the message names the CPU alternative."""
    if not torch.cuda.is_available():
        with pytest.raises(DeviceError, match="--device cpu"):
            open_judge(run, cache_dir=cache_dir, device="cuda")


def test_one_pair_is_scored_symmetrically(run):
    """Exchanging the responses exchanges P(A) and P(B) exactly; turns may be missing."""
    probs = score("Why?", "Because.", ["No idea.", None], run="done")
    swapped = score("Why?", ["No idea.", None], "Because.", run=run.path)
    np.testing.assert_array_equal(swapped, probs[[1, 0, 2]])
    assert probs.sum() == pytest.approx(1)


def test_a_ranking_agrees_with_scoring_pair_by_pair(run):
    """All pairs in one batch have the probabilities that each has on its own."""
    answers = ["Because it rains.", "No.", "Because it rains, as it does every day in autumn."]
    ranking = rank("Why is it wet?", answers, run="done", n_resamples=20)
    for i, j in ((0, 1), (2, 0)):
        np.testing.assert_allclose(
            ranking.probs[i, j],
            score("Why is it wet?", answers[i], answers[j], run="done"),
            atol=1e-5,
        )
    assert sorted(ranking.order.tolist()) == [0, 1, 2]


def test_a_table_is_predicted_as_the_run_judges_it(run, cache_dir):
    """In memory and in one call: what the run's folds say of the pairs, as it is configured."""
    pairs = simulate(6, seed=5)
    judge = open_judge(run, cache_dir=cache_dir)
    pd.testing.assert_frame_equal(predict(pairs, run="done"), judge.predict(pairs))
    one_order = judge.predict(pairs, swap=False)
    pd.testing.assert_frame_equal(predict(pairs, run="done", swap=False), one_order)
    with pytest.raises(DeviceError, match="--device cpu"):
        predict(pairs, run="done", device="cuda")


def test_a_fold_finished_later_is_taken_in(run):
    """A run that went on between two calls is loaded again."""
    before = score("Why?", "a", "b", run="done")
    run.fold(2).scores_path.unlink()
    assert not np.array_equal(score("Why?", "a", "b", run="done"), before)


@pytest.mark.parametrize(("local_rank", "device"), [(None, "cuda:0"), ("1", "cuda:1")])
def test_each_process_of_a_launch_has_a_gpu_of_its_own(monkeypatch, local_rank, device):
    """Two processes that predict would otherwise share the first GPU."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    if local_rank is not None:
        monkeypatch.setenv("LOCAL_RANK", local_rank)
        monkeypatch.setenv("RANK", local_rank)
        monkeypatch.setenv("WORLD_SIZE", "2")
    assert find_device("auto", "x") == find_device("cuda", "x") == device
    assert find_device("cpu", "x") == "cpu"
