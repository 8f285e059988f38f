"""A save that is cut short anywhere leaves a checkpoint, and the fit that goes on is the same.

The process that saves is killed as it enters its first system call, its second, and so on to its
last, by strace; after each the newest intact checkpoint must be, to the bit, the one before or the
one that was being written.
"""

from __future__ import annotations

import json
import shutil

import pytest

from cut_saves import STEP, cut_saves
from faults import Forked, copy_run, fit, fold_of, n_resumed, outcome, scaled

pytestmark = pytest.mark.timeout(3600)

STRIDE = scaled(quick=13, full=1)
N_RESUMED = n_resumed(quick=1, full=25)


@pytest.fixture(scope="module")
def trials(workplace):
    """Kill a save at its system calls; each trial is (call, exit status, newest intact step)."""
    report_path = workplace / "trials.json"
    cutter = Forked(workplace, cut_saves, "cut", report_path, STRIDE)
    assert cutter.end(3000) == 0, cutter.messages()
    return json.loads(report_path.read_bytes())


def test_a_save_killed_at_any_call_leaves_a_whole_checkpoint(trials):
    """The checkpoint is the old or the new one, bit for bit; once the new one exists, it stays."""
    print(f"{len(trials)} kills in one save")  # noqa: T201 - the campaign's count
    assert {status for _, status, _ in trials} == {-9}
    steps = [step for _, _, step in trials]
    assert set(steps) == {STEP - 2, STEP}
    assert steps == sorted(steps)


def test_the_fit_that_goes_on_after_a_cut_save_is_the_same(workplace, undisturbed, trials):
    """Resumed, it ends with the adapter, predictions and history of the undisturbed fit."""
    chosen = range(0, len(trials), max(1, len(trials) // N_RESUMED))
    for number in chosen:
        run = f"cut{number}"
        fold = copy_run(workplace, "cut", run)
        shutil.rmtree(fold.checkpoints_dir)
        shutil.copytree(fold_of(workplace, "cut").path / "kept" / str(number), fold.checkpoints_dir)
        resumed = fit(workplace, run, "--resume")
        assert resumed.end() == 0, resumed.messages()
        assert "resuming from" in resumed.messages()
        assert outcome(workplace, run) == undisturbed, trials[number]
    print(f"{len(chosen)} of them resumed, bit-identical")  # noqa: T201
