"""Tests of a prediction that several processes share."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from fitting import configure
from loaded_runs import open_tiny
from tiewise.data.formats import write_pairs
from tiewise.data.simulation.simulate import simulate
from tiewise.files import write_json
from tiewise.runs.folder import start_run

OPTIONS = ["--run", "done", "--data", "pairs.csv", "--chunk-rows", "4"]


@pytest.fixture
def home(tmp_path, cache_dir):
    """Write a run with one finished fold, and a file of 26 pairs (7 chunks)."""
    run = start_run(tmp_path / "artifacts", configure(dtype="float32", lora_r=4), name="done")
    opened = open_tiny("tiny", cache_dir, dtype="float32")
    opened.save(run.fold(0).adapter_dir)
    write_json(run.fold(0).oof_path, {})
    write_json(run.fold(0).scores_path, {})
    write_pairs(simulate(26, seed=2), tmp_path / "pairs.csv")
    return tmp_path


def launch(home, launcher, out):
    """Run ``tiewise predict`` and return the finished process."""
    command = [sys.executable, *launcher, "tiewise", "predict", *OPTIONS, "--out", out]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    return subprocess.run(
        command, cwd=home, env=environment, capture_output=True, text=True, timeout=280, check=False
    )


def test_two_processes_write_equal_file(home):
    """Two processes of a launcher write the same bytes as a single process."""
    alone = launch(home, ["-m"], "alone.csv")
    assert alone.returncode == 0, alone.stderr
    # `accelerate launch` does this on several GPUs, but starts a single process on a CPU. Without
    # the two dashes torchrun 2 reads --run as an abbreviation of one of its own flags.
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "--"]
    together = launch(home, launcher, "together.csv")
    assert together.returncode == 0, together.stderr
    assert (home / "together.csv").read_bytes() == (home / "alone.csv").read_bytes()
    assert len((home / "alone.csv").read_text().splitlines()) == 27
    assert not list(home.glob("*.shards"))
    assert together.stdout.count("26 pairs") == 1, "only the process that joins the shards prints"
    assert together.stdout.replace("together", "alone") == alone.stdout
