"""Build the tasks of a simulation, and write responses to them with known qualities.

Some hundred prompts with known answers are made from ``tasks.toml``, the same on every machine. The
quality of a response is a weighted sum of its `Traits`, which a reader can see in the text.
"""

from __future__ import annotations

import functools
import math
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from typing import Any, TypeVar

import numpy as np

T = TypeVar("T")

COUNT_WORDS = ("zero", "one", "two", "three", "four", "five", "six")
REQUESTS = {
    "": "",
    "one_sentence": " Answer in one sentence.",
    "just_answer": " Reply with just the answer, nothing else.",
    "explain": " Explain briefly how you know.",
}
_REQUEST_CYCLE = ("", "explain", "one_sentence", "explain", "", "just_answer", "explain")
_POPULAR_STEP = 13
WEIGHTS = {
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
"""Weight of each trait in the quality of a response, in log odds."""


@dataclass(frozen=True)
class Statement:
    """A question that is answered by a right or a wrong sentence.

    `request` is the key of `REQUESTS` that asks for a form of the answer. `statements` have the
    placeholder ``{answer}``, which one of `answers` makes right and one of `distractors` wrong.
    """

    prompt: str
    request: str
    statements: tuple[str, ...]
    answers: tuple[str, ...]
    distractors: tuple[str, ...]
    reasons: tuple[str, ...]
    is_code: bool = False


@dataclass(frozen=True)
class Listing:
    """A request for `count` items, or for the steps of a guide in order.

    `lead` is the sentence before the items; `intruders` do not belong among them.
    """

    prompt: str
    lead: str
    items: tuple[str, ...]
    intruders: tuple[str, ...]
    count: int
    is_ordered: bool
    reasons: tuple[str, ...]
    request: str = "count"


Task = Statement | Listing


@dataclass(frozen=True)
class Traits:
    """Properties of a response; each is 0 or 1, except for `fillers` (0 to 3)."""

    wrong: int = 0  # the fact, an item or a step is wrong
    ignored: int = 0  # the response has not the form that the prompt asks for
    refusal: int = 0
    off_topic: int = 0  # answers another question
    missing: int = 0  # empty or null
    reason: int = 0  # a sentence supports the answer
    fillers: int = 0  # sentences without content
    hedge: int = 0  # expresses doubt
    rude: int = 0
    repetition: int = 0  # says the answer three times
    layout: int = 0  # items in a list, code in a fenced block, the answer in bold


class Draws:
    """Random choices that a seed and a row determine, the same on every platform."""

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
        left = list(values)
        for _ in range(len(values) - count):
            left.pop(self.below(len(left)))
        return left


@functools.cache
def load_texts() -> dict[str, Any]:
    """Return the content of ``tasks.toml``: facts, prose, lists, guides, numbers and phrases."""
    source = resources.files("tiewise.data.simulation").joinpath("tasks.toml")
    return tomllib.loads(source.read_text(encoding="utf-8"))


@functools.cache
def build_tasks() -> tuple[Task, ...]:
    """Return every task, always in the same order.

    >>> build_tasks()[0].prompt
    'What is the capital of France?'
    """
    parts = (_facts, _prose, _lists, _guides, _sums, _stories, _units)
    return tuple(task for part in parts for task in part(load_texts()))


@functools.cache
def popular_tasks() -> tuple[Task, ...]:
    """Return the tasks that many rows share: a thirteenth of all."""
    return build_tasks()[::_POPULAR_STEP]


def quality(traits: Traits) -> float:
    """Return the quality of a response, in log odds between two responses that do not tie.

    >>> quality(Traits()), quality(Traits(wrong=1, reason=1))
    (0.0, -1.0)
    """
    return round(math.fsum(WEIGHTS[name] * value for name, value in vars(traits).items()), 9)


def settle(task: Task, traits: Traits) -> Traits:
    """Return the traits that a text can show: no layout in a refusal, no reason in one word."""
    if traits.missing:
        return Traits(missing=1)
    if traits.refusal:
        return Traits(refusal=1, fillers=traits.fillers)
    if traits.off_topic:
        return Traits(off_topic=1, reason=traits.reason, fillers=traits.fillers)
    return _settle_request(task.request, traits)


def write_response(task: Task, traits: Traits, draws: Draws) -> str | None:
    """Return a text with exactly these traits, which must be settled; None when null."""
    if traits.missing:
        return None if draws.happens(0.6) else ""
    if traits.refusal:
        return _join(_phrase("refusals", draws), *_fillers(traits, draws))
    if traits.off_topic:
        other = draws.choose([entry for entry in build_tasks() if isinstance(entry, Statement)])
        return _sentences(other, replace(traits, wrong=draws.happens(0.3)), draws)
    if task.request == "just_answer" and not traits.ignored:
        return _pick(task, traits, draws)
    return _sentences(task, traits, draws)


def _settle_request(request: str, traits: Traits) -> Traits:
    if request == "":
        return replace(traits, ignored=0)
    if request == "explain":
        return replace(traits, reason=1 - traits.ignored)
    if request == "count":
        return traits
    if traits.ignored:
        return replace(traits, reason=1)
    return Traits(wrong=traits.wrong, hedge=traits.hedge if request == "one_sentence" else 0)


def _facts(texts: dict[str, Any]) -> Iterator[Task]:
    for topic in texts["facts"]:
        answers = [pair[1] for pair in topic["pairs"]]
        for position, (subject, answer, *wrong) in enumerate(topic["pairs"]):
            distractors = wrong or [other for other in answers if other != answer]
            yield from _statements(topic, position, {"subject": subject}, answer, distractors)


def _statements(
    topic: dict[str, Any], position: int, places: dict[str, str], answer: str, wrong: Sequence[str]
) -> Iterator[Task]:
    """Yield every way to ask for one fact; the requests alternate over the facts of a topic."""
    for turn, question in enumerate(topic["questions"]):
        request = _REQUEST_CYCLE[(position + turn) % len(_REQUEST_CYCLE)]
        yield Statement(
            prompt=_fill(question, places) + REQUESTS[request],
            request=request,
            statements=tuple(_fill(text, places) for text in topic["statements"]),
            answers=(answer,),
            distractors=tuple(wrong),
            reasons=tuple(_fill(text, places) for text in topic["reasons"]),
            is_code=topic.get("is_code", False),
        )


def _fill(text: str, places: dict[str, str]) -> str:
    for name, value in places.items():
        text = text.replace("{" + name + "}", value)
    return text


def _prose(texts: dict[str, Any]) -> Iterator[Task]:
    for entry in texts["prose"]:
        right, wrong, more = (tuple(entry[key]) for key in ("right", "wrong", "more"))
        for request in ("", "one_sentence"):
            prompt = entry["question"] + REQUESTS[request]
            yield Statement(prompt, request, ("{answer}",), right, wrong, more)


def _lists(texts: dict[str, Any]) -> Iterator[Task]:
    reasons = tuple(texts["phrases"]["list_reasons"])
    for entry in texts["lists"]:
        plural, members, intruders = entry["plural"], entry["members"], tuple(entry["intruders"])
        for count in range(2, min(5, len(members)) + 1):
            word = COUNT_WORDS[count]
            prompt = (f"Name {word} {plural}.", f"Give me {word} {plural}, please.")[count % 2]
            yield Listing(prompt, "Here you go:", tuple(members), intruders, count, False, reasons)


def _guides(texts: dict[str, Any]) -> Iterator[Task]:
    reasons = tuple(texts["phrases"]["guide_reasons"])
    for entry in texts["guides"]:
        goal, steps, spoilers = entry["goal"], tuple(entry["steps"]), tuple(entry["spoilers"])
        for count in (3, 4):
            prompt = f"How do I {goal}? Tell me in exactly {COUNT_WORDS[count]} steps."
            yield Listing(prompt, f"How to {goal}:", steps, spoilers, count, True, reasons)


def _near(answer: int) -> list[str]:
    """Return wrong numbers close to the right one."""
    offsets = (-10, -2, -1, 1, 2, 10)
    return [f"{answer + offset}" for offset in offsets if answer + offset > 0]


def _sums(texts: dict[str, Any]) -> Iterator[Task]:
    topic = texts["sums"][0]
    for position in range(24):
        first, second = 7 + 11 * position % 89, 3 + 7 * position % 41
        for sign, answer in (("+", first + second), ("×", first * second)):
            places = {"subject": f"{first} {sign} {second}"}
            yield from _statements(topic, position, places, str(answer), _near(answer))


def _stories(texts: dict[str, Any]) -> Iterator[Task]:
    names, things = texts["phrases"]["names"], texts["phrases"]["things"]
    results = {"+": int.__add__, "-": int.__sub__, "*": int.__mul__}
    for kind, story in enumerate(texts["stories"]):
        sign = story["operation"]
        topic = {
            "questions": [story["question"]],
            "statements": ["The answer is {answer}.", "That makes {answer} {things}."],
            "reasons": ["I worked it out as {first} " + sign + " {second}."],
        }
        for position in range(20):
            first, second = 10 + 3 * position % 31, 2 + position % 7
            places = {"first": str(first), "second": str(second)}
            places |= {"name": names[position % 8], "things": things[(position + kind) % 8]}
            answer = results[sign](first, second)
            yield from _statements(topic, position, places, str(answer), _near(answer))


def _units(texts: dict[str, Any]) -> Iterator[Task]:
    topic = texts["units"][0]
    for kind, (small, large, factor) in enumerate(topic["pairs"]):
        for position, count in enumerate((2, 3, 5, 8)):
            places = {"small": small, "large": large, "count": str(count), "factor": str(factor)}
            right = count * factor
            wrong = [str(value) for value in (right * 10, right + factor, count + factor)]
            yield from _statements(topic, kind + position, places, str(right), wrong)


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
    """Return the answer alone, and the sentence or list that gives it."""
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
    count = task.count
    if traits.ignored:
        others = (task.count - 1, task.count + 1, task.count + 2)
        count = draws.choose([other for other in others if 1 <= other <= len(task.items)])
    items = draws.take(task.items, count)
    if traits.wrong:
        items[draws.below(count)] = draws.choose(task.intruders)
    if not traits.layout:
        return f"{task.lead} {', '.join(items)}."
    marks = [f"{number}." if task.is_ordered else "-" for number in range(1, count + 1)]
    lines = [f"{mark} {item}" for mark, item in zip(marks, items, strict=True)]
    return "\n".join([task.lead, *lines]) + "\n"


def _phrase(kind: str, draws: Draws) -> str:
    return str(draws.choose(load_texts()["phrases"][kind]))


def _fillers(traits: Traits, draws: Draws) -> list[str]:
    return draws.take(load_texts()["phrases"]["fillers"], traits.fillers)


def _join(*parts: str) -> str:
    """Join sentences by spaces, but start a new line after a list or a block of code."""
    text = ""
    for part in filter(None, parts):
        is_block = text.endswith(("\n", "```")) or (text and part.startswith("```"))
        text += ("\n" if is_block else " ") + part if text else part
    return text.strip()
