"""What each adapter's flag does to the numbers, and where a fit may start from."""

import json
import logging
import math
import shutil

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from engines import LENGTHS, build_tiny, make_rows, run_step, score, write_family
from tiewise.config.run_config import ModelConfig
from tiewise.errors import ModelError
from tiewise.network.backbones import resolve_backbone
from tiewise.network.model import build_classifier, load_classifier
from tiewise.network.networks import quiet_transformers

PLACES = ("q_proj=1", "2-3=6", "2.v_proj=3")


def updates(classifier):
    """Return each adapted layer by its name."""
    named = classifier.network.named_modules()
    return {name.removeprefix("base_model.model."): m for name, m in named if hasattr(m, "lora_A")}


def test_rslora_scales_by_the_root_of_the_rank(cache_dir):
    """The same logits as plain adapters whose alpha is larger by that root."""
    plain = build_tiny("tiny:0", cache_dir, lora_alpha=8.0 * math.sqrt(4))
    rooted = build_tiny("tiny:0", cache_dir, lora_alpha=8.0, use_rslora=True)
    other = build_tiny("tiny:0", cache_dir, lora_alpha=8.0)
    rows = make_rows()
    torch.testing.assert_close(score(rooted, rows), score(plain, rows), rtol=0, atol=1e-12)
    assert float((score(rooted, rows) - score(other, rows)).abs().max()) > 1e-3


def test_dora_learns_a_length_and_a_direction(cache_dir):
    """A layer's weight is `m (W + s B A) / |W + s B A|`, row by row, and m is trained."""
    classifier = build_tiny("tiny:0", cache_dir, use_dora=True)
    layer = next(iter(updates(classifier).values()))
    magnitude = layer.lora_magnitude_vector["default"].weight
    assert magnitude.requires_grad
    weight = layer.get_base_layer().weight + layer.get_delta_weight("default")
    expected = magnitude[:, None] * weight / weight.norm(dim=1, keepdim=True)
    x = torch.randn(2, weight.shape[1], dtype=weight.dtype)
    torch.testing.assert_close(layer(x), x @ expected.T, rtol=0, atol=1e-6)
    plain = next(iter(updates(build_tiny("tiny:0", cache_dir)).values()))
    assert float((layer(x) - plain(x)).detach().abs().max()) > 1e-3


def test_ranks_differ_by_layer_and_by_module(cache_dir, tmp_path):
    """As the words say, the last that fits; and they come back from the folder."""
    classifier = build_tiny("tiny:0", cache_dir, lora_ranks=PLACES)
    for name, layer in updates(classifier).items():
        number, module = int(name.split(".layers.")[1].split(".")[0]), name.rsplit(".", 1)[-1]
        expected = 1 if module == "q_proj" else 4
        expected = 6 if number in (2, 3) else expected
        expected = 3 if (number, module) == (2, "v_proj") else expected
        assert layer.r["default"] == expected, name
        assert layer.scaling["default"] == 32.0 / expected, name
    rows = make_rows()
    _, gradients = run_step(classifier, rows, layout="padded")
    assert all(part is not None for part in gradients.values())
    classifier.save(tmp_path / "adapter")
    settings = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert set(settings["rank_pattern"].values()) == {1, 3, 6}
    again = load_classifier(tmp_path / "adapter", classifier.backbone_dir)
    assert torch.equal(score(again, rows), score(classifier.eval(), rows))


@pytest.mark.parametrize("place", ["k=2", "9=2", "0-4=2", "dense=1"])
def test_a_place_without_adapters_is_refused(place, cache_dir):
    """A module that the backbone lacks, or a layer past its last."""
    with pytest.raises(ModelError, match=r"--lora-ranks .* fits no adapter"):
        build_tiny("tiny:0", cache_dir, lora_ranks=(place,))


HEADS = [
    ("tiny:0", {"tuning": "lora"}),
    ("tiny:0", {"tuning": "full", "n_frozen_layers": 0}),
    ("tiny-bert:0", {"tuning": "lora"}),
    ("tiny-bert:0", {"tuning": "full", "n_frozen_layers": 0}),
]


@pytest.mark.parametrize("head", ["linear", "mlp"])
@pytest.mark.parametrize(("backbone", "fields"), HEADS)
def test_either_head_is_trained_saved_and_restored(backbone, fields, head, cache_dir, tmp_path):
    """On decoders and encoders, beside adapters and under full fine-tuning."""
    classifier = build_tiny(backbone, cache_dir, head=head, **fields)
    rows = make_rows()
    _, gradients = run_step(classifier, rows, layout="padded")
    of_head = [name for name in gradients if ".score." in name or ".classifier." in name]
    n_matrices = sum(name.endswith("weight") for name in of_head)
    assert n_matrices == (2 if head == "mlp" else 1)
    assert all(float(gradients[name].abs().max()) > 0 for name in of_head)
    classifier.save(tmp_path / "adapter")
    again = load_classifier(tmp_path / "adapter", classifier.backbone_dir)
    assert torch.equal(score(again, rows), score(classifier.eval(), rows))


def write_reward_model(family, folder, cache_dir):
    """Write a reward model: a classifier with one output whose backbone is not the usual one."""
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
def test_a_fit_starts_from_a_reward_models_backbone(family, kind, tmp_path, cache_dir, caplog):
    """Every weight below the head is the reward model's; the head is fresh, and that is said."""
    folder, theirs = write_reward_model(family, tmp_path / "reward", cache_dir)
    path = resolve_backbone(str(folder), cache_dir=cache_dir)
    config = ModelConfig(backbone=str(folder), tuning="full")
    with caplog.at_level(logging.INFO, logger="tiewise"):
        classifier = build_classifier(config, path, seed=0)
    wanted = f"is a reward model ({kind}ForSequenceClassification, outputs: 1): its head is left"
    assert wanted in caplog.text
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


def test_nothing_is_said_of_a_backbone_without_a_head(cache_dir, caplog):
    """A plain backbone has no head to leave out."""
    with caplog.at_level(logging.INFO, logger="tiewise"):
        build_tiny("tiny:0", cache_dir)
    assert "its head is left out" not in caplog.text
