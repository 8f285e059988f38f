"""The text of one simulated response, and what it is worth.

A response is described by its `Traits`, every one of which a reader can see in the text: a wrong
fact, an ignored request, a refusal, filler. `quality` is a weighted sum of them and of nothing
else, so two responses with equal traits are equally good however they are worded.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeVar

import numpy as np

from tiewise.data.simulation.tasks import Listing, Statement, Task, build_tasks, load_texts

T = TypeVar("T")

WEIGHTS: Mapping[str, float] = MappingProxyType(
    {
        "wrong": -3.0,
        "ignored": -3.5,
        "refusal": -7.0,
        "off_topic": -6.5,
        "missing": -8.0,
        "reason": 2.0,
        "fillers": -0.9,
        "hedge": -3.5,
        "rude": -5.0,
        "repetition": -3.5,
        "layout": 2.4,
    }
)


@dataclass(frozen=True)
class Traits:
    """What a reader sees in a response; each is 0 or 1, but `fillers` counts sentences (0 to 3).

    Attributes
    ----------
    wrong
        The fact, an item or a step is wrong.
    ignored
        The form that the prompt asks for is not kept (number of items, one sentence, a reason).
    refusal, off_topic, missing
        No answer: declined; answers another question; empty or null.
    reason
        A sentence supports the answer.
    fillers
        Sentences that say nothing.
    hedge, rude, repetition
        Expresses doubt; insults the person; says the answer three times.
    layout
        Items in a list, code in a fenced block, the answer in bold.
    """

    wrong: int = 0
    ignored: int = 0
    refusal: int = 0
    off_topic: int = 0
    missing: int = 0
    reason: int = 0
    fillers: int = 0
    hedge: int = 0
    rude: int = 0
    repetition: int = 0
    layout: int = 0


class Draws:
    """Random choices for one row, the same on every platform and for every number of rows.

    Parameters
    ----------
    seed, row
        Non-negative; together they determine every draw.

    Examples
    --------
    >>> Draws(0, 7).below(100) == Draws(0, 7).below(100)
    True
    """

    def __init__(self, seed: int, row: int) -> None:
        bits = np.random.PCG64(np.random.SeedSequence([seed, row]))
        self._generator = np.random.Generator(bits)

    def uniform(self) -> float:
        """Return a number in [0, 1)."""
        return float(self._generator.random())

    def happens(self, probability: float) -> int:
        """Return 1 with this probability, else 0."""
        return int(self.uniform() < probability)

    def below(self, limit: int) -> int:
        """Return an integer in [0, limit)."""
        return min(int(self.uniform() * limit), limit - 1)

    def choose(self, values: Sequence[T]) -> T:
        """Return one of the values."""
        return values[self.below(len(values))]

    def take(self, values: Sequence[T], count: int) -> list[T]:
        """Return `count` different values, in the order of `values`."""
        left = list(range(len(values)))
        for _ in range(len(values) - count):
            left.pop(self.below(len(left)))
        return [values[position] for position in left]


def quality(traits: Traits) -> float:
    """Return the worth of a response, in log odds between two responses that do not tie.

    Examples
    --------
    >>> quality(Traits()), quality(Traits(wrong=1, reason=1))
    (0.0, -1.0)
    """
    values = dataclasses.asdict(traits).items()
    return round(math.fsum(WEIGHTS[name] * value for name, value in values), 9)


def settle(task: Task, traits: Traits) -> Traits:
    """Return the traits a text can really show: no layout in a refusal, no reason in one word.

    Examples
    --------
    >>> task = build_tasks()[0]
    >>> settle(task, Traits(refusal=1, layout=1)) == Traits(refusal=1)
    True
    """
    if traits.missing:
        return Traits(missing=1)
    if traits.refusal:
        return Traits(refusal=1, fillers=traits.fillers)
    if traits.off_topic:
        return Traits(off_topic=1, reason=traits.reason, fillers=traits.fillers)
    return _settle_request(task.request, traits)


def _settle_request(request: str, traits: Traits) -> Traits:
    if request == "":
        return dataclasses.replace(traits, ignored=0)
    if request == "explain":
        return dataclasses.replace(traits, reason=1 - traits.ignored)
    if request == "count":
        return traits
    if traits.ignored:
        return dataclasses.replace(traits, reason=1)
    return Traits(wrong=traits.wrong, hedge=traits.hedge if request == "one_sentence" else 0)


def write_response(task: Task, traits: Traits, draws: Draws) -> str | None:
    """Return a text that shows exactly these traits, which must be settled; None when null.

    Examples
    --------
    >>> task = build_tasks()[0]
    >>> write_response(task, Traits(missing=1), Draws(0, 0)) in (None, "")
    True
    """
    if traits.missing:
        return None if draws.happens(0.6) else ""
    if traits.refusal:
        return _join(_phrase("refusals", draws), *_fillers(traits, draws))
    if traits.off_topic:
        other = draws.choose([entry for entry in build_tasks() if isinstance(entry, Statement)])
        task, traits = other, dataclasses.replace(traits, wrong=draws.happens(0.3))
        return _sentences(other, traits, draws)
    if task.request == "just_answer" and not traits.ignored:
        return _pick(task, traits, draws)
    return _sentences(task, traits, draws)


def _sentences(task: Task, traits: Traits, draws: Draws) -> str:
    answer, core = _core(task, traits, draws)
    is_short = task.request == "one_sentence" and not traits.ignored and not traits.off_topic
    return _join(
        "" if is_short else _phrase("openings", draws),
        _phrase("remarks", draws) if traits.rude else "",
        _phrase("hedges", draws) if traits.hedge else "",
        *[core] * (3 if traits.repetition else 1),
        draws.choose(task.reasons).replace("{answer}", answer) if traits.reason else "",
        *_fillers(traits, draws),
        "" if is_short else _phrase("closings", draws),
    )


def _core(task: Task, traits: Traits, draws: Draws) -> tuple[str, str]:
    """Return the bare answer and the sentence or list that gives it."""
    if isinstance(task, Listing):
        return "", _list_items(task, traits, draws)
    answer = _pick(task, traits, draws)
    sentence = draws.choose(task.statements)
    if not traits.layout:
        return answer, sentence.replace("{answer}", answer)
    if task.is_code:
        return answer, f"```python\n{answer}\n```"
    return answer, sentence.replace("{answer}", f"**{answer}**")


def _pick(task: Task, traits: Traits, draws: Draws) -> str:
    """Return a right or a wrong answer without a sentence around it."""
    if isinstance(task, Listing):
        return _list_items(task, traits, draws)
    return draws.choose(task.distractors if traits.wrong else task.answers)


def _list_items(task: Listing, traits: Traits, draws: Draws) -> str:
    count = _shown_count(task, traits, draws)
    items = draws.take(task.items, count)
    if traits.wrong:
        items[draws.below(count)] = draws.choose(task.intruders)
    if not traits.layout:
        return f"{task.lead} {', '.join(items)}."
    marks = [f"{number}." if task.is_ordered else "-" for number in range(1, count + 1)]
    lines = [f"{mark} {item}" for mark, item in zip(marks, items, strict=True)]
    return "\n".join([task.lead, *lines]) + "\n"


def _shown_count(task: Listing, traits: Traits, draws: Draws) -> int:
    """Return how many items the response gives: another number when the request is ignored."""
    if not traits.ignored:
        return task.count
    others = [task.count - 1, task.count + 1, task.count + 2]
    return draws.choose([count for count in others if 1 <= count <= len(task.items)])


def _phrase(kind: str, draws: Draws) -> str:
    phrases: list[str] = load_texts()["phrases"][kind]
    return draws.choose(phrases)


def _fillers(traits: Traits, draws: Draws) -> list[str]:
    return draws.take(load_texts()["phrases"]["fillers"], traits.fillers)


def _join(*parts: str) -> str:
    """Join sentences by spaces, but start a new line after a list or a block of code."""
    text = ""
    for part in filter(None, parts):
        is_block = text.endswith(("\n", "```")) or (text and part.startswith("```"))
        text += ("\n" if is_block else " ") + part if text else part
    return text.strip()
