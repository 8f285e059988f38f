"""Small classifiers and token rows, and the logits and gradients of one step."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModel

from tiewise.config import ModelConfig
from tiewise.models.attention import Layout, collate
from tiewise.models.backbones import resolve_backbone
from tiewise.models.build import build_classifier
from tiewise.models.loading import quiet_transformers
from tiewise.models.model import PairClassifier
from tiewise.tokens.ragged import offsets_of
from tiewise.tokens.rows import TokenRows
from tiny_families import find_tiny

torch.set_num_threads(1)

LENGTHS = (5, 70, 33, 128, 1, 97, 2, 64)
"""Shorter and longer than the tiny Gemma's window of 32 and than a block of queries."""


SLOTTED = tuple(max(length, 3) for length in LENGTHS)
"""The same with space for two slots."""


def make_rows(
    lengths: Sequence[int] = LENGTHS,
    *,
    seed: int = 0,
    segments: bool = False,
    slot: int | None = None,
):
    """Draw rows of tokens of the given lengths, from a vocabulary that every tiny backbone has.

    A `slot` is put before each response, for the response head; rows then have 3 tokens or more.
    """
    generator = np.random.default_rng(seed)
    size = sum(lengths)
    values = generator.integers(20, 500, size).astype(np.int32)
    offsets = offsets_of(np.array(lengths))
    if slot is not None:
        for third in (1, 2):
            values[offsets[:-1] + third * (np.array(lengths) - 1) // 3] = slot
    return TokenRows(
        values=values,
        offsets=offsets,
        n_truncated=np.zeros(len(lengths), np.int64),
        type_ids=generator.integers(0, 2, size).astype(np.int8) if segments else None,
    )


SPECIAL = {
    "gemma3_text": {"sliding_window": 32, "layer_types": ["sliding_attention", "full_attention"]},
    "deberta-v2": {
        "relative_attention": True,
        "position_biased_input": False,
        "pos_att_type": ["p2c", "c2p"],
    },
    "gemma2": {"sliding_window": 32, "attn_logit_softcapping": 5.0},
    "mistral": {"sliding_window": 32},
    "qwen2": {
        "use_sliding_window": True,
        "sliding_window": 32,
        "layer_types": ["full_attention", "sliding_attention"],
    },
}


def write_family(family, folder, cache_dir, *, intermediate_size=128, head_dim=16, vocab_size=512):
    """Write a backbone with two layers, random weights and the tokenizer of ``tiny``."""
    config = AutoConfig.for_model(
        family,
        vocab_size=vocab_size,
        hidden_size=64,
        intermediate_size=intermediate_size,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=head_dim,
        pad_token_id=0,
        **SPECIAL.get(family, {}),
    )
    with torch.random.fork_rng(), quiet_transformers():
        torch.manual_seed(0)
        network = AutoModel.from_config(config)
        for part in network.parameters():
            torch.nn.init.normal_(part, mean=0.5 if part.ndim == 1 else 0.0, std=0.15)
        network.save_pretrained(folder)
    folder.mkdir(exist_ok=True)
    tiny = resolve_backbone("tiny:0", cache_dir=cache_dir)
    shutil.copyfile(tiny / "tokenizer.json", folder / "tokenizer.json")
    return folder


def build_tiny(backbone: str, cache_dir: Path, *, checkpointing: str = "none", **fields):
    """Build a small classifier for training, with noise in every trained tensor."""
    path = resolve_backbone(find_tiny(backbone, cache_dir), cache_dir=cache_dir)
    values = {"lora_r": 4, "dtype": "float64", "n_frozen_layers": 1}
    config = ModelConfig(backbone=backbone, **(values | fields))
    return shake(build_classifier(config, path, seed=0, checkpointing=checkpointing)).train()


def shake(classifier: PairClassifier, *, seed: int = 1, size: float = 0.1) -> PairClassifier:
    """Add noise to every trained tensor: fresh adapters would leave half the gradients zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for _, part in classifier.trainable_parameters():
            noise = torch.randn(part.shape, generator=generator, dtype=torch.float64)
            part.add_(size * noise.to(part.dtype))
    return classifier


def run_step(
    classifier: PairClassifier, rows: TokenRows, *, layout: Layout, n_micro_batches: int = 1
) -> tuple[Tensor, dict[str, Tensor]]:
    """Run one optimiser step's forward and backward; return its logits and all gradients."""
    classifier.zero_grad(set_to_none=True)
    labels = torch.arange(len(rows)) % 3
    logits = torch.empty(len(rows), 3, dtype=torch.float64)
    for part in np.array_split(np.arange(len(rows)), n_micro_batches):
        own = classifier(collate(rows, part, layout=layout, pad_id=0))
        loss = torch.nn.functional.cross_entropy(own, labels[part], reduction="sum")
        (loss / len(rows)).backward()
        logits[part] = own.detach().to(logits.dtype)
    return logits, {name: part.grad for name, part in classifier.trainable_parameters()}


def score(classifier: PairClassifier, rows: TokenRows, *, layout: Layout = "padded") -> Tensor:
    """Return the logits of all rows in one batch, without a graph."""
    batch = collate(rows, range(len(rows)), layout=layout, pad_id=0)
    with torch.no_grad():
        return classifier(batch)


def largest_difference(first: dict[str, Tensor], second: dict[str, Tensor]) -> float:
    """Return the largest difference between tensors of the same names."""
    assert first.keys() == second.keys()
    return max(float((first[name] - second[name]).detach().abs().max()) for name in first)
