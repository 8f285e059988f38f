"""The simulated prompts: many, distinct, and with answers that cannot be confused."""

from __future__ import annotations

from tiewise.data.simulation.tasks import REQUESTS, Listing, Statement, build_tasks, popular_tasks

STATEMENTS = [task for task in build_tasks() if isinstance(task, Statement)]
LISTINGS = [task for task in build_tasks() if isinstance(task, Listing)]


def test_prompts_are_distinct_even_with_case_and_spaces_folded() -> None:
    """No two tasks fall into one group."""
    folded = {" ".join(task.prompt.casefold().split()) for task in build_tasks()}
    assert len(folded) == len(build_tasks())


def test_there_are_hundreds_of_tasks_and_few_popular_ones() -> None:
    """Grouped folds have enough groups, and some prompts come back often."""
    assert len(build_tasks()) > 500
    assert 30 < len(popular_tasks()) < 100


def test_no_place_is_left_open_in_a_prompt() -> None:
    """Every placeholder of the data file is filled."""
    assert not [task.prompt for task in build_tasks() if "{" in task.prompt]


def test_sentences_keep_only_the_place_of_the_answer() -> None:
    """Statements and reasons have no open place but {answer}."""
    texts = [text for task in STATEMENTS for text in (*task.statements, *task.reasons)]
    assert not [text for text in texts if "{" in text.replace("{answer}", "")]


def test_a_wrong_answer_is_never_a_right_one() -> None:
    """Answers and distractors are disjoint."""
    confused = [task.prompt for task in STATEMENTS if set(task.answers) & set(task.distractors)]
    assert confused == []


def test_every_statement_can_be_answered_both_ways() -> None:
    """There is at least one right and one wrong answer, a sentence and a reason."""
    assert all(
        task.answers and task.distractors and task.statements and task.reasons
        for task in STATEMENTS
    )


def test_an_intruder_is_never_a_member() -> None:
    """Items and intruders are disjoint, and enough items exist."""
    for task in LISTINGS:
        assert not set(task.items) & set(task.intruders)
        assert 1 <= task.count <= len(task.items)


def test_the_request_of_a_statement_stands_in_its_prompt() -> None:
    """What the prompt asks of the form is said in it."""
    assert all(task.prompt.endswith(REQUESTS[task.request]) for task in STATEMENTS)
