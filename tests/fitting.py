"""A small fit of all steps, for every test that needs one."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from tiewise.config import RunConfig, load_preset
from tiewise.data.folds import split
from tiewise.data.simulation.simulate import simulate
from tiewise.models.model import PairClassifier
from tiewise.runs.fold_lock import FoldTask
from tiewise.runs.folder import FoldFolder

torch.set_num_threads(1)


def spoil_gradients(monkeypatch: Any, factor: float) -> None:
    """Multiply the gradient of a classifier's logits by a factor."""
    forward = PairClassifier.forward

    class Scale(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, value: torch.Tensor) -> torch.Tensor:
            return value.clone()

        @staticmethod
        def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
            return gradient * factor

    monkeypatch.setattr(
        PairClassifier, "forward", lambda self, batch: Scale.apply(forward(self, batch))
    )


def configure(preset: str = "tiny", **fields: Any) -> RunConfig:
    """Return a preset with some fields changed; field names are unique over all sections."""
    config = load_preset(preset)
    for section in ("data", "template", "model", "train", "predict"):
        part = getattr(config, section)
        own = {name: fields.pop(name) for name in list(fields) if hasattr(part, name)}
        config = replace(config, **{section: replace(part, **own)})
    assert not fields, f"no such fields: {fields}"
    return config


@dataclass
class Fitter:
    """Fits fold 0 of a few simulated pairs below a temporary folder."""

    folder: Path
    cache_dir: Path
    pairs: pd.DataFrame = field(default_factory=lambda: simulate(60, seed=0))

    def __call__(
        self, name: str, config: RunConfig | None = None, **options: Any
    ) -> tuple[FoldFolder, pd.DataFrame]:
        from tiewise.training.fit import fit_fold

        config = config or configure()
        train_idx, eval_idx = split(pd.Series(range(len(self.pairs))).to_numpy() % 5, 0)
        folder = FoldFolder(self.folder / name / "fold0")
        task = FoldTask(
            folder, **({"fold": 0, "data_digest": "d", "cache_dir": self.cache_dir} | options)
        )
        train, held_out = self.pairs.iloc[train_idx], self.pairs.iloc[eval_idx]
        predictions = fit_fold(config, train, held_out, task)
        return folder, predictions
