"""The commands in README and the pages do what the text says."""

from __future__ import annotations

import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
import torch

from documents import (
    PAGES,
    REASONS,
    ROOT,
    TYPED,
    find_figures,
    find_shown,
    read_steps,
    type_page,
)
from tiewise.cli import main
from tiewise.data.simulation.simulate import simulate, write_simulation

ASSUMING = [path.relative_to(ROOT).as_posix() for path in PAGES]
FROM_EMPTY = [path.relative_to(ROOT).as_posix() for path in TYPED]
STEPS = {name: read_steps((ROOT / name).read_text("utf-8")) for name in (*ASSUMING, *FROM_EMPTY)}
SESSIONS = set(re.findall(r"^def (\w+)\(session", (ROOT / "noxfile.py").read_text("utf-8"), re.M))
SHELL = set("|&;<>$=*")
ASSUMED = """
import numpy as np
labels = np.arange(60) % 3
probs = probs_1 = np.tile([0.4, 0.3, 0.3], (60, 1))
probs_2 = np.tile([0.3, 0.4, 0.3], (60, 1))
"""
"""Names that the code of a page may use without defining them."""


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Make the folder that the pages assume: data, two runs, predictions of another judge."""
    folder = tmp_path_factory.mktemp("reader")
    write_simulation(simulate(60, seed=0), folder / "train.csv")
    train = pd.read_csv(folder / "train.csv")
    winners = [name for name in train if name.startswith("winner")]
    train.drop(columns=winners).to_csv(folder / "test.csv", index=False)
    judged = pd.DataFrame({"id": train["id"], "prob_a": 0.4, "prob_b": 0.4, "prob_tie": 0.2})
    judged.to_csv(folder / "judged.csv", index=False)
    for name in ("prompt", "first", "second", "third"):
        (folder / f"{name}.txt").write_text(f"The {name} text.", "utf-8")
    fit = ("fit", "--data", "train.csv", "--fold", "0")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main([*fit, "--preset", "tiny", "--n-epochs", "1", "--run", "first"]) == 0
        assert main([*fit, "--preset", "baseline", "--run", "small"]) == 0
    return folder


@pytest.fixture
def folder(prepared, tmp_path, monkeypatch):
    """Work in a copy of that folder, without environment variables of tiewise."""
    shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    for name in ("TIEWISE_DATA", "TIEWISE_ARTIFACTS"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def type_line(line):
    """Run a command as a reader would, in this process where no shell is needed."""
    words = shlex.split(line)
    if words[0] == "tiewise" and not SHELL & set(line):
        try:
            return main(words[1:])
        except SystemExit as error:
            return error.code
    program = f'tiewise() {{ "{sys.executable}" -m tiewise "$@"; }}\nset -e\n{line}'
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}",
    }
    words = ["bash", "-c", program]
    return subprocess.run(words, env=environment, timeout=200, check=False).returncode


def read_scores(line):
    """Return the numbers of a line that have an interval, each with its ends."""
    number = r"([-+]?\d+\.\d+)"
    found = re.findall(rf"{number} \[{number}, {number}\]", line)
    return [tuple(map(float, score)) for score in found]


@pytest.mark.timeout(900)
@pytest.mark.parametrize("page", FROM_EMPTY)
def test_page_shows_what_is_printed(page, tmp_path, monkeypatch):
    """Typed in an empty folder, each step prints what the page shows, but for the last digits.

    A number with an interval may move by a tenth of the interval, since processors round
    differently. Other numbers may be any. Each figure of the page is a file that a step has made,
    and a copy of it is in the repository.
    """
    monkeypatch.setenv("MPLBACKEND", "agg")
    text = (ROOT / page).read_text("utf-8")
    printed = type_page(text, tmp_path)
    for shown, line in zip(text.splitlines(), printed.splitlines(), strict=True):
        for (old, low, high), (new, *_) in zip(read_scores(shown), read_scores(line), strict=True):
            assert abs(new - old) <= 0.1 * (high - low) + 1e-9, f"{shown}\nis now\n{line}"
    for file, image in find_figures(text):
        assert (tmp_path / file).is_file()
        assert (ROOT / page).parent.joinpath(image).is_file()


@pytest.mark.parametrize("page", ASSUMING)
def test_page_can_be_followed(folder, page, capfd):
    """Every command and every block of Python succeeds, in order."""
    names = {}
    exec(ASSUMED, names)
    for step in STEPS[page]:
        if step.why_not is not None:
            continue
        if step.is_code:
            exec(compile(step.text, page, "exec"), names)
        else:
            assert type_line(step.text) == 0, f"{step.text}\n{capfd.readouterr().err}"


def test_skipped_commands_have_reasons(record_property, capsys):
    """Each skipped command has one of the reasons; their counts are recorded and printed."""
    skipped = [(page, step) for page, steps in STEPS.items() for step in steps if step.why_not]
    assert {step.why_not for _, step in skipped} <= set(REASONS)
    for name, count in Counter(step.why_not for _, step in skipped).items():
        record_property(name, count)
    with capsys.disabled():
        for page, step in skipped:
            sys.stdout.write(f"\n  not run ({step.why_not}): {page}: {step.text}")


GPU = sorted({step.text for steps in STEPS.values() for step in steps if step.why_not == "gpu"})


@pytest.mark.skipif(torch.cuda.is_available(), reason="with CUDA they would run for hours")
@pytest.mark.parametrize("line", GPU)
def test_gpu_command_lacks_only_cuda(folder, line, capsys):
    """Flags and files are valid: the command is refused only because CUDA is missing."""
    assert type_line(line) == 2
    assert "CUDA" in capsys.readouterr().err


def test_sessions_that_pages_name_exist():
    """`nox -s NAME` names a session of the noxfile."""
    lines = [step.text for steps in STEPS.values() for step in steps if not step.is_code]
    named = {name for line in lines for name in re.findall(r"nox -s (\w+)", line)}
    assert named <= SESSIONS


def test_skip_comments_are_read():
    """A comment skips a block or a single command; without one everything is run."""
    text = """
