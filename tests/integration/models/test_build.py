"""Classifiers are cut, quantized, started from reward models, and refused where they misfit."""

import json
import logging
import shutil

import pytest
import torch
from bitsandbytes.nn import Linear4bit
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification

from tiewise.config import ModelConfig
from tiewise.errors import ModelError
from tiewise.models.backbones import resolve_backbone
from tiewise.models.build import build_classifier
from tiewise.models.loading import load_network, quiet_transformers
from tiny_families import find_tiny
from tiny_models import (
    LENGTHS,
    build_tiny,
    largest_difference,
    make_rows,
    run_step,
    score,
    write_family,
)


@pytest.fixture
def backbone_dir(tmp_path, cache_dir):
    """Return a copy of the tiny Gemma that a test may damage."""
    return shutil.copytree(resolve_backbone("tiny:0", cache_dir=cache_dir), tmp_path / "backbone")


def edit(backbone_dir, change):
    """Rewrite the tensors of a backbone."""
    path = backbone_dir / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


@pytest.mark.parametrize("backbone", ["tiny:0", "tiny-llama:0", "tiny-bert:0"])
def test_seed_decides_initial_values(backbone, cache_dir):
    """Equal seeds give equal bits, another seed other values; torch's own state is unchanged."""
    path = resolve_backbone(find_tiny(backbone, cache_dir), cache_dir=cache_dir)
    config = ModelConfig(backbone=backbone)

    def build(seed):
        return dict(build_classifier(config, path, seed=seed).trainable_parameters())

    state = torch.get_rng_state()
    first = build(0)
    assert torch.equal(state, torch.get_rng_state())
    torch.rand(3)
    assert largest_difference(first, build(0)) == 0
    assert largest_difference(first, build(1)) > 0


def test_first_layers_can_be_kept(cache_dir):
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
        ({"n_layers": 5}, "--n-layers is 5; expected 1 to 4, the layers of tiny:0"),
        ({"n_layers": 0}, "--n-layers is 0"),
        ({"n_frozen_layers": 4}, "--n-frozen-layers is 4; expected less than 4"),
        ({"n_layers": 2, "n_frozen_layers": 2}, "expected less than 2"),
        ({"lora_targets": ("c_attn",)}, "--lora-targets is c_attn; .*: down_proj, gate_proj"),
    ],
)
def test_unfitting_options_are_refused(fields, message, cache_dir):
    """The message names the flag and the values that the backbone allows."""
    with pytest.raises(ModelError, match=message):
        build_tiny("tiny:0", cache_dir, **({"n_frozen_layers": 0} | fields))


@pytest.mark.parametrize("tuning", ["lora", "full"])
@pytest.mark.parametrize("backbone", ["tiny:0", "tiny-bert:0"])
def test_frozen_layers_train_nothing_below(backbone, tuning, cache_dir):
    """With two frozen layers neither they nor the embeddings train, and all layers above do."""
    classifier = build_tiny(backbone, cache_dir, n_frozen_layers=2, tuning=tuning)
    trained = {name for name, _ in classifier.trainable_parameters()}
    layer = ".layers." if backbone == "tiny:0" else ".layer."
    n_layers = len(classifier.layers)
    of_layers = {int(name.split(layer)[1].split(".")[0]) for name in trained if layer in name}
    assert of_layers == set(range(2, n_layers))
    assert not [name for name in trained if "embed" in name]
    assert [name for name in trained if "score" in name or "classifier" in name]
    is_whole = tuning == "full"
    assert ("network.model.norm.weight" in trained) == (is_whole and backbone == "tiny:0")
    unfrozen = build_tiny(backbone, cache_dir, n_frozen_layers=0, tuning="full")
    assert all(part.requires_grad for part in unfrozen.parameters())


@pytest.mark.parametrize("backbone", ["tiny:0", "tiny-llama:0", "tiny-bert:0"])
def test_only_layers_are_quantized(backbone, cache_dir):
    """In nf4 all linear layers of the backbone are 4-bit; head and pooler are not."""
    path = resolve_backbone(find_tiny(backbone, cache_dir), cache_dir=cache_dir)
    config = ModelConfig(backbone=backbone, quantization="nf4")
    network = load_network(config, path, device="cpu", seed=0)
    linear = {
        name: type(part) is Linear4bit
        for name, part in network.named_modules()
        if isinstance(part, torch.nn.Linear)
    }
    for name, is_quantized in linear.items():
        assert is_quantized == (".layer" in name), name
    assert any(linear.values())
    assert not all(linear.values())


def test_gradients_pass_4_bit_layers(cache_dir):
    """On a CPU, every adapter and the head of a quantized backbone get their gradient."""
    classifier = build_tiny("tiny:0", cache_dir, quantization="nf4", dtype="float32")
    _, grads = run_step(classifier, make_rows(), layout="packed")
    assert all(float(part.abs().max()) > 0 for part in grads.values())
    _, again = run_step(classifier, make_rows(), layout="padded", n_micro_batches=8)
    assert largest_difference(grads, again) < 1e-4


