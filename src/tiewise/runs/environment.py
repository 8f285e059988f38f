"""What surrounds a run and may change its numbers or its speed: versions, machine, processes."""

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
    """Tell whether this process is the one that writes, of those a launcher started."""
    return int(os.environ.get("RANK", "0")) == 0


def own_cuda() -> str:
    """Return the name of this process's GPU: a launcher numbers its processes on a machine.

    Examples
    --------
    >>> own_cuda()
    'cuda:0'
    """
    return f"cuda:{int(os.environ.get('LOCAL_RANK', '0'))}"


def uses_fsdp() -> bool:
    """Tell whether accelerate was told to deal the weights out to the processes."""
    return os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"


def describe_environment() -> dict[str, Any]:
    """Return what a result may depend on beside the configuration: versions and machine."""
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
