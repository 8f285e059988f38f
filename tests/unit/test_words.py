"""What was mistyped is named with what was probably meant."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiewise.cli import main
from tiewise.commands.words import check_words, flags_of, shows, with_examples
from tiewise.config.loading import load_preset
from tiewise.config.run_config import RunConfig
from tiewise.errors import ConfigError


def count(data: str, *, max_length: int = 1, json: bool = False) -> None:
    """Count what is there.

    More of it.

    Args:
        data: Where.
    """


COMMANDS = {"count": count, "compare": count}


@given(
    place=st.integers(2, 9),
    flag=st.sampled_from([flag for flag in flags_of(count) if len(flag) > 5]),
)
def test_a_flag_without_one_letter_is_recognised(place, flag):
    """The nearest flag is named, whatever else is wrong with the line."""
    typed = flag[:place] + flag[place + 1 :]
    if typed in flags_of(count):
        return
    with pytest.raises(ConfigError, match=f"no flag {typed}.*Did you mean {flag}"):
        check_words(["count", typed, "3"], COMMANDS)


@pytest.mark.parametrize(
    "words", [[], ["--help"], ["count", "--help"], ["count", "x", "--max_length=3", "--no-json"]]
)
def test_what_there_is_passes(words):
    """Either spelling of a flag, and no command at all, which tyro explains."""
    check_words(words, COMMANDS)


def test_a_command_that_there_is_not_is_not_run():
    """Two are near; the nearest is named, and all are listed."""
    with pytest.raises(ConfigError, match=r"no command cont\. Did you mean count\? Commands are"):
        check_words(["cont"], COMMANDS)
    with pytest.raises(ConfigError, match=r"no command xyzzy\. Commands are"):
        check_words(["xyzzy"], COMMANDS)


def test_every_field_of_the_configuration_is_a_flag():
    """A misspelt field is told from a right one."""
    defaults = load_preset("tiny")

    def fit(*, config: RunConfig = defaults) -> None:
        """Fit."""

    assert {"--batch-size", "--no-both-orders", "--report-to"} <= set(flags_of(fit))


def test_examples_stand_after_the_first_paragraph():
    """And the command does what it did."""
    shown = with_examples(shows("tiewise count a.csv", "tiewise count b.csv")(count))
    paragraphs = shown.__doc__.split("\n\n")
    assert paragraphs[1] == "For example:\n  tiewise count a.csv\n  tiewise count b.csv"
    assert paragraphs[0] == "Count what is there."
    assert shown("x") is None


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("ft --preset tiny", "Did you mean fit?"),
        ("predict --rnu first", "Did you mean --run?"),
        ("fit --lerning-rate 1", "Did you mean --learning-rate?"),
        ("fit --preset quikstart", "Did you mean quickstart?"),
    ],
)
def test_commands_flags_and_presets_are_suggested(capsys, line, hint):
    """Exit status 2 and the word that was meant."""
    assert main(line.split()) == 2
    assert hint in capsys.readouterr().err
