"""What a fit learns from: pairs as rows of tokens, with their targets and weights."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from tiewise.backbones import backbone_digest, resolve_backbone
from tiewise.config import RunConfig
from tiewise.labels import swap_probs
from tiewise.model_names import ModelNames, number_models
from tiewise.template import Template
from tiewise.tokens import TextTokenizer, TokenRows, build_template, load_tokenizer, token_rows


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
        Probabilities of A, B, tie: float32, shape (n, 3), each row sums to 1.
    weights
        Weight of each row in its step's mean: float32, shape (n,), not negative.
    ids
        What a message calls each row, shape (n,).
    names
        Which models answered, where the fit learns from that too.
    """

    rows: TokenRows
    targets: npt.NDArray[np.float32]
    weights: npt.NDArray[np.float32]
    ids: npt.NDArray[np.object_]
    names: ModelNames | None = None


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

    Targets are the soft labels ``prob_a, prob_b, prob_tie`` where the table has them, and the
    label's one-hot row elsewhere; weights are the column ``weight``, or 1.
    """
    tokenizer, template = backbone.tokenizer, backbone.template
    rows = token_rows(pairs, tokenizer, template, cache_dir=cache_dir)
    targets, weights, ids = _targets(pairs), _weights(pairs), pairs["id"].to_numpy(object)
    if not config.train.both_orders:
        return Examples(rows, targets, weights, ids)
    swapped = token_rows(pairs, tokenizer, template, cache_dir=cache_dir, is_swapped=True)
    return Examples(
        TokenRows.concatenate([rows, swapped]),
        np.concatenate([targets, swap_probs(targets)]),
        np.tile(weights, 2),
        np.tile(ids, 2),
    )


def add_names(config: RunConfig, examples: Examples, pairs: pd.DataFrame) -> Examples:
    """Add which models answered, where the configuration asks for it.

    Raises
    ------
    PairsError
        When it does, and no row names its models.
    """
    if not config.train.model_names_weight:
        return examples
    names = number_models(pairs)
    return replace(examples, names=names.with_swapped() if config.train.both_orders else names)


def _targets(pairs: pd.DataFrame) -> npt.NDArray[np.float32]:
    one_hot = np.zeros((len(pairs), 3), np.float32)
    labels = pairs["label"]
    is_known = labels.notna().to_numpy()
    one_hot[np.flatnonzero(is_known), labels[is_known].to_numpy(int)] = 1.0
    columns = ["prob_a", "prob_b", "prob_tie"]
    if not set(columns) <= set(pairs.columns):
        return one_hot
    soft = pairs[columns].to_numpy(np.float32)
    return np.where(np.isnan(soft).any(axis=1, keepdims=True), one_hot, soft)


def _weights(pairs: pd.DataFrame) -> npt.NDArray[np.float32]:
    if "weight" in pairs:
        return pairs["weight"].to_numpy(np.float32)
    return np.ones(len(pairs), np.float32)
