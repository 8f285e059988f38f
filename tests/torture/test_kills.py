"""A fit that was killed, stopped or out of disk space can be resumed with the same result."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from faults import (
    FLAGS,
    Forked,
    fit,
    fit_to,
    fold_of,
    outcome,
    scaled,
    tiewise,
    with_free_disk,
    with_small_files,
)
from tiewise.runs import checkpoints
from tiewise.runs.manifest import verify_manifest

pytestmark = pytest.mark.timeout(3600)

SEED = int(os.environ.get("TIEWISE_SEED", "0"))
N_KILLS = scaled(quick=2, full=30)
N_REPEATED = scaled(quick=1, full=6)
SIZES = range(4096, 400_000, 16_384) if scaled(quick=0, full=1) else (120_000,)


@pytest.fixture(scope="module")
def seconds(workplace):
    """Measure the duration of a fit on this machine."""
    start = time.monotonic()
    assert fit(workplace, "timed").end() == 0
    return time.monotonic() - start


def last_step(folder: Path, run: str) -> int:
    """Return the number of steps in the history."""
    path = fold_of(folder, run).history_path
    return len(path.read_bytes().splitlines()) if path.is_file() else 0


@pytest.mark.parametrize("trial", range(N_KILLS))
def test_randomly_killed_fit_is_resumed(workplace, undisturbed, seconds, trial):
    """SIGKILL between start and end, then --resume, gives the bytes of an uninterrupted fit."""
    run = f"killed{trial}"
    killed = fit(workplace, run)
    time.sleep(random.Random(f"{SEED} {trial}").uniform(0, seconds))
    killed.send(signal.SIGKILL)
    assert killed.end() in {-signal.SIGKILL, 0}
    resumed = fit(workplace, run, "--resume")
    assert resumed.end() == 0, resumed.messages()
    assert outcome(workplace, run) == undisturbed


@pytest.mark.parametrize("trial", range(N_REPEATED))
def test_repeatedly_killed_fit_is_resumed(workplace, undisturbed, seconds, trial):
    """After several kills, each during the resumed fit, the result is the same."""
    run, generator = f"repeated{trial}", random.Random(f"{SEED} again {trial}")
    for number in range(scaled(quick=2, full=4)):
        process = fit(workplace, run, *(["--resume"] if number else []))
        time.sleep(generator.uniform(0.3, 1) * seconds)
        process.send(signal.SIGKILL)
        process.end()
    resumed = fit(workplace, run, "--resume")
    assert resumed.end() == 0, resumed.messages()
    assert outcome(workplace, run) == undisturbed


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signal_saves_checkpoint(workplace, undisturbed, number, status):
    """A signal saves a checkpoint at the next step and sets the exit status; the fit can resume."""
    run = f"stopped{status}"
    stopped = fit_to(workplace, run, 5)
    stopped.send(number)
    stopped.send(signal.SIGCONT)
    assert stopped.end() == status
    assert stopped.messages().endswith("Stopped after a checkpoint; continue with --resume.\n")
    saved = checkpoints.newest_intact(fold_of(workplace, run).checkpoints_dir)
    assert checkpoints.step_of(saved) == last_step(workplace, run) == 6
    resumed = fit(workplace, run, "--resume")
    assert resumed.end() == 0, resumed.messages()
    assert outcome(workplace, run) == undisturbed


def test_exit_status_names_the_signal(workplace):
    """``python -m tiewise``, as a scheduler starts it, ends with the status of the signal."""
    command = [sys.executable, "-m", "tiewise", "fit", *FLAGS, "--run", "shell"]
    command += ["--n-epochs", "1000"]  # it must not end before the signal
    with subprocess.Popen(command, cwd=workplace, stderr=subprocess.PIPE, text=True) as process:
        while last_step(workplace, "shell") < 3:
            assert process.poll() is None
            time.sleep(0.01)
        process.terminate()
        _, messages = process.communicate(timeout=250)
    assert process.returncode == 143
    assert "continue with --resume" in messages


@pytest.fixture
def small_disk(tmp_path):
    """Give a file system of 900 kB, or None where mounting is not allowed."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=900k", "none", folder]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        yield None
        return
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def fill(folder: Path, n_bytes_left: int) -> None:
    """Fill the file system of `folder` with a file named ballast."""
    state = os.statvfs(folder)
    size = max(0, state.f_bavail * state.f_frsize - n_bytes_left)
    (folder / "ballast").write_bytes(bytes(size))


def fit_with_space(workplace: Path, run: str, small_disk: Path | None, n_bytes_left: int) -> Forked:
    """Start a fit, and fill its disk after the first step up to `n_bytes_left`."""
    if small_disk is None:
        return Forked(workplace, with_small_files, n_bytes_left, "fit", *FLAGS, "--run", run)
    (workplace / "artifacts" / "runs" / run).symlink_to(small_disk)
    crowded = fit_to(workplace, run, 1)
    fill(small_disk, n_bytes_left)
    crowded.send(signal.SIGCONT)
    return crowded


@pytest.mark.parametrize("n_bytes_left", SIZES)
def test_fit_on_full_disk_is_resumed(workplace, undisturbed, small_disk, n_bytes_left):
    """A full disk gives exit status 2 and a message; with space again the result is the same."""
    run = f"full{n_bytes_left}"
    crowded = fit_with_space(workplace, run, small_disk, n_bytes_left)
    if crowded.end() != 0:
        assert crowded.end() == 2, crowded.messages()
        assert "Traceback" not in crowded.messages()
        assert re.search("No space left on device|File too large", crowded.messages())
        for checkpoint in checkpoints.list_checkpoints(fold_of(workplace, run).checkpoints_dir):
            assert verify_manifest(checkpoint) is None
        if small_disk is not None:
            (small_disk / "ballast").unlink()
        resumed = fit(workplace, run, "--resume")
        assert resumed.end() == 0, resumed.messages()
    assert outcome(workplace, run) == undisturbed


def test_full_disk_is_estimated(workplace, undisturbed):
    """Without space for the checkpoints no step is computed; with space the fit starts again."""
    cramped = Forked(workplace, with_free_disk, 10_000, "fit", *FLAGS, "--run", "estimated")
    assert cramped.end() == 2
    assert "has 0.0 MB of free space" in cramped.messages()
    assert last_step(workplace, "estimated") == 0
    again = fit(workplace, "estimated")
    assert again.end() == 0, again.messages()
    assert outcome(workplace, "estimated") == undisturbed


def test_parallel_runs_are_independent(workplace, undisturbed):
    """Fits that share an artifacts folder and a cache give the results of separate fits."""
    names = ("left", "right", "third")[: scaled(quick=2, full=3)]
    for process in [fit(workplace, name) for name in names]:
        assert process.end() == 0, process.messages()
    for name in names:
        assert outcome(workplace, name) == undisturbed


def test_second_fit_of_fold_is_refused(workplace, undisturbed):
    """While the first fit runs, a second one is refused, with any flags, and changes nothing."""
    first = fit_to(workplace, "shared", 2)
    for flags in ([], ["--resume"], ["--overwrite"]):
        second = fit(workplace, "shared", *flags)
        assert second.end() == 2
        assert f"locked by process {first.id} " in second.messages()
        assert "Traceback" not in second.messages()
    first.send(signal.SIGCONT)
    assert first.end() == 0
    assert outcome(workplace, "shared") == undisturbed
    again = tiewise(workplace, "fit", *FLAGS, "--run", "shared", "--resume")
    assert again.end() == 0
    assert "nothing to do" in again.messages()
