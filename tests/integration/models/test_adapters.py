"""Trained tensors are written and read back bit for bit, by this package and by other tools."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification

from tiewise.errors import ModelError
from tiewise.models.backbones import resolve_backbone
from tiewise.models.build import load_classifier
from tiewise.models.loading import quiet_transformers
from tiewise.runs.manifest import write_manifest
from tiny_models import build_tiny, make_rows, run_step, score, shake, write_family

CASES = {
    "lora": {"backbone": "tiny:0"},
    "llama": {"backbone": "tiny-llama:0"},
    "encoder": {"backbone": "tiny-bert:0"},
    "full": {"backbone": "tiny-bert:0", "tuning": "full", "dtype": "float32"},
    "frozen": {"backbone": "tiny:0", "tuning": "full", "n_frozen_layers": 3, "n_layers": 4},
    "nf4": {"backbone": "tiny:0", "quantization": "nf4", "dtype": "float32"},
    "nf4-bert": {"backbone": "tiny-bert:0", "quantization": "nf4", "dtype": "float32"},
    "bfloat16": {"backbone": "tiny:0", "dtype": "bfloat16"},
    "cut": {"backbone": "tiny-llama:0", "n_layers": 2},
}

FULL = {"tuning": "full", "dtype": "float32"}

READ_IN_ANOTHER_PROCESS = """
import sys
import numpy as np
from tiny_models import make_rows, score
from tiewise.models.build import load_classifier
for adapter_dir, backbone_dir in zip(sys.argv[1::2], sys.argv[2::2]):
    logits = score(load_classifier(adapter_dir, backbone_dir), make_rows())
    np.save(adapter_dir + "/logits.npy", logits.double().numpy())
"""


def build(case, cache_dir):
    """Build the classifier of a case and train it for one step, so that every tensor changes."""
    classifier = build_tiny(**({"cache_dir": cache_dir} | CASES[case]))
    run_step(classifier, make_rows(), layout="padded")
    optimizer = torch.optim.SGD([part for _, part in classifier.trainable_parameters()], lr=0.1)
    optimizer.step()
    return classifier.eval()


@pytest.fixture
def saved(tmp_path, cache_dir):
    """Save an adapter of the tiny Gemma; return its folder and its backbone's folder."""
    classifier = build("lora", cache_dir)
    classifier.save(tmp_path / "adapter")
    return tmp_path / "adapter", classifier.backbone_dir


@pytest.mark.parametrize("case", CASES)
def test_saved_classifiers_read_back_exactly(case, tmp_path, cache_dir):
    """A loaded classifier gives equal logits for equal rows, and can be trained further."""
    classifier = build(case, cache_dir)
    before = score(classifier, make_rows())
    classifier.save(tmp_path / "adapter")
    loaded = load_classifier(tmp_path / "adapter", classifier.backbone_dir)
    assert torch.equal(score(loaded, make_rows()), before)
    assert not any(part.requires_grad for part in loaded.parameters())
    assert not loaded.training
    again = load_classifier(tmp_path / "adapter", classifier.backbone_dir, is_trainable=True)
    assert again.training
    assert again.trainable_summary() == classifier.trainable_summary()
    assert torch.equal(score(again.eval(), make_rows()), before)


@pytest.mark.parametrize("fields", [{}, {"quantization": "nf4", "dtype": "float32"}, FULL])
@pytest.mark.parametrize("family", ["deberta-v2", "roberta", "distilbert", "electra"])
def test_encoders_with_own_heads_reload(family, fields, tmp_path, cache_dir):
    """All modules above the layers are new, trained, not quantized, and saved."""
    folder = write_family(family, tmp_path / "backbone", cache_dir)
    classifier = build_tiny(str(folder), cache_dir, **({"n_frozen_layers": 0} | fields))
    _, grads = run_step(classifier, make_rows(), layout="sorted", n_micro_batches=2)
    assert all(float(part.abs().max()) > 0 for part in grads.values())
    before = score(classifier.eval(), make_rows())
    classifier.save(tmp_path / "adapter")
    assert torch.equal(score(load_classifier(tmp_path / "adapter", folder), make_rows()), before)


def test_other_processes_read_same_bits(tmp_path, cache_dir):
    """The folder is complete: another process computes equal logits from it."""
    classifiers = {case: build(case, cache_dir) for case in ("lora", "nf4", "full")}
    folders = []
    for case, classifier in classifiers.items():
        classifier.save(tmp_path / case)
        folders += [tmp_path / case, classifier.backbone_dir]
    command = [sys.executable, "-W", "error", "-c", READ_IN_ANOTHER_PROCESS, *folders]
    subprocess.run(command, check=True, cwd=Path(__file__).parents[2], timeout=240)
    for case, classifier in classifiers.items():
        expected = score(classifier, make_rows()).double().numpy()
        assert np.abs(np.load(tmp_path / case / "logits.npy") - expected).max() == 0.0, case


def test_peft_loads_adapter_and_head(saved):
    """Transformers and peft compute our logits from the same folder."""
    adapter_dir, backbone_dir = saved
    ours = score(load_classifier(adapter_dir, backbone_dir), make_rows())
    with quiet_transformers():
        base = AutoModelForSequenceClassification.from_pretrained(
            backbone_dir, num_labels=3, dtype=torch.float64, attn_implementation="eager"
        )
    with pytest.warns(FutureWarning, match="is_gradient_checkpointing"):
        theirs = PeftModel.from_pretrained(base, adapter_dir).eval()
    rows = make_rows()
    for position, expected in enumerate(ours):
        ids = torch.from_numpy(rows.row(position).astype(np.int64))[None]
        with torch.no_grad():
            logits = theirs(input_ids=ids).logits[0]
        torch.testing.assert_close(logits, expected, rtol=0, atol=2e-5)


