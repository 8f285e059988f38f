"""Run several fits in each process of a torchrun launch.

``python -m torch.distributed.run … tests/torchrun.py JOBS`` reads a list of fits from the file JOBS
and records, for each process, the rows it trained on and the files of the runs that it changed. A
job that is ``sharded`` divides the weights among the processes as FSDP does on GPUs.
"""

from __future__ import annotations

import atexit
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.state import PartialState
from accelerate.utils import DistributedType
from accelerate.utils.launch import prepare_multi_gpu_env
from torch.distributed.tensor import DTensor

from fitting import Fitter, configure
from tiewise.training.trainer import StepTrainer

CONFIGURATIONS = sorted((Path(__file__).parents[1] / "docs" / "accelerate").glob("*.yaml"))
FSDP = next(path for path in CONFIGURATIONS if path.name.startswith("fsdp"))
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
CHANGES = {"os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.truncate"}


class Stop(Exception):
    """A fit was interrupted on purpose."""


def read_environment(path: Path) -> dict[str, str]:
    """Return the variables that ``accelerate launch`` sets for a configuration file."""
    # accelerate 1.x has no public function that validates a configuration file for launch.
    words = ["--config_file", str(path), "-m", "tiewise", "fit"]
    arguments, *_ = _validate_launch_command(launch_command_parser().parse_args(words))
    variables = prepare_multi_gpu_env(arguments)
    own = ("ACCELERATE_", "FSDP_")
    return {name: value for name, value in variables.items() if name.startswith(own)}


def watch_writes(folder: Path) -> list[str]:
    """Return a list that collects every file below `folder` that this process changes."""
    touched: list[str] = []

    def look(event: str, arguments: tuple[Any, ...]) -> None:
        is_open = event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITING
        if (is_open or event in CHANGES) and str(folder) in str(arguments[0]):
            touched.append(f"{event} {arguments[0]}")

    sys.addaudithook(look)
    return touched


def shard_on_cpus(patch: pytest.MonkeyPatch) -> None:
    """Let accelerate shard over gloo; by itself it shards only over NCCL."""
    prepare = PartialState.__init__

    def pretend(self, *arguments, **options):
        prepare(self, *arguments, **options)
        if self.distributed_type == DistributedType.MULTI_CPU:
            self.distributed_type = DistributedType.MULTI_GPU

    patch.setattr(PartialState, "__init__", pretend)
    for name, value in read_environment(FSDP).items():
        patch.setenv(name, value)


def fit(fitter: Fitter, job: dict[str, Any]) -> list[list[int]]:
    """Run one fit up to ``stop_after`` steps; return the rows of each step of this process."""
    rows: list[list[int]] = []
    row_losses, training_step = StepTrainer._row_losses, StepTrainer.training_step

    def record_rows(self, model, batch_rows, *, is_idle):
        rows[-1].extend([] if is_idle else batch_rows.tolist())
        return row_losses(self, model, batch_rows, is_idle=is_idle)

    def record_steps(self, *arguments, **options):
        if self.state.global_step == job.get("stop_after"):
            raise Stop
        rows.append([])
        parts = {isinstance(part, DTensor) for part in self.classifier.parameters()}
        assert parts == {job.get("sharded", False)}
        return training_step(self, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        if job.get("sharded"):
            shard_on_cpus(patch)
        patch.setattr(StepTrainer, "_row_losses", record_rows)
        patch.setattr(StepTrainer, "training_step", record_steps)
        try:
            fitter(job["name"], configure(**job["fields"]), resume=job.get("resume", False))
        except Stop:
            assert "stop_after" in job
    return rows


def note_end(path: Path) -> None:
    """Write down whether this process is still in the launch's group when it ends."""
    path.write_text(json.dumps(torch.distributed.is_initialized()))


def main(jobs_path: Path) -> None:
    """Run the jobs, and write the record of this process next to the file of jobs."""
    plan = json.loads(jobs_path.read_bytes())
    rank = os.environ["RANK"]
    # Registered before tiewise's own function, so it runs after that.
    atexit.register(note_end, jobs_path.with_suffix(f".end.{rank}"))
    touched = watch_writes(Path(plan["folder"]))
    fitter = Fitter(Path(plan["folder"]), Path(plan["cache_dir"]))
    rows = {job["name"]: fit(fitter, job) for job in plan["jobs"]}
    jobs_path.with_suffix(f".{rank}").write_text(json.dumps({"rows": rows, "touched": touched}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
