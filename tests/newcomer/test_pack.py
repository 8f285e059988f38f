"""A packed run predicts in a new environment without a network."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pandas as pd
import pytest

CELLS = """
import json, socket
interfaces = [name for _, name in socket.if_nameindex()]
assert interfaces == ["lo"], interfaces
for cell in json.load(open("input/kaggle/notebook.ipynb"))["cells"]:
    if cell["cell_type"] == "code":
        exec(compile(cell["source"], cell["id"], "exec"), globals())
run("pip", "check")
"""


def run_without_network(place, *words):
    """Run a command with no network at all, not even the local one."""
    inside = ["unshare", "--net", *([] if os.geteuid() == 0 else ["--map-root-user"])]
    hidden = ("PYTHONPATH", "TIEWISE_DATA", "TIEWISE_ARTIFACTS")
    environment = {key: value for key, value in os.environ.items() if key not in hidden}
    return subprocess.run(
        [*inside, *map(str, words)], cwd=place, env=environment, capture_output=True, text=True,
        timeout=300, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def packed(folder, type_command):
    """Pack a run; return what the command printed."""
    type_command("tiewise simulate --n 80 --out train.csv")
    columns = ["id", "prompt", "response_a", "response_b"]
    pd.read_csv(folder / "train.csv")[columns].to_csv(folder / "test.csv", index=False)
    type_command("tiewise fit --preset baseline --data train.csv --n-splits 2 --fold 1 --run first")
    return type_command("tiewise pack first --out kaggle")


def test_notebook_predicts_without_network(folder, packed, type_command, tmp_path):
    """The notebook installs the wheels in an empty environment; its submission is that of here."""
    assert "kaggle: run first and" in packed.out
    type_command("tiewise predict --run first --data test.csv --out here.csv --submission")
    if shutil.which("unshare") is None or run_without_network(tmp_path, "true").returncode:
        pytest.skip("this machine cannot make a network namespace")
    (tmp_path / "input").mkdir()
    shutil.copytree(folder / "kaggle", tmp_path / "input" / "kaggle")
    shutil.copy(folder / "test.csv", tmp_path / "input")
    (tmp_path / "cells.py").write_text(CELLS)
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "empty"], check=True)
    done = run_without_network(tmp_path, tmp_path / "empty" / "bin" / "python", "cells.py")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "submission.csv").read_bytes() == (folder / "here.csv").read_bytes()


def test_incomplete_copy_is_named(folder, packed, type_command):
    """The check of the folder names a changed or missing file, or says that it is complete."""
    assert "kaggle is complete." in type_command("python kaggle/check_pack.py").out
    with (folder / "kaggle" / "requirements.txt").open("a") as file:
        file.write("\n")
    refused = type_command("python kaggle/check_pack.py", status=2).err
    assert "error: " in refused
    assert "requirements.txt has changed. Copy the whole folder again." in refused
    (folder / "kaggle" / "requirements.txt").unlink()
    assert (
        "requirements.txt is missing" in type_command("python kaggle/check_pack.py", status=2).err
    )
