"""Score units: the worker that every executor uses, and the executor of this process.

An executor is a function ``run(units, address, on_done) -> failures``. It opens a
:class:`UnitWorker` from the output folder in each of its processes, calls ``compute`` once per
unit, passes each record to `on_done`, and returns the units that failed with the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from tiewise.cluster.output import Record
from tiewise.cluster.units import Unit

Failures = dict[Unit, str]
OnDone = Callable[[Record], None]


class UnitWorker:
    """A judge that scores units into an output folder; open one in each process."""

    @classmethod
    def open(cls, address: str, *, cache_dir: Path) -> UnitWorker:
        """Open the run in the output folder's archive, which is fetched once per `cache_dir`.

        RunError is raised when this process has another version of tiewise.
        """
        raise NotImplementedError

    def compute(self, unit: Unit) -> Record:
        """Predict the rows of a unit and write its part; PairsError if they cannot be read."""
        raise NotImplementedError


def run_here(units: Iterable[Unit], address: str, on_done: OnDone, *, cache_dir: Path) -> Failures:
    """Score units one after the other in this process; return those that failed.

    A unit whose rows cannot be read does not keep the others from being scored.
    """
    raise NotImplementedError
