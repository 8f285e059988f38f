"""Workers that compute, raise, exit or hang, and a driver that reports the outcome as JSON."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from dataclasses import asdict
from pathlib import Path

from tiewise.cluster import progress
from tiewise.cluster.ray_pool import Cluster, run_tasks
from tiewise.console import progress_bar, run_command, show
from tiewise.errors import ModelError, PairsError


class Echo:
    """Return a task, or do what it says."""

    def compute(self, task: str) -> tuple[str, int]:
        """Return the task and the id of the process."""
        if task == "exit":
            os._exit(1)
        if task == "hang":
            time.sleep(600)
        if task == "progress":
            self._move()
        if task == "refuse":
            raise PairsError("row group 3 is damaged")
        if task == "raise":
            raise OSError("the disk was full")
        if task.startswith("once:"):
            self._exit_once(task)
        if task.startswith("slow"):
            time.sleep(0.5)
        return task, os.getpid()

    def _move(self) -> None:
        bar = progress_bar(6, name="test", unit="step")
        for _ in range(6):
            time.sleep(0.5)
            bar.update()

    def _exit_once(self, task: str) -> None:
        path = Path(task.removeprefix("once:"))
        if not path.exists():
            path.touch()
            os._exit(1)


def refuse() -> Echo:
    """Raise as a worker that finds another model."""
    raise ModelError("the model is another one")


def fail() -> Echo:
    """Raise as a worker that lacks a package."""
    raise ModuleNotFoundError("No module named 's3fs'")


def slow() -> Echo:
    """Make a worker as one does that loads a large model."""
    time.sleep(14)
    return Echo()


def main(address: str, tasks: str, options: str) -> None:
    """Run tasks and print the outcome."""
    given = json.loads(options)
    progress.LINE_SECONDS = given.pop("line_seconds", 60.0)
    make = {"refuse": refuse, "fail": fail, "slow": slow, "echo": Echo}[given.pop("make", "echo")]
    done: list[tuple[str, int]] = []
    outcome = run_tasks(
        json.loads(tasks),
        make,
        cluster=Cluster(address, **given),
        on_done=lambda task, result: done.append(result),
    )
    show(json.dumps(asdict(outcome) | {"done": done}))


if __name__ == "__main__":
    sys.exit(run_command(lambda: main(*sys.argv[1:]), level=logging.INFO))
