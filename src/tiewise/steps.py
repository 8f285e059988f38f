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
        micro_batches = self._plan_pairs(index) if self._keeps_pairs else self._plan_rows(rows)
        weight = float(self.examples.weights[rows].sum(dtype=np.float64)) or 1.0
        idle = self._both(self.steps[index][:1]) if self._keeps_pairs else rows[:1]
        return Step(micro_batches or [idle], weight, is_idle=not micro_batches)

    @property
    def smallest(self) -> int:
        """Rows that no micro-batch can be cut below."""
        return 2 if self._keeps_pairs else 1

    def rows_of(self, index: int) -> npt.NDArray[np.int64]:
        """Return the rows of a step, over all processes, in the order they were drawn."""
        pairs = self.steps[index]
        return self._both(pairs) if self.config.both_orders else pairs

    @property
    def _keeps_pairs(self) -> bool:
        """Whether the two orders of a pair share a micro-batch, since the loss compares them."""
        return self.config.consistency_weight > 0

    def _both(self, pairs: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return the rows of pairs in both orders: first all as given, then all swapped."""
        return np.concatenate([pairs, pairs + len(self.examples.ids) // 2])

    def _plan_rows(self, rows: npt.NDArray[np.int64]) -> list[npt.NDArray[np.int64]]:
        plan = self._plan(self.examples.rows.lengths[rows], self.micro_batch_tokens)
        return [rows[positions] for positions in plan]

    def _plan_pairs(self, index: int) -> list[npt.NDArray[np.int64]]:
        """Plan whole pairs: two rows as long as the longer one, under half the budget."""
        pairs = self.steps[index]
        lengths = self.examples.rows.lengths[self._both(pairs)].reshape(2, -1).max(axis=0)
        plan = self._plan(lengths, max(self.micro_batch_tokens // 2, 1))
        return [self._both(pairs[positions]) for positions in plan]

    def _plan(
        self, lengths: npt.NDArray[np.int64], micro_batch_tokens: int
    ) -> list[npt.NDArray[np.int64]]:
        return plan_step(
            lengths,
            micro_batch_tokens=micro_batch_tokens,
            n_micro_batches=self.config.n_micro_batches,
            layout=self.layout,
            n_processes=self.n_processes,
        )[self.process_index]