<!-- not run: kaggle -->
```console
$ tiewise one
```
```console
$ tiewise two   # on a GPU: hours
$ tiewise three # seconds
output
```
```python
four = 4
```
"""
    steps = [(step.text, step.why_not) for step in read_steps(text)]
    expected = [("tiewise one", "kaggle"), ("tiewise two", "gpu"), ("tiewise three", None)]
    assert steps == [*expected, ("four = 4\n", None)]


def test_newcomer_types_the_pages():
    """``tests/newcomer`` repeats the steps of README and tutorial, apart from what is skipped."""
    typed = runpy.run_path(str(ROOT / "tests/newcomer/test_readme_and_tutorial.py"))
    for page, name in (("README.md", "README"), ("docs/tutorial.md", "TUTORIAL")):
        steps = [step for step in STEPS[page] if step.why_not is None]
        assert tuple(step.text for step in steps if not step.is_code) == typed[name]
        code = "\n".join(step.text for step in steps if step.is_code)
        assert code == typed[f"{name}_CODE"]


def test_shown_output_is_read():
    """Output is read below its command, or in a block after code; a command may be continued."""
    text = """
```console
$ tiewise one \\
    --two
first
...
$ tiewise three
```
```python
print(4)
```

```text
4
```
"""
    steps = read_steps(text)
    assert [step.shown for step in steps] == [("first", "..."), (), ("4",)]
    assert steps[0].text == "tiewise one \\\n    --two"
    assert [text[slice(*step.span)] for step in steps] == ["first\n...\n", "", "4\n"]


@pytest.mark.parametrize(
    ("shown", "found"),
    [
        (["loss 0.1 [-0.2, 3]", "rows  1"], ["loss 0.5 [+0.25, 12]", "rows 10"]),
        (["loss 1 [2, 3]", "..."], ["loss 0.5 [+0.25, 12]", "..."]),
        (["...", "rows 1"], ["...", "rows 10"]),
        (["..."], ["..."]),
        (["rows 1"], None),
        (["loss 1 [2, 3]"], None),
        (["loss 1 (2, 3)", "..."], None),
        (["...", "rows 1", "..."], ["...", "rows 10", "..."]),
        (["...", "rows 1", "...", "loss 1 [2, 3]", "..."], None),
    ],
)
def test_shown_output_is_found(shown, found):
    """Lines agree apart from numbers and spaces; `...` is any lines; the order is kept."""
    assert find_shown(tuple(shown), ["loss 0.5 [+0.25, 12]", "rows 10"]) == found


def test_shown_output_is_replaced(tmp_path):
    """The page is returned with today's output; other output, or a failure, is an error."""
    page = "```console\n$ echo 25 rows\n{}\n```\n"
    assert type_page(page.format("1 rows"), tmp_path) == page.format("25 rows")
    assert type_page(page.format("?"), tmp_path) == page.format("25 rows")
    with pytest.raises(AssertionError, match="but the page shows"):
        type_page(page.format("25 columns"), tmp_path)
    with pytest.raises(AssertionError, match="ended with status 3"):
        type_page("```console\n$ exit 3\n```\n", tmp_path)
