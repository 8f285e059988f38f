"""Cost of a Ray cluster: the same units with one worker on a cluster and in one process.

    python -m benchmarks.clusters --rows 100000

The feature model predicts simulated pairs, both ways in turn. CPU seconds are those
of the process that scores, and on the cluster those of this process from the first result on: the
start is a figure of its own. Ray's own services are not counted. An empty task shows what a unit
costs beyond its work. Medians over the rounds, with the lowest and the highest in brackets.
"""

from __future__ import annotations

import argparse
import functools
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tiewise.cluster.output import Output
from tiewise.cluster.prediction import predict_units
from tiewise.cluster.ray_pool import Cluster, run_tasks
from tiewise.cluster.scoring import UnitWorker
from tiewise.cluster.units import Unit, find_inputs, plan_units
from tiewise.config import load_preset, override
from tiewise.crossfit import cross_fit
from tiewise.data.pairs import TEXT_COLUMNS
from tiewise.data.simulation.simulate import simulate
from tiewise.runs.folder import open_run

N_EMPTY = 2000
UNIT_ROWS = 10_000
Measured = dict[str, float]


def main() -> None:
    """Parse the arguments, measure and print."""
    parser = argparse.ArgumentParser(prog="clusters", description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        prepare(home, arguments.rows)
        rounds = [
            (measure_alone(home), measure_cluster(home, arguments.workers))
            for _ in range(arguments.rounds)
        ]
    n = arguments.rows
    rows: dict[str, tuple[str, list[float]]] = {
        "rows a CPU second, one process": (",.0f", [n / one["cpu"] for one, _ in rounds]),
        f"rows a CPU second, workers: {arguments.workers}, with the process that asks": (
            ",.0f",
            [n / many["cpu"] for _, many in rounds],
        ),
        "their ratio": (".3f", [one["cpu"] / many["cpu"] for one, many in rounds]),
        "seconds until the first worker computes": (".1f", [many["start"] for _, many in rounds]),
        "milliseconds of an empty task": (".2f", [many["empty"] for _, many in rounds]),
        "peak memory of a worker, MB": (".0f", [many["peak"] for _, many in rounds]),
        "peak memory of one process, MB": (".0f", [one["peak"] for one, _ in rounds]),
    }
    print("| figure | value |\n| --- | --- |")
    for name, (form, values) in rows.items():
        shown = [f"{value:{form}}" for value in (median(values), min(values), max(values))]
        print(f"| {name} | {shown[0]} [{shown[1]}, {shown[2]}] |")


@dataclass
class MeasuredWorker:
    """A worker that returns the CPU seconds of a unit, and its peak memory in MB."""

    worker: UnitWorker

    @classmethod
    def open(cls, address: str, cache_dir: Path) -> MeasuredWorker:
        """Open the run of an output folder."""
        return cls(UnitWorker.open(address, cache_dir=cache_dir))

    def compute(self, task: Unit | None) -> Measured:
        """Score a unit; None is the empty task."""
        before = time.process_time()
        if task is not None:
            self.worker.compute(task)
        return {"cpu": time.process_time() - before, "peak": peak_memory()}


def prepare(home: Path, n_rows: int) -> None:
    """Fit a run, and write pairs and an output folder that has its identity and no parts."""
    config = override(load_preset("baseline"), limit=500, n_splits=2)
    cross_fit(config, [0], home, name="run")
    pairs = simulate(n_rows, seed=0)
    texts = {name: pairs[name].tolist() for name in TEXT_COLUMNS}
    table = pa.table({"id": pairs["id"].tolist(), **texts})
    pq.write_table(table, home / "in.parquet", row_group_size=UNIT_ROWS)
    for name in ("alone", "cluster"):
        with_identity = functools.partial(predict_units, execute=lambda *_: {})
        with_identity(open_run("run", home), str(home / "in.parquet"), str(home / name),
                      cache_dir=home / "cache")  # fmt: skip


def plan(home: Path) -> list[Unit]:
    """Return the units of the pairs."""
    fs, paths = find_inputs(str(home / "in.parquet"))
    return plan_units(paths, fs, UNIT_ROWS)


def measure_alone(home: Path) -> Measured:
    """Score all units in a new process; return its CPU seconds in units and its peak memory."""
    code = "import sys, benchmarks.clusters as c; c.score_alone(c.Path(sys.argv[1]))"
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code, str(home)],
        env=environment, check=True, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    cpu, peak = map(float, done.stdout.split())
    return {"cpu": cpu, "peak": peak}


def score_alone(home: Path) -> None:
    """Score all units and print CPU seconds and peak memory."""
    worker = MeasuredWorker.open(str(home / "alone"), home / "cache")
    found = [worker.compute(unit) for unit in plan(home)]
    print(sum(each["cpu"] for each in found), found[-1]["peak"])


def measure_cluster(home: Path, n_workers: int) -> Measured:
    """Score all units with workers on this machine."""
    found: list[Measured] = []
    times: list[float] = []
    used: list[float] = []

    def on_done(_: Any, result: Measured) -> None:
        found.append(result)
        times.append(time.monotonic())
        used.append(time.process_time())

    make = functools.partial(MeasuredWorker.open, Output(home / "cluster").address, home / "cache")
    call = functools.partial(run_tasks, make_worker=make, cluster=Cluster("local", n_workers))
    began = time.monotonic()
    call([None, *plan(home)], on_done=on_done)
    cpu = used[-1] - used[0] + sum(each["cpu"] for each in found)
    start, peak = times[0] - began, max(each["peak"] for each in found)
    times.clear()
    call([None] * N_EMPTY, on_done=on_done)
    empty = (times[-1] - times[0]) / (N_EMPTY - 1) * n_workers
    return {"cpu": cpu, "peak": peak, "start": start, "empty": 1000 * empty}


def peak_memory() -> float:
    """Return the peak resident memory of this process in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
