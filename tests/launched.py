"""Several fits in order: the program that each process of a launch runs in the tests.

``python -m torch.distributed.run … tests/launched.py JOBS`` reads a list of fits from the file
JOBS and writes down, for each process, which rows it learned from and which files of the runs it
touched. A job that is ``sharded`` deals the weights out to the processes as FSDP does on GPUs.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from accelerate.state import PartialState
from accelerate.utils import DistributedType
from torch.distributed.tensor import DTensor

from fitting import Fitter, configure
from launching import FSDP, read_environment
from tiewise.training.trainer import StepTrainer

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
CHANGES = {"os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.truncate"}


class Stop(Exception):
    """The fit was broken off on purpose."""


def watch_writes(folder: Path) -> list[str]:
    """Return a list that fills with every file below `folder` that this process changes."""
    touched: list[str] = []

    def look(event: str, arguments: tuple[Any, ...]) -> None:
        is_open = event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITING
        if (is_open or event in CHANGES) and str(folder) in str(arguments[0]):
            touched.append(f"{event} {arguments[0]}")

    sys.addaudithook(look)
    return touched


def shard_on_cpus(patch: pytest.MonkeyPatch) -> None:
    """Let accelerate shard over gloo, as it does of itself over NCCL alone."""
    prepare = PartialState.__init__

    def pretend(self, *arguments, **options):
        prepare(self, *arguments, **options)
        if self.distributed_type == DistributedType.MULTI_CPU:
            self.distributed_type = DistributedType.MULTI_GPU

    patch.setattr(PartialState, "__init__", pretend)
    for name, value in read_environment(FSDP).items():
        patch.setenv(name, value)


def fit(fitter: Fitter, job: dict[str, Any]) -> list[list[int]]:
    """Run one fit, broken off where the job says so; return the rows of each step taken here."""
    rows: list[list[int]] = []
    row_losses, training_step = StepTrainer._row_losses, StepTrainer.training_step

    def noting_rows(self, model, batch_rows, *, is_idle):
        rows[-1].extend([] if is_idle else batch_rows.tolist())
        return row_losses(self, model, batch_rows, is_idle=is_idle)

    def noting_steps(self, *arguments, **options):
        if self.state.global_step == job.get("stop_after"):
            raise Stop
        rows.append([])
        parts = {isinstance(part, DTensor) for part in self.classifier.parameters()}
        assert parts == {job.get("sharded", False)}
        return training_step(self, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        if job.get("sharded"):
            shard_on_cpus(patch)
        patch.setattr(StepTrainer, "_row_losses", noting_rows)
        patch.setattr(StepTrainer, "training_step", noting_steps)
        try:
            fitter(job["name"], configure(**job["fields"]), resume=job.get("resume", False))
        except Stop:
            assert "stop_after" in job
    return rows


def main(jobs_path: Path) -> None:
    """Run the jobs, and write what this process did next to them."""
    plan = json.loads(jobs_path.read_bytes())
    touched = watch_writes(Path(plan["folder"]))
    fitter = Fitter(Path(plan["folder"]), Path(plan["cache_dir"]))
    rows = {job["name"]: fit(fitter, job) for job in plan["jobs"]}
    rank = os.environ["RANK"]
    jobs_path.with_suffix(f".{rank}").write_text(json.dumps({"rows": rows, "touched": touched}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
