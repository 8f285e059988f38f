"""A training step: the notebook's way beside ours, on the same rows, weights and adapters.

    python -m benchmarks train --quick

A step has the eight pairs its author trained with. The notebook's way, as it would run today: pairs
as they come, two by two, padded to the longer; every layer checkpointed and the inputs made to ask
for gradients, as `prepare_model_for_kbit_training` does; eager attention; the accumulated loss put
right. Ours is a :class:`~tiewise.models.model.PairClassifier` with packed rows. Dropout is off on
both sides, so that the gradients can be compared, which they are, in the very steps that are timed.

`train.notebook`
    The notebook's adapters: q, k, v; the first 8 of 21 layers frozen. Nothing is recomputed.
`train.checkpointed`
    The same, the trainable layers recomputed, no micro-batch above the notebook's 2,048 tokens.
`train.recommended`
    Adapters on all linear layers of all depths, both ways.
`train.peak_memory`
    Peak resident memory of `train.checkpointed` above that of the loaded model, each way in a
    process of its own.

Useful work is what the gradient needs: no padding, nothing twice, nothing below the first adapter.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.midsize import (
    NOTEBOOK_TARGETS,
    PAD,
    VOCABULARY,
    as_rows,
    draw_lengths,
    write_backbone,
)
from benchmarks.rounds import compared
from tiewise.config import ModelConfig
from tiewise.models.attention import collate
from tiewise.models.build import build_classifier
from tiewise.models.loading import quiet_transformers
from tiewise.models.model import PairClassifier
from tiewise.tokens.batches import Layout, plan_step
from tiewise.tokens.rows import TokenRows

N_LAYERS, N_FROZEN, HIDDEN_SIZE = 21, 8, 256
BATCH_SIZE = 8
MAX_LENGTH = 1024
NOTEBOOK_TOKENS = 2 * MAX_LENGTH

Step = Callable[[], dict[str, Tensor]]


@dataclasses.dataclass(frozen=True)
class Setting:
    """Which adapters, on which layers."""

    targets: tuple[str, ...]
    n_frozen_layers: int


NOTEBOOK = Setting(NOTEBOOK_TARGETS, N_FROZEN)
RECOMMENDED = Setting(("all-linear",), 0)


def run(*, is_quick: bool) -> list[dict[str, Any]]:
    """Time the cases; the rows of the benchmark."""
    torch.set_num_threads(1)
    n_rounds = 3 if is_quick else 9
    peak = matmul_peak()
    with tempfile.TemporaryDirectory() as folder:
        backbone_dir = write_backbone(
            Path(folder) / "backbone", n_layers=N_LAYERS, hidden_size=HIDDEN_SIZE
        )
        steps = draw_steps(n_rounds + 1)
        rows = time_setting(
            backbone_dir,
            NOTEBOOK,
            steps,
            {"train.notebook": "none", "train.checkpointed": "trainable"},
            peak,
        )
        rows += time_setting(backbone_dir, RECOMMENDED, steps, {"train.recommended": "none"}, peak)
        return [*rows, compare_memory(backbone_dir)]


def draw_steps(n_steps: int) -> list[TokenRows]:
    """Draw the rows of some steps: real lengths, random tokens, cut at 1,024."""
    generator = np.random.default_rng(0)
    lengths = draw_lengths(n_steps * BATCH_SIZE).sum(1)
    contents = [generator.integers(3, VOCABULARY, length) for length in lengths]
    return [
        as_rows(contents[start : start + BATCH_SIZE], max_length=MAX_LENGTH)
        for start in range(0, len(contents), BATCH_SIZE)
    ]


# ---- the two ways -------------------------------------------------------------------------


def build_ours(backbone_dir: Path, setting: Setting, *, dtype: str = "float32") -> PairClassifier:
    """Build our classifier, shaken so that every adapter has a gradient."""
    config = ModelConfig(
        backbone=str(backbone_dir),
        dtype=dtype,  # type: ignore[arg-type]
        lora_targets=setting.targets,
        n_frozen_layers=setting.n_frozen_layers,
    )
    classifier = build_classifier(config, backbone_dir, seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for _, part in classifier.trainable_parameters():
            part.add_(0.02 * torch.randn(part.shape, generator=generator))
    return classifier.train()


def load_theirs(backbone_dir: Path, adapter_dir: Path) -> Any:
    """Load what we saved with plain transformers and peft, made ready as the notebook does."""
    from peft import PeftModel
    from transformers import Gemma2ForSequenceClassification

    with quiet_transformers():
        model = Gemma2ForSequenceClassification.from_pretrained(
            backbone_dir, num_labels=3, attn_implementation="eager"
        )
    model.config.use_cache = False
    model.requires_grad_(requires_grad=False)
    model.enable_input_require_grads()
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": True})
    return PeftModel.from_pretrained(model, adapter_dir, is_trainable=True).train()


def step_ours(
    classifier: PairClassifier,
    rows: TokenRows,
    micro_batch_tokens: int,
    *,
    layout: Layout = "packed",
) -> None:
    """Run one step forward and backward."""
    labels = labels_of(rows)
    [plan] = plan_step(rows.lengths, micro_batch_tokens=micro_batch_tokens, layout=layout)
    for part in plan:
        logits = classifier(collate(rows, part, layout=layout, pad_id=PAD))
        loss = torch.nn.functional.cross_entropy(logits, labels[part], reduction="sum")
        (loss / len(rows)).backward()


def step_theirs(model: Any, rows: TokenRows) -> None:
    """Run one step two by two, padded, the accumulated loss put right."""
    labels = labels_of(rows)
    for start in range(0, len(rows), 2):
        part = np.arange(start, min(start + 2, len(rows)))
        batch = collate(rows, part, layout="padded", pad_id=PAD)
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
        loss = model(**inputs, labels=labels[part]).loss
        (loss * len(part) / len(rows)).backward()


def labels_of(rows: TokenRows) -> Tensor:
    """Give the rows A, B, tie in turn."""
    return torch.arange(len(rows)) % 3


# ---- timing -------------------------------------------------------------------------------


def time_setting(
    backbone_dir: Path,
    setting: Setting,
    steps: list[TokenRows],
    cases: dict[str, Any],
    peak: float,
) -> list[dict[str, Any]]:
    """Time our ways of one setting and the notebook's, step by step in turn."""
    ours = build_ours(backbone_dir, setting)
    with tempfile.TemporaryDirectory() as folder:
        ours.save(folder)
        theirs = load_theirs(backbone_dir, Path(folder))
    seconds: dict[str, list[float]] = {name: [] for name in (*cases, "notebook")}
    differences = dict.fromkeys(cases, 0.0)
    for number, rows in enumerate(steps):
        grads = {}
        for name in turn(list(seconds), number):
            ours.checkpoint(cases.get(name, "none"))
            budget = NOTEBOOK_TOKENS if cases.get(name) == "trainable" else 8 * MAX_LENGTH
            model = theirs if name == "notebook" else ours
            model.zero_grad(set_to_none=True)
            start = time.process_time()
            if name == "notebook":
                step_theirs(theirs, rows)
            else:
                step_ours(ours, rows, budget)
            seconds[name].append(time.process_time() - start)
            grads[name] = dict(gradients(model))
        for name in cases:
            differences[name] = max(differences[name], furthest(grads[name], grads["notebook"]))
    # The first step warms caches and buffers up, and is not counted.
    counted = {name: values[1:] for name, values in seconds.items()}
    work = [useful_work(rows, setting) for rows in steps[1:]]
    return [
        compared(name, counted[name], counted["notebook"], unit="CPU s", equal_to=differences[name])
        | describe(counted[name], counted["notebook"], work, steps[1:], peak)
        for name in cases
    ]


