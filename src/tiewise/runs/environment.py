"""The environment of a run: versions and machine, and the processes of a distributed launch."""

from __future__ import annotations

import os
import platform
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from tiewise.errors import ConfigError

PACKAGES = ("tiewise", "torch", "transformers", "peft", "bitsandbytes", "tokenizers", "numpy")


_LAUNCH = ("RANK", "WORLD_SIZE", "LOCAL_RANK")


@dataclass(frozen=True)
class Launch:
    """The place of this process among the `n_processes` of a distributed launch.

    `rank` counts the processes of all machines from 0, `local_rank` those of this machine.
    """

    rank: int = 0
    n_processes: int = 1
    local_rank: int = 0


def read_launch() -> Launch:
    """Read the variables of torchrun and accelerate; without any, this is the only process.

    An empty variable is not set, and is removed from the environment, because torch and accelerate
    would read it as a number. ConfigError is raised for a value that is no number, for a rank that
    is out of range, and for ``RANK`` or ``LOCAL_RANK`` without ``WORLD_SIZE`` or ``WORLD_SIZE``
    without ``RANK``: a process that is alone would wait for others or leave out their part.
    """
    for name in _LAUNCH:
        if not os.environ.get(name, "").strip():
            os.environ.pop(name, None)
    given = {name: _read_number(name) for name in _LAUNCH if name in os.environ}
    if not given:
        return Launch()
    missing = [name for name in _LAUNCH[:2] if name not in given]
    if missing:
        raise ConfigError(
            f"{', '.join(given)} is set and {', '.join(missing)} is not; a launcher sets RANK and "
            f"WORLD_SIZE. "
            f"Start through torchrun or accelerate, or run unset {' '.join(given)}."
        )
    launch = Launch(given["RANK"], given["WORLD_SIZE"], given.get("LOCAL_RANK", 0))
    if launch.rank >= launch.n_processes:
        raise ConfigError(
            f"RANK is {launch.rank} and WORLD_SIZE is {launch.n_processes}; expected a rank below "
            f"it. Start through torchrun or accelerate, or run unset {' '.join(given)}."
        )
    return launch


def is_first_process() -> bool:
    """Return whether this is the only process of a launch, or the first; only that one writes."""
    return read_launch().rank == 0


def own_cuda() -> str:
    """Return the GPU of this process, such as ``cuda:0``; a launcher numbers its processes."""
    return f"cuda:{read_launch().local_rank}"


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


def _read_number(name: str) -> int:
    text = os.environ[name].strip()
    if not (text.isascii() and text.isdecimal()):
        raise ConfigError(
            f"{name} is {text!r}; expected a whole number from 0. A launcher sets it; without one, "
            f"run unset {name}."
        )
    return int(text)


def _version_of(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
