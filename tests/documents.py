"""Read the commands and Python blocks of the pages, type them, and compare what they print.

Some steps are not run: those of a block with ``<!-- not run: REASON -->`` above it, and a command
whose comment names a reason, as in ``# on a GPU``. The reasons are listed here, so that skipped
steps can be counted.

Output is shown in the console block, below its command, or for Python in a block ``text`` that
follows the code. A line ``...`` takes the place of omitted lines. The comment ``<!-- figure: FILE
-->`` above an image says which file of the reader's folder it is.

    python tests/documents.py docs/tutorial.md

types a page in an empty folder, and writes what was printed and drawn into the page; with the flag
``--minutes`` also the steps that take minutes. Output that is shown as a line ``?`` is filled in.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
NOTEBOOKS = ("analysis.md",)
"""Pages that are executed when the site is built."""
TYPED = (
    ROOT / "docs/tutorial.md",
    ROOT / "docs/evaluation.md",
    *(ROOT / f"docs/howto/{name}.md" for name in ("competitor", "reward-models")),
    *(ROOT / f"docs/howto/{name}.md" for name in ("evaluation", "data-team")),
)
"""Pages that begin in an empty folder."""
PAGES = tuple(
    path
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
    if path.name not in NOTEBOOKS
    and path not in TYPED
    and not {"reference", "_build"} & set(path.relative_to(ROOT).parts)
)
"""Pages that need the data and runs of the test module."""

REASONS = {
    "installs": "installs packages, builds, launches processes, or is a session of nox",
    "kaggle": "needs Kaggle's folders and GPUs",
    "gpu": "needs CUDA, and is refused only because it is missing",
    "hub": "needs a hub",
    "store": "needs an object store",
    "cluster": "needs a Ray cluster",
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
    r"^```(?P<kind>console|python)[^\n]*\n(?P<text>.*?)^```\n"
    r"(?:\n*^```text\n(?P<shown>.*?)^```)?",
    re.MULTILINE | re.DOTALL,
)
_COMMAND = re.compile(r"^\$ (?P<line>(?:.*\\\n)*.*\n)(?P<shown>(?:(?!\$ ).*\n)*)", re.MULTILINE)
_FIGURE = re.compile(r"^<!-- figure: (?P<file>\S+) -->\n+!\[[^\]]*\]\((?P<image>[^)]+)\)", re.M)
_NUMBER = re.compile(r"[-+]?\d+(,\d{3})*(\.\d+)?(e[-+]?\d+)?")
OMITTED = "..."


@dataclass(frozen=True)
class Step:
    """One command, or one block of Python, of a page."""

    text: str
    is_code: bool
    why_not: str | None
    """One of the reasons not to run it; None if it is run."""
    shown: tuple[str, ...] = ()
    """Lines of output that the page shows."""
    span: tuple[int, int] = (0, 0)
    """Position of these lines in the text of the page."""


def read_steps(text: str) -> list[Step]:
    """Return the commands and Python blocks of a page, in order."""
    steps = []
    for block in _BLOCK.finditer(text):
        if block["kind"] == "console":
            steps += _read_commands(block["text"], block.start("text"), block["reason"])
            continue
        shown = tuple((block["shown"] or "").splitlines())
        steps.append(Step(block["text"], True, block["reason"], shown, block.span("shown")))
    return steps


def _read_commands(text: str, start: int, reason: str | None) -> list[Step]:
    r"""Split a console block at its prompts; a command continues after a backslash."""
    steps = []
    for part in re.finditer(
        r"^\$ (?P<line>(?:.*\\\n)*.*\n)(?P<shown>(?:(?!\$ ).*\n)*)", text, re.M
    ):
        command, _, comment = (
            each.strip() for each in re.split(r"(\s#\s|$)", part["line"].strip(), maxsplit=1)
        )
        tails = (why for tail, why in _TAILS.items() if comment.startswith(tail))
        installs = "installs" if command.startswith(_INSTALLERS) else None
        why_not = reason or installs or next(tails, None)
        span = (start + part.start("shown"), start + part.end("shown"))
        steps.append(Step(command, False, why_not, tuple(part["shown"].splitlines()), span))
    return steps


def find_figures(text: str) -> list[tuple[str, str]]:
    """Return for each figure the file that a step has made, and the image that the page shows."""
    return [(found["file"], found["image"]) for found in _FIGURE.finditer(text)]


def find_shown(shown: tuple[str, ...], printed: list[str]) -> list[str] | None:
    """Return the printed lines that a page shows, or None if they differ in more than numbers."""
    parts = re.split(
        rf"^{re.escape(OMITTED)}\n", "".join(f"{line}\n" for line in shown), flags=re.M
    )
    masked = [mask_numbers(line) for line in printed]
    found: list[str] = []
    start = 0
    for number, part in enumerate(parts):
        wanted = [mask_numbers(line) for line in part.splitlines()]
        first, last = start, len(masked) - len(wanted)
        if number == 0:
            last = min(0, last)
        if number == len(parts) - 1:
            first = max(first, len(masked) - len(wanted))
        starts = range(first, last + 1)
        places = [at for at in starts if masked[at : at + len(wanted)] == wanted]
        if not places:
            return None
        start = places[0] + len(wanted)
        found += [OMITTED] * (number > 0) + printed[places[0] : start]
    return found


def mask_numbers(line: str) -> str:
    """Return a line with `#` for each number, and single spaces."""
    return " ".join(_NUMBER.sub("#", line).split())


def type_command(line: str, folder: Path) -> tuple[int, str]:
    """Run a command in a folder; return its status and all that it printed."""
    program = f'tiewise() {{ "{sys.executable}" -m tiewise "$@"; }}\nset -e\n{line}'
    hidden = ("TIEWISE_DATA", "TIEWISE_ARTIFACTS")
    environment = {name: value for name, value in os.environ.items() if name not in hidden} | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}",
        "PYTHONUNBUFFERED": "1",
        "COLUMNS": "100",
        "NO_COLOR": "1",
    }
    done = subprocess.run(
        ["bash", "-c", program], cwd=folder, env=environment, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, timeout=1200, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout


def run_code(code: str, folder: Path, names: dict[str, object]) -> str:
    """Run a block of Python in a folder; return what it printed."""
    printed = io.StringIO()
    with contextlib.chdir(folder), contextlib.redirect_stdout(printed):
        exec(compile(code, "page", "exec"), names)
    return printed.getvalue()


def type_page(
    text: str, folder: Path, *, skip: Callable[[Step], bool] = lambda step: bool(step.why_not)
) -> str:
    """Type the steps of a page in a folder; return the page with what they printed.

    Raises
    ------
    AssertionError
        If a command fails, or prints something else than the page shows.
    """
    names: dict[str, object] = {}
    changes = []
    for step in read_steps(text):
        if skip(step):
            continue
        status, output = 0, ""
        if step.is_code:
            output = run_code(step.text, folder, names)
        else:
            status, output = type_command(step.text, folder)
        assert status == 0, f"{step.text}\nended with status {status}:\n{output}"
        if step.shown:
            changes.append((step.span, _show_again(step, output.rstrip().splitlines())))
    for (start, end), lines in reversed(changes):
        text = text[:start] + "".join(f"{line}\n" for line in lines) + text[end:]
    return text


def _show_again(step: Step, printed: list[str]) -> list[str]:
    printed = [line.rstrip() for line in printed]
    if step.shown == ("?",):
        return printed
    lines = find_shown(step.shown, printed)
    shown = "\n".join(step.shown)
    text = "\n".join(printed)
    assert lines is not None, f"{step.text}\nprinted:\n{text}\nbut the page shows:\n{shown}"
    return lines


def make_figures_equal() -> None:
    """Let matplotlib open no window, and write the same SVG file each time."""
    os.environ |= {"MPLBACKEND": "agg", "SOURCE_DATE_EPOCH": "0"}
    with contextlib.suppress(ImportError):
        import matplotlib as mpl

        mpl.rcParams["svg.hashsalt"] = "tiewise"


def main(arguments: list[str]) -> None:
    """Type pages, and write them with the new output and figures."""
    make_figures_equal()
    reasons = {None, "minutes"} if "--minutes" in arguments else {None}
    for page in (Path(name) for name in arguments if name != "--minutes"):
        text = page.read_text("utf-8")
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            new = type_page(text, folder, skip=lambda step: step.why_not not in reasons)
            page.write_text(new, "utf-8")
            for file, image in find_figures(new):
                place = page.parent / image
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(folder / file, place)
        sys.stdout.write(f"{page}: {'changed' if new != text else 'unchanged'}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
