"""The command line: which commands there are, and how one of them is run.

Results go to standard output, everything else to standard error. With ``--json`` standard output
holds one JSON object and nothing more. Exit status: 0 done; 2 the person must change something;
130 or 143 interrupted, go on with ``--resume``; 1 our own bug.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from typing import Literal

import tyro

from tiewise import __version__
from tiewise.commands.combining import blend
from tiewise.commands.evaluating import calibrate, compare, evaluate, leaderboard, report, slices
from tiewise.commands.fitting import make_fit, presets
from tiewise.commands.labelling import label
from tiewise.commands.machine import doctor
from tiewise.commands.predicting import export, predict, rank
from tiewise.commands.reading import audit, convert, simulate
from tiewise.commands.sharing import demo, push
from tiewise.commands.words import Command, check_words, shows, with_examples
from tiewise.console import run_command, show

DEFAULT_PRESET = "quickstart"
_DESCRIPTION = """Which of two chatbot responses does a person prefer? P(A), P(B), P(tie).

A first run:
  tiewise fit --preset quickstart --fold 0 --run first
  tiewise evaluate first
  tiewise report first

Every command takes --help, with examples, and --quiet; tiewise --version says which it is. Colours
are off where NO_COLOR is set."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    is_quiet = "--quiet" in words
    words = [word for word in words if word != "--quiet"]

    def command() -> None:
        if words == ["--version"]:
            show(f"tiewise {__version__}")
            return
        commands = _commands(words)
        check_words(words, commands)
        _parse_and_run(commands, words)

    return run_command(command, is_quiet=is_quiet)


@shows(
    "tiewise completion bash > ~/.local/share/bash-completion/completions/tiewise",
    "tiewise completion zsh > ~/.zfunc/_tiewise",
)
def completion(shell: tyro.conf.Positional[Literal["bash", "zsh", "fish", "tcsh"]]) -> None:
    """Write a script that lets a shell complete commands and flags.

    Args:
        shell: The shell it is for.
    """
    with contextlib.suppress(SystemExit):  # tyro's way of being done
        _parse_and_run(_commands(()), ["--tyro-print-completion", shell])


def _parse_and_run(commands: dict[str, Command], words: Sequence[str]) -> None:
    chosen = words[0] if words else ""
    shown = {
        name: with_examples(command) if name == chosen else command
        for name, command in commands.items()
    }
    tyro.extras.subcommand_cli_from_dict(
        shown, args=list(words), prog="tiewise", description=_DESCRIPTION
    )


def _commands(words: Sequence[str]) -> dict[str, Command]:
    return {
        "fit": make_fit(_preset_in(words) if words[:1] == ["fit"] else DEFAULT_PRESET),
        "predict": predict,
        "label": label,
        "rank": rank,
        "evaluate": evaluate,
        "slices": slices,
        "calibrate": calibrate,
        "leaderboard": leaderboard,
        "compare": compare,
        "report": report,
        "blend": blend,
        "audit": audit,
        "simulate": simulate,
        "convert": convert,
        "presets": presets,
        "export": export,
        "push": push,
        "demo": demo,
        "doctor": doctor,
        "completion": completion,
    }


def _preset_in(words: Sequence[str]) -> str:
    """Find the preset before the flags are read: it gives them their defaults. The last counts."""
    found = DEFAULT_PRESET
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word == "--preset" and following:
            found = following
        elif word.startswith("--preset="):
            found = word.removeprefix("--preset=")
    return found