def test_existing_heads_are_replaced(backbone_dir):
    """A head of one class in the backbone's files is replaced by one of three."""
    edit(backbone_dir, lambda tensors: tensors.update({"score.weight": torch.ones(1, 64)}))
    classifier = build_classifier(ModelConfig(backbone="tiny:0"), backbone_dir, seed=0)
    assert next(classifier.head.parameters()).shape == (3, 64)


@pytest.mark.parametrize("name", ["model.layers.2.mlp.up_proj.weight", "model.norm.weight"])
def test_missing_tensors_are_refused(name, backbone_dir):
    """A tensor of the backbone is never initialized at random."""
    edit(backbone_dir, lambda tensors: tensors.pop(name))
    with pytest.raises(ModelError, match=f"1 tensors, such as {name}, are missing"):
        build_classifier(ModelConfig(backbone="tiny:0"), backbone_dir, seed=0)


def test_misshaped_tensors_are_refused(backbone_dir):
    """A configuration that does not belong to the weights is noticed."""
    path = backbone_dir / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"intermediate_size": 96}))
    with pytest.raises(ModelError, match="or have another shape"):
        build_classifier(ModelConfig(backbone="tiny:0"), backbone_dir, seed=0)


def test_unquantizable_widths_are_refused(tmp_path, cache_dir):
    """The CPU kernels need multiples of 64; the message comes before the first forward pass."""
    folder = write_family("llama", tmp_path, cache_dir, intermediate_size=96)
    with pytest.raises(ModelError, match=r"down_proj has 96 inputs; expected a multiple of 64"):
        build_tiny(str(folder), cache_dir, quantization="nf4", dtype="float32")


def test_shared_layers_are_refused(tmp_path, cache_dir):
    """ALBERT runs one layer many times, so no layer can be frozen or cut."""
    folder = write_family("albert", tmp_path, cache_dir)
    with pytest.raises(ModelError, match="albert: expected one list of 2 layers, found 0"):
        build_tiny(str(folder), cache_dir)


def test_unknown_architectures_are_refused(backbone_dir):
    """An architecture that transformers does not know is refused, with or without own code."""
    path = backbone_dir / "config.json"
    values = {"model_type": "unknown", "auto_map": {"AutoConfig": "code.Config"}}
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
    with pytest.raises(ModelError, match="transformers cannot read it"):
        build_classifier(ModelConfig(backbone="tiny:0"), backbone_dir, seed=0)


def test_loading_is_quiet(cache_dir, capfd):
    """No progress bar and no report of the new head is printed; log settings are restored."""
    from transformers.utils import logging as screen

    before = screen.get_verbosity(), screen.is_progress_bar_enabled()
    build_tiny("tiny:0", cache_dir)
    with quiet_transformers():
        assert screen.get_verbosity() == screen.ERROR
    assert (screen.get_verbosity(), screen.is_progress_bar_enabled()) == before
    captured = capfd.readouterr()
    assert captured.out == captured.err == ""


def write_reward_model(family, folder, cache_dir):
    """Write a classifier with one output and other backbone weights; return also its weights."""
    base = write_family(family, folder.with_name("base"), cache_dir)
    with torch.random.fork_rng(), quiet_transformers():
        torch.manual_seed(5)
        network = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1)
        with torch.no_grad():
            for part in network.parameters():
                part.add_(0.05 * torch.randn_like(part))
        network.save_pretrained(folder)
    shutil.copyfile(base / "tokenizer.json", folder / "tokenizer.json")
    return folder, dict(network.state_dict())


@pytest.mark.parametrize(
    ("family", "kind"),
    [("gemma2", "Gemma2"), ("roberta", "Roberta")],
)
def test_reward_models_give_their_backbone(family, kind, tmp_path, cache_dir, caplog):
    """All weights below the head are the reward model's; the head is new, and the log says so."""
    folder, theirs = write_reward_model(family, tmp_path / "reward", cache_dir)
    path = resolve_backbone(str(folder), cache_dir=cache_dir)
    config = ModelConfig(backbone=str(folder), tuning="full")
    with caplog.at_level(logging.INFO, logger="tiewise"):
        classifier = build_classifier(config, path, seed=0)
    message = f"is a reward model ({kind}ForSequenceClassification, outputs: 1); its head is not"
    assert message in caplog.text
    ours = dict(classifier.network.state_dict())
    body = [name for name in theirs if not name.startswith(("score", "classifier"))]
    assert len(body) > 10
    assert all(torch.equal(ours[name], theirs[name]) for name in body)
    head = [name for name in ours if name.startswith(("score", "classifier"))]
    assert all(
        ours[n].shape != theirs[n].shape or not torch.equal(ours[n], theirs[n])
        for n in head
        if ours[n].any()
    )
    assert score(classifier.eval(), make_rows(LENGTHS[:3])).shape == (3, 3)


def test_plain_backbones_log_nothing(cache_dir, caplog):
    """A backbone without a head gives no message about one."""
    with caplog.at_level(logging.INFO, logger="tiewise"):
        build_tiny("tiny:0", cache_dir)
    assert "its head is not used" not in caplog.text
