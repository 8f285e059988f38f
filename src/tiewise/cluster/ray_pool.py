"""Compute tasks with workers on a Ray cluster; the queue of tasks is in this process.

This is the only module that imports Ray. Each worker is an actor: one process with one CPU that
computes one task at a time. Ray Data is not used: it computes a task that kills its process for
ever, and its blocks have no stable order (``docs/scaling.md``).
"""

from __future__ import annotations

import contextlib
import faulthandler
import logging
import os
import socket
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import ray
from ray import exceptions

# Private in Ray 2.60: its public form, init("auto"), waits for ever for a cluster that has ended.
from ray._private.services import find_bootstrap_address

from tiewise import __version__
from tiewise.cluster.progress import JobProgress
from tiewise.console import describe_seconds, watch_progress
from tiewise.errors import ConfigError, PairsError, RunError, TiewiseError

MAX_TRIES = 3
"""A task that ends its worker, or fails, so many times is left out."""
MAX_FAILURES_IN_A_ROW = 5
"""Tasks that fail, and workers that do not start, without one success between: the job is ended.

A refusal of its data (PairsError) does not count: other tasks have other data."""
_NOTICE_SECONDS = 30.0
_SMALLEST_SHARE = 0.0001
"""Of a GPU; Ray rounds shares to this."""
_log = logging.getLogger(__name__)


class Worker(Protocol):
    """An object that computes tasks, one at a time, in a process of the cluster."""

    def compute(self, task: Any) -> Any:
        """Return the result of a task; both are pickled."""
        ...


@dataclass(frozen=True)
class Cluster:
    """The cluster, and the workers that a job asks it for.

    `address` is ``auto`` (the cluster that this machine belongs to), ``local`` (this machine alone)
    or ``HOST:PORT``. `n_workers` None means as many as the cluster can start now. A worker gets one
    CPU and `worker_gpus` GPUs, which may be a fraction. It is ended if no progress bar moves in it
    for `patience` seconds. The job ends after `start_seconds` without any worker; a cluster that
    grows starts machines within this time.
    """

    address: str = "auto"
    n_workers: int | None = None
    worker_gpus: float = 0.0
    patience: float = 1800.0
    start_seconds: float = 1800.0

    def __post_init__(self) -> None:
        host, _, port = self.address.rpartition(":")
        if self.address not in {"auto", "local"} and not (host and port.isdecimal()):
            raise ConfigError(f"--ray is {self.address!r}; expected auto, local or HOST:PORT.")
        if self.n_workers is not None and self.n_workers < 1:
            raise ConfigError(f"--workers is {self.n_workers}; expected at least 1.")
        gpus = self.worker_gpus
        if not (gpus == 0 or _SMALLEST_SHARE <= gpus < 1 or (gpus >= 1 and gpus % 1 == 0)):
            raise ConfigError(
                f"--worker-gpus is {gpus}; expected a whole number, or a share of one GPU from "
                f"{_SMALLEST_SHARE} to below 1."
            )


@dataclass
class Outcome:
    """Counts of a job: finished tasks, workers that died, and the tasks left out with the reason.

    `left_out` is by the place of the task in the sequence.
    """

    n_done: int = 0
    n_deaths: int = 0
    left_out: dict[int, str] = field(default_factory=dict)


def run_tasks(
    tasks: Sequence[Any],
    make_worker: Callable[[], Worker],
    *,
    cluster: Cluster,
    on_done: Callable[[Any, Any], None] = lambda task, result: None,
    again: Callable[[Any], Any] = lambda task: task,
    n_rows_of: Callable[[Any], int] = lambda task: 1,
    unit: str = "task",
) -> Outcome:
    """Compute every task on a cluster; return what was done and which tasks were left out.

    Parameters
    ----------
    tasks
        Any objects that can be pickled.
    make_worker
        Called once in each worker. It is pickled, by name where tiewise can be imported.
    cluster
        Where, and how many workers.
    on_done
        Called here with each task and its result, in the order in which they end.
    again
        Returns the task that is computed in place of one whose worker died or failed.
    n_rows_of, unit
        Size of a task and its name, for the progress.

    Returns
    -------
    Outcome

    Raises
    ------
    RunError
        If there is no such cluster, it starts no worker, or a machine has another version.
    TiewiseError
        The error of `make_worker`, or the last one if many tasks fail in a row.
    """
    with _connected(cluster.address), JobProgress(sum(map(n_rows_of, tasks)), unit) as progress:
        pool = _Pool(tasks, make_worker, again, cluster, progress)
        try:
            for place, result in pool.run():
                progress.add(n_rows_of(tasks[place]), pool.n_alive)
                on_done(tasks[place], result)
        finally:
            pool.stop()
    return pool.outcome


