"""What watches a fit: signals, the history file, the progress bar. A leaf: imports torch."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import Any

import torch
import transformers

from tiewise.console import progress_bar
from tiewise.files import write_bytes
from tiewise.training.steps import StepDataset

_SAME_WISH_SECONDS = 2.0


class StopOnSignal(transformers.TrainerCallback):
    """Saves and stops at the next optimiser step after SIGTERM or SIGINT.

    A signal that comes again at once is the same wish, passed on by a launcher as well as by the
    shell or the scheduler; one that comes later means that nobody wants to wait.

    Attributes
    ----------
    received
        The signal's number, or None.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._since = 0.0
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> StopOnSignal:
        for number in (signal.SIGTERM, signal.SIGINT):
            self._previous[number] = signal.signal(number, self._remember)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Ask for a checkpoint and an end, once every process knows of the signal."""
        if self._is_asked(args):
            control.should_save = control.should_training_stop = True

    def _remember(self, number: int, _frame: Any) -> None:
        now = time.monotonic()
        if self.received is None:
            self.received, self._since = number, now
        elif now - self._since > _SAME_WISH_SECONDS:
            raise KeyboardInterrupt

    def _is_asked(self, args: Any) -> bool:
        if args.world_size > 1:
            number = torch.tensor(self.received or 0, device=args.device)
            torch.distributed.all_reduce(number, torch.distributed.ReduceOp.MAX)
            self.received = int(number) or None
        return self.received is not None


class History(transformers.TrainerCallback):
    """A JSON line per logged step: step, loss, grad_norm, learning_rate, rows, tokens.

    ``rows`` and ``tokens`` count what the steps since the line before held, over all processes.
    """

    def __init__(self, path: Path, dataset: StepDataset) -> None:
        self.path, self.dataset = path, dataset
        self._last_step = 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Keep the lines of the steps that stand, drop those after the checkpoint resumed from."""
        if not state.is_world_process_zero:
            return
        lines = self.path.read_bytes().splitlines() if self.path.is_file() else []
        kept = [line for line in lines if _step_of_line(line) <= state.global_step]
        write_bytes(self.path, b"".join(line + b"\n" for line in kept))
        self._last_step = int(_step_of_line(kept[-1])) if kept else 0

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Log the last step, whether or not its number is round."""
        if state.global_step == state.max_steps:
            control.should_log = True

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        """Append a line."""
        if not state.is_world_process_zero or "loss" not in logs:
            return
        rows = [self.dataset.rows_of(k) for k in range(self._last_step, state.global_step)]
        lengths = self.dataset.examples.rows.lengths
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
    """A progress bar on standard error, silent where nobody looks."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Draw the bar."""
        self.bar = progress_bar(state.max_steps, name="fit", unit="step", initial=state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Move it on."""
        self.bar.update()

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        """Show the loss."""
        if "loss" in logs:
            self.bar.set_postfix(loss=f"{logs['loss']:.4f}")

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Leave the line."""
        self.bar.close()


def _step_of_line(line: bytes) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")
