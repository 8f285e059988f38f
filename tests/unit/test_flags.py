"""Flags of the command line: help of one screen, other spellings, errors with suggestions."""

import dataclasses
import logging

import pytest

from tiewise import config, flags
from tiewise.cli import COMMANDS, main, make_fit

FIELDS = [
    field.name
    for part in dataclasses.fields(config.RunConfig)
    for field in dataclasses.fields(getattr(config.RunConfig(), part.name))
]


def spelled(name):
    return f"--{name.replace('_', '-')}"


@pytest.fixture
def help_of(capsys):
    """Return a function that gives the help that some words print."""

    def read(*words):
        with pytest.raises(SystemExit) as ended:
            main(words)
        assert ended.value.code == 0
        return capsys.readouterr().out

    return read


def test_help_shows_common_fields(help_of):
    """``fit --help`` shows a dozen flags, ``--help-all`` one for every field."""
    short, full = help_of("fit", "--help"), help_of("fit", "--help-all")
    for name in FIELDS:
        assert spelled(name) in full
        assert (f" {spelled(name)} " in short) == (name in flags.COMMON_FIELDS), name
    assert "--help-all" in short


@pytest.mark.parametrize("preset", config.PRESETS)
def test_help_shows_defaults_of_preset(help_of, preset):
    """Defaults are those of the preset that is named."""
    backbone = config.load_preset(preset).model.backbone
    assert backbone in help_of("fit", "--preset", preset, "--help").replace("\n", "")


@pytest.mark.parametrize("command", [make_fit("quickstart"), *COMMANDS])
def test_values_have_names(help_of, command):
    """A value is called FILE, RUN, DIR or INT: no Python type is shown."""
    text = help_of(command.__name__, "--help")
    assert "None" not in text
    assert "STR" not in text
    assert "PATH" not in text
    assert flags.expand_words(["help", command.__name__]) == [command.__name__, "--help"]


def parse(*words):
    """Return the configuration that some words of ``fit --preset tiny`` give."""
    call = flags.parse_words({"fit": make_fit("tiny")}, ["fit", *words], description="")
    return flags.config_of(**{part: call.keywords[part] for part in config.RunConfig().to_dict()})


def test_all_flags_reach_the_configuration():
    """A flag that the help hides is accepted; fields keep their types."""
    wanted = config.override(config.load_preset("tiny"), lora_r=4, data=("a", "b"))
    assert parse("--lora-r", "4", "--data", "a", "b") == wanted


@pytest.mark.parametrize(
    ("word", "name", "value"),
    [("--lr", "learning_rate", 0.5), ("--epochs", "n_epochs", 3), ("--model", "backbone", "t:3")],
)
def test_common_spellings_are_accepted(word, name, value):
    """Spellings of other trainers are accepted."""
    assert parse(word, str(value)) == config.override(config.load_preset("tiny"), **{name: value})


@pytest.mark.parametrize(
    ("words", "given"),
    [
        ("compare --data moved.csv a b", {"runs": ("a", "b"), "data": ("moved.csv",)}),
        ("compare a b --data x.csv --data y.csv", {"runs": ("a", "b"), "data": ("x.csv", "y.csv")}),
        ("evaluate --data moved.csv a", {"run": "a", "data": ("moved.csv",)}),
        ("report --data moved.csv a", {"run": "a", "data": ("moved.csv",)}),
        ("leaderboard --data moved.csv a", {"run": "a", "data": ("moved.csv",)}),
    ],
)
def test_names_of_runs_are_not_data(words, given):
    """Each --data takes one file, so that a run may follow it."""
    commands = {command.__name__: command for command in COMMANDS}
    call = flags.parse_words(commands, words.split(), description="")
    found = call.keywords | vars(call.keywords.get("judged", flags.Judged()))
    found |= {"data": call.keywords["data"]} if "data" in call.keywords else {}
    assert {name: found[name] for name in given} == given


@pytest.mark.parametrize(
    "command", ["evaluate --data v.csv --predictions p.csv", "leaderboard first", "fit"]
)
def test_rows_may_be_skipped(command):
    """Commands that read labelled data for a fit or for scores take ``--on-error skip``."""
    make = {"fit": make_fit("baseline")} | {each.__name__: each for each in COMMANDS}
    call = flags.parse_words(make, [*command.split(), "--on-error", "skip"], description="")
    assert "skip" in [getattr(part, "on_error", None) for part in call.keywords.values()]


@pytest.mark.parametrize(
    "words",
    [
        "audit --columns prompt=q,winner=w --columns id=n --columns a=0,b=1 v.csv",
        "evaluate --columns prompt=q,winner=w --columns id=n --columns a=0,b=1 --data v.csv",
        "convert --out o.csv --columns a=0,b=1 --columns prompt=q,winner=w --columns id=n v.csv",
        "fit --columns prompt=q,winner=w --columns id=n --columns a=0,b=1 --data v.csv",
    ],
)
def test_columns_take_one_word(words):
    """What follows --columns is not swallowed, and it may be repeated."""
    make = {"fit": make_fit("baseline")} | {each.__name__: each for each in COMMANDS}
    call = flags.parse_words(make, words.split(), description="")
    parts = [part for part in call.keywords.values() if hasattr(part, "columns")]
    [reading] = parts
    assert sorted(reading.columns) == ["a=0,b=1", "id=n", "prompt=q,winner=w"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("evalute first", "evalute is not a command. Did you mean evaluate?"),
        ("fit --learning-rte 1", "--learning-rate"),
        ("fit --epochs many", "invalid literal for int"),
        ("predict --run first", "--data"),
        ("fit --preset quikstart", "Did you mean quickstart?"),
    ],
)
def test_unfitting_words_are_errors(capsys, words, expected):
    """Errors have one form: ``error:``, then a hint, and status 2."""
    assert main(words.split()) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ")
    assert expected in message
    assert "─" not in message


def test_unknown_flag_names_one_command(capsys):
    """The suggestion is of the command that was typed; flags of other commands are not shown."""
    assert main(["fit", "--dta", "votes.csv"]) == 2
    message = capsys.readouterr().err
    assert "--data FILE" in message
    assert "run tiewise fit --help" in message
    assert not any(command.__name__ in message.split() for command in COMMANDS), message


def test_help_of_swap_shows_accepted_words(help_of):
    """``--swap`` and ``--no-swap`` take no value, and the help shows none."""
    text = help_of("predict", "--help")
    assert "--no-swap, --swap " in text
    assert "True" not in text


def test_help_ignores_other_words(help_of):
    """`runs rm --help` shows the whole command, as `runs --help` does."""
    assert help_of("runs", "rm", "--help") == help_of("runs", "--help")
    assert "{list,show,rm}" in help_of("runs", "rm", "--help")


def test_no_words_print_help(help_of):
    """``tiewise`` alone prints the list of commands."""
    assert help_of() == help_of("--help")


@pytest.mark.parametrize(
    ("word", "level"),
    [("-q", logging.WARNING), ("--quiet", logging.WARNING), ("-v", logging.DEBUG)],
)
def test_level_of_messages(capsys, word, level):
    """-q shows warnings and errors only, -v also details."""
    assert main(["audit", "missing.csv", word]) == 2
    assert logging.getLogger("tiewise").level == level