@contextlib.contextmanager
def _connected(address: str) -> Iterator[None]:
    """Connect to a cluster, unless this process is connected; Ray prints to standard error."""
    if ray.is_initialized():
        yield
        return
    with contextlib.redirect_stdout(sys.stderr):
        try:
            _connect(address)
        except (OSError, RuntimeError, ValueError, exceptions.RayError) as error:
            raise RunError(
                f"--ray {address}: no cluster answers: {_first_line(error)} Start one with `ray "
                "start --head`, give its HOST:PORT, or --ray local for this machine alone. Token "
                "authentication needs the same RAY_AUTH_TOKEN here and on every machine."
            ) from error
        try:
            yield
        finally:
            ray.shutdown()


def _connect(address: str) -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if address == "auto":  # the address that Ray noted on this machine may be an old one
        address = os.environ.get("RAY_ADDRESS") or find_bootstrap_address(None) or ""
        if not address:
            raise ConnectionError("this machine belongs to no cluster.")
    host, _, port = address.rpartition(":")
    if host:  # Ray 2.60 tries for minutes
        socket.create_connection((host, int(port)), timeout=10).close()
    # Ray 2.60 rewrites a loopback address to that of the machine unless the node is named.
    loopback = {"_node_ip_address": host} if host.startswith("127.") else {}
    started = {"include_dashboard": False} if address == "local" else {}
    quiet = {"log_to_driver": False, "logging_level": logging.WARNING}
    ray.init(address, **quiet, **started, **loopback)


class _Actor:
    """A worker in a process of the cluster."""

    def describe(self) -> tuple[str, str]:
        """Return the version of tiewise and the address of the machine."""
        return __version__, ray.util.get_node_ip_address()

    def start(self, make_worker: Callable[[], Worker], patience: float) -> None:
        """Make the worker."""
        self._patience = patience
        watch_progress(self._restart_clock)
        self._restart_clock()
        try:
            self._worker = make_worker()
        finally:
            faulthandler.cancel_dump_traceback_later()

    def compute(self, task: Any) -> Any:
        """Compute a task; the process ends if it makes no progress."""
        self._restart_clock()
        try:
            return self._worker.compute(task)
        finally:
            faulthandler.cancel_dump_traceback_later()

    def _restart_clock(self) -> None:
        # Its thread needs no lock of Python, so it also ends a process that hangs in C code.
        faulthandler.dump_traceback_later(self._patience, exit=True, file=2)


@dataclass(eq=False)
class _Call:
    """A call that has not returned: which actor, which method, and the task's place if any."""

    actor: Any
    method: str
    place: int | None = None


