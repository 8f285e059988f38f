"""Fits on a cluster: one fold for each worker, equal to a fit on one machine, and resumable."""

import json
import os
import signal
import time

import pytest

from tiewise.data.simulation.simulate import simulate, write_simulation
from tiewise.files import digest_file

OF_PROCESS = {"env.json", ".lock", "feature_model.skops", "manifest.json"}
"""Files that say when and where a run was fitted; skops writes addresses of objects in memory."""


@pytest.fixture
def folder(tmp_path):
    write_simulation(simulate(60, seed=0), tmp_path / "train.csv")
    return tmp_path


def _fit(cluster, folder, run, *flags):
    words = ("fit", "--data", "train.csv", "--folds", "all", "--n-splits", "3", "--json")
    return cluster.drive("-m", "tiewise", *words, "--run", run, *flags, cwd=folder)


def _end(driver, status=0):
    out, messages = driver.communicate(timeout=200)
    assert driver.returncode == status, messages
    return json.loads(out) if status == 0 else messages


def _content(folder, run):
    """Return the digests of the files of a run by name."""
    root = folder / "artifacts" / "runs" / run
    files = [path for path in root.rglob("*") if path.is_file() and path.name not in OF_PROCESS]
    return {str(path.relative_to(root)): digest_file(path) for path in files}


def test_folds_equal_one_machine(cluster, folder):
    """Files of a run do not depend on where its folds are fitted; a second call does nothing."""
    _end(_fit(cluster, folder, "here", "--preset", "baseline"))
    (folder / "artifacts" / "runs" / "here").rename(folder / "here")
    flags = ("--preset", "baseline", "--ray", cluster.address)
    assert _end(_fit(cluster, folder, "here", *flags))["fitted"] == [0, 1, 2]
    there = _content(folder, "here")
    assert len(there) > 12
    (folder / "artifacts" / "runs" / "here").rename(folder / "there")
    (folder / "here").rename(folder / "artifacts" / "runs" / "here")
    assert there == _content(folder, "here")
    assert _end(_fit(cluster, folder, "here", *flags, "--resume"))["fitted"] == []


def test_folders_must_be_shared(cluster, folder):
    """A machine without the folder of the run is named before a fold is fitted."""
    hidden = ("-c", "import pathlib; pathlib.Path.touch = lambda path: open('mark', 'w');"
              "pathlib.Path.unlink = lambda path, **_: None;"
              "from tiewise.cli import main; raise SystemExit(main())")  # fmt: skip
    words = ("fit", "--data", "train.csv", "--preset", "baseline", "--ray", cluster.address)
    message = _end(cluster.drive(*hidden, *words, cwd=folder), status=2)
    assert "does not have the files of" in message
    assert "at the same path on every machine" in message


def test_killed_worker_resumes_fold(cluster, folder):
    """A fold whose worker is killed continues from its checkpoint, to the same files."""
    pytest.importorskip("torch")
    flags = ("--preset", "tiny", "--n-splits", "2")
    _end(_fit(cluster, folder, "run", *flags))
    (folder / "artifacts" / "runs" / "run").rename(folder / "straight")
    driver = _fit(cluster, folder, "run", *flags, "--ray", cluster.address, "--workers", "1")
    checkpoints = folder / "artifacts" / "runs" / "run" / "fold0" / "checkpoints"
    while not list(checkpoints.glob("checkpoint-6")):
        assert driver.poll() is None, driver.communicate()
        time.sleep(0.05)
    for node in cluster.nodes.values():
        for number in node.worker_ids():
            os.kill(number, signal.SIGKILL)
    out, messages = driver.communicate(timeout=200)
    assert json.loads(out)["fitted"] == [0, 1], messages
    assert "A worker died" in messages
    found = _content(folder, "run")
    (folder / "artifacts" / "runs" / "run").rename(folder / "resumed")
    (folder / "straight").rename(folder / "artifacts" / "runs" / "run")
    assert found == _content(folder, "run")
