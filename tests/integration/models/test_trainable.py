"""Heads are trained and saved, and a fit may start from a reward model."""

import logging
import shutil

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from engines import LENGTHS, build_tiny, make_rows, run_step, score, write_family
from tiewise.config.run_config import ModelConfig
from tiewise.models.backbones import resolve_backbone
from tiewise.models.loading import quiet_transformers
from tiewise.models.model import build_classifier, load_classifier

HEADS = [
    ("tiny:0", {"tuning": "lora"}),
    ("tiny:0", {"tuning": "full", "n_frozen_layers": 0}),
    ("tiny-bert:0", {"tuning": "lora"}),
    ("tiny-bert:0", {"tuning": "full", "n_frozen_layers": 0}),
]


@pytest.mark.parametrize(("backbone", "fields"), HEADS)
def test_the_head_is_trained_saved_and_restored(backbone, fields, cache_dir, tmp_path):
    """On decoders and encoders, beside adapters and under full fine-tuning."""
    classifier = build_tiny(backbone, cache_dir, **fields)
    rows = make_rows()
    _, gradients = run_step(classifier, rows, layout="padded")
    of_head = [name for name in gradients if ".score." in name or ".classifier." in name]
    assert sum(name.endswith("weight") for name in of_head) == 1
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
