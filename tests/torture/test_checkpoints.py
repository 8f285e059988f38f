"""A save that is killed at any point leaves an intact checkpoint, and the resumed fit is the same.

strace kills the saving process at its first system call, then at its second, and so on. After each
kill the newest intact checkpoint must equal the previous or the new one in every bit.
"""

from __future__ import annotations

import json
import shutil

import pytest

from faults import Forked, copy_run, fit, fold_of, n_resumed, outcome, scaled
from interrupted_saves import STEP, interrupt_save

pytestmark = pytest.mark.timeout(3600)

STRIDE = scaled(quick=13, full=1)
N_RESUMED = n_resumed(quick=1, full=25)


@pytest.fixture(scope="module")
def trials(workplace):
    """Kill a save at its system calls; each trial is (call, exit status, newest intact step)."""
    report_path = workplace / "trials.json"
    cutter = Forked(workplace, interrupt_save, "cut", report_path, STRIDE)
    assert cutter.end(3000) == 0, cutter.messages()
    return json.loads(report_path.read_bytes())


def test_killed_save_leaves_intact_checkpoint(trials):
    """The checkpoint is the old or the new one in every bit; an intact new one stays."""
    print(f"{len(trials)} kills in one save")  # noqa: T201 - the campaign's count
    assert {status for _, status, _ in trials} == {-9}
    steps = [step for _, _, step in trials]
    assert set(steps) == {STEP - 2, STEP}
    assert steps == sorted(steps)


def test_fit_resumed_after_killed_save_is_equal(workplace, undisturbed, trials):
    """Adapter, predictions and history equal those of the uninterrupted fit."""
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
