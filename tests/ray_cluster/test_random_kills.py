"""Kills of workers, nodes and drivers at any moment: equal bytes, no duplicates, nothing lost.

``TIEWISE_TORTURE=full`` tries thirty of them, otherwise three.
"""

import json
import os
import random
import signal
import subprocess
import time
from contextlib import suppress

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from faults import scaled
from run_folders import fit_small
from tiewise.data.pairs import TEXT_COLUMNS
from tiewise.data.simulation.simulate import simulate

N_UNITS = 60
LONGEST = 12.0
"""Seconds within which a kill happens; a prediction takes about ten."""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Make a folder with a run `one`, pairs in 60 row groups, and predictions of one process."""
    folder = tmp_path_factory.mktemp("place")
    fit_small(folder / "artifacts", "one")
    pairs = simulate(16 * N_UNITS, seed=1)
    texts = {name: [json.dumps(turns) for turns in pairs[name]] for name in TEXT_COLUMNS}
    table = pa.table({"id": pairs["id"].tolist(), **texts})
    pq.write_table(table, folder / "in.parquet", row_group_size=16)
    return folder


@pytest.fixture(scope="module")
def expected(cluster, place):
    out, messages = _predict(cluster, place, "alone/").communicate()
    assert out, messages
    return _content(place / "alone")


def _predict(cluster, place, out, *flags):
    words = ("predict", "--run", "one", "--data", "in.parquet", "--out", out)
    sizes = ("--chunk-rows", "4", "--unit-rows", "16")
    return cluster.drive("-m", "tiewise", *words, *sizes, *flags, cwd=place)


def _content(folder):
    """Return the parts, whose names have their digests, and those of the manifest in order."""
    parts = sorted(path.name for path in folder.glob("parts-*/*.parquet"))
    units = json.loads((folder / "manifest.json").read_text())["units"]
    return parts, [unit["part"] for unit in units]


def _kill(kind, cluster, driver, chance):
    """Kill a worker, the node that is not the head, or the driver."""
    if kind == "driver":
        driver.kill()
    elif kind == "node":
        cluster.nodes[1].kill()
        cluster.add(1)
    else:
        while not (ids := [n for node in cluster.nodes.values() for n in node.worker_ids()]):
            if driver.poll() is not None:
                return
            time.sleep(0.05)
        with suppress(ProcessLookupError):
            os.kill(chance.choice(ids), signal.SIGKILL)


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kind", ["worker", "node", "driver"])
def test_kill_changes_nothing(cluster, place, expected, kind):
    """The folder is the same after a kill at a random moment; only a killed driver runs again."""
    for seed in range(scaled(quick=1, full=10)):
        chance, out = random.Random(f"{kind} {seed}"), f"{kind}-{seed}/"
        driver = _predict(cluster, place, out, "--ray", cluster.address, "--workers", "2")
        with suppress(subprocess.TimeoutExpired):
            driver.wait(chance.uniform(0, LONGEST))
        _kill(kind, cluster, driver, chance)
        _, messages = driver.communicate(timeout=120)
        if kind == "driver" and driver.returncode != 0:
            driver = _predict(cluster, place, out, "--ray", cluster.address)
            _, messages = driver.communicate(timeout=120)
        assert driver.returncode == 0, messages
        assert _content(place / out) == expected
        assert len(expected[1]) == len(set(expected[1])) == N_UNITS
