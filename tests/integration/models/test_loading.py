"""Backbones as networks: cut, quantised, and refused when they do not fit."""

import json
import shutil

import pytest
import torch
from bitsandbytes.nn import Linear4bit
from safetensors.torch import load_file, save_file

from engines import build_tiny, largest_difference, make_rows, run_step, write_family
from tiewise.config.run_config import ModelConfig
from tiewise.errors import ModelError
from tiewise.models.backbones import resolve_backbone
from tiewise.models.loading import load_network, quiet_transformers
from tiewise.models.model import build_classifier


@pytest.fixture
def backbone_dir(tmp_path, cache_dir):
    """Give a copy of the tiny Gemma that a test may spoil."""
    return shutil.copytree(resolve_backbone("tiny:0", cache_dir=cache_dir), tmp_path / "backbone")


def edit(backbone_dir, change):
    """Rewrite a backbone's tensors."""
    path = backbone_dir / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


def test_the_first_layers_can_be_kept_alone(cache_dir):
    """A cut backbone is the whole one without its upper layers."""
    whole = build_tiny("tiny:0", cache_dir)
    cut = build_tiny("tiny:0", cache_dir, n_layers=3)
    assert len(cut.layers) == 3
    assert cut.config.layer_types == whole.config.layer_types[:3]
    for own, other in zip(cut.layers, whole.layers, strict=False):
        assert torch.equal(own.mlp.gate_proj.weight, other.mlp.gate_proj.weight)
    _, grads = run_step(cut, make_rows(), layout="packed")
    assert grads


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"n_layers": 5}, "--n-layers is 5; tiny:0 has 4 layers"),
        ({"n_layers": 0}, "--n-layers is 0"),
        ({"n_frozen_layers": 4}, "--n-frozen-layers is 4; tiny:0 has 4 layers"),
        ({"n_layers": 2, "n_frozen_layers": 2}, "has 2 layers here"),
        ({"lora_targets": ("c_attn",)}, "linear layers down_proj, gate_proj, k_proj"),
    ],
)
def test_what_does_not_fit_the_backbone_is_refused(fields, message, cache_dir):
    """The message names the flag and what the backbone has."""
    with pytest.raises(ModelError, match=message):
        build_tiny("tiny:0", cache_dir, **({"n_frozen_layers": 0} | fields))


@pytest.mark.parametrize("backbone", ["tiny:0", "tiny-llama:0", "tiny-bert:0"])
def test_every_layer_is_quantised_and_the_head_never(backbone, cache_dir):
    """In nf4 all linear layers of the backbone are 4-bit; head and pooler are not."""
    path = resolve_backbone(backbone, cache_dir=cache_dir)
    config = ModelConfig(backbone=backbone, quantization="nf4")
    network = load_network(config, path, device="cpu", seed=0)
    linear = {
        name: type(part) is Linear4bit
        for name, part in network.named_modules()
        if isinstance(part, torch.nn.Linear)
    }
    for name, is_quantised in linear.items():
        assert is_quantised == (".layer" in name), name
    assert any(linear.values())
    assert not all(linear.values())


def test_the_gradient_reaches_head_and_adapters_through_4_bits(cache_dir):
    """On a CPU, every adapter and the head of a quantised backbone get their gradient."""
    classifier = build_tiny("tiny:0", cache_dir, quantization="nf4", dtype="float32")
    _, grads = run_step(classifier, make_rows(), layout="packed")
    assert all(float(part.abs().max()) > 0 for part in grads.values())
    _, again = run_step(classifier, make_rows(), layout="padded", n_micro_batches=8)
    assert largest_difference(grads, again) < 1e-4


def test_a_backbone_with_a_head_of_its_own_loses_it(backbone_dir):
    """A reward model's one-class head is replaced; the rest is kept."""
    edit(backbone_dir, lambda tensors: tensors.update({"score.weight": torch.ones(1, 64)}))
    classifier = build_classifier(ModelConfig(backbone="tiny:0"), backbone_dir, seed=0)
    assert next(classifier.head.parameters()).shape == (3, 64)


@pytest.mark.parametrize("name", ["model.layers.2.mlp.up_proj.weight", "model.norm.weight"])
def test_a_backbone_that_lacks_a_tensor_is_refused(name, backbone_dir):
    """Nothing of the backbone is ever made up."""
    edit(backbone_dir, lambda tensors: tensors.pop(name))
    with pytest.raises(ModelError, match="lack or misshape 1 tensors"):
        build_classifier(ModelConfig(backbone="tiny:0"), backbone_dir, seed=0)


def test_a_backbone_of_another_shape_is_refused(backbone_dir):
    """A configuration that does not belong to the weights is noticed."""
    path = backbone_dir / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"intermediate_size": 96}))
    with pytest.raises(ModelError, match="lack or misshape"):
        build_classifier(ModelConfig(backbone="tiny:0"), backbone_dir, seed=0)


def test_a_width_that_4_bits_cannot_hold_is_refused(tmp_path, cache_dir):
    """The CPU kernels take multiples of 64; the message comes before any row is run."""
    folder = write_family("llama", tmp_path, cache_dir, intermediate_size=96)
    with pytest.raises(ModelError, match=r"multiple of 64; model.*down_proj has 96"):
        build_tiny(str(folder), cache_dir, quantization="nf4", dtype="float32")


def test_a_head_of_several_layers_is_not_replaced(tmp_path, cache_dir):
    """RoBERTa's head picks its token itself; another would be given all of them."""
    folder = write_family("roberta", tmp_path, cache_dir)
    with pytest.raises(ModelError, match="--head responses cannot replace the head of roberta"):
        build_tiny(str(folder), cache_dir, head="responses")


def test_layers_that_share_their_weights_are_refused(tmp_path, cache_dir):
    """ALBERT has one layer, run many times: no layer can be frozen or left out."""
    folder = write_family("albert", tmp_path, cache_dir)
    with pytest.raises(ModelError, match="albert: no list of 2 layers"):
        build_tiny(str(folder), cache_dir)


def test_an_unknown_architecture_is_refused(backbone_dir):
    """Also one that would bring code of its own."""
    path = backbone_dir / "config.json"
    values = {"model_type": "nobody", "auto_map": {"AutoConfig": "code.Config"}}
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
    with pytest.raises(ModelError, match="transformers cannot use it"):
        build_classifier(ModelConfig(backbone="tiny:0"), backbone_dir, seed=0)


def test_loading_is_quiet_and_leaves_the_log_as_it_was(cache_dir, capfd):
    """No bar and no report of the fresh head reaches the screen."""
    from transformers.utils import logging

    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    build_tiny("tiny:0", cache_dir)
    with quiet_transformers():
        assert logging.get_verbosity() == logging.ERROR
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before
    captured = capfd.readouterr()
    assert captured.out == captured.err == ""
