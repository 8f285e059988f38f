"""Training examples, and the optimiser steps that they are split into.

The rows of a step follow only from its number, the seed and the batch size. Micro-batches follow
from the lengths of these rows, the layout, the token budget and the number of processes. So the
rows of a step are the same in every layout, on any number of processes, and after any interruption.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from torch.utils.data import Dataset

from tiewise.config import RunConfig, TrainConfig
from tiewise.data.targets import Targets, make_targets
from tiewise.models.backbones import backbone_digest, resolve_backbone, settings_digest
from tiewise.tokens.batches import Layout, StepRows, plan_step
from tiewise.tokens.rows import TokenRows, token_rows
from tiewise.tokens.template import Template, build_template
from tiewise.tokens.tokenizer import TextTokenizer, load_tokenizer


@dataclass(frozen=True)
class Backbone:
    """The folder of a backbone, its tokenizer, and the template for it."""

    path: Path
    tokenizer: TextTokenizer
    template: Template

    @property
    def digests(self) -> dict[str, str]:
        """SHA-256 of weights, configuration, tokenizer and template."""
        return {
            "backbone": backbone_digest(self.path),
            "backbone_config": settings_digest(self.path),
            "tokenizer": self.tokenizer.digest,
            "template": self.template.digest,
        }


@dataclass(frozen=True)
class Examples:
    """Training rows: tokens, target and weight, and the id of the pair for messages, shape (n,)."""

    rows: TokenRows
    targets: Targets
    ids: npt.NDArray[np.object_]
    pad_id: int = 0


@dataclass(frozen=True)
class Step:
    """The share of one process in an optimiser step.

    `micro_batches` has the rows of each forward pass. The last `n_idle` have no weight: they
    give this process as many forward passes as the others. `weight` divides the summed
    losses: the number of rows over all processes times the mean weight of all training rows. So a
    row of weight 2 counts as two rows in every step.
    """

    micro_batches: list[npt.NDArray[np.int64]]
    n_idle: int
    weight: float

    def is_idle(self, position: int) -> bool:
        """Return whether a micro-batch has no weight."""
        return position >= len(self.micro_batches) - self.n_idle


def open_backbone(config: RunConfig, cache_dir: Path) -> Backbone:
    """Find the files of the backbone, check their digest, and build the template."""
    model, template = config.model, config.template
    path = resolve_backbone(
        model.backbone, revision=model.revision, sha256=model.backbone_sha256, cache_dir=cache_dir
    )
    tokenizer = load_tokenizer(path)
    built = build_template(
        tokenizer,
        name=template.template,
        max_length=template.max_length,
        truncation=template.truncation,
    )
    return Backbone(path, tokenizer, built)


def make_examples(
    config: RunConfig, pairs: pd.DataFrame, backbone: Backbone, *, cache_dir: Path
) -> Examples:
    """Turn n pairs into rows with targets; with both orders 2n rows, the swapped ones last."""
    tokenizer, template = backbone.tokenizer, backbone.template
    rows = token_rows(pairs, tokenizer, template, cache_dir=cache_dir)
    targets = make_targets(pairs, soft_weight=config.train.soft_weight)
    ids = pairs["id"].to_numpy(object)
    pad_id = template.special_tokens.pad
    if not config.train.both_orders:
        return Examples(rows, targets, ids, pad_id)
    swapped = token_rows(pairs, tokenizer, template, cache_dir=cache_dir, is_swapped=True)
    both = TokenRows.concatenate([rows, swapped])
    return Examples(both, targets.in_both_orders(), np.tile(ids, 2), pad_id)


class StepDataset(Dataset[Step]):
    """Optimiser steps: item k is the share of this process in step k."""

    def __init__(
        self,
        examples: Examples,
        train_config: TrainConfig,
        *,
        layout: Layout,
        process_index: int = 0,
        n_processes: int = 1,
    ) -> None:
        self.examples, self.train_config, self.layout = examples, train_config, layout
        self.process_index, self.n_processes = process_index, n_processes
        self.micro_batch_tokens = train_config.micro_batch_tokens
        self._n_pairs = len(examples.ids) // (2 if train_config.both_orders else 1)
        self._pairs = StepRows(
            self._n_pairs, train_config.batch_size, train_config.n_epochs, train_config.seed
        )
        self._mean_weight = float(examples.targets.weights.mean()) or 1.0

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, index: int) -> Step:
        rows = self.rows_of(index)
        lengths = self.examples.rows.lengths[rows]
        plans = plan_step(
            lengths,
            micro_batch_tokens=self.micro_batch_tokens,
            layout=self.layout,
            n_processes=self.n_processes,
        )
        own = [rows[positions] for positions in plans[self.process_index]]
        # Processes that share weights need equally many forward passes.
        n_idle = max(map(len, plans)) - len(own)
        shortest = rows[[int(lengths.argmin())]]
        return Step(own + [shortest] * n_idle, n_idle, len(rows) * self._mean_weight)

    def rows_of(self, index: int) -> npt.NDArray[np.int64]:
        """Return the rows of a step over all processes, in the order they were drawn."""
        pairs = self._pairs[index]
        if not self.train_config.both_orders:
            return pairs
        return np.concatenate([pairs, pairs + self._n_pairs])
