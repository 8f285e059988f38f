"""A Gemma 2 that is small enough to time on two cores, with random weights and real proportions.

Hidden size 256, an MLP four times as wide, heads of 64 of which two share their keys, soft-capping
and sliding windows: each part of a layer takes a similar share of the time as in the 9B. The 9B has
42 layers, the first 16 without adapters in the notebook; here these are 21 and 8.
"""

from __future__ import annotations

import csv
import ctypes
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import (
    AttentionInterface,
    AttentionMaskInterface,
    Gemma2Config,
    Gemma2Model,
    PreTrainedModel,
)
from transformers.masking_utils import eager_mask

from tiewise.config import ModelConfig
from tiewise.models.build import build_classifier
from tiewise.models.loading import quiet_transformers
from tiewise.models.model import PairClassifier
from tiewise.tokens.ragged import offsets_of
from tiewise.tokens.rows import TokenRows

LENGTHS = Path(__file__).with_name("lengths.csv")
VOCABULARY = 2048
BEGIN, END, PAD = 2, 1, 0
NOTEBOOK_TARGETS = ("q_proj", "k_proj", "v_proj")


def keep_freed_memory() -> None:
    """Tell the C library to keep freed memory.

    Otherwise page faults slow the notebook's way down by up to a half, on some machines only, and
    they are not what is compared.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        no_mapping, trim_threshold = (-4, 0), (-1, 2**31 - 1)
        libc.mallopt(*no_mapping)
        libc.mallopt(*trim_threshold)


def write_backbone(folder: Path, *, n_layers: int = 21, hidden_size: int = 256) -> Path:
    """Write the backbone with random weights; the same sizes give the same weights."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = make_settings(
            hidden_size=hidden_size,
            intermediate_size=4 * hidden_size,
            num_hidden_layers=n_layers,
            num_attention_heads=hidden_size // 64,
            num_key_value_heads=hidden_size // 128,
            head_dim=64,
        )
        with quiet_transformers():
            Gemma2Model(config).save_pretrained(folder)
    return folder


def make_settings(*, head_dim: int, vocab_size: int = VOCABULARY, **sizes: int) -> Gemma2Config:
    """Return the configuration of a Gemma 2 of some size, with the windows of the 9B."""
    return Gemma2Config(
        vocab_size=vocab_size,
        head_dim=head_dim,
        query_pre_attn_scalar=head_dim,
        sliding_window=4096,
        max_position_embeddings=8192,
        bos_token_id=BEGIN,
        eos_token_id=END,
        pad_token_id=PAD,
        **sizes,
    )


def build_ours(
    backbone_dir: Path,
    *,
    targets: tuple[str, ...] = NOTEBOOK_TARGETS,
    n_frozen_layers: int = 8,
    dtype: str = "float32",
) -> PairClassifier:
    """Build our classifier; noise on its trainable weights gives every adapter an effect."""
    config = ModelConfig(
        backbone=str(backbone_dir),
        dtype=dtype,  # type: ignore[arg-type]
        lora_targets=targets,
        n_frozen_layers=n_frozen_layers,
    )
    return add_noise(build_classifier(config, backbone_dir, seed=0))


def add_noise(classifier: PairClassifier) -> PairClassifier:
    """Add noise to the trained tensors; the adapters of a new classifier have no effect."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for _, part in classifier.trainable_parameters():
            noise = torch.randn(part.shape, generator=generator, dtype=part.dtype)
            part.add_(0.02 * noise.to(part.device))
    return classifier


def load_theirs(
    backbone_dir: Path, adapter_dir: Path, *, dtype: str = "float32", is_training: bool = False
) -> PreTrainedModel:
    """Load a saved classifier with plain transformers and peft, prepared as the notebook does."""
    from peft import PeftModel
    from transformers import Gemma2ForSequenceClassification

    with quiet_transformers():
        model = Gemma2ForSequenceClassification.from_pretrained(
            backbone_dir, num_labels=3, dtype=getattr(torch, dtype), attn_implementation="eager"
        )
    if dtype == "float64":
        compute_in_float64(model)
    if is_training:
        prepare_theirs(model)
    adapted = PeftModel.from_pretrained(model, adapter_dir, is_trainable=is_training)
    return adapted.train(is_training)


def prepare_theirs(model: Any) -> None:
    """Prepare a model for training as `prepare_model_for_kbit_training` of peft does.

    All layers are checkpointed, the inputs require gradients, and what is not quantized is float32.
    """
    model.config.use_cache = False
    model.requires_grad_(requires_grad=False)
    for part in model.parameters():
        if part.dtype in (torch.float16, torch.bfloat16):
            part.data = part.data.float()
    model.enable_input_require_grads()
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": True})


def compute_in_float64(model: PreTrainedModel) -> None:
    """Compute norms and softmax in float64; transformers computes both in float32 for any dtype."""

    def norm(self: Any, states: torch.Tensor) -> torch.Tensor:
        scale = torch.rsqrt(states.square().mean(-1, keepdim=True) + self.eps)
        return states * scale * (1 + self.weight)

    def attend(module: Any, query: Any, key: Any, value: Any, mask: Any, **options: Any) -> Any:
        n_sharing = query.shape[1] // key.shape[1]
        key, value = (part.repeat_interleave(n_sharing, 1) for part in (key, value))
        scores = query @ key.mT * options["scaling"]
        if options.get("softcap"):
            scores = torch.tanh(scores / options["softcap"]) * options["softcap"]
        weights = (scores if mask is None else scores + mask).softmax(-1)
        return (weights @ value).transpose(1, 2).contiguous(), weights

    AttentionInterface.register("eager_float64", attend)
    AttentionMaskInterface.register("eager_float64", eager_mask)
    model.set_attn_implementation("eager_float64")
    for module in model.modules():
        if type(module).__name__ == "Gemma2RMSNorm":
            module.forward = norm.__get__(module)


def draw_lengths(n: int, *, seed: int = 0) -> np.ndarray:
    """Draw n rows of real lengths, (n, 3): tokens of prompt, response A, response B."""
    with LENGTHS.open(newline="") as file:
        table = np.array([list(map(int, row)) for row in list(csv.reader(file))[1:]])
    return table[np.random.default_rng(seed).choice(len(table), n, replace=False)]


def as_rows(contents: list[np.ndarray], *, max_length: int = 1024) -> TokenRows:
    """Add begin and end to contents that are cut on the right, as the notebook does."""
    rows = [np.concatenate([[BEGIN], part[: max_length - 2], [END]]) for part in contents]
    lengths = np.array([len(row) for row in rows])
    return TokenRows(
        values=np.concatenate(rows).astype(np.int32),
        offsets=offsets_of(lengths),
        n_truncated=np.array([len(part) for part in contents]) + 2 - lengths,
    )
