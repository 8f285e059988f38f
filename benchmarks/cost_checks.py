"""What ``benchmarks.costs`` foretells, held against this machine; and memory per GPU by mode.

    python -m benchmarks.cost_checks time
    python -m benchmarks.cost_checks memory

`time` runs steps of a small Gemma 2. It counts the operations of every matrix product, and measures
CPU seconds, in turn, on one thread. One mode, scoring in one order, gives the machine's rate; with
it the model foretells the others.

`memory` asks :func:`tiewise.training.memory.estimate_memory` about backbones with the 9B's
proportions, an eighth and a sixteenth as wide, at two depths, and scales up along straight lines:
what a graph keeps grows with width and with layers. The last line checks both at another width and
depth. What grows with the square of a row is left out, since kernels for GPUs keep no attention
weights.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.costs import NOTEBOOK, RECOMMENDED, SHAPES, Mode, Shape, adapter_size, row_work
from benchmarks.midsize import (
    NOTEBOOK_TARGETS,
    PAD,
    VOCABULARY,
    as_rows,
    draw_lengths,
    keep_freed_memory,
    write_backbone,
)
from tiewise.config import ModelConfig
from tiewise.models.attention import collate
from tiewise.models.build import build_classifier
from tiewise.models.loading import Checkpointing, quiet_transformers
from tiewise.tokens.rows import TokenRows
from tiewise.training.memory import estimate_memory

N_LAYERS, N_FROZEN, HIDDEN = 8, 3, 256
N_ROUNDS, N_ROWS = 3, 4
SMALL = Shape(N_LAYERS, HIDDEN, 4 * HIDDEN, HIDDEN, HIDDEN // 2, VOCABULARY)
GIB = 2**30
_DIVISIONS = (16, 8)
_MODES: tuple[Checkpointing, ...] = ("none", "trainable")


@dataclass(frozen=True)
class Case:
    """One mode, as the model and as the package know it."""

    mode: Mode
    targets: tuple[str, ...] = NOTEBOOK_TARGETS
    checkpointing: Checkpointing = "none"


CASES = {
    "score": Case(Mode(is_training=False)),
    "notebook": Case(Mode(n_frozen=N_FROZEN, rank=16, n_adapted=3)),
    "notebook, recomputed": Case(
        Mode(n_frozen=N_FROZEN, rank=16, n_adapted=3, is_recomputed=True), checkpointing="trainable"
    ),
    "all layers": Case(Mode(rank=16), targets=("all-linear",)),
    "all layers, recomputed": Case(
        Mode(rank=16, is_recomputed=True), targets=("all-linear",), checkpointing="trainable"
    ),
}


# ---- time ---------------------------------------------------------------------------------


def check_time() -> None:
    """Print, for each mode, what was foretold and what was measured."""
    torch.set_num_threads(1)
    keep_freed_memory()
    rows = _draw_rows()
    with tempfile.TemporaryDirectory() as folder:
        backbone_dir = write_backbone(
            Path(folder) / "backbone", n_layers=N_LAYERS, hidden_size=HIDDEN
        )
        steps = {name: _make_step(case, backbone_dir, rows) for name, case in CASES.items()}
    counted = {name: _count(step) for name, step in steps.items()}
    seconds = _time(steps)
    work = {
        name: float(row_work(SMALL, case.mode, rows.lengths).sum()) for name, case in CASES.items()
    }
    rate = work["score"] / median(seconds["score"])
    print(f"{N_ROWS} rows, {int(rows.lengths.sum())} tokens; scoring at {rate / 1e9:.1f} GFLOP/s\n")
    print("| mode | GFLOP foretold | counted | CPU s foretold | measured | [low, high] |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, spent in seconds.items():
        print(
            f"| {name} | {work[name] / 1e9:.1f} | x{counted[name] / work[name]:.2f} "
            f"| {work[name] / rate:.2f} | x{median(spent) * rate / work[name]:.2f} "
            f"| [{min(spent):.2f}, {max(spent):.2f}] |"
        )


def _count(step: Callable[[], None]) -> int:
    """Return the operations of a step's matrix products, forward and backward."""
    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops()


def _draw_rows() -> TokenRows:
    generator = np.random.default_rng(0)
    contents = [generator.integers(3, VOCABULARY, n) for n in draw_lengths(N_ROWS).sum(1)]
    return as_rows(contents)


def _make_step(case: Case, backbone_dir: Path, rows: TokenRows) -> Callable[[], None]:
    config = ModelConfig(
        backbone=str(backbone_dir),
        lora_r=max(1, case.mode.rank),
        lora_targets=case.targets,
        n_frozen_layers=case.mode.n_frozen,
    )
    classifier = build_classifier(config, backbone_dir, seed=0, checkpointing=case.checkpointing)
    classifier.train(case.mode.is_training)
    batch = collate(rows, range(len(rows)), layout="packed", pad_id=PAD)
    if case.mode.is_training:
        return lambda: classifier(batch).sum().backward()
    return torch.no_grad()(lambda: classifier(batch))


def _time(steps: dict[str, Callable[[], None]]) -> dict[str, list[float]]:
    """Return the CPU seconds of each step, round by round; the first warms up."""
    spent: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(N_ROUNDS + 1):
        for name, step in steps.items():
            start = time.process_time()
            step()
            spent[name].append(time.process_time() - start)
    return {name: values[1:] for name, values in spent.items()}


