"""An encoder's sentence vectors, for the CPU-class model. A leaf: imports torch.

The vector of a text is the mean of the last hidden states of its first 128 tokens, as the sentence
encoders of the MiniLM kind were trained for. Each distinct text is embedded once in the life of a
process: what stands beside it in a batch may move its last bits, but not from one call to the next.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from transformers import AutoModel, AutoTokenizer

from tiewise.baseline.embeddings import Embedder
from tiewise.errors import ModelError
from tiewise.network.backbones import backbone_digest, resolve_backbone
from tiewise.network.networks import quiet_transformers

MAX_TOKENS = 128
_BATCH_SIZE = 32


def open_embedder(name: str, *, cache_dir: Path, sha256: str | None = None) -> tuple[Embedder, str]:
    """Return a function from texts to vectors, and the SHA-256 of the weights behind it.

    Parameters
    ----------
    name
        As for :func:`tiewise.network.backbones.resolve_backbone`; an encoder.
    cache_dir
        Where a converted backbone is kept.
    sha256
        The digest the weights must have; not checked when None.

    Raises
    ------
    ModelError
        When the encoder is not to be had, or has another digest.
    """
    folder = resolve_backbone(name, cache_dir=cache_dir, sha256=sha256)
    return _load(folder), backbone_digest(folder)


@functools.lru_cache(maxsize=1)
def _load(folder: Path) -> Embedder:
    options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        with quiet_transformers():
            tokenizer = AutoTokenizer.from_pretrained(folder, **options)
            network = AutoModel.from_pretrained(folder, use_safetensors=True, **options).eval()
    except (ValueError, OSError, KeyError) as error:
        raise ModelError(f"{folder}: transformers cannot load it: {error}") from error
    known: dict[str, npt.NDArray[np.float32]] = {}

    def embed(texts: list[str]) -> npt.NDArray[np.float32]:
        new = sorted({text for text in texts if text not in known}, key=lambda t: (len(t), t))
        for start in range(0, len(new), _BATCH_SIZE):
            batch = new[start : start + _BATCH_SIZE]
            known.update(zip(batch, _embed_batch(batch, tokenizer, network), strict=True))
        return np.stack([known[text] for text in texts])

    return embed


@torch.inference_mode()
def _embed_batch(texts: list[str], tokenizer: Any, network: Any) -> npt.NDArray[np.float32]:
    """Return one vector a text, (n, hidden)."""
    ids = tokenizer(
        [text or " " for text in texts],
        padding=True,
        truncation=True,
        max_length=MAX_TOKENS,
        return_tensors="pt",
    )
    states = network(**ids).last_hidden_state  # (n, width, hidden)
    mask = ids["attention_mask"][..., None]
    means: npt.NDArray[np.float32] = ((states * mask).sum(1) / mask.sum(1)).float().numpy()
    return means
