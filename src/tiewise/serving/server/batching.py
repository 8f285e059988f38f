"""Compute many small requests in few batches, one batch at a time.

While a batch is computed, requests wait in a queue; the next batch takes as many of them as fit its
budget. A batch that has fewer items than the last one waits a moment for more: clients that send
their next request when they have an answer then share a batch again. Requests that come one at a
time never wait.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Generic, TypeVar

from tiewise.errors import TiewiseError

Item = TypeVar("Item")
Result = TypeVar("Result")


class BusyError(TiewiseError):
    """The queue is full, or closed."""

    def __init__(self, message: str, *, is_closed: bool) -> None:
        super().__init__(message)
        self.is_closed = is_closed


@dataclass(frozen=True)
class _Waiting(Generic[Item, Result]):
    item: Item
    cost: int
    future: Future[Result]


class Batcher(Generic[Item, Result]):
    """A thread that computes items in batches, in the order in which they came.

    Parameters
    ----------
    compute
        Returns one result for each item of a batch. If it fails for several items, it is called
        again for each of them, so that an item fails alone.
    budget
        Largest sum of costs in a batch; an item with a higher cost is computed alone.
    max_waiting
        Largest sum of costs in the queue. An empty queue takes any item.
    max_delay
        Longest time, in seconds, that a batch waits for as many items as the last one had.
    """

    def __init__(
        self,
        compute: Callable[[Sequence[Item]], Sequence[Result]],
        *,
        budget: int,
        max_waiting: int,
        max_delay: float,
    ) -> None:
        self._compute, self.budget, self.max_waiting = compute, budget, max_waiting
        self.max_delay = max_delay
        self._queue: deque[_Waiting[Item, Result]] = deque()
        self._changed = threading.Condition()
        self._is_closed = False
        self.n_batches = 0
        self._last_size = 1
        self._thread = threading.Thread(target=self._work, name="batches", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Sum of the costs in the queue."""
        with self._changed:
            return self._count()

    def submit(self, item: Item, *, cost: int) -> Future[Result]:
        """Add an item to the queue and return its future; BusyError when the queue is full."""
        waiting = _Waiting[Item, Result](item, cost, Future())
        with self._changed:
            if self._is_closed:
                raise BusyError(
                    "The server is stopping; send the request to another one.", is_closed=True
                )
            if self._queue and self._count() + cost > self.max_waiting:
                raise BusyError("The queue is full; send the request again later.", is_closed=False)
            self._queue.append(waiting)
            self._changed.notify()
        return waiting.future

    def close(self) -> None:
        """Take no more items, and return when those in the queue are computed."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        self._thread.join()

    def _count(self) -> int:
        return sum(waiting.cost for waiting in self._queue)

    def _work(self) -> None:
        while batch := self._take():
            live = [entry for entry in batch if entry.future.set_running_or_notify_cancel()]
            if live:
                self.n_batches += 1
                self._run(live)

    def _take(self) -> list[_Waiting[Item, Result]]:
        """Wait for items and return the next batch; empty when the batcher is closed."""
        batch: list[_Waiting[Item, Result]] = []
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._is_closed)
            if self._queue:
                self._changed.wait_for(self._is_complete, self.max_delay)
            while self._queue and (
                not batch or sum(e.cost for e in batch) + self._queue[0].cost <= self.budget
            ):
                batch.append(self._queue.popleft())
        self._last_size = len(batch)
        return batch

    def _is_complete(self) -> bool:
        is_large = len(self._queue) >= self._last_size or self._count() >= self.budget
        return is_large or self._is_closed

    def _run(self, batch: list[_Waiting[Item, Result]]) -> None:
        try:
            results = self._compute([entry.item for entry in batch])
        except Exception as error:
            if len(batch) == 1:
                batch[0].future.set_exception(error)
            else:
                for entry in batch:
                    self._run([entry])
            return
        for entry, result in zip(batch, results, strict=True):
            entry.future.set_result(result)
