"""Callbacks of the Trainer: stop on a signal, write the history, show progress."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import Any

import torch
import transformers

from tiewise.console import FoldClock, progress_bar
from tiewise.files import write_bytes
from tiewise.training.steps import StepDataset

_REPEAT_SECONDS = 2.0


class StopOnSignal(transformers.TrainerCallback):
    """Save a checkpoint and stop after the current step on SIGTERM or SIGINT.

    A launcher and the shell or scheduler may both send the signal, so a repetition within two
    seconds is ignored. A later repetition stops at once. `received` is the number of the signal, or
    None. The handlers stay after an error that ends a launch of several processes, and after a
    signal: another SIGTERM, as of a launcher, would end the process before it has said why it ends.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._since = 0.0
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> StopOnSignal:
        for number in (signal.SIGTERM, signal.SIGINT):
            self._previous[number] = signal.signal(number, self._remember)
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        is_ending = self.received is not None or torch.distributed.is_initialized()
        if kind is not None and is_ending:
            return
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Request a checkpoint and the end of training, on all processes in the same step."""
        if self._is_requested(args):
            control.should_save = control.should_training_stop = True

    def _remember(self, number: int, _frame: Any) -> None:
        now = time.monotonic()
        if self.received is None:
            self.received, self._since = number, now
        elif now - self._since > _REPEAT_SECONDS:
            raise KeyboardInterrupt

    def _is_requested(self, args: Any) -> bool:
        if args.world_size > 1:
            number = torch.tensor(self.received or 0, device=args.device)
            torch.distributed.all_reduce(number, torch.distributed.ReduceOp.MAX)
            self.received = int(number) or None
        return self.received is not None


class History(transformers.TrainerCallback):
    """Write a JSON line per logged step: step, loss, grad_norm, learning_rate, rows, tokens.

    ``rows`` and ``tokens`` are counts over the steps since the previous line and all processes.
    """

    def __init__(self, path: Path, steps: StepDataset) -> None:
        self.path, self.steps = path, steps
        self._last_step = 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Delete the lines of steps after the checkpoint that training resumes from."""
        if not state.is_world_process_zero:
            return
        lines = self.path.read_bytes().splitlines() if self.path.is_file() else []
        kept = [line for line in lines if _step_of_line(line) <= state.global_step]
        write_bytes(self.path, b"".join(line + b"\n" for line in kept))
        self._last_step = int(_step_of_line(kept[-1])) if kept else 0

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Log the last step even if its number is not a multiple of `log_steps`."""
        if state.global_step == state.max_steps:
            control.should_log = True

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        """Append a line."""
        if not state.is_world_process_zero or "loss" not in logs:
            return
        rows = [self.steps.rows_of(k) for k in range(self._last_step, state.global_step)]
        lengths = self.steps.examples.rows.lengths
        line = {
            "step": state.global_step,
            **{key: float(logs[key]) for key in ("loss", "grad_norm", "learning_rate")},
            "rows": sum(len(of_step) for of_step in rows),
            "tokens": int(sum(lengths[of_step].sum() for of_step in rows)),
        }
        self._last_step = state.global_step
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


class Progress(transformers.TrainerCallback):
    """Show a progress bar on standard error, and log the time left.

    See :func:`tiewise.console.progress_bar` and :class:`tiewise.console.FoldClock`. All steps
    together are `training_share` of the fold; scoring the held-out pairs is the rest.
    """

    def __init__(self, clock: FoldClock, training_share: float = 1.0) -> None:
        self.clock, self.training_share = clock, training_share
        self._has_begun = False

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Open the bar."""
        self.bar = progress_bar(state.max_steps, name="fit", unit="step", initial=state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Advance the bar and the clock; the first step is not measured, it can be slower."""
        self.bar.update()
        share = self.training_share * state.global_step / state.max_steps
        if self._has_begun:
            self.clock.update(share)
        else:
            self.clock.begin(share)
            self._has_begun = True

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        """Show the loss."""
        if "loss" in logs:
            self.bar.set_postfix(loss=f"{logs['loss']:.4f}")

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Close the bar."""
        self.bar.close()


def _step_of_line(line: bytes) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")
