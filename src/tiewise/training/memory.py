"""Estimate the memory and disk space of a fit, and choose which layers recompute activations.

Two short rows run once through the classifier, and the bytes that the autograd graph keeps are
counted, so no table of architectures is needed. A row of n tokens keeps `a n + b n^2` bytes; two
lengths give a and b.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tiewise.models.attention import collate
from tiewise.models.loading import Checkpointing
from tiewise.models.model import PairClassifier
from tiewise.tokens.rows import TokenRows

_PROBE = 192
"""Tokens of the longer row that is measured; the shorter one has half."""
_MEMORY_INFO = Path("/proc/meminfo")
_CONTROL_GROUP = Path("/sys/fs/cgroup")
_USABLE = 0.9
"""Share of the free memory that a fit may use."""


@dataclass(frozen=True)
class MemoryEstimate:
    """Peak memory of a training process in bytes, without the interpreter and its libraries.

    Weights are backbone, adapters and head; training is gradients and optimiser state;
    activations are the tensors that the graph of the largest micro-batch keeps; working is the
    temporary tensors of one layer in its forward or backward pass.
    """

    weights: int
    training: int
    activations: int
    working: int

    @property
    def total(self) -> int:
        """Sum of the four parts."""
        return sum(asdict(self).values())

    def __str__(self) -> str:
        parts = ", ".join(f"{name} {_describe(size)}" for name, size in asdict(self).items())
        return f"{_describe(self.total)} ({parts})"


def estimate_memory(
    classifier: PairClassifier,
    *,
    n_tokens: int,
    longest: int,
    mode: Checkpointing,
    optimizer: str = "adamw_torch",
) -> MemoryEstimate:
    """Estimate the peak memory of training steps; the state of the classifier does not change.

    `n_tokens` are those of the largest micro-batch, padding included, `longest` those of the
    longest row. With `8bit` in the optimiser's name a moment takes one byte.
    """
    before, was_training = classifier.checkpointing, classifier.training
    classifier.train()
    try:
        kept = _KeptBytes.measure(classifier, "none").of(n_tokens, longest)
        layer = kept // _n_whole_layers(classifier)
        if mode != "none":
            kept = _KeptBytes.measure(classifier, mode).of(n_tokens, longest) + layer
    finally:
        classifier.checkpoint(before)
        classifier.train(was_training)
    training = _trained_size(classifier, n_moments=2, optimizer=optimizer)
    weights = sum(part.nbytes for part in (*classifier.parameters(), *classifier.buffers()))
    return MemoryEstimate(weights, training, kept, _working(classifier, n_tokens))


def checkpoint_size(classifier: PairClassifier, *, optimizer: str) -> int:
    """Return the least size of a checkpoint in bytes: trained weights and known moments."""
    n_moments = 2 if "adam" in optimizer else 0
    return _trained_size(classifier, n_moments=n_moments, optimizer=optimizer)


def choose_checkpointing(
    classifier: PairClassifier,
    *,
    n_tokens: int,
    longest: int,
    optimizer: str,
    free: int | None = None,
) -> tuple[Checkpointing, str]:
    """Return whether to recompute activations (`none`, `trainable`), and the reason for the log.

    It is `none` if that fits into `free` bytes; None asks the device for its free memory.
    """
    free = free_memory(classifier.device) if free is None else free
    sizes: Any = {"n_tokens": n_tokens, "longest": longest, "optimizer": optimizer}
    modes: tuple[Checkpointing, ...] = ("none", "trainable")
    estimates = {mode: estimate_memory(classifier, mode=mode, **sizes) for mode in modes}
    needed = estimates["none"].total - estimates["none"].weights  # the weights are in memory
    mode: Checkpointing = "trainable" if needed > _USABLE * free else "none"
    return mode, f"to keep all activations takes {_describe(needed)} of {_describe(free)} free"


def free_memory(device: torch.device) -> int:
    """Return the free bytes of a device; on a CPU within the limit of its cgroup."""
    if device.type == "cuda":
        idle = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0] + idle)
    if not _MEMORY_INFO.is_file():
        # Systems without /proc report the total only.
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    lines = dict(line.split(":") for line in _MEMORY_INFO.read_text().splitlines())
    free = int(lines["MemAvailable"].split()[0]) * 1024
    limit, used = _CONTROL_GROUP / "memory.max", _CONTROL_GROUP / "memory.current"
    if limit.is_file() and limit.read_text().strip().isdigit():
        free = min(free, int(limit.read_text()) - int(used.read_text()))
    return free


@dataclass(frozen=True)
class _KeptBytes:
    """Bytes that the graph keeps for a row of n tokens: `linear n + square n^2`."""

    linear: float
    square: float

    @staticmethod
    def measure(classifier: PairClassifier, mode: Checkpointing) -> _KeptBytes:
        """Run two short rows and count the bytes that are kept."""
        classifier.checkpoint(mode)
        long = min(_PROBE, classifier.n_positions or _PROBE)
        short = long // 2
        kept_short, kept_long = (_count_kept(classifier, size) for size in (short, long))
        square = (kept_long / long - kept_short / short) / (long - short)
        return _KeptBytes(kept_short / short - square * short, max(0.0, square))

    def of(self, n_tokens: int, longest: int) -> int:
        """Return the bytes for rows of `n_tokens` tokens in all, each at most `longest` long."""
        return int(n_tokens * (self.linear + self.square * longest))


def _trained_size(classifier: PairClassifier, *, n_moments: int, optimizer: str) -> int:
    """Return the bytes of the trained tensors (or of their gradients) and their moments."""
    trained = [part for _, part in classifier.trainable_parameters()]
    moment = 1 if "8bit" in optimizer else None
    return sum(
        part.nbytes + n_moments * part.numel() * (moment or part.itemsize) for part in trained
    )


def _count_kept(classifier: PairClassifier, size: int) -> int:
    """Return the bytes that the graph keeps for one of two rows of `size` tokens."""
    own = {part.untyped_storage().data_ptr() for part in classifier.parameters()}
    own |= {part.untyped_storage().data_ptr() for part in classifier.buffers()}
    kept: dict[int, int] = {}

    def count(part: Tensor) -> Tensor:
        storage = part.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return part.detach()  # a node that kept its own result would never be freed

    with torch.random.fork_rng():
        hooks = torch.autograd.graph.saved_tensors_hooks(count, lambda part: part)
        with hooks, classifier.autocast():
            logits = classifier(_probe(classifier, size))
        # With checkpointing, the graph keeps the layers alive until it is run backward.
        trained = [part for _, part in classifier.trainable_parameters()]
        torch.autograd.grad(logits.sum(), trained, allow_unused=True)
    return sum(kept.values()) // 2


def _probe(classifier: PairClassifier, size: int) -> dict[str, Tensor]:
    """Return two rows; where rows are padded, one is shorter, so that there is a mask."""
    second = size if classifier.can_pack else size - 1
    slot = classifier.slot if classifier.model_config.head == "responses" else 2
    rows = TokenRows(
        values=np.concatenate([_parts(size, slot), _parts(second, slot)]),
        offsets=np.array([0, size, size + second]),
        n_truncated=np.zeros(2, np.int64),
    )
    layout: Any = "packed" if classifier.can_pack else "padded"
    return collate(rows, [0, 1], layout=layout, pad_id=0, device=classifier.device)


def _parts(size: int, slot: int) -> npt.NDArray[np.int32]:
    """Return a row with two slots before its last token, as the response head needs."""
    values = np.ones(size, np.int32)
    values[[size // 3, 2 * size // 3, size - 1]] = slot
    return values


def _n_whole_layers(classifier: PairClassifier) -> int:
    """Return the number of trained layers that keep all tokens; a pooled last layer does not."""
    is_pooled = classifier.can_pack and classifier.model_config.head == "linear"
    trained = [
        any(part.requires_grad for part in layer.parameters()) for layer in classifier.layers
    ]
    return max(1, sum(trained) - is_pooled)


def _working(classifier: PairClassifier, n_tokens: int) -> int:
    """Return the bytes of the temporary tensors of a layer: five with the width of its MLP."""
    settings = classifier.config
    width = getattr(settings, "intermediate_size", None) or 4 * settings.hidden_size
    dtype = getattr(torch, classifier.model_config.dtype)
    return 5 * n_tokens * int(width) * int(dtype.itemsize)


def _describe(size: int) -> str:
    """Return a size in MiB or GiB."""
    return f"{size / 2**30:.1f} GiB" if size >= 2**29 else f"{size / 2**20:.0f} MiB"