def turn(names: list[str], number: int) -> list[str]:
    """Return the names so that each comes first in its turn."""
    first = number % len(names)
    return names[first:] + names[:first]


def gradients(model: torch.nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield every gradient under the name it has in the notebook's model."""
    for name, part in model.named_parameters():
        if part.requires_grad:
            assert part.grad is not None, f"{name} has no gradient"
            yield name.removeprefix("network."), part.grad.clone()


def furthest(first: dict[str, Tensor], second: dict[str, Tensor]) -> float:
    """Return the largest difference between two ways' gradients."""
    assert first.keys() == second.keys()
    return max(float((first[name] - second[name]).abs().max()) for name in first)


def describe(
    ours: list[float],
    notebook: list[float],
    work: list[float],
    steps: list[TokenRows],
    peak: float,
) -> dict[str, Any]:
    """Return what explains a ratio: padding, and useful work against the matmul peak."""
    padded = sum(
        2 * max(rows.lengths[start : start + 2]) for rows in steps for start in range(0, 8, 2)
    )
    rates = [
        statistics.median(flop / second / 1e9 for flop, second in zip(work, way, strict=True))
        for way in (ours, notebook)
    ]
    factor = padded / sum(int(rows.lengths.sum()) for rows in steps)
    return {
        "padding_factor": factor,
        "gflops": {"ours": rates[0], "notebook": rates[1], "matmul_peak": peak},
        "notes": f"padding x{factor:.2f}; useful GFLOP/s {rates[0]:.0f} against {rates[1]:.0f}, "
        f"matmul peak {peak:.0f}",
    }


def useful_work(rows: TokenRows, setting: Setting) -> float:
    """Return the floating-point operations that a step's gradient needs.

    Each token passes each layer once, and once back through each layer that has adapters; in the
    last layer all but keys and values is one token's affair. Adapters themselves are left out.
    """
    hidden, inner = HIDDEN_SIZE, 4 * HIDDEN_SIZE
    keys = HIDDEN_SIZE  # keys and values together: half as many heads as queries, twice
    layer = 2 * (2 * hidden * hidden + hidden * keys + 3 * hidden * inner)
    passes = N_LAYERS - 1 + N_LAYERS - 1 - setting.n_frozen_layers
    total = 0.0
    for length in rows.lengths.tolist():
        attention = 2 * length * length * hidden  # both products, half of the square
        total += passes * (length * layer + attention)
        total += 2 * length * 2 * hidden * keys
        total += (
            N_LAYERS - 1 - setting.n_frozen_layers
        ) * attention  # four products on the way back
    return total


def matmul_peak() -> float:
    """Return the GFLOP/s of a large matrix product on one thread."""
    size, best = 1536, 0.0
    matrix = torch.randn(size, size)
    for _ in range(8):
        start = time.process_time()
        torch.mm(matrix, matrix)
        best = max(best, 2 * size**3 / (time.process_time() - start) / 1e9)
    return best


# ---- memory -------------------------------------------------------------------------------


def compare_memory(backbone_dir: Path) -> dict[str, Any]:
    """Measure each way's peak in a process of its own, on the same longest rows."""
    ours, theirs = (peak_in_process(backbone_dir, way) for way in ("ours", "notebook"))
    row = compared("train.peak_memory", [ours], [theirs], unit="MiB", equal_to=0.0)
    return row | {"equal_to": None, "notes": "peak resident memory above the loaded model"}


def peak_in_process(backbone_dir: Path, way: str) -> float:
    """Return the MiB that :func:`measure_peak` prints in a fresh interpreter."""
    code = "import sys; from benchmarks.train import measure_peak; measure_peak(*sys.argv[1:])"
    command = [sys.executable, "-c", code, str(backbone_dir), way]
    done = subprocess.run(
        command, check=True, capture_output=True, text=True, cwd=Path(__file__).parents[1]
    )
    return float(json.loads(done.stdout)["peak"])


def measure_peak(backbone_dir: str, way: str) -> None:
    """Print the peak memory of one step with two rows of full length in it."""
    torch.set_num_threads(1)
    contents = [np.ones(length, np.int64) for length in (2000, 2000, 528, 300)]
    rows = as_rows(contents, max_length=MAX_LENGTH)
    classifier = build_ours(Path(backbone_dir), NOTEBOOK)
    classifier.checkpoint("trainable")
    if way == "notebook":
        with tempfile.TemporaryDirectory() as folder:
            classifier.save(folder)
            theirs = load_theirs(Path(backbone_dir), Path(folder))
        del classifier
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak of loading
    before = resident("VmRSS")
    if way == "notebook":
        step_theirs(theirs, rows)
    else:
        step_ours(classifier, rows, NOTEBOOK_TOKENS)
    print(json.dumps({"peak": resident("VmHWM") - before}))


def resident(field: str) -> float:
    """Return this process's resident memory (`VmRSS`) or its peak (`VmHWM`) in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{field}:"))
