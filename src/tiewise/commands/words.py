"""What was typed, held against what there is: commands and flags, and which of them was meant.

A command says by example how it is used (:func:`shows`); the examples stand in its own help, not
in the list of commands.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from tiewise.errors import ConfigError

Command = Callable[..., None]
COMMON_FLAGS = ("--help", "--quiet")


def shows(*lines: str) -> Callable[[Command], Command]:
    """Give a command examples of its use.

    Examples
    --------
    >>> shows("tiewise count train.csv")(lambda: None).examples
    ('tiewise count train.csv',)
    """

    def add(command: Command) -> Command:
        command.examples = lines  # type: ignore[attr-defined]
        return command

    return add


def with_examples(command: Command) -> Command:
    """Return a command whose help holds its examples, after the first paragraph."""

    @functools.wraps(command)
    def run(*arguments: Any, **options: Any) -> None:
        command(*arguments, **options)

    summary, *rest = inspect.cleandoc(command.__doc__ or "").split("\n\n")
    lines = [f"  {line}" for line in getattr(command, "examples", ())]
    run.__doc__ = "\n\n".join([summary, "\n".join(["For example:", *lines]), *rest])
    return run


def check_words(words: Sequence[str], commands: Mapping[str, Command]) -> None:
    """Refuse a command or a flag that there is not, and name the nearest there is.

    Parameters
    ----------
    words
        What was typed after ``tiewise``.
    commands
        The commands by name.

    Raises
    ------
    ConfigError
        For the first unknown word.
    """
    if not words or words[0].startswith("-"):
        return
    name, *rest = words
    if name not in commands:
        known = ", ".join(commands)
        raise ConfigError(
            f"There is no command {name}.{_hint(name, commands)} Commands are {known}."
        )
    flags = [*flags_of(commands[name]), *COMMON_FLAGS]
    for word in rest:
        flag = word.partition("=")[0].replace("_", "-")
        if flag.startswith("--") and len(flag) > 2 and flag not in flags:
            raise ConfigError(
                f"tiewise {name} has no flag {flag}.{_hint(flag, flags)} "
                f"All of them: tiewise {name} --help."
            )


def flags_of(command: Command) -> list[str]:
    """Return the flags of a command, those of its configuration included.

    Examples
    --------
    >>> def count(data: str, *, max_length: int = 1, json: bool = False) -> None: ...
    >>> flags_of(count)
    ['--max-length', '--json', '--no-json']
    """
    parameters = inspect.signature(command).parameters.values()
    keywords = [part for part in parameters if part.kind is part.KEYWORD_ONLY]
    flags: list[str] = []
    for part in keywords:
        if dataclasses.is_dataclass(part.default):
            flags += _flags_of_sections(part.default)
        else:
            flags += _spell(part.name, part.default)
    return flags


def _flags_of_sections(config: Any) -> list[str]:
    sections = (getattr(config, section.name) for section in dataclasses.fields(config))
    return [
        flag
        for section in sections
        for part in dataclasses.fields(section)
        for flag in _spell(part.name, getattr(section, part.name))
    ]


def _spell(name: str, default: Any) -> list[str]:
    word = name.replace("_", "-")
    return [f"--{word}", f"--no-{word}"] if isinstance(default, bool) else [f"--{word}"]


def _hint(word: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, list(known), n=1)
    return f" Did you mean {close[0]}?" if close else ""
