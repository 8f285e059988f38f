"""Subclass of transformers' Trainer whose steps do not depend on the micro-batches.

- One item of the data loader is one optimiser step. Its rows are split into micro-batches under a
  token budget; the loss is the weighted sum over the rows divided by the weight of the step. So the
  gradient does not depend on layout, number of micro-batches or number of processes, except
  through the masks of dropout.
- The random state of a step is derived from (seed, step, process). None is saved, and a resumed fit
  draws the same numbers as an uninterrupted one.
- A checkpoint contains safetensors and JSON, with a manifest (:mod:`tiewise.runs.checkpoints`).
- A loss or gradient that is not finite stops the fit, and the message names the rows. When memory
  runs out in a single process, micro-batches are halved and the step is repeated with the same
  rows.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from operator import itemgetter
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
from tiewise.models.attention import collate
from tiewise.models.model import PairClassifier
from tiewise.models.state import (
    gather,
    load_trainable_weights,
    load_tree,
    save_tree,
    shard_optimizer_state,
    trainable_weights,
)
from tiewise.runs import checkpoints
from tiewise.training.steps import Step, StepDataset

N_CHECKPOINTS = 2
"""Number of checkpoints that are kept, the newest ones."""
_STATE = "state"
_TRAINER_STATE = "trainer_state.json"
_MAX_IDS = 5
_log = logging.getLogger(__name__)


class StepTrainer(transformers.Trainer):
    """Train a :class:`~tiewise.models.model.PairClassifier` in place, step by step.

    `fit_digest`, the SHA-256 of the fingerprint of the fit, is written into every checkpoint.
    """

    def __init__(
        self,
        classifier: PairClassifier,
        steps: StepDataset,
        train_config: TrainConfig,
        arguments: transformers.TrainingArguments,
        callbacks: list[transformers.TrainerCallback],
        *,
        fit_digest: str = "",
    ) -> None:
        self.classifier, self.steps, self.train_config = classifier, steps, train_config
        self.fit_digest = fit_digest
        self._losses: list[float] = []  # of the steps since the last line of history
        super().__init__(model=classifier, args=arguments, train_dataset=steps, callbacks=callbacks)
        check_fsdp(getattr(self.accelerator.state, "fsdp_plugin", None), is_scaled=arguments.fp16)
        self.remove_callback(transformers.PrinterCallback)
        self._keep_tracking(Path(str(arguments.output_dir)).parent / "tracking")

    def _keep_tracking(self, folder: Path) -> None:
        """Make TensorBoard write outside the checkpoints, which are deleted at the end."""
        for callback in self.callback_handler.callbacks:
            if isinstance(callback, TensorBoardCallback) and callback.logging_dir is None:
                callback.logging_dir = str(folder)

    # ---- steps ----------------------------------------------------------------------------

    def get_train_dataloader(self) -> DataLoader[Step]:
        """Return the steps one by one, in order; a step already is the share of this process."""
        return DataLoader(self.steps, batch_size=1, shuffle=False, collate_fn=itemgetter(0))

    def get_batch_samples(
        self, epoch_iterator: Iterator[Step], num_batches: int, device: torch.device
    ) -> tuple[list[Step], None]:
        """Return the next step; it carries its own divisor in place of a number of items."""
        return [next(epoch_iterator) for _ in range(num_batches)], None

    def training_step(  # type: ignore[override]
        self, model: torch.nn.Module, inputs: Step, num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """Run one step forward and backward; return its mean loss, estimated by this process."""
        model.train()
        step, loss = inputs, None
        while loss is None:
            self._seed_step()
            with contextlib.suppress(torch.OutOfMemoryError):
                loss = self._accumulate(model, step)
            if loss is None:  # outside the block, where the tensors of the failed pass are freed
                step = self._halve_micro_batches(model)
        self._losses.append(float(self.accelerator.reduce(loss.double(), "mean")))
        return loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log the mean loss in double precision; that of the Trainer is rounded to single."""
        if "loss" in logs:
            logs["loss"] = float(np.mean(self._losses))
            self._losses = []
        super().log(logs, start_time)

    def floating_point_ops(self, inputs: Step) -> int:  # type: ignore[override]
        """Return 0; the Trainer's own count expects a dictionary of tensors."""
        return 0

    def _accumulate(self, model: torch.nn.Module, step: Step) -> torch.Tensor:
        # Processes average their gradients; the world size turns the average into the sum.
        losses, factor = [], self.args.world_size / step.weight
        for position, rows in enumerate(step.micro_batches):
            is_last = position == len(step.micro_batches) - 1
            # Only the last backward pass of a step exchanges gradients between processes.
            # `accumulate`, accelerate's public way, counts batches instead.
            state = self.accelerator.gradient_state
            state._set_sync_gradients(is_last)  # noqa: SLF001 - accelerate 1.15 has no other
            with contextlib.nullcontext() if is_last else self.accelerator.no_sync(model):
                of_rows = self._row_losses(model, rows, is_idle=step.is_idle(position))
                self.accelerator.backward(of_rows.sum() * factor)
            losses.append(of_rows.detach())
        self._check_finite(torch.cat(losses), np.concatenate(step.micro_batches))
        total: torch.Tensor = torch.cat(losses).sum() * factor
        return total

    def _row_losses(
        self, model: torch.nn.Module, rows: npt.NDArray[np.int64], *, is_idle: bool
    ) -> torch.Tensor:
        """Return the weighted losses of the rows of a micro-batch; zeros if it is idle."""
        examples, device = self.steps.examples, self.args.device
        batch = collate(
            examples.rows, rows, layout=self.steps.layout, pad_id=examples.pad_id, device=device
        )
        # The flag of transformers would, under FSDP, lower the precision of the head too.
        with self.classifier.autocast():
            logits = model(batch)
        targets = {
            name: torch.from_numpy(part[rows]).to(device, logits.dtype)
            for name, part in vars(examples.targets).items()
        }
        weights = targets.pop("weights")
        losses = row_losses(logits, **targets) * weights
        return losses * 0.0 if is_idle else losses

    def _seed_step(self) -> None:
        key = (self.train_config.seed, self.state.global_step, self.args.process_index)
        torch.manual_seed(int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> 1))

    # ---- values that are not finite, and memory -------------------------------------------

    def _check_finite(self, losses: torch.Tensor, rows: npt.NDArray[np.int64]) -> None:
        is_finite = torch.isfinite(losses)
        if bool(is_finite.all()):
            return
        bad = rows[~is_finite.cpu().numpy()]
        raise NumericsError(
            f"step {self.state.global_step + 1}: the loss of {len(bad)} rows is not finite "
            f"({self._list_ids(bad)}). Check these rows, or start a new fit with a lower "
            "--learning-rate."
        )

    def _clip_grad_norm(self, model: torch.nn.Module) -> Any:
        norm = super()._clip_grad_norm(model)  # type: ignore[no-untyped-call]
        # With a gradient scaler (fp16) an infinite gradient is expected: the step is skipped.
        if self.accelerator.scaler is None and norm is not None and not np.isfinite(float(norm)):
            rows = self.steps.rows_of(self.state.global_step)
            raise NumericsError(
                f"step {self.state.global_step + 1}: the norm of the gradient is {float(norm)} "
                f"over {len(rows)} rows ({self._list_ids(rows)}). Check these rows, or start "
                "a new fit with a lower --learning-rate or --max-grad-norm."
            )
        return norm

    def _list_ids(self, rows: npt.NDArray[np.int64]) -> str:
        names = [f"id={self.steps.examples.ids[row]}" for row in rows[:_MAX_IDS]]
        return ", ".join(names + ["…"] * (len(rows) > _MAX_IDS))

    def _halve_micro_batches(self, model: torch.nn.Module) -> Step:
        """Free memory and return the step again, with half the tokens in a micro-batch."""
        index = self.state.global_step
        if not self._can_halve(index):
            raise self._out_of_memory(index)
        model.zero_grad()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        self.steps.micro_batch_tokens //= 2
        _log.warning(
            "step %d: out of memory; micro-batches now hold %d tokens. Steps keep their rows.",
            index + 1,
            self.steps.micro_batch_tokens,
        )
        return self.steps[index]

    def _can_halve(self, index: int) -> bool:
        """Return whether one process computes the step, in a micro-batch of two rows or more."""
        if self.args.world_size > 1:
            return False
        return any(len(rows) > 1 for rows in self.steps[index].micro_batches)

    def _out_of_memory(self, index: int) -> RunError:
        return RunError(
            f"step {index + 1}: out of memory with micro-batches of "
            f"{self.steps.micro_batch_tokens} tokens. Lower --micro-batch-tokens, or use "
            "--checkpointing trainable, and continue with --resume; or start a new fit with a "
            "lower --max-length."
        )

    # ---- optimiser and checkpoints --------------------------------------------------------
    # The overridden methods with a leading underscore are those of transformers 5; it has no public
    # hook for the format of a checkpoint.

    def create_optimizer(self, model: torch.nn.Module | None = None) -> torch.optim.Optimizer:
        """Build the configured optimiser on the parameter groups of the classifier."""
        if self.optimizer is None:
            try:
                kind, options = self.get_optimizer_cls_and_kwargs(self.args)
            except (ImportError, ValueError) as error:
                name = self.train_config.optimizer
                raise ConfigError(f"--optimizer {name}: {error}") from error
            self.optimizer = kind(self.classifier.parameter_groups(self.train_config), **options)
        return self.optimizer

    def _state_tree(self) -> dict[str, Any]:
        parts = {
            "optimizer": self.optimizer,
            "scheduler": self.lr_scheduler,
            "scaler": self.accelerator.scaler,
        }
        states = {name: part and part.state_dict() for name, part in parts.items()}
        # The losses since the last line of history; the next line needs them after a resume.
        return {"weights": trainable_weights(self.classifier), "losses": self._losses, **states}

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        tree = gather(self._state_tree())
        if not self.args.should_save:
            return
        folder = Path(str(self.args.output_dir))
        step = self.state.global_step
        with checkpoints.new_checkpoint(folder, step, fit=self.fit_digest) as checkpoint:
            save_tree(checkpoint / _STATE, tree)
            self.state.save_to_json(str(checkpoint / _TRAINER_STATE))
        checkpoints.keep_newest(folder, N_CHECKPOINTS, step=step)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        self._resumed_state = load_tree(Path(resume_from_checkpoint) / _STATE)
        load_trainable_weights(self.classifier, self._resumed_state["weights"])
        self._losses = self._resumed_state["losses"]

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            super()._load_optimizer_and_scheduler(checkpoint)
            return
        optimizer, scheduler = self.optimizer, self.lr_scheduler
        assert optimizer is not None  # noqa: S101 - for mypy; the Trainer has built both
        assert scheduler is not None  # noqa: S101
        optimizer.load_state_dict(
            shard_optimizer_state(self._resumed_state["optimizer"], optimizer)
        )
        scheduler.load_state_dict(self._resumed_state["scheduler"])

    def _load_scaler(self, checkpoint: str | None) -> None:
        if checkpoint is not None and self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(self._resumed_state["scaler"])

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """Do nothing: each step derives its own random state."""


