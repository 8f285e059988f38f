"""Rounding errors of float32 gradients: the notebook's way and ours, layout by layout.

    python -m benchmarks rounding --quick

All layouts, checkpointing modes and splits give the same gradient; tests check this to 1e-9 in
float64. In float32 each rounds in its own order. The reference is our padded gradient in float64;
shown is the largest error of any tensor, relative to the tensor's largest value. `equal_to` is the
same error for the layout's float64 gradient.
"""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.midsize import build_ours, load_theirs, write_backbone
from benchmarks.rounds import compared
from benchmarks.train import (
    MAX_LENGTH,
    NOTEBOOK,
    draw_steps,
    gradients,
    step_ours,
    step_theirs,
)
from tiewise.models.state import load_trainable_weights, trainable_weights
from tiewise.tokens.batches import Layout

N_LAYERS, N_FROZEN = 6, 2
LAYOUTS: tuple[Layout, ...] = ("padded", "sorted", "packed")
Gradients = dict[str, Tensor]


def run(*, is_quick: bool) -> list[dict[str, Any]]:
    """Compare the layouts; the rows of the benchmark."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        backbone_dir = write_backbone(Path(folder) / "backbone", n_layers=N_LAYERS)
        narrow, wide = (
            build_ours(
                backbone_dir, targets=NOTEBOOK.targets, n_frozen_layers=N_FROZEN, dtype=dtype
            ).train()
            for dtype in ("float32", "float64")
        )
        load_trainable_weights(wide, trainable_weights(narrow))
        narrow.save(Path(folder) / "adapter")
        theirs = load_theirs(backbone_dir, Path(folder) / "adapter", is_training=True)
        steps = draw_steps(1 if is_quick else 4)
        rounded: dict[str, list[float]] = {name: [] for name in (*LAYOUTS, "notebook")}
        exact: dict[str, list[float]] = {name: [] for name in LAYOUTS}
        for rows in steps:
            ours = {
                (model, layout): gradients_of(
                    model, partial(step_ours, model, rows, 8 * MAX_LENGTH, layout=layout)
                )
                for model in (narrow, wide)
                for layout in LAYOUTS
            }
            truth = ours[wide, "padded"]
            for layout in LAYOUTS:
                rounded[layout].append(error(ours[narrow, layout], truth))
                exact[layout].append(error(ours[wide, layout], truth))
            notebook = gradients_of(theirs, partial(step_theirs, theirs, rows))
            rounded["notebook"].append(error(notebook, truth))
    return [
        compared(
            f"rounding.{layout}",
            rounded[layout],
            rounded["notebook"],
            unit="error",
            equal_to=max(exact[layout]),
        )
        for layout in LAYOUTS
    ]


def gradients_of(model: Any, step: Any) -> Gradients:
    """Run a step and return its gradients."""
    model.zero_grad(set_to_none=True)
    step()
    return dict(gradients(model))


def error(found: Gradients, truth: Gradients) -> float:
    """Return the largest error of any tensor, relative to the tensor's largest value."""
    assert found.keys() == truth.keys()
    return max(
        float((found[name].double() - part).abs().max() / part.abs().max())
        for name, part in truth.items()
    )
