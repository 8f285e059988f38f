"""A judge behind queues: the pairs and rows of many requests, computed in batches."""

from __future__ import annotations

import functools
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from tiewise.errors import ModelError, PairsError, TiewiseError
from tiewise.judges.judge import Judge
from tiewise.judges.kinds import CalibratedJudge, TwoClassJudge
from tiewise.serving.server.batching import Batcher
from tiewise.tokens.ragged import offsets_of
from tiewise.tokens.rows import TokenRows

_CHARS_PER_TOKEN = 4
_TOKENS_PER_PAIR = 16  # delimiters
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Limits:
    """Tokens in a batch and in the queue, bytes of a body, seconds for a body and for an answer."""

    batch_tokens: int = 16_384
    max_waiting: int = 32 * 16_384
    max_bytes: int = 4 * 2**20
    body_seconds: float = 30.0
    seconds: float = 120.0


class TooLargeError(TiewiseError):
    """A request needs more computation than the queue may hold."""


class Engine:
    """A judge behind two queues, whose batches are computed one at a time."""

    def __init__(self, judge: Judge, limits: Limits) -> None:
        self.judge, self.limits = judge, limits
        model = judge.model.judge if isinstance(judge.model, CalibratedJudge) else judge.model
        self.scorer: Any = model if hasattr(model, "score_rows") else None
        """The language model that scores rows of ids; None for judges that cannot."""
        self._no_scorer = "does not score ids of tokens"
        if isinstance(model, TwoClassJudge) and hasattr(model.judge, "score_rows"):
            self._no_scorer = (
                "was fitted to data without ties, so its third number, for a tie, is not trained"
            )
        self._one = threading.Lock()  # both queues use the same weights
        size = {"budget": limits.batch_tokens, "max_waiting": limits.max_waiting}
        self.pairs: Batcher[tuple[pd.DataFrame, bool], pd.DataFrame] = Batcher(
            self._predict, **size
        )
        self.rows: Batcher[list[list[int]], Floats] = Batcher(self._score, **size)

    def cost_of(self, prompt: Any, responses: Sequence[Any], *, both_orders: bool) -> int:
        """Return an estimate of the tokens of all pairs; TooLargeError when no queue takes them."""
        n = len(responses)
        n_chars = n * (n - 1) // 2 * _count(prompt) + (n - 1) * sum(map(_count, responses))
        n_tokens = n_chars // _CHARS_PER_TOKEN + _TOKENS_PER_PAIR * n * (n - 1) // 2
        return self._check_cost((1 + both_orders) * n_tokens)

    def _check_cost(self, cost: int) -> int:
        if cost > self.limits.max_waiting:
            raise TooLargeError(
                f"The request has about {cost:,} tokens in all its pairs; at most "
                f"{self.limits.max_waiting:,} are judged at once. Send fewer responses at a time."
            )
        return cost

    def score_rows(self, rows: list[list[int]]) -> Future[Floats]:
        """Queue the rows of ids of one request."""
        return self.rows.submit(rows, cost=self._check_cost(sum(map(len, rows))))

    def check_rows(self, rows: list[list[int]]) -> None:
        """Refuse rows that this judge cannot score."""
        if self.scorer is None:
            raise ModelError(f"{self.judge.name} {self._no_scorer}. Use /judge.")
        longest, highest = self.scorer.template.max_length, self._highest_id
        for place, row in enumerate(rows):
            if len(row) > longest:
                raise PairsError(f"input.{place} has {len(row)} ids; expected at most {longest}.")
            if max(row) > highest:
                raise PairsError(f"input.{place} has the id {max(row)}; the highest is {highest}.")

    @functools.cached_property
    def _highest_id(self) -> int:
        return int(max(self.scorer.tokenizer.vocabulary.values()))

    @property
    def waiting(self) -> int:
        """Tokens in both queues."""
        return self.pairs.waiting + self.rows.waiting

    def close(self) -> None:
        """Compute what is in the queues, and take nothing more."""
        self.pairs.close()
        self.rows.close()

    def _predict(self, items: Sequence[tuple[pd.DataFrame, bool]]) -> list[pd.DataFrame]:
        results: dict[int, pd.DataFrame] = {}
        for order in {both for _, both in items}:
            chosen = [place for place, (_, both) in enumerate(items) if both is order]
            tables = [items[place][0] for place in chosen]
            joined = pd.concat(tables, ignore_index=True).assign(id=lambda t: range(len(t)))
            with self._one:
                table = self.judge.model.predict(joined, swap=order)
            ends = np.cumsum([len(part) for part in tables])[:-1]
            bounds = [0, *ends.tolist(), len(table)]
            for place, start, stop in zip(chosen, bounds, bounds[1:], strict=False):
                results[place] = table.iloc[start:stop].reset_index(drop=True)
        return [results[place] for place in range(len(items))]

    def _score(self, items: Sequence[list[list[int]]]) -> list[Floats]:
        rows = [row for item in items for row in item]
        offsets = offsets_of(np.array([len(row) for row in rows]))
        values = np.concatenate([np.array(row, dtype=np.int32) for row in rows])
        tokens = TokenRows(values, offsets, np.zeros(len(rows), dtype=np.int64))
        with self._one:
            logits = self.scorer.score_rows(tokens, names=[f"row {k}" for k in range(len(rows))])
        ends = np.cumsum([len(item) for item in items])[:-1]
        return list(np.split(logits, ends))


def _count(text: str | Sequence[str | None]) -> int:
    """Return the characters of a text or of all its turns."""
    return len(text) if isinstance(text, str) else sum(len(turn or "") for turn in text)
