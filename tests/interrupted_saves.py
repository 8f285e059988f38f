"""Kill the save of a checkpoint at each of its system calls, in a forked process."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from faults import FLAGS, kill_at
from tiewise.runs import checkpoints
from tiewise.runs.manifest import MANIFEST

STEP = 6
"""Step of the tested save: checkpoints of steps 2 and 4 exist, and that of step 2 is removed."""


class Finished(BaseException):
    """All trials are done."""


def interrupt_save(run: str, report_path: Path, stride: int) -> None:
    """Fit until the save of STEP, and kill it at every `stride`-th system call."""
    from tiewise.cli import main
    from tiewise.training.trainer import StepTrainer

    save = StepTrainer._save_checkpoint

    def try_every_call(self, model, trial):
        if self.state.global_step < STEP:
            return save(self, model, trial)
        folder = Path(self.args.output_dir)
        trials = list(
            kill_at_each_call(folder, self.fit_digest, lambda: save(self, model, trial), stride)
        )
        report_path.write_text(json.dumps(trials))
        raise Finished

    StepTrainer._save_checkpoint = try_every_call
    try:
        main(["fit", *FLAGS, "--run", run])
    except Finished:
        return
    message = "the save was never reached"
    raise AssertionError(message)


def kill_at_each_call(
    folder: Path, name: str, save: Callable[[], None], stride: int
) -> Iterator[tuple[str, int, int | None]]:
    """Yield (call, exit status, step of the newest intact checkpoint) for each call killed."""
    before, kept = folder.with_name("before"), folder.with_name("kept")
    shutil.copytree(folder, before)
    status, calls = kill_at(save, None)
    assert status == 0
    assert checkpoints.step_of(checkpoints.newest_intact(folder, fit=name)) == STEP
    intact = {path.name: read_digests(path) for path in [*folder.iterdir(), *before.iterdir()]}
    for number, call in enumerate(calls[::stride]):
        shutil.rmtree(folder)
        shutil.copytree(before, folder)
        status, _ = kill_at(save, call)
        newest = checkpoints.newest_intact(folder, fit=name)
        assert newest is not None, call
        assert read_digests(newest) == intact[newest.name], call
        shutil.copytree(folder, kept / str(number))
        yield f"{call[0]} {call[1]}", status, checkpoints.step_of(newest)


def read_digests(checkpoint: Path) -> str:
    """Return the digests in the manifest of a checkpoint."""
    return json.loads((checkpoint / MANIFEST).read_bytes())["sha256"]
