"""A packed language model predicts in a new environment that has torch, without a network."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from faults import FLAGS, scaled, tiewise
from tiewise.data.simulation.simulate import simulate, write_simulation
from tiewise.serving.wheels import find_packages

NO_NETWORK = ("unshare", "--net", *(() if os.geteuid() == 0 else ("--map-root-user",)))
CELLS = """
import json, socket
assert [name for _, name in socket.if_nameindex()] == ["lo"]
for cell in json.load(open("input/kaggle/notebook.ipynb"))["cells"]:
    if cell["cell_type"] == "code":
        exec(compile(cell["source"], cell["id"], "exec"), globals())
"""


def make_image(folder: Path) -> Path:
    """Make an environment with torch, as the image of a notebook has it; return its Python.

    The packages are links to those of this environment, after the folder that pip installs to.
    """
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    image = folder / "image"
    image.mkdir()
    for package in find_packages(["torch"]):
        names = {file.parts[0] for file in package.files or () if ".." not in file.parts}
        for name in names - {"__pycache__"}:
            if not (image / name).exists():
                (image / name).symlink_to(Path(str(package.locate_file(name))))
    [installed] = folder.glob("lib/python*/site-packages")
    (installed / "image.pth").write_text(f"{image}\n")
    return folder / "bin" / "python"


@pytest.mark.timeout(900)
@pytest.mark.skipif(scaled(quick=0, full=1) == 0, reason="installs a gigabyte; full torture only")
def test_language_model_predicts_without_network(tmp_path):
    """The submission of the notebook equals that of `tiewise predict` here, byte for byte."""
    write_simulation(simulate(60, seed=0), tmp_path / "train.csv")
    columns = ["id", "prompt", "response_a", "response_b"]
    (tmp_path / "input").mkdir()
    test = tmp_path / "input" / "test.csv"
    pd.read_csv(tmp_path / "train.csv")[columns].to_csv(test, index=False)
    here = ("--data", str(test), "--out", "here.csv", "--submission")
    for words in (
        ("fit", *FLAGS, "--run", "first"),
        ("pack", "first", "--out", "input/kaggle"),
        ("predict", "--run", "first", *here),
    ):
        process = tiewise(tmp_path, *words)
        assert process.end() == 0, process.messages()
    assert not list((tmp_path / "input" / "kaggle" / "wheels").glob("torch-*"))
    python = make_image(tmp_path / "empty")
    (tmp_path / "cells.py").write_text(CELLS)
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [*NO_NETWORK, python, "cells.py"], cwd=tmp_path, env=environment, capture_output=True,
        text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "submission.csv").read_bytes() == (tmp_path / "here.csv").read_bytes()
    shutil.rmtree(tmp_path / "empty")
