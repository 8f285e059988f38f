"""What a fit learns from: pairs as rows of tokens, with their targets and weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from tiewise.config import RunConfig
from tiewise.data.targets import Targets, make_targets
from tiewise.models.backbones import backbone_digest, resolve_backbone
from tiewise.tokens.rows import TokenRows, token_rows
from tiewise.tokens.template import Template, build_template
from tiewise.tokens.tokenizer import TextTokenizer, load_tokenizer


@dataclass(frozen=True)
class Backbone:
    """What turns texts into rows of tokens, and rows into hidden states."""

    path: Path
    digest: str
    tokenizer: TextTokenizer
    template: Template


@dataclass(frozen=True)
class Examples:
    """What a fit learns from: rows of tokens with their targets.

    rows
        The token rows, n of them.
    targets
        What each row shall be predicted as, and its weight in its step's mean.
    ids
        What a message calls each row, shape (n,).
    """

    rows: TokenRows
    targets: Targets
    ids: npt.NDArray[np.object_]


def open_backbone(config: RunConfig, cache_dir: Path) -> Backbone:
    """Find the backbone's files, check their digest, and build the template for its tokenizer."""
    model = config.model
    path = resolve_backbone(
        model.backbone, revision=model.revision, sha256=model.backbone_sha256, cache_dir=cache_dir
    )
    tokenizer = load_tokenizer(path)
    wanted = config.template
    template = build_template(
        tokenizer,
        name=wanted.template,
        max_length=wanted.max_length,
        truncation=wanted.truncation,
    )
    return Backbone(path, backbone_digest(path), tokenizer, template)


def make_examples(
    config: RunConfig, pairs: pd.DataFrame, backbone: Backbone, *, cache_dir: Path
) -> Examples:
    """Turn pairs into rows of tokens with their targets; with both orders, 2n rows, swapped last.

    Targets follow from labels, soft labels and weights
    (:func:`tiewise.data.targets.make_targets`).
    """
    tokenizer, template = backbone.tokenizer, backbone.template
    rows = token_rows(pairs, tokenizer, template, cache_dir=cache_dir)
    targets = make_targets(pairs, soft_weight=config.train.soft_weight)
    ids = pairs["id"].to_numpy(object)
    if not config.train.both_orders:
        return Examples(rows, targets, ids)
    swapped = token_rows(pairs, tokenizer, template, cache_dir=cache_dir, is_swapped=True)
    return Examples(
        TokenRows.concatenate([rows, swapped]),
        targets.in_both_orders(),
        np.tile(ids, 2),
    )