class _Pool:
    """Actors, their open calls, and the queue of tasks."""

    def __init__(
        self,
        tasks: Sequence[Any],
        make_worker: Callable[[], Worker],
        again: Callable[[Any], Any],
        cluster: Cluster,
        progress: JobProgress,
    ) -> None:
        self.tasks, self.again, self.cluster, self.progress = list(tasks), again, cluster, progress
        self.make_worker = ray.put(make_worker) if tasks else None
        self.queue = deque(range(len(tasks)))
        self.tries: Counter[int] = Counter()
        self.calls: dict[Any, _Call] = {}
        self.idle: list[Any] = []
        self.machines: dict[Any, str] = {}
        self.outcome = Outcome()
        self.n_failures_in_a_row = 0
        self.waiting = _Waiting(cluster)

    @property
    def n_alive(self) -> int:
        """Number of workers that have started."""
        return len(self.idle) + sum(call.method == "compute" for call in self.calls.values())

    def run(self) -> Iterator[tuple[int, Any]]:
        """Yield the place of each finished task and its result."""
        for _ in range(self._count_workers() if self.tasks else 0):
            self._add_actor()
        while self.queue or any(call.place is not None for call in self.calls.values()):
            done, _ = ray.wait(list(self.calls), num_returns=1, timeout=1.0)
            for reference in done:
                yield from self._receive(self.calls.pop(reference), reference)
            while self.queue and self.idle:
                self._call(self.idle.pop(), "compute", self.queue.popleft())
            n_loading = sum(call.method == "start" for call in self.calls.values())
            self.waiting.check(self.n_alive + n_loading)
            self.progress.tick(self.n_alive)

    def stop(self) -> None:
        """End every actor."""
        for actor in [*self.idle, *(call.actor for call in self.calls.values())]:
            ray.kill(actor)

    def _count_workers(self) -> int:
        wanted = self.cluster.n_workers or _count_places(self.cluster.worker_gpus)
        return min(wanted, len(self.tasks))

    def _add_actor(self) -> None:
        options = {"num_cpus": 1, "scheduling_strategy": "SPREAD", "max_restarts": 0}
        options |= {"num_gpus": self.cluster.worker_gpus}
        self._call(ray.remote(_Actor).options(**options).remote(), "describe")

    def _call(self, actor: Any, method: str, place: int | None = None) -> None:
        arguments: tuple[Any, ...] = () if place is None else (self.tasks[place],)
        if method == "start":
            arguments = (self.make_worker, self.cluster.patience)
        reference = getattr(actor, method).remote(*arguments)
        self.calls[reference] = _Call(actor, method, place)

    def _receive(self, call: _Call, reference: Any) -> Iterator[tuple[int, Any]]:
        """Act on a call that has returned, failed, or lost its process."""
        try:
            result = ray.get(reference)
        except exceptions.RayTaskError as error:
            if call.place is None and not isinstance(error.cause, TiewiseError):
                self._lose(call, error)
                return
            self._fail(call, error.cause)
            self.idle.append(call.actor)
            return
        except exceptions.RayError as error:
            self._lose(call, error)
            return
        if call.method == "describe":
            _check_version(*result)
            self.machines[call.actor] = result[1]
            self._call(call.actor, "start")
            return
        self.idle.append(call.actor)
        if call.place is not None:
            self.n_failures_in_a_row = 0
            self.outcome.n_done += 1
            yield call.place, result

    def _fail(self, call: _Call, cause: BaseException) -> None:
        """Count an error that a worker raised; one that refuses to start ends the job."""
        if call.place is None:
            raise cause
        is_final, reason = isinstance(cause, TiewiseError), f"{type(cause).__name__}: {cause}"
        is_left_out = self._try_again(call.place, reason, is_final=is_final)
        self.n_failures_in_a_row += is_left_out and not isinstance(cause, PairsError)
        self._check_failures(reason, cause)

    def _lose(self, call: _Call, error: exceptions.RayError) -> None:
        """Count the death of a worker, and start another."""
        self.outcome.n_deaths += 1
        with contextlib.suppress(exceptions.RayError):
            ray.kill(call.actor)  # one that cannot be reached may still run
        where = self.machines.get(call.actor, "unknown machine")
        doing = "it started" if call.place is None else f"it computed {self.tasks[call.place]}"
        _log.warning("A worker died (%s) while %s.", where, doing)
        if call.place is None:
            self.n_failures_in_a_row += 1
        else:
            is_left_out = self._try_again(call.place, self._describe_deaths(), is_final=False)
            self.n_failures_in_a_row += is_left_out
        self._check_failures(str(error), error)
        self._add_actor()

    def _check_failures(self, reason: str, cause: BaseException) -> None:
        """End a job of which nothing succeeds."""
        if self.n_failures_in_a_row >= MAX_FAILURES_IN_A_ROW:
            raise RunError(
                f"{MAX_FAILURES_IN_A_ROW} workers or tasks failed in a row; the last: {reason}\n"
                "Correct this, check that every machine has tiewise and enough memory, and run the "
                "same command again."
            ) from cause

    def _describe_deaths(self) -> str:
        patience = describe_seconds(self.cluster.patience)
        causes = f"killed, out of memory, or without progress for {patience}"
        return f"{MAX_TRIES} workers died while they computed it ({causes})"

    def _try_again(self, place: int, reason: str, *, is_final: bool) -> bool:
        """Return a task to the end of the queue, or leave it out; return whether it is left out."""
        self.tries[place] += 1
        if not is_final and self.tries[place] < MAX_TRIES:
            self.tasks[place] = self.again(self.tasks[place])
            self.queue.append(place)
            return False
        self.outcome.left_out[place] = reason
        _log.warning("%s is left out: %s", self.tasks[place], reason)
        return True


class _Waiting:
    """Time without a worker: a notice after 30 seconds, an error at the end of the patience."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster, self.is_noticed = cluster, False
        self.since = time.monotonic()

    def check(self, n_alive: int) -> None:
        """Compare the time since the last worker was seen with its limits."""
        seconds = time.monotonic() - self.since
        if n_alive:
            self.since, self.is_noticed = time.monotonic(), False
        elif seconds >= self.cluster.start_seconds:
            raise RunError(self._describe(seconds))
        elif seconds >= _NOTICE_SECONDS and not self.is_noticed:
            self.is_noticed = True
            _log.warning("%s", self._describe(seconds))

    def _describe(self, seconds: float) -> str:
        gpus = self.cluster.worker_gpus
        wanted = f"1 CPU and {gpus:g} GPUs" if gpus else "1 CPU"
        return (
            f"no worker started in {describe_seconds(seconds)}: the cluster offers "
            f"{_describe_offer()}; a worker needs {wanted}. Wait for other jobs, add machines, or "
            "lower --worker-gpus."
        )


def _check_version(version: str, machine: str) -> None:
    if version != __version__:
        raise RunError(
            f"machine {machine} of the cluster has tiewise {version}; expected {__version__}, as "
            f"here. Run pip install tiewise=={__version__} on every machine."
        )


def _count_places(worker_gpus: float) -> int:
    """Return how many workers fit into the free CPUs and GPUs of a cluster, at least one."""
    free = ray.available_resources()
    by_gpus = free.get("GPU", 0.0) / worker_gpus if worker_gpus else float("inf")
    return max(int(min(free.get("CPU", 0.0), by_gpus)), 1)


def _describe_offer() -> str:
    """Return the CPUs and GPUs of a cluster, and how many of them are free."""
    total, free = ray.cluster_resources(), ray.available_resources()
    parts = [f"{free.get(name, 0):g} of {total.get(name, 0):g} {name}s" for name in ("CPU", "GPU")]
    return f"{' and '.join(parts)} that are free"


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
