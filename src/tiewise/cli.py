"""The command line: which commands there are, and how one of them is run.

Results go to standard output, everything else to standard error. With ``--json`` standard output
holds one JSON object and nothing more. Exit status: 0 done; 2 the person must change something;
130 or 143 interrupted, go on with ``--resume``; 1 our own bug.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import tyro

from tiewise.commands.combining import average, blend, cascade
from tiewise.commands.evaluating import compare, evaluate, report
from tiewise.commands.fitting import make_fit, presets
from tiewise.commands.predicting import export, predict, rank
from tiewise.commands.reading import audit, simulate
from tiewise.console import run_command

DEFAULT_PRESET = "quickstart"
_DESCRIPTION = """Which of two chatbot responses does a person prefer? P(A), P(B), P(tie).

A first run:  tiewise fit --preset quickstart --fold 0 --run first
              tiewise evaluate first
Every command takes --help and --quiet."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    is_quiet = "--quiet" in words
    words = [word for word in words if word != "--quiet"]

    def command() -> None:
        tyro.extras.subcommand_cli_from_dict(
            _commands(words), args=words, prog="tiewise", description=_DESCRIPTION
        )

    return run_command(command, is_quiet=is_quiet)


def _commands(words: Sequence[str]) -> dict[str, Callable[..., Any]]:
    return {
        "fit": make_fit(_preset_in(words) if words[:1] == ["fit"] else DEFAULT_PRESET),
        "predict": predict,
        "rank": rank,
        "evaluate": evaluate,
        "compare": compare,
        "blend": blend,
        "average": average,
        "cascade": cascade,
        "audit": audit,
        "simulate": simulate,
        "report": report,
        "export": export,
        "presets": presets,
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
