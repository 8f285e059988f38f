"""One item of the data loader is one optimiser step. A leaf: imports torch.

Which rows a step holds follows from its number, the seed and the batch size alone; how they are
laid out in micro-batches and dealt to processes follows from their lengths. So a step can be
computed anywhere, in any layout, after any interruption, and is the same step.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch.utils.data import Dataset

from tiewise.batches import Layout, StepRows, plan_step
from tiewise.config import TrainConfig
from tiewise.examples import Examples


@dataclass(frozen=True)
class Step:
    """One process's share of an optimiser step."""

    micro_batches: list[npt.NDArray[np.int64]]
    weight: float
    """Sum of the weights of all rows of the step, over all processes."""
    is_idle: bool
    """The step has fewer rows than processes and none for this one: it takes part with weight 0."""


class StepDataset(Dataset[Step]):
    """Item k is optimiser step k: which rows, in which micro-batches, on this process."""

    def __init__(
        self,
        examples: Examples,
        steps: StepRows,
        config: TrainConfig,
        *,
        layout: Layout,
        pad_id: int,
        process_index: int = 0,
        n_processes: int = 1,
    ) -> None:
        self.examples, self.steps, self.config = examples, steps, config
        self.layout, self.pad_id = layout, pad_id
        self.process_index, self.n_processes = process_index, n_processes
        self.micro_batch_tokens = config.micro_batch_tokens

    def __len__(self) -> int:
        return len(self.steps)

    def __getitem__(self, index: int) -> Step:
        rows = self.rows_of(index)
        plan = plan_step(
            self.examples.rows.lengths[rows],
            micro_batch_tokens=self.micro_batch_tokens,
            n_micro_batches=self.config.n_micro_batches,
            layout=self.layout,
            n_processes=self.n_processes,
        )[self.process_index]
        weight = float(self.examples.weights[rows].sum(dtype=np.float64)) or 1.0
        micro_batches = [rows[positions] for positions in plan]
        return Step(micro_batches or [rows[:1]], weight, is_idle=not micro_batches)

    def rows_of(self, index: int) -> npt.NDArray[np.int64]:
        """Return the rows of a step, over all processes, in the order they were drawn."""
        pairs = self.steps[index]
        if not self.config.both_orders:
            return pairs
        return np.concatenate([pairs, pairs + len(self.examples.ids) // 2])
