"""Find the places where a save can be interrupted, in a forked process."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from faults import FLAGS, cut_short
from tiewise.runs import checkpoints
from tiewise.runs.manifest import MANIFEST

STEP = 6
"""The save under test: the checkpoints of steps 2 and 4 stand, and that of step 2 has to go."""


class Enough(BaseException):
    """All trials were made."""


def cut_saves(run: str, report_path: Path, stride: int) -> None:
    """Fit as far as the save of STEP, and there try every system call."""
    from tiewise.cli import main
    from tiewise.training.trainer import StepTrainer

    save = StepTrainer._save_checkpoint

    def try_every_call(self, model, trial):
        if self.state.global_step < STEP:
            return save(self, model, trial)
        folder = Path(self.args.output_dir)
        trials = list(trials_of(folder, self.fit_digest, lambda: save(self, model, trial), stride))
        report_path.write_text(json.dumps(trials))
        raise Enough

    StepTrainer._save_checkpoint = try_every_call
    try:
        main(["fit", *FLAGS, "--run", run])
    except Enough:
        return
    message = "the save was never reached"
    raise AssertionError(message)


def trials_of(
    folder: Path, name: str, save: Callable[[], None], stride: int
) -> Iterator[tuple[str, int, int | None]]:
    """Yield (call, exit status, step of the newest intact checkpoint) for each call killed."""
    before, kept = folder.with_name("before"), folder.with_name("kept")
    shutil.copytree(folder, before)
    status, calls = cut_short(save, None)
    assert status == 0
    assert checkpoints.step_of(checkpoints.newest_intact(folder, fit=name)) == STEP
    whole = {path.name: sealed(path) for path in [*folder.iterdir(), *before.iterdir()]}
    for number, call in enumerate(calls[::stride]):
        shutil.rmtree(folder)
        shutil.copytree(before, folder)
        status, _ = cut_short(save, call)
        newest = checkpoints.newest_intact(folder, fit=name)
        assert newest is not None, call
        assert sealed(newest) == whole[newest.name], call
        shutil.copytree(folder, kept / str(number))
        yield f"{call[0]} {call[1]}", status, checkpoints.step_of(newest)


def sealed(checkpoint: Path) -> str:
    """Return what a checkpoint's manifest says of its files."""
    return json.loads((checkpoint / MANIFEST).read_bytes())["sha256"]
