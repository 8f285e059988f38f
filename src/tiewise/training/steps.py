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

from tiewise.config import TrainConfig
from tiewise.tokens.batches import Layout, StepRows, plan_step
from tiewise.training.examples import Examples


@dataclass(frozen=True)
class Step:
    """One process's share of an optimiser step."""

    micro_batches: list[npt.NDArray[np.int64]]
    n_idle: int
    """How many micro-batches, the last ones, weigh nothing: other processes have more of them."""
    weight: float
    """What the step's losses are divided by: its rows, over all processes, times the mean weight of
    all rows of the fit. So a row of weight 2 counts as two rows, whatever it shares a step with."""

    def is_idle(self, position: int) -> bool:
        """Tell whether a micro-batch only keeps pace."""
        return position >= len(self.micro_batches) - self.n_idle


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
        self._mean_weight = float(examples.targets.weights.mean()) or 1.0

    def __len__(self) -> int:
        return len(self.steps)

    def __getitem__(self, index: int) -> Step:
        rows = self.rows_of(index)
        lengths = self.examples.rows.lengths[rows]
        plans = plan_step(
            lengths,
            micro_batch_tokens=self.micro_batch_tokens,
            n_micro_batches=self.config.n_micro_batches,
            layout=self.layout,
            n_processes=self.n_processes,
        )
        own = [rows[positions] for positions in plans[self.process_index]]
        # Processes that share weights meet in every forward pass, so all run equally many.
        n_idle = max(map(len, plans)) - len(own)
        shortest = rows[[int(lengths.argmin())]]
        return Step(own + [shortest] * n_idle, n_idle, len(rows) * self._mean_weight)

    def rows_of(self, index: int) -> npt.NDArray[np.int64]:
        """Return the rows of a step, over all processes, in the order they were drawn."""
        pairs = self.steps[index]
        if not self.config.both_orders:
            return pairs
        return np.concatenate([pairs, pairs + len(self.examples.ids) // 2])