def check_fsdp(plugin: Any, *, is_scaled: bool) -> None:
    """Refuse FSDP 1, which flattens weights, and mixed precision, which casts weights and head."""
    is_supported = plugin is None or (
        plugin.fsdp_version == 2 and plugin.mixed_precision_policy is None and not is_scaled
    )
    if not is_supported:
        raise ConfigError(
            "The FSDP settings of accelerate are not supported; expected fsdp_version: 2 and "
            "mixed_precision: 'no'. Set them in accelerate's file, and choose the dtype with "
            "--dtype bfloat16 or float32."
        )


def row_losses(
    logits: torch.Tensor,
    probs: torch.Tensor,
    *,
    binary_fraction: torch.Tensor,
    target_entropy: torch.Tensor,
) -> torch.Tensor:
    """Return the loss of each row in nats, shape (n,), for logits (n, 3) of A, B, tie.

    The other arguments are the parts of :class:`tiewise.data.targets.Targets` as tensors of the
    same dtype. In the share `binary_fraction` of a row the loss is normalised over A and B only,
    and the logit of the tie gets no gradient. `target_entropy` is subtracted.

    >>> logits, target = torch.tensor([[0.0, 0.0, 9.0]]), torch.tensor([[1.0, 0.0, 0.0]])
    >>> row_losses(logits, target, binary_fraction=torch.ones(1), target_entropy=torch.zeros(1))
    tensor([0.6931])
    """
    shifted = logits - logits.amax(dim=1, keepdim=True).detach()
    three_way, two_way = shifted.logsumexp(1), shifted[:, :2].logsumexp(1)
    total = (1 - binary_fraction) * three_way + binary_fraction * two_way
    return total - (probs * shifted).sum(1) - target_entropy
