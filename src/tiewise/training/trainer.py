"""transformers' Trainer, made exact. A leaf: imports torch.

What differs from the Trainer as it comes, and why:

- One item of the data loader is one optimiser step. Inside it the rows are split into micro-batches
  under a token budget; the loss is the weighted sum over the step's rows divided by the step's
  weight, so layout, number of micro-batches and number of processes cannot change the gradient.
- The random state of a step is derived from (seed, step, process), so none has to be saved, and a
  resumed run draws what the uninterrupted one would have drawn.
- A checkpoint holds safetensors and JSON, sealed by a manifest (:mod:`tiewise.runs.checkpoints`).
- A loss or gradient that is not finite stops the run at once and names the rows; running out of
  memory halves the micro-batch and repeats the step, with the same rows.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import transformers
from torch.utils.data import DataLoader
from transformers.integrations.integration_utils import TensorBoardCallback

from tiewise.config import TrainConfig
from tiewise.errors import ConfigError, NumericsError, RunError
from tiewise.models.model import PairClassifier
from tiewise.models.state import (
    check_fsdp,
    gather,
    load_trainable_weights,
    load_tree,
    save_tree,
    shard_optimizer_state,
    trainable_weights,
)
from tiewise.runs import checkpoints
from tiewise.training.losses import weighted_losses
from tiewise.training.steps import Step, StepDataset

_STATE = "state"
_TRAINER_STATE = "trainer_state.json"
_SHOWN = 5
N_CHECKPOINTS = 2
"""Newest checkpoints that are kept."""
_log = logging.getLogger(__name__)


class StepTrainer(transformers.Trainer):
    """Fits a :class:`~tiewise.models.model.PairClassifier` step by step.

    Parameters
    ----------
    model
        The classifier.
    dataset
        The steps.
    config
        How the fit goes.
    arguments
        What transformers needs to know, from :mod:`tiewise.training.trainer_arguments`.
    callbacks
        Called by transformers as usual.
    fit
        Digest of the fit's identity, written into every checkpoint.
    """

    def __init__(
        self,
        model: PairClassifier,
        dataset: StepDataset,
        config: TrainConfig,
        arguments: transformers.TrainingArguments,
        callbacks: list[transformers.TrainerCallback],
        *,
        fit: str = "",
    ) -> None:
        self.train_config, self.steps, self.classifier = config, dataset, model
        self.fit = fit
        self._losses: list[float] = []  # of the steps since the last line of history
        super().__init__(model=model, args=arguments, train_dataset=dataset, callbacks=callbacks)
        check_fsdp(getattr(self.accelerator.state, "fsdp_plugin", None), is_scaled=arguments.fp16)
        self.remove_callback(transformers.PrinterCallback)
        self._keep_tracking(Path(str(arguments.output_dir)).parent / "tracking")

    def _keep_tracking(self, folder: Path) -> None:
        """Let TensorBoard write beside the checkpoints, which go when the fold is finished."""
        for callback in self.callback_handler.callbacks:
            if isinstance(callback, TensorBoardCallback) and callback.logging_dir is None:
                callback.logging_dir = str(folder)

    # ---- what a step is -------------------------------------------------------------------

    def get_train_dataloader(self) -> DataLoader[Step]:
        """Return the steps one by one, in order; each process already knows its share."""
        return DataLoader(self.steps, batch_size=1, shuffle=False, collate_fn=_only_item)

    def get_batch_samples(
        self, epoch_iterator: Iterator[Step], num_batches: int, device: torch.device
    ) -> tuple[list[Step], None]:
        """Return the next step; how it is normalised is its own affair."""
        return [next(epoch_iterator) for _ in range(num_batches)], None

    def training_step(  # type: ignore[override]
        self, model: torch.nn.Module, inputs: Step, num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """Run one step forward and backward; return its mean loss as this process saw it."""
        model.train()
        step, loss = inputs, None
        while loss is None:
            self._seed_step()
            with contextlib.suppress(torch.OutOfMemoryError):
                loss = self._accumulate(model, step)
            if loss is None:  # only here has what was computed so far let go of its memory
                step = self._halve_micro_batches(model)
        self._losses.append(float(self.accelerator.reduce(loss.double(), "mean")))
        return loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log the mean loss in double precision; the Trainer's own is rounded to single."""
        if "loss" in logs:
            logs["loss"] = float(np.mean(self._losses))
            self._losses = []
        super().log(logs, start_time)

    def floating_point_ops(self, inputs: Step) -> int:  # type: ignore[override]
        """Count nothing: a step is no dictionary of tensors."""
        return 0

    def _accumulate(self, model: torch.nn.Module, step: Step) -> torch.Tensor:
        losses = []
        for position, rows in enumerate(step.micro_batches):
            is_last = position == len(step.micro_batches) - 1
            # Only the last backward of a step exchanges gradients between processes.
            self.accelerator.gradient_state._set_sync_gradients(is_last)
            with contextlib.nullcontext() if is_last else self.accelerator.no_sync(model):
                row_losses = self._row_losses(model, rows, is_idle=step.is_idle(position))
                # Processes average their gradients; the factor turns the average into the sum.
                share = row_losses.sum() * (self.args.world_size / step.weight)
                self.accelerator.backward(share)
            losses.append(row_losses.detach())
        self._check_finite(torch.cat(losses), np.concatenate(step.micro_batches))
        total: torch.Tensor = torch.cat(losses).sum() * (self.args.world_size / step.weight)
        return total

    def _row_losses(
        self, model: torch.nn.Module, rows: npt.NDArray[np.int64], *, is_idle: bool
    ) -> torch.Tensor:
        losses = weighted_losses(model, self.classifier, self.steps, rows, self.args.device)
        return losses * 0.0 if is_idle else losses

    def _seed_step(self) -> None:
        key = (self.train_config.seed, self.state.global_step, self.args.process_index)
        torch.manual_seed(int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> 1))

    # ---- what must not go on --------------------------------------------------------------

    def _check_finite(self, losses: torch.Tensor, rows: npt.NDArray[np.int64]) -> None:
        is_finite = torch.isfinite(losses)
        if bool(is_finite.all()):
            return
        bad = rows[~is_finite.cpu().numpy()]
        raise NumericsError(
            f"step {self.state.global_step + 1}: the loss of {len(bad)} rows is not finite "
            f"({self._named(bad)}). The last checkpoint is intact. Lower --learning-rate, or look "
            "at the rows."
        )

    def _clip_grad_norm(self, model: torch.nn.Module) -> Any:
        norm = super()._clip_grad_norm(model)  # type: ignore[no-untyped-call]
        # With a gradient scaler (fp16) an infinite gradient is expected: the step is skipped.
        if self.accelerator.scaler is None and norm is not None and not np.isfinite(float(norm)):
            rows = self.steps.rows_of(self.state.global_step)
            raise NumericsError(
                f"step {self.state.global_step + 1}: the gradient's norm is {float(norm)}, summed "
                f"over its {len(rows)} rows ({self._named(rows)}). The last checkpoint is intact. "
                "Lower --learning-rate or --max-grad-norm, or look at the rows."
            )
        return norm

    def _named(self, rows: npt.NDArray[np.int64]) -> str:
        names = [f"id={self.steps.examples.ids[row]}" for row in rows[:_SHOWN]]
        return ", ".join(names + ["…"] * (len(rows) > _SHOWN))

    def _halve_micro_batches(self, model: torch.nn.Module) -> Step:
        """Make room after running out of memory: half the tokens a micro-batch, the same rows."""
        index, n_pieces = self.state.global_step, self.train_config.n_micro_batches
        largest = max(len(rows) for rows in self.steps[index].micro_batches)
        if n_pieces or self.args.world_size > 1 or largest == 1:
            if n_pieces:
                tried, mend = f"{n_pieces} micro-batches", "Raise --n-micro-batches"
            else:
                tried = f"micro-batches of {self.steps.micro_batch_tokens} tokens"
                mend = "Lower --micro-batch-tokens"
            raise RunError(
                f"step {index + 1}: out of memory with {tried}. {mend}, lower --max-length, or "
                "give --checkpointing trainable. The last checkpoint is intact: --resume goes on."
            )
        model.zero_grad()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        self.steps.micro_batch_tokens //= 2
        _log.warning(
            "step %d: out of memory; micro-batches now hold %d tokens. The rows of a step stay.",
            index + 1,
            self.steps.micro_batch_tokens,
        )
        return self.steps[index]

    # ---- optimiser and checkpoints --------------------------------------------------------

    def create_optimizer(self, model: torch.nn.Module | None = None) -> torch.optim.Optimizer:
        """Build the named optimiser on the classifier's own parameter groups."""
        if self.optimizer is None:
            try:
                kind, options = self.get_optimizer_cls_and_kwargs(self.args)
            except (ImportError, ValueError) as error:
                name = self.train_config.optimizer
                raise ConfigError(f"--optimizer {name}: {error}") from error
            self.optimizer = kind(self.classifier.parameter_groups(self.train_config), **options)
        return self.optimizer

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        tree = gather(self._state_tree())
        if not self.args.should_save:
            return
        folder = Path(str(self.args.output_dir))
        step = self.state.global_step
        with checkpoints.new_checkpoint(folder, step, fit=self.fit) as checkpoint:
            save_tree(checkpoint / _STATE, tree)
            self.state.save_to_json(str(checkpoint / _TRAINER_STATE))
        checkpoints.keep_newest(folder, N_CHECKPOINTS, step=step)

    def _state_tree(self) -> dict[str, Any]:
        parts = {
            "optimizer": self.optimizer,
            "scheduler": self.lr_scheduler,
            "scaler": self.accelerator.scaler,
        }
        states = {name: part and part.state_dict() for name, part in parts.items()}
        # A line of history that was begun before the checkpoint is finished after it.
        return {"weights": trainable_weights(self.classifier), "losses": self._losses, **states}

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        self._resumed_state = load_tree(Path(resume_from_checkpoint) / _STATE)
        load_trainable_weights(self.classifier, self._resumed_state["weights"])
        self._losses = self._resumed_state["losses"]

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            super()._load_optimizer_and_scheduler(checkpoint)
            return
        optimizer, scheduler = self.optimizer, self.lr_scheduler
        assert optimizer is not None and scheduler is not None, "the Trainer built none"  # noqa: S101, PT018
        optimizer.load_state_dict(
            shard_optimizer_state(self._resumed_state["optimizer"], optimizer)
        )
        scheduler.load_state_dict(self._resumed_state["scheduler"])

    def _load_scaler(self, checkpoint: str | None) -> None:
        if checkpoint is not None and self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(self._resumed_state["scaler"])

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """Nothing to load: each step derives its own."""


def _only_item(items: list[Step]) -> Step:
    return items[0]
