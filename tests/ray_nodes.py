"""A Ray cluster of several nodes on loopback addresses, and drivers in processes of their own.

Each node is started in its own session, and its end is that of every process of the session: a
killed raylet leaves agents behind, and ``ray stop`` would end clusters of other people.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

TESTS = Path(__file__).parent
SOURCES = TESTS.parent / "src"


class Node:
    """One node: a raylet with its agents; the head has the control service too."""

    def __init__(self, cluster: Cluster, number: int, n_cpus: int, sources: Path) -> None:
        self.address = f"127.0.0.{2 + number}"
        self.home = cluster.folder / f"home-{number}"
        role = (
            ["--address", cluster.address]
            if number
            else ["--head", "--port", str(cluster.port), "--include-dashboard", "false"]
        )
        command = [
            "-m", "ray.scripts.scripts", "start", "--block", *role,
            "--node-ip-address", self.address, "--num-cpus", str(n_cpus),
            "--object-store-memory", "80000000", "--temp-dir", str(cluster.folder),
        ]  # fmt: skip
        with (cluster.folder / f"node-{number}.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, *(command[: -2 if number else None])],
                env=cluster.environment(sources) | {"HOME": str(self.home)},
                stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def worker_ids(self) -> list[int]:
        """Return the ids of the processes that have an actor of tiewise."""
        return [
            number for number in self.process_ids() if b"_Actor" in _read(f"/proc/{number}/cmdline")
        ]

    def process_ids(self) -> list[int]:
        """Return the ids of all processes of this node."""
        return [
            number
            for number in (
                int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()
            )
            if _session_of(number) == self.process.pid
        ]

    def kill(self) -> None:
        """End every process of this node at once, as a machine that loses power."""
        while ids := self.process_ids():
            for number in ids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(number, signal.SIGKILL)
            self.process.poll()
            time.sleep(0.05)
        self.process.wait()


class Cluster:
    """A head with `n_cpus` CPUs, and further nodes."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.nodes = folder, dict[int, Node]()
        self.token = secrets.token_hex(32)
        with socket.socket() as free:
            free.bind(("127.0.0.2", 0))
            self.port = free.getsockname()[1]
        self.address = f"127.0.0.2:{self.port}"

    def environment(self, sources: Path = SOURCES) -> dict[str, str]:
        """Return the environment of nodes and drivers."""
        return os.environ | {
            "PYTHONPATH": os.pathsep.join(map(str, (sources, TESTS))),
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": self.token,
            "RAY_USAGE_STATS_ENABLED": "0",
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
            # Seconds in place of minutes until a killed node is known to be dead.
            "RAY_health_check_initial_delay_ms": "1000",
            "RAY_health_check_period_ms": "500",
            "RAY_health_check_timeout_ms": "2000",
            "RAY_health_check_failure_threshold": "3",
        }

    def add(self, number: int, *, n_cpus: int = 1, sources: Path = SOURCES) -> Node:
        """Start node `number`; 0 is the head. Return when it has joined."""
        self.nodes[number] = Node(self, number, n_cpus, sources)
        deadline = time.monotonic() + 60
        log_path = self.folder / f"node-{number}.log"
        n_before = log_path.read_text().count("--block")
        while log_path.read_text().count("--block") <= n_before:
            assert time.monotonic() < deadline, log_path.read_text()
            assert self.nodes[number].process.poll() is None, log_path.read_text()
            time.sleep(0.1)
        return self.nodes[number]

    def drive(
        self, *arguments: str, cwd: Path, environment: dict[str, str] | None = None
    ) -> subprocess.Popen[str]:
        """Start Python with some arguments as a driver of this cluster."""
        return subprocess.Popen(
            [sys.executable, *arguments], env=environment or self.environment(), cwd=cwd, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def stop(self) -> None:
        """End every node."""
        for node in reversed(self.nodes.values()):
            node.kill()


@contextlib.contextmanager
def running_cluster(*n_cpus: int) -> Iterator[Cluster]:
    """Run a cluster with one node for each number of CPUs; the first is the head."""
    # Sockets below this folder may have 107 characters: pytest's own folders are too deep.
    folder = Path(tempfile.mkdtemp(prefix="tw-ray-", dir="/tmp"))
    cluster = Cluster(folder)
    try:
        for number, n in enumerate(n_cpus):
            cluster.add(number, n_cpus=n)
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _session_of(number: int) -> int:
    # The name, the second field, is in brackets and may hold spaces; the session is the sixth.
    fields = _read(f"/proc/{number}/stat").rpartition(b")")[2].split()
    return -1 if not fields or fields[0] == b"Z" else int(fields[3])


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError:  # the process has ended
        return b""
