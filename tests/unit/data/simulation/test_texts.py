"""Simulated prompts and responses, and the traits that decide their quality."""

from __future__ import annotations

import dataclasses

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tiewise.data.simulation.texts import (
    REQUESTS,
    WEIGHTS,
    Draws,
    Listing,
    Statement,
    Traits,
    build_tasks,
    load_texts,
    popular_tasks,
    quality,
    settle,
    write_response,
)

NAMES = [field.name for field in dataclasses.fields(Traits)]
TASKS = st.sampled_from(build_tasks())
DRAWS = st.builds(Draws, st.integers(0, 9), st.integers(0, 1000))


@st.composite
def any_traits(draw: st.DrawFn) -> Traits:
    """Return any traits, settled or not."""
    values = {name: draw(st.integers(0, 3 if name == "fillers" else 1)) for name in NAMES}
    return Traits(**values)


PHRASES = load_texts()["phrases"]


def shows(text: str, kind: str) -> int:
    """Return how many phrases of a kind are in the text."""
    return sum(phrase in text for phrase in PHRASES[kind])


def test_every_trait_has_a_weight() -> None:
    """Quality depends on every trait and on nothing else."""
    assert set(WEIGHTS) == set(NAMES)


@given(any_traits(), TASKS)
def test_settling_is_idempotent(traits: Traits, task) -> None:
    """Settled traits stay as they are."""
    assert settle(task, settle(task, traits)) == settle(task, traits)


@given(any_traits(), TASKS, DRAWS)
def test_missing_trait_gives_no_text(traits: Traits, task, draws) -> None:
    """Only the trait `missing` gives null and empty responses."""
    settled = settle(task, traits)
    assert bool(write_response(task, settled, draws)) == (not settled.missing)


@given(any_traits(), TASKS, DRAWS)
def test_phrases_show_their_traits(traits: Traits, task, draws) -> None:
    """Refusal, fillers, hedge and rudeness can be counted in the text."""
    settled = settle(task, traits)
    text = write_response(task, settled, draws) or ""
    assert shows(text, "refusals") == settled.refusal
    assert shows(text, "fillers") == settled.fillers
    assert shows(text, "hedges") == settled.hedge
    assert shows(text, "remarks") == settled.rude


@given(any_traits(), TASKS, DRAWS)
def test_wrong_trait_shows_in_text(traits: Traits, task, draws) -> None:
    """A right answer contains a right value, a wrong one a wrong value."""
    settled = settle(task, traits)
    if settled.missing or settled.refusal or settled.off_topic:
        return
    text = write_response(task, settled, draws) or ""
    if isinstance(task, Statement):
        values = task.distractors if settled.wrong else task.answers
        assert any(value in text for value in values)
    else:
        assert any(item in text for item in task.intruders) or not settled.wrong


@given(st.sampled_from([task for task in build_tasks() if isinstance(task, Listing)]), DRAWS)
def test_list_has_requested_length(task: Listing, draws: Draws) -> None:
    """A list has the requested number of items, and another number when that is ignored."""
    for ignored in (0, 1):
        text = write_response(task, Traits(layout=1, ignored=ignored), draws) or ""
        marks = ("- ", "1. ", "2. ", "3. ", "4. ", "5. ", "6. ")
        n_lines = sum(line.startswith(marks) for line in text.splitlines())
        assert (n_lines == task.count) != bool(ignored)


@given(any_traits(), TASKS, DRAWS)
def test_texts_are_short(traits: Traits, task, draws) -> None:
    """No response is longer than a thousand characters."""
    assert len(write_response(task, settle(task, traits), draws) or "") < 1000


@given(st.integers(0, 99), st.integers(0, 99))
def test_draws_depend_on_seed_and_row(seed: int, row: int) -> None:
    """The same seed and row give the same choices."""
    first, second = ([Draws(seed, row).uniform() for _ in range(2)] for _ in range(2))
    assert first == second


def test_draws_use_pcg64() -> None:
    """The random stream is numpy's PCG64, which is the same on every platform."""
    assert [Draws(0, 0).below(1000), Draws(5, 1).below(1000)] == [
        int(np.random.Generator(np.random.PCG64(np.random.SeedSequence(key))).random() * 1000)
        for key in ([0, 0], [5, 1])
    ]


@given(st.lists(st.integers(), unique=True, min_size=1, max_size=9), st.data(), DRAWS)
def test_take_returns_a_subsequence(values, data, draws) -> None:
    """The values keep their order, and none is taken twice."""
    count = data.draw(st.integers(0, len(values)))
    taken = draws.take(values, count)
    assert len(taken) == count
    assert taken == [value for value in values if value in taken]


def test_quality_is_additive() -> None:
    """The quality of two traits is the sum of their qualities."""
    both = quality(Traits(wrong=1, hedge=1))
    assert both == quality(Traits(wrong=1)) + quality(Traits(hedge=1))


STATEMENTS = [task for task in build_tasks() if isinstance(task, Statement)]
LISTINGS = [task for task in build_tasks() if isinstance(task, Listing)]


def test_prompts_are_distinct() -> None:
    """No two tasks are in one prompt group."""
    folded = {" ".join(task.prompt.casefold().split()) for task in build_tasks()}
    assert len(folded) == len(build_tasks())


def test_tasks_are_many() -> None:
    """There are enough prompt groups for folds, and some prompts occur often."""
    assert len(build_tasks()) > 500
    assert 30 < len(popular_tasks()) < 100


def test_prompts_have_no_placeholder() -> None:
    """Every placeholder of the data file is filled."""
    assert not [task.prompt for task in build_tasks() if "{" in task.prompt]


def test_sentences_keep_answer_placeholder() -> None:
    """Statements and reasons have no placeholder but {answer}."""
    texts = [text for task in STATEMENTS for text in (*task.statements, *task.reasons)]
    assert not [text for text in texts if "{" in text.replace("{answer}", "")]


def test_answers_and_distractors_are_disjoint() -> None:
    """A wrong answer is never right."""
    confused = [task.prompt for task in STATEMENTS if set(task.answers) & set(task.distractors)]
    assert confused == []


def test_statements_have_both_answers() -> None:
    """There is at least one right and one wrong answer, a sentence and a reason."""
    assert all(
        task.answers and task.distractors and task.statements and task.reasons
        for task in STATEMENTS
    )


def test_items_and_intruders_are_disjoint() -> None:
    """An intruder is never right, and there are enough items."""
    for task in LISTINGS:
        assert not set(task.items) & set(task.intruders)
        assert 1 <= task.count <= len(task.items)


def test_prompt_ends_with_request() -> None:
    """The prompt asks for the form of the answer."""
    assert all(task.prompt.endswith(REQUESTS[task.request]) for task in STATEMENTS)
