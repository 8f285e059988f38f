"""The commands in README and the pages do what the text says."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
import torch

from documents import PAGES, REASONS, ROOT, read_steps
from tiewise.cli import main
from tiewise.data.simulation.simulate import simulate, write_simulation

STEPS = {path.name: read_steps(path.read_text("utf-8")) for path in PAGES}
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


@pytest.mark.parametrize("page", STEPS)
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
