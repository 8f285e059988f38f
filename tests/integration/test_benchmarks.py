"""Benchmarks can be imported, and their comparisons with the notebook's way are fair."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
# transformers 5 renamed gradient checkpointing; the notebook and peft use the old name.
pytestmark = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing:FutureWarning")
MODULES = sorted(path.stem for path in (ROOT / "benchmarks").glob("[a-z]*.py"))


@pytest.mark.parametrize("name", MODULES)
def test_benchmark_can_be_imported(name):
    """Every name that a benchmark imports from the package exists."""
    if name == "clusters":
        pytest.importorskip("ray")  # which the session `ray` installs
    module = importlib.import_module(f"benchmarks.{name}")
    assert Path(str(module.__file__)).parent == ROOT / "benchmarks"


def test_command_line_lists_benchmarks():
    """``--help`` names each benchmark, and each has a function ``run``."""
    command = [sys.executable, "-m", "benchmarks", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    for name in importlib.import_module("benchmarks.__main__").NAMES:
        assert name in done.stdout
        assert callable(importlib.import_module(f"benchmarks.{name}").run)


def test_both_ways_give_same_gradients(tmp_path):
    """One step of the notebook's way and of ours differ by rounding only, on a shallow model."""
    midsize = importlib.import_module("benchmarks.midsize")
    train = importlib.import_module("benchmarks.train")
    backbone_dir = midsize.write_backbone(tmp_path / "backbone", n_layers=2)
    setting = train.Setting(midsize.NOTEBOOK_TARGETS, 1)
    contents = [np.arange(3, 3 + n) for n in (40, 7, 23, 90)]
    rows = midsize.as_rows(contents, max_length=64)
    [row] = train.time_setting(backbone_dir, setting, [rows] * 2, {"ours": "none"})
    assert row["equal_to"] < 1e-5
    assert row["padding_factor"] == pytest.approx((2 * 42 + 2 * 64) / (42 + 9 + 25 + 64))


def test_both_ways_give_same_logits(tmp_path):
    """The notebook's evaluation and ours give the same logits, to 1e-9 in float64."""
    predict = importlib.import_module("benchmarks.predict")
    both = {name: predict.load_both(tmp_path, name, 2) for name in ("float32", "float64")}
    row = predict.time_case("case", predict.make_one_order(3), both, n_rounds=1)
    assert row["equal_to"] < 1e-4
    assert row["equal_to_float64"] < 1e-9
