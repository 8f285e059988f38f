"""Read the commands and Python blocks of the pages, and the reasons not to run some of them.

A block is skipped when the line above it is ``<!-- not run: REASON -->``; a single command when its
comment names a reason, as in ``# on a GPU``. The reasons are listed here, so that skipped commands
can be counted.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
NOTEBOOKS = ("analysis.md",)
"""Pages that are executed when the site is built."""
PAGES = tuple(
    path
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
    if path.name not in NOTEBOOKS
)

REASONS = {
    "installs": "installs packages, builds, launches processes, or is a session of nox",
    "kaggle": "needs Kaggle's folders and GPUs",
    "gpu": "needs CUDA, and is refused only because it is missing",
    "hub": "needs a hub",
    "browser": "needs a browser, or waits for one",
    "minutes": "takes minutes",
}
_TAILS = {"on a GPU": "gpu", "from a hub": "hub", "minutes": "minutes", "on a CPU": "minutes"}
_INSTALLERS = (
    "pip ",
    "nox",
    "python -m build",
    "torchrun ",
    "HF_HUB_OFFLINE=1 torchrun ",
    "git ",
    "jupytext ",
)
_BLOCK = re.compile(
    r"(?:^<!-- not run: (?P<reason>\w+)[^\n]*-->\n+)?"
    r"^```(?P<kind>console|python)[^\n]*\n(?P<text>.*?)^```",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Step:
    """One command, or one block of Python, of a page."""

    text: str
    is_code: bool
    why_not: str | None
    """One of the reasons not to run it; None if it is run."""


def read_steps(text: str) -> list[Step]:
    """Return the commands and Python blocks of a page, in order."""
    steps = []
    for block in _BLOCK.finditer(text):
        if block["kind"] == "python":
            steps.append(Step(block["text"], True, block["reason"]))
            continue
        lines = [line[2:] for line in block["text"].splitlines() if line.startswith("$ ")]
        steps += [_read_command(line, block["reason"]) for line in lines]
    return steps


def _read_command(line: str, reason: str | None) -> Step:
    command, _, comment = (part.strip() for part in re.split(r"(\s#\s|$)", line, maxsplit=1))
    tails = (why for tail, why in _TAILS.items() if comment.startswith(tail))
    installs = "installs" if command.startswith(_INSTALLERS) else None
    return Step(command, False, reason or installs or next(tails, None))