def test_transformers_loads_full_fits(tmp_path, cache_dir):
    """The folder of a full fit is a transformers model with the names of our classes."""
    classifier = build("full", cache_dir)
    classifier.save(tmp_path / "adapter")
    theirs = AutoModelForSequenceClassification.from_pretrained(tmp_path / "adapter")
    assert theirs.config.id2label == {0: "A", 1: "B", 2: "tie"}
    rows = make_rows()
    for position, expected in enumerate(score(classifier, rows)):
        ids = torch.from_numpy(rows.row(position).astype(np.int64))[None]
        with torch.no_grad():
            logits = theirs(input_ids=ids).logits[0]
        torch.testing.assert_close(logits, expected, rtol=0, atol=1e-5)


def test_only_safe_files_are_written(saved):
    """An adapter contains only safetensors and JSON, and no path of this machine."""
    adapter_dir, backbone_dir = saved
    assert {path.suffix for path in adapter_dir.iterdir()} == {".json", ".safetensors"}
    for path in adapter_dir.glob("*.json"):
        assert str(backbone_dir) not in path.read_text()
    settings = json.loads((adapter_dir / "adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] == "tiny:0"
    assert settings["layers_to_transform"] == [1, 2, 3]


def edit(adapter_dir, change):
    """Rewrite the tensors and the manifest, so that only the tensors themselves are wrong."""
    path = adapter_dir / "adapter_model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})
    write_manifest(adapter_dir)


HEAD = "base_model.model.score.weight"
LORA = "base_model.model.model.layers.2.self_attn.q_proj.lora_A.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors: tensors.pop(HEAD), "score.weight is missing"),
        (
            lambda tensors: tensors.update({HEAD: torch.zeros(2, 64)}),
            r"is \(2, 64\); expected \(3, 64\)",
        ),
        (lambda tensors: tensors.pop(LORA), "layers.2.self_attn.q_proj.*is missing"),
        (lambda tensors: tensors.update(more=torch.zeros(1)), "more is .*expected no such tensor"),
        (
            lambda tensors: tensors.update({LORA: torch.zeros(8, 64)}),
            r"is \(8, 64\); expected \(4, 64",
        ),
    ],
)
def test_unfitting_tensors_are_refused(change, message, saved):
    """Refused: no head, other classes, a missing or unexpected tensor, another rank."""
    adapter_dir, backbone_dir = saved
    edit(adapter_dir, change)
    with pytest.raises(ModelError, match=message):
        load_classifier(adapter_dir, backbone_dir)


def test_other_backbones_are_refused(saved, cache_dir):
    """An adapter contains the digest of the weights it was fitted on."""
    adapter_dir, _ = saved
    other = resolve_backbone("tiny:1", cache_dir=cache_dir)
    with pytest.raises(ModelError, match=r"fitted on tiny:0\. Use the same backbone"):
        load_classifier(adapter_dir, other)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "adapter_model.pt", "extra.pkl", "code.py"])
def test_code_files_are_refused(name, saved):
    """A file that can run code is refused even next to an intact adapter."""
    adapter_dir, backbone_dir = saved
    (adapter_dir / name).write_bytes(b"")
    with pytest.raises(ModelError, match=f"contains {name}, which can run code"):
        load_classifier(adapter_dir, backbone_dir)


def test_flipped_bits_are_noticed(saved, tmp_path):
    """A changed bit in any file of the folder is refused."""
    adapter_dir, backbone_dir = saved
    for path in sorted(adapter_dir.iterdir()):
        spoiled = shutil.copytree(adapter_dir, tmp_path / f"spoiled-{path.name}")
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        (spoiled / path.name).write_bytes(data)
        with pytest.raises(ModelError):
            load_classifier(spoiled, backbone_dir)


def test_foreign_folders_are_refused(tmp_path, cache_dir):
    """A missing folder and an empty folder are refused with different messages."""
    backbone_dir = resolve_backbone("tiny:0", cache_dir=cache_dir)
    with pytest.raises(ModelError, match="there is no such folder"):
        load_classifier(tmp_path / "nowhere", backbone_dir)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match="damaged"):
        load_classifier(tmp_path / "empty", backbone_dir)


def test_saving_again_replaces_files(saved):
    """The folder contains the last save."""
    adapter_dir, backbone_dir = saved
    classifier = shake(load_classifier(adapter_dir, backbone_dir, is_trainable=True), seed=9)
    classifier.save(adapter_dir)
    loaded = load_classifier(adapter_dir, backbone_dir)
    assert torch.equal(score(loaded, make_rows()), score(classifier.eval(), make_rows()))


def test_unknown_classifier_files_are_refused(saved):
    """Another format, classes or fields are refused with the path.

    A field of another version could otherwise change the scale of the adapter in silence.
    """
    adapter_dir, backbone_dir = saved
    path = adapter_dir / "classifier.json"
    card = json.loads(path.read_text())
    unknown_field = {"model": card["model"] | {"use_rslora": True}}
    others = ({"format": 2}, {"classes": ["A", "B"]}, {"model": {"head": "mlp"}}, {"scale": 2})
    for changed in (unknown_field, *others):
        path.write_text(json.dumps(card | changed))
        write_manifest(adapter_dir)
        with pytest.raises(ModelError, match=r"classifier\.json cannot be used by this version"):
            load_classifier(adapter_dir, backbone_dir)
    path.unlink()
    write_manifest(adapter_dir)
    with pytest.raises(ModelError, match=r"classifier\.json is missing"):
        load_classifier(adapter_dir, backbone_dir)
