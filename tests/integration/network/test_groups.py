"""Learning rates by part."""

import pytest
import torch

from engines import build_tiny
from tiewise.config.run_config import TrainConfig


def rates(classifier, **fields):
    """Return each trained tensor's learning rate and weight decay as an optimiser holds them."""
    groups = classifier.parameter_groups(TrainConfig(learning_rate=1e-3, **fields))
    optimizer = torch.optim.AdamW(groups, lr=123.0)
    names = {id(part): name for name, part in classifier.trainable_parameters()}
    return {
        names[id(part)]: (group["lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for part in group["params"]
    }


@pytest.mark.parametrize("backbone", ["tiny:0", "tiny-bert:0"])
@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_every_trained_tensor_is_in_one_group(backbone, tuning, cache_dir):
    """None is left out, and without special rates all are equal."""
    classifier = build_tiny(backbone, cache_dir, tuning=tuning)
    found = rates(classifier)
    assert found.keys() == {name for name, _ in classifier.trainable_parameters()}
    assert {rate for rate, _ in found.values()} == {1e-3}


def test_head_depth_and_lora_plus_take_effect(cache_dir):
    """The head has its own rate; each layer down takes the decay, lora_B the ratio."""
    classifier = build_tiny("tiny:0", cache_dir)
    found = rates(classifier, head_learning_rate=5e-3, layer_decay=0.5, lora_plus_ratio=8.0)
    for name, (rate, _) in found.items():
        if ".score." in name:
            assert rate == 5e-3
            continue
        depth = next(index for index in range(4) if f".layers.{index}." in name)
        expected = 1e-3 * 0.5 ** (3 - depth) * (8.0 if ".lora_B." in name else 1.0)
        assert rate == pytest.approx(expected), name


def test_the_embedding_stands_below_the_first_layer_and_the_pooler_beside_the_last(cache_dir):
    """In full tuning, depth counts from the embedding up."""
    found = rates(
        build_tiny("tiny-bert:0", cache_dir, tuning="full", n_frozen_layers=0), layer_decay=0.5
    )
    expected = {
        "bert.embeddings.word_embeddings.weight": 1e-3 * 0.5**3,
        "bert.encoder.layer.0.output.dense.weight": 1e-3 * 0.5**2,
        "bert.encoder.layer.2.output.dense.weight": 1e-3,
        "bert.pooler.dense.weight": 1e-3,
        "classifier.weight": 1e-3,
    }
    for name, rate in expected.items():
        assert found[f"network.{name}"][0] == pytest.approx(rate), name


def test_weight_decay_spares_vectors(cache_dir):
    """Biases and norms are not pulled to zero."""
    classifier = build_tiny("tiny-bert:0", cache_dir, tuning="full")
    parts = dict(classifier.trainable_parameters())
    for name, (_, decay) in rates(classifier, weight_decay=0.1).items():
        assert decay == (0.1 if parts[name].ndim > 1 else 0.0), name
