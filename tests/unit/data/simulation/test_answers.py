"""A response shows its traits and is worth their weighted sum."""

from __future__ import annotations

import dataclasses

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tiewise.data.simulation.answers import WEIGHTS, Draws, Traits, quality, settle, write_response
from tiewise.data.simulation.tasks import Listing, Statement, build_tasks, load_texts

NAMES = [field.name for field in dataclasses.fields(Traits)]
TASKS = st.sampled_from(build_tasks())
DRAWS = st.builds(Draws, st.integers(0, 9), st.integers(0, 1000))


@st.composite
def any_traits(draw: st.DrawFn) -> Traits:
    """Any traits, settled or not."""
    values = {name: draw(st.integers(0, 3 if name == "fillers" else 1)) for name in NAMES}
    return Traits(**values)


PHRASES = load_texts()["phrases"]


def shows(text: str, kind: str) -> int:
    """How many phrases of a kind stand in the text."""
    return sum(phrase in text for phrase in PHRASES[kind])


def test_every_trait_has_a_weight() -> None:
    """Quality depends on every trait and on nothing else."""
    assert set(WEIGHTS) == set(NAMES)


@given(any_traits(), TASKS)
def test_settling_twice_is_settling_once(traits: Traits, task) -> None:
    """Settled traits stay as they are."""
    assert settle(task, settle(task, traits)) == settle(task, traits)


@given(any_traits(), TASKS, DRAWS)
def test_a_text_is_missing_exactly_when_its_traits_say_so(traits: Traits, task, draws) -> None:
    """Null and empty responses come from the trait `missing` alone."""
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
def test_right_and_wrong_stand_in_the_text(traits: Traits, task, draws) -> None:
    """A right answer names a right value; a wrong one a wrong value."""
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
def test_an_honoured_count_gives_that_many_lines(task: Listing, draws: Draws) -> None:
    """A list has the number of items asked for, another number when that is ignored."""
    for ignored in (0, 1):
        text = write_response(task, Traits(layout=1, ignored=ignored), draws) or ""
        marks = ("- ", "1. ", "2. ", "3. ", "4. ", "5. ", "6. ")
        n_lines = sum(line.startswith(marks) for line in text.splitlines())
        assert (n_lines == task.count) != bool(ignored)


@given(any_traits(), TASKS, DRAWS)
def test_texts_are_short_enough_to_read(traits: Traits, task, draws) -> None:
    """No response is longer than a thousand characters."""
    assert len(write_response(task, settle(task, traits), draws) or "") < 1000


@given(st.integers(0, 99), st.integers(0, 99))
def test_draws_are_determined_by_seed_and_row(seed: int, row: int) -> None:
    """The same seed and row give the same choices."""
    first, second = ([Draws(seed, row).uniform() for _ in range(2)] for _ in range(2))
    assert first == second


def test_draws_are_numpys_pcg64() -> None:
    """The stream is the documented one, so it is the same on every platform."""
    assert [Draws(0, 0).below(1000), Draws(5, 1).below(1000)] == [
        int(np.random.Generator(np.random.PCG64(np.random.SeedSequence(key))).random() * 1000)
        for key in ([0, 0], [5, 1])
    ]


@given(st.lists(st.integers(), unique=True, min_size=1, max_size=9), st.data(), DRAWS)
def test_taking_keeps_order_and_takes_no_value_twice(values, data, draws) -> None:
    """`take` gives a subsequence of the wanted length."""
    count = data.draw(st.integers(0, len(values)))
    taken = draws.take(values, count)
    assert len(taken) == count
    assert taken == [value for value in values if value in taken]


def test_quality_is_additive() -> None:
    """The worth of two traits is the sum of their worths."""
    both = quality(Traits(wrong=1, hedge=1))
    assert both == quality(Traits(wrong=1)) + quality(Traits(hedge=1))
