"""Score units: the worker that every executor uses, and the executors.

An executor is a function ``run(units, address, on_done) -> failures``. It opens a
:class:`UnitWorker` from the output folder in each of its processes, calls ``compute`` once per
unit, passes each record to `on_done`, and returns the units that failed with the reason.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from tiewise import __version__
from tiewise.cluster.output import Output, Record
from tiewise.cluster.units import Unit, read_unit
from tiewise.console import describe_os_error, progress_bar
from tiewise.data.formats.parts import TableFormat
from tiewise.errors import ConfigError, PairsError, RunError, missing_extra
from tiewise.judges.kinds import PairJudge, device_of, open_judge
from tiewise.judges.prediction import digest_models, order_columns
from tiewise.runs.teachers import TRAINING_COLUMN, find_training_rows

if TYPE_CHECKING:
    from tiewise.cluster.ray_pool import Cluster

_MAX_FAILURES_IN_A_ROW = 5
Failures = dict[Unit, str]
OnDone = Callable[[Record], None]


@dataclass(frozen=True)
class UnitWorker:
    """A judge that scores units into an output folder; open one in each process."""

    output: Output
    judge: PairJudge
    is_training_row: Callable[[pd.DataFrame], Any]
    table_format: TableFormat
    swap: bool | None
    chunk_rows: int

    @classmethod
    def open(cls, address: str, *, cache_dir: Path) -> UnitWorker:
        """Open the run in the output folder's archive, which is fetched once per `cache_dir`.

        RunError is raised when this process has another version of tiewise, or the archive other
        folds than the identity names.
        """
        output = Output(address)
        identity = output.identity
        if identity["version"] != __version__:
            raise RunError(
                f"{address} is written by tiewise {identity['version']}, and this process has "
                f"{__version__}. Install the same version everywhere."
            )
        run, options = output.fetch_run(cache_dir), identity["options"]
        if digest_models(run, run.finished_folds()) != identity["models"]:
            raise RunError(
                f"{address} has another copy of run {run.name} than the predictions need: its "
                "folds were changed. Name another output folder."
            )
        return cls(
            output,
            open_judge(run, cache_dir=cache_dir, device=options["device"]),
            find_training_rows(run, run.finished_folds()),
            TableFormat.from_dict(identity["format"]),
            options["swap"],
            options["chunk_rows"],
        )

    def compute(self, unit: Unit) -> Record:
        """Predict the rows of a unit and write its part; PairsError if they cannot be read."""
        began = time.monotonic()
        chunks = read_unit(unit, self.table_format, self.chunk_rows)
        table = pd.concat([self._predict(load()) for load in chunks], ignore_index=True)
        record = self.output.write_part(unit, order_columns(table))
        seconds = round(time.monotonic() - began, 3)
        return replace(record, seconds=seconds, device=device_of(self.judge))

    def _predict(self, pairs: pd.DataFrame) -> pd.DataFrame:
        predicted = self.judge.predict(pairs, swap=self.swap)
        return predicted.assign(**{TRAINING_COLUMN: self.is_training_row(pairs)})


def run_here(units: Sequence[Unit], address: str, on_done: OnDone, *, cache_dir: Path) -> Failures:
    """Score units one after the other in this process; return those that cannot be read.

    A unit that cannot be read does not keep the others from being scored. OSError is raised when
    disk or store fail for five units in a row.
    """
    worker, failures = UnitWorker.open(address, cache_dir=cache_dir), {}
    n_rows, n_failed_in_a_row = sum(unit.n_rows for unit in units), 0
    with progress_bar(n_rows, name="predict", unit="row", unit_scale=True) as bar:
        for unit in units:
            try:
                on_done(worker.compute(unit))
                n_failed_in_a_row = 0
            except PairsError as error:
                failures[unit] = str(error)
            except OSError as error:
                failures[unit] = describe_os_error(error)
                n_failed_in_a_row += 1
                if n_failed_in_a_row == _MAX_FAILURES_IN_A_ROW:
                    raise
            bar.update(unit.n_rows)
    return failures


def run_on(cluster: Cluster, units: Sequence[Unit], address: str, on_done: OnDone) -> Failures:
    """Score units with the workers of a Ray cluster; return those that are left out.

    A unit is left out if it cannot be read, or three of its workers died or failed.
    """
    from tiewise.cluster.ray_pool import run_tasks

    outcome = run_tasks(
        units,
        functools.partial(_open_on_machine, address),
        cluster=cluster,
        on_done=lambda unit, record: on_done(record),
        n_rows_of=lambda unit: unit.n_rows,
        unit="row",
    )
    return {units[place]: reason for place, reason in outcome.left_out.items()}


def _open_on_machine(address: str) -> UnitWorker:
    """Open a worker with the caches of its machine."""
    artifacts = os.environ.get("TIEWISE_ARTIFACTS") or Path.home() / ".cache" / "tiewise"
    return UnitWorker.open(address, cache_dir=Path(artifacts) / "cache")


def find_cluster(
    ray: str | None, workers: int | None, worker_gpus: float | None, *, device: str | None
) -> Cluster | None:
    """Return the cluster that a request names, or None for this process.

    A worker gets one GPU by default if the device is `cuda`. ConfigError is raised for workers
    without a cluster, DeviceError if Ray is not installed.
    """
    if ray is None:
        if workers is not None or worker_gpus is not None:
            raise ConfigError("--workers and --worker-gpus need --ray auto, local or HOST:PORT.")
        return None
    try:
        from tiewise.cluster.ray_pool import Cluster
    except ModuleNotFoundError as error:
        raise missing_extra("--ray", error, "ray") from error
    if worker_gpus is None:
        worker_gpus = 1.0 if device == "cuda" else 0.0
    return Cluster(ray, workers, worker_gpus)
