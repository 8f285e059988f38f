"""Runs are listed and removed, training rows are announced, and names are what they seem."""

from __future__ import annotations

import csv
import json
import math

import pytest


@pytest.fixture(scope="module")
def fitted(type_command):
    """Fit two small runs of the feature model to the same votes."""
    type_command("tiewise simulate --n 120 --out train.csv")
    for name, seed in (("first", 0), ("second", 1)):
        type_command(f"tiewise fit --preset baseline --data train.csv --run {name} --seed {seed}")


@pytest.mark.usefixtures("fitted")
def test_runs_are_listed_and_described(type_command):
    """`tiewise runs` lists each run, `runs show` describes one, and a typing error is noticed."""
    listed = type_command("tiewise runs").out
    assert [line.split()[0] for line in listed.splitlines()[:3]] == ["run", "second", "first"]
    assert "baseline" in listed
    assert "1 of 5" in listed
    [newest, _] = json.loads(type_command("tiewise runs --json").out)["runs"]
    assert (newest["name"], newest["changed"], newest["data"]) == (
        "second",
        ["seed"],
        ["train.csv"],
    )
    assert "changed: seed" in type_command("tiewise runs show second").out
    assert "Did you mean first?" in type_command("tiewise evaluate frist", status=2).err


@pytest.mark.usefixtures("fitted")
def test_training_rows_are_announced(type_command):
    """Predicting and evaluating rows that the run has learned from warns with their number."""
    line = "tiewise predict --run first --data train.csv --out probs.csv"
    assert "96 rows are training rows of first" in type_command(line).err
    line = "tiewise evaluate --data train.csv --predictions probs.csv"
    assert "was trained on 96 of 120 rows" in type_command(line).err
    line = "tiewise predict --run first --data train.csv --out soft.parquet --out-of-fold"
    assert "24 rows labelled, 24 of them out of fold; 96" in type_command(line).out


@pytest.mark.usefixtures("fitted")
def test_runs_may_follow_data(type_command):
    """`compare --data FILE a b` reads two names of runs."""
    found = type_command("tiewise compare --by-slice --data train.csv first second").out
    assert "second" in found


def test_two_classes_are_said(type_command, folder):
    """A fit to votes without ties says so first, and its scores are of two classes."""
    with (folder / "votes.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["prompt", "response_a", "response_b", "winner"])
        for k in range(200):
            texts = ["Yes.", f"Yes, for reason {k % 7} and many more."]
            rows.writerow([f"Is {k} even?", *texts[:: 1 - 2 * (k % 2)], "AB"[(k + k // 8) % 2]])
    line = "tiewise fit --preset baseline --data votes.csv --run two --json"
    done = type_command(line)
    assert "None of 200 votes is a tie" in "".join(done.err.splitlines()[:3])
    scores = json.loads(done.out)
    assert scores["n_classes"] == 2
    assert scores["baselines"]["uniform"]["log_loss"]["value"] == pytest.approx(math.log(2))


@pytest.mark.usefixtures("fitted")
def test_failed_fit_leaves_no_run(type_command, folder):
    """A fit that is refused leaves nothing to remove; a run is removed by its name alone."""
    type_command("tiewise fit --preset baseline --data nowhere.csv --run third", status=2)
    line = "tiewise fit --preset baseline --data train.csv --run third --n-splits 120"
    type_command(line, status=2)
    assert "Did you mean" in type_command("tiewise runs rm frist", status=2).err
    before = {path.name for path in (folder / "artifacts" / "runs").iterdir()}
    assert "third" not in before
    assert "Removed second" in type_command("tiewise runs rm second").out
    assert {path.name for path in (folder / "artifacts" / "runs").iterdir()} == before - {"second"}
