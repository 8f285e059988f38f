"""What the simulated prompts ask: a fixed list of some hundred small tasks with known answers.

The sentences and facts are data (``tasks.toml``, written for this package); this module turns them
into `Statement` tasks, answered by a sentence, and `Listing` tasks, answered by a number of items.
The list depends on nothing but that file: every machine builds the same tasks in the same order.
"""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

COUNT_WORDS = ("zero", "one", "two", "three", "four", "five", "six")
REQUESTS = {
    "": "",
    "one_sentence": " Answer in one sentence.",
    "just_answer": " Reply with just the answer, nothing else.",
    "explain": " Explain briefly how you know.",
}
_TURNS = ("", "explain", "one_sentence", "explain", "", "just_answer", "explain")
_POPULAR_STEP = 13


@dataclass(frozen=True)
class Statement:
    """A question answered by a sentence that is right or wrong.

    Attributes
    ----------
    prompt
        The whole text a person typed, request included.
    request
        A key of `REQUESTS`: what the prompt asks of the form of the answer.
    statements
        Sentences with the place ``{answer}``.
    answers, distractors
        What makes the sentence right; what makes it wrong.
    reasons
        Sentences that support an answer; they may have the place ``{answer}``.
    is_code
        Whether the answer is code, to be shown in a fenced block.
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

    Attributes
    ----------
    prompt
        The whole text a person typed.
    lead
        The sentence before the items.
    items, intruders
        What belongs in the list; what spoils it.
    count
        How many items the prompt asks for; 1 to ``len(items)``.
    is_ordered
        Whether the items are steps whose order matters.
    reasons
        Sentences that support the list.
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


@functools.cache
def load_texts() -> dict[str, Any]:
    """Return the content of ``tasks.toml``: facts, prose, lists, guides, numbers and phrases."""
    source = resources.files("tiewise.data.simulation").joinpath("tasks.toml")
    return tomllib.loads(source.read_text(encoding="utf-8"))


@functools.cache
def build_tasks() -> tuple[Task, ...]:
    """Return every task, always in the same order.

    Examples
    --------
    >>> tasks = build_tasks()
    >>> tasks[0].prompt
    'What is the capital of France?'
    >>> len({task.prompt for task in tasks}) == len(tasks)
    True
    """
    texts = load_texts()
    parts = (_facts, _prose, _lists, _guides, _sums, _stories, _units)
    return tuple(task for part in parts for task in part(texts))


@functools.cache
def popular_tasks() -> tuple[Task, ...]:
    """Return the tasks that come up again and again: a thirteenth of all."""
    return build_tasks()[::_POPULAR_STEP]


def _facts(texts: dict[str, Any]) -> Iterator[Task]:
    for topic in texts["facts"]:
        every = tuple(pair[1] for pair in topic["pairs"])
        for position, (subject, answer, *wrong) in enumerate(topic["pairs"]):
            distractors = tuple(wrong) or tuple(other for other in every if other != answer)
            yield from _statements(topic, position, {"subject": subject}, answer, distractors)


def _statements(
    topic: dict[str, Any], position: int, places: dict[str, str], answer: str, wrong: Sequence[str]
) -> Iterator[Task]:
    """Every way to ask for one fact; the requests take turns over the facts of a topic."""
    for turn, question in enumerate(topic["questions"]):
        request = _TURNS[(position + turn) % len(_TURNS)]
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
        plural, members = entry["plural"], tuple(entry["members"])
        for count in range(2, min(5, len(members)) + 1):
            word = COUNT_WORDS[count]
            prompt = (f"Name {word} {plural}.", f"Give me {word} {plural}, please.")[count % 2]
            intruders = tuple(entry["intruders"])
            yield Listing(prompt, "Here you go:", members, intruders, count, False, reasons)


def _guides(texts: dict[str, Any]) -> Iterator[Task]:
    reasons = tuple(texts["phrases"]["guide_reasons"])
    for entry in texts["guides"]:
        goal, steps, spoilers = entry["goal"], tuple(entry["steps"]), tuple(entry["spoilers"])
        for count in (3, 4):
            word = COUNT_WORDS[count]
            prompt = f"How do I {goal}? Tell me in exactly {word} steps."
            yield Listing(prompt, f"How to {goal}:", steps, spoilers, count, True, reasons)


def _near(answer: int) -> tuple[str, ...]:
    """Wrong numbers of about the size of the right one."""
    offsets = (-10, -2, -1, 1, 2, 10)
    return tuple(f"{answer + offset}" for offset in offsets if answer + offset > 0)


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
        for position in range(20):
            first, second = 10 + 3 * position % 31, 2 + position % 7
            answer = results[story["operation"]](first, second)
            places = {"first": str(first), "second": str(second)}
            places |= {"name": names[position % 8], "things": things[(position + kind) % 8]}
            request = _TURNS[position % len(_TURNS)]
            yield Statement(
                prompt=_fill(story["question"], places) + REQUESTS[request],
                request=request,
                statements=tuple(
                    _fill(text, places)
                    for text in ("The answer is {answer}.", "That makes {answer} {things}.")
                ),
                answers=(str(answer),),
                distractors=_near(answer),
                reasons=(f"I worked it out as {first} {story['operation']} {second}.",),
            )


def _units(texts: dict[str, Any]) -> Iterator[Task]:
    topic = texts["units"][0]
    for kind, (small, large, factor) in enumerate(topic["pairs"]):
        for position, count in enumerate((2, 3, 5, 8)):
            places = {"small": small, "large": large, "count": str(count), "factor": str(factor)}
            right = count * factor
            wrong = tuple(str(value) for value in (right * 10, right + factor, count + factor))
            yield from _statements(topic, kind + position, places, str(right), wrong)
