"""Small classifiers with random adapters and heads, for tests that only score."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch

from tiewise.config import ModelConfig
from tiewise.files import write_json
from tiewise.models.backbones import resolve_backbone
from tiewise.models.build import build_classifier
from tiewise.models.model import PairClassifier
from tiewise.tokens.rows import TokenRows, token_rows
from tiewise.tokens.template import Template, build_template
from tiewise.tokens.tokenizer import TextTokenizer, load_tokenizer
from tiny_families import find_tiny

torch.set_num_threads(1)


@dataclass(frozen=True)
class LoadedModel:
    """A classifier with its tokenizer, template and backbone."""

    classifier: PairClassifier
    tokenizer: TextTokenizer
    template: Template
    backbone_dir: Path

    def save(self, adapter_dir: Path) -> Path:
        """Write the files of a fold's adapter folder; return the folder."""
        adapter_dir.mkdir(parents=True)
        self.classifier.save(adapter_dir)
        write_json(adapter_dir / "template.json", self.template.to_dict())
        return adapter_dir

    def shake(self, seed: int) -> LoadedModel:
        """Add noise to every trained weight, so that folds differ."""
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for _, part in self.classifier.trainable_parameters():
                part.add_(0.1 * torch.randn(part.shape, generator=generator, dtype=part.dtype))
        return self

    def rows(self, pairs: pd.DataFrame) -> TokenRows:
        """Return the rows of tokens of the pairs."""
        return token_rows(pairs, self.tokenizer, self.template, cache_dir=None)


def open_tiny(kind: str, cache_dir: Path, **fields) -> LoadedModel:
    """Build a small classifier with noise in its trained weights, so that logits differ by row."""
    return open_backbone(f"{kind}:0", find_tiny(f"{kind}:0", cache_dir), cache_dir, **fields)


def open_backbone(
    name: str, found: str, cache_dir: Path, *, max_length: int = 96, **fields
) -> LoadedModel:
    """Build such a classifier on the backbone `found`, which its configuration calls `name`."""
    path = resolve_backbone(found, cache_dir=cache_dir)
    config = ModelConfig(backbone=name, **({"lora_r": 4, "dtype": "float64"} | fields))
    classifier = build_classifier(config, path, seed=0)
    tokenizer = load_tokenizer(path)
    template = build_template(tokenizer, max_length=max_length)
    return LoadedModel(classifier, tokenizer, template, path).shake(1)
