"""The environment of a run: versions and machine, and the processes of a distributed launch."""

from __future__ import annotations

import os
import platform
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = ("tiewise", "torch", "transformers", "peft", "bitsandbytes", "tokenizers", "numpy")


def is_first_process() -> bool:
    """Return whether this is the only process of a launch, or the first; only that one writes."""
    return int(os.environ.get("RANK", "0")) == 0


def own_cuda() -> str:
    """Return the GPU of this process, such as ``cuda:0``; a launcher numbers its processes."""
    return f"cuda:{int(os.environ.get('LOCAL_RANK', '0'))}"


def uses_fsdp() -> bool:
    """Return whether accelerate shards the weights over the processes (FSDP)."""
    return os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"


def describe_environment() -> dict[str, Any]:
    """Return the versions, the machine, the command and the start time, as JSON values."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "n_cores": os.cpu_count(),
        "packages": {name: _version_of(name) for name in PACKAGES},
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "started": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
    }


def _version_of(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
