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


@pytest.mark.parametrize("backbone", ["tiny:0", "tiny-bert:0"])
def test_the_head_has_its_own_rate(backbone, cache_dir):
    """Every other tensor has the common one."""
    classifier = build_tiny(backbone, cache_dir)
    found = rates(classifier, head_learning_rate=5e-3)
    heads = {name for name, (rate, _) in found.items() if rate == 5e-3}
    assert heads == {name for name in found if ".score." in name or ".classifier." in name}
    assert {rate for name, (rate, _) in found.items() if name not in heads} == {1e-3}


def test_weight_decay_spares_vectors(cache_dir):
    """Biases and norms are not pulled to zero."""
    classifier = build_tiny("tiny-bert:0", cache_dir, tuning="full")
    parts = dict(classifier.trainable_parameters())
    for name, (_, decay) in rates(classifier, weight_decay=0.1).items():
        assert decay == (0.1 if parts[name].ndim > 1 else 0.0), name
