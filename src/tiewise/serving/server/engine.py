"""A judge behind queues: the pairs and rows of many requests, computed in batches."""

from __future__ import annotations

import functools
import math
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tiewise.data.labels import PROB_COLUMNS
from tiewise.errors import ModelError, PairsError, TiewiseError
from tiewise.judges.judge import Judge, Text, pair_responses
from tiewise.judges.kinds import CalibratedJudge, TwoClassJudge
from tiewise.serving.server.batching import Batcher
from tiewise.tokens.ragged import offsets_of
from tiewise.tokens.rows import TokenRows

_CHARS_PER_TOKEN = 4
_TOKENS_PER_PAIR = 16  # delimiters
_COUNTS = ["n_tokens", "n_truncated"]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Limits:
    """Tokens in a batch and in the queue, bytes of a body, and times in seconds.

    `max_delay` is how long a batch waits for more requests; see :class:`Batcher`.
    """

    batch_tokens: int = 16_384
    max_delay: float = 0.02
    max_waiting: int = 32 * 16_384
    max_bytes: int = 4 * 2**20
    body_seconds: float = 30.0
    seconds: float = 120.0


class Question(NamedTuple):
    """A prompt and the responses to compare, in both orders or as given."""

    prompt: Text
    responses: Sequence[Text]
    both_orders: bool


class Scored(NamedTuple):
    """Pairs of a question: probs float64 `(n, 3)`, and `(n, 2)` counts of tokens, all and cut."""

    probs: Floats
    counts: npt.NDArray[np.int64]


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
        batch = functools.partial(
            Batcher,
            budget=limits.batch_tokens,
            max_waiting=limits.max_waiting,
            max_delay=limits.max_delay,
        )
        self.questions: Batcher[Question, Scored] = batch(self._predict)
        self.rows: Batcher[list[list[int]], Floats] = batch(self._score)

    def judge_pairs(self, question: Question) -> Future[Scored]:
        """Queue a question; the pairs of the result are in the order of itertools.combinations.

        TooLargeError is raised when its pairs have more tokens, by estimate, than a queue may hold.
        """
        n = len(question.responses)
        n_chars = n * (n - 1) // 2 * _count(question.prompt)
        n_chars += (n - 1) * sum(map(_count, question.responses))
        n_tokens = n_chars // _CHARS_PER_TOKEN + _TOKENS_PER_PAIR * n * (n - 1) // 2
        cost = self._check_cost((1 + question.both_orders) * n_tokens)
        return self.questions.submit(question, cost=cost)

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
        return self.questions.waiting + self.rows.waiting

    def close(self) -> None:
        """Compute what is in the queues, and take nothing more."""
        self.questions.close()
        self.rows.close()

    def _predict(self, questions: Sequence[Question]) -> list[Scored]:
        results: dict[int, Scored] = {}
        for both_orders in {question.both_orders for question in questions}:
            chosen = [k for k, asked in enumerate(questions) if asked.both_orders is both_orders]
            asked = [questions[k] for k in chosen]
            pairs = pair_responses(*((question.prompt, question.responses) for question in asked))
            with self._one:
                table = self.judge.model.predict(pairs, swap=both_orders)
            probs = table[PROB_COLUMNS].to_numpy(np.float64)
            counts = table.reindex(columns=_COUNTS, fill_value=0).to_numpy(np.int64)
            ends = np.cumsum([math.comb(len(question.responses), 2) for question in asked])
            for k, start, end in zip(chosen, [0, *ends], ends, strict=False):
                results[k] = Scored(probs[start:end], counts[start:end])
        return [results[k] for k in range(len(questions))]

    def _score(self, items: Sequence[list[list[int]]]) -> list[Floats]:
        rows = [row for item in items for row in item]
        offsets = offsets_of(np.array([len(row) for row in rows]))
        values = np.concatenate([np.array(row, dtype=np.int32) for row in rows])
        tokens = TokenRows(values, offsets, np.zeros(len(rows), dtype=np.int64))
        with self._one:
            logits = self.scorer.score_rows(tokens, names=[f"row {k}" for k in range(len(rows))])
        ends = np.cumsum([len(item) for item in items])[:-1]
        return list(np.split(logits, ends))


def _count(text: Text) -> int:
    """Return the characters of a text or of all its turns."""
    return len(text) if isinstance(text, str) else sum(len(turn or "") for turn in text)