# ---- memory -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Line:
    """Bytes a token that grow with the number of trained layers."""

    layer: float
    once: float

    @staticmethod
    def through(at_two: float, at_four: float) -> Line:
        """Return the line through what two and four layers keep."""
        layer = (at_four - at_two) / 2
        return Line(layer, at_two - 2 * layer)

    def at(self, n_layers: int) -> float:
        """Return the bytes a token of that many layers."""
        return self.once + n_layers * self.layer


@dataclass(frozen=True)
class Kept:
    """What a graph keeps, whole and of the layers' inputs alone."""

    whole: Line
    inputs: Line

    def at(self, n_layers: int, *, is_recomputed: bool) -> float:
        """Return the bytes a token; one layer at a time is whole while it is recomputed."""
        whole = self.whole.at(n_layers)
        return self.inputs.at(n_layers) + whole / (n_layers - 1) if is_recomputed else whole


def check_memory() -> None:
    """Print GiB per GPU of the 9B in each mode, and how far scaling up can be trusted."""
    whole = SHAPES["Gemma-2-9b"]
    print("| Gemma-2-9b | micro_batch_tokens | weights | trained | activations | working | GiB |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name, targets, mode in (
        ("`notebook`", NOTEBOOK_TARGETS, NOTEBOOK),
        ("`gemma2-9b`", ("all-linear",), RECOMMENDED),
    ):
        n_trained = whole.n_layers - mode.n_frozen
        n_adapters = n_trained * adapter_size(whole, mode)
        narrow, wide = (_measure(targets, mode.rank, division=part) for part in _DIVISIONS)
        for is_recomputed in (False, True):
            said = f"{name}, recomputed" if is_recomputed else name
            for n_tokens in (8192, 2048):
                ends = (part.at(n_trained, is_recomputed=is_recomputed) for part in (narrow, wide))
                size = _widen(*ends, width=_DIVISIONS[0])
                _print_parts(said, n_tokens, _parts(whole, n_adapters, n_tokens, size))
    for n_tokens in (16384, 4096):
        _print_parts("predict", n_tokens, _parts(whole, 0, n_tokens, 0.0))
    _check_scaling()


def _parts(shape: Shape, n_adapters: int, n_tokens: int, kept: float) -> list[float]:
    """Return bytes: weights, trained, activations, working."""
    bits = 4 + 8 / 64 + 32 / (64 * 256)  # nf4 with its scales quantised again
    frozen = shape.n_layers * shape.layer_weights * bits / 8
    weights = frozen + 2 * shape.vocabulary * shape.hidden + 4 * n_adapters
    working = 5 * n_tokens * shape.inner * 2
    return [weights, (4 + 2) * n_adapters, n_tokens * kept, working]


def _print_parts(name: str, n_tokens: int, parts: list[float]) -> None:
    cells = [f"{part / GIB:.1f}" for part in (*parts, sum(parts))]
    print(f"| {name} | {n_tokens:,} | {' | '.join(cells)} |")


def _widen(narrow: float, wide: float, *, width: float) -> float:
    """Return what a width keeps, in units of the narrow one, from what one and two units keep."""
    return narrow + (width - 1) * (wide - narrow)


def _check_scaling() -> None:
    targets, rank = ("all-linear",), RECOMMENDED.rank
    narrow, wide = (_measure(targets, rank, division=part).whole for part in _DIVISIONS)
    broad = _kept_bytes(targets, rank, division=4, n_layers=2)[0]
    deep = _kept_bytes(targets, rank, division=16, n_layers=8)[0]
    foretold = _widen(narrow.at(2), wide.at(2), width=4)
    print(
        f"\nA quarter of the width keeps {broad / foretold:.3f} times what an eighth and a "
        f"sixteenth foretell, eight layers {deep / narrow.at(8):.3f} times what two and four do."
    )


def _measure(targets: tuple[str, ...], rank: int, *, division: int) -> Kept:
    """Return what is kept of a token at a fraction of the 9B's width, from two depths."""
    two, four = (
        _kept_bytes(targets, rank, division=division, n_layers=n_layers) for n_layers in (2, 4)
    )
    return Kept(*(Line.through(*ends) for ends in zip(two, four, strict=True)))


def _kept_bytes(
    targets: tuple[str, ...], rank: int, *, division: int, n_layers: int
) -> tuple[float, float]:
    """Return bytes a token: all that is kept, and what is kept of layers that recompute."""
    with tempfile.TemporaryDirectory() as folder:
        _write_narrow(Path(folder), division=division, n_layers=n_layers)
        config = ModelConfig(
            backbone=folder, dtype="bfloat16", lora_r=rank // division, lora_targets=targets
        )
        classifier = build_classifier(config, folder, seed=0)
        # No longest row: the square of attention is not kept on a GPU.
        sizes = [
            estimate_memory(classifier, n_tokens=2**20, longest=0, mode=mode).activations / 2**20
            for mode in _MODES
        ]
    return sizes[0], sizes[1] - sizes[0] / (n_layers - 1)


def _write_narrow(folder: Path, *, division: int, n_layers: int) -> None:
    from transformers import Gemma2Config, Gemma2Model

    shape = SHAPES["Gemma-2-9b"]
    config = Gemma2Config(
        vocab_size=512,
        hidden_size=shape.hidden // division,
        intermediate_size=shape.inner // division,
        num_hidden_layers=n_layers,
        num_attention_heads=16,
        num_key_value_heads=8,
        head_dim=shape.queries // 16 // division,
        query_pre_attn_scalar=shape.queries // 16 // division,
    )
    with quiet_transformers():
        Gemma2Model(config).save_pretrained(folder)


if __name__ == "__main__":
    {"time": check_time, "memory": check_memory}[sys.argv[1]]()
