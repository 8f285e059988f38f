"""What commands share: arguments that several take, and how a result is shown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from tiewise.config.run_config import RunConfig
from tiewise.console import show

Artifacts = Annotated[Path, tyro.conf.arg(help="Folder of runs, caches and submissions.")]
Json = Annotated[bool, tyro.conf.arg(help="Print one JSON object.")]
Device = Annotated[
    Literal["cpu", "cuda"] | None,
    tyro.conf.arg(help="Where to compute; where the run was fitted when not given."),
]
Config = Annotated[RunConfig, tyro.conf.OmitArgPrefixes]


def show_result(result: Any, *, is_json: bool) -> None:
    """Write a result for people, or as one JSON object."""
    if is_json:
        print_json(result.to_dict())
    else:
        show(str(result))


def print_json(value: Any) -> None:
    """Write one JSON object to standard output."""
    show(json.dumps(value, allow_nan=False))
