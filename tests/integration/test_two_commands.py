"""Tests of two commands at once: one waits at a chosen place while the other runs."""

import json
import shutil

import pandas as pd
import pytest

from paused import Paused
from tiewise.cli import main
from tiewise.files import file_lock
from tiewise.runs.folder import open_run
from tiewise.runs.tables import read_folds, read_oof

IN_PREDICT = "tiewise.judges.kinds:FeatureJudge.predict"
IN_FIT = "tiewise.runs.training_rows:TrainingRows.count_leaks"  # locked, nothing is written yet
IN_JOIN = "tiewise.judges.streaming:_Job.join"
FIT = ("fit", "--preset", "baseline", "--n-splits", "2", "--data", "train.csv")


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """Simulate small data and fit two runs to them, with different seeds."""
    folder = tmp_path_factory.mktemp("fitted")
    for name, n, seed in (("train", 60, 0), ("first", 6, 1), ("second", 6, 2)):
        pairs = folder / f"{name}.csv"
        assert main(["simulate", "--n", str(n), "--seed", str(seed), "--out", str(pairs)]) == 0
    data = ("--data", str(folder / "train.csv"), "--artifacts", str(folder / "artifacts"))
    for run, seed in (("one", "0"), ("two", "5")):
        assert main([*FIT, *data, "--folds", "all", "--seed", seed, "--run", run]) == 0
    return folder


@pytest.fixture
def here(fitted, tmp_path, monkeypatch):
    """Copy runs and data to the temporary folder, and go there."""
    shutil.copytree(fitted, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def tiewise(here, capsys):
    """Return a function that runs a command and returns its status and messages."""

    def run(*words):
        capsys.readouterr()
        return main([str(word) for word in words]), capsys.readouterr().err

    return run


def predict(run, data, out, *flags):
    """Return the words of a prediction with one row per shard."""
    return ("predict", "--run", run, "--data", data, "--out", out, "--chunk-rows", "1", *flags)


def names(folder):
    """Return the names of the prediction files in a folder."""
    return sorted(path.name for path in folder.glob("*.csv*") if "out" in path.name)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("run", "run, models"),
        ("data", "data"),
        ("chunks", "options"),
        ("calibration", "calibration"),
    ],
)
def test_stopped_prediction_is_not_mixed(here, tiewise, change, named):
    """After a kill, only the same prediction continues: another run, data, chunks are refused."""
    stopped = Paused(here, IN_JOIN, *predict("one", "first.csv", "out.csv"))
    stopped.kill()
    words = list(predict("one", "first.csv", "out.csv"))
    if change == "run":
        words[2] = "two"
    elif change == "data":
        rows = (here / "first.csv").read_text().splitlines(keepends=True)
        (here / "first.csv").write_text("".join([rows[0], *rows[:0:-1]]))
    elif change == "chunks":
        words[-1] = "2"
    else:
        run = open_run("one", here / "artifacts")
        result = {"method": "temperature", "scale": [0.5] * 3, "bias": [0.0] * 3}
        digest = json.loads(run.scores_path.read_text())["oof_sha256"]
        content = json.dumps({"adopted": result, "oof_sha256": digest})
        (run.path / "calibration.json").write_text(content)
    ended = tiewise(*words)
    assert ended[0] == 2
    assert f"unfinished predictions of another job ({named} differs)" in ended[1]
    assert not (here / "out.csv").exists()


def test_same_prediction_continues(here, tiewise):
    """After a kill, the same command joins the shards that are there; nothing is left over."""
    words = predict("one", "first.csv", "out.csv")
    Paused(here, IN_JOIN, *words).kill()
    assert len(list((here / "out.csv.shards").glob("shard-*"))) == 6
    assert tiewise(*words)[0] == 0
    assert names(here) == ["out.csv"]
    assert tiewise(*predict("one", "first.csv", "clean.csv"))[0] == 0
    assert (here / "out.csv").read_bytes() == (here / "clean.csv").read_bytes()


def test_replaced_input_is_refused(here, tiewise):
    """A data file that changes while it is predicted gives no predictions."""
    words = predict("one", "first.csv", "out.csv")
    first = Paused(here, IN_PREDICT, *words)
    shutil.copy(here / "second.csv", here / "first.csv")
    assert first.release() == 2
    assert "first.csv was changed while it was predicted" in (here / "paused.log").read_text()
    assert not (here / "out.csv").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--seed", "1"), "exists with another configuration: train.seed was 0 and is now 1"),
        (("--fold", "1", "--seed", "1"), "another configuration: train.seed was 0 and is now 1"),
        (("--fold", "1", "--n-splits", "3"), "another configuration: data.n_splits was 2"),
        (("--fold", "1", "--data", "second-half.csv"), "other rows or folds than these data"),
        ((), "fold0 is being fitted now, locked by process"),
    ],
)
def test_one_fit_claims_a_name(here, tiewise, flags, message):
    """Of two fits that start one new name, the second is refused unless it is of the same run."""
    rows = (here / "train.csv").read_text().splitlines(keepends=True)
    (here / "second-half.csv").write_text("".join([rows[0], *rows[20:]]))
    fit = (*FIT, "--run", "new")
    first = Paused(here, IN_FIT, *fit)
    second = tiewise(*fit, *flags)
    assert second[0] == 2
    assert message in second[1]
    assert first.release() == 0
    run = open_run("new", here / "artifacts")
    assert run.config.train.seed == 0
    assert len(read_folds(run)) == len(rows) - 1
    assert tiewise("evaluate", "new")[0] == 0


def test_two_folds_are_fitted_at_once(here, tiewise):
    """Two processes may fit different folds of one new run, and predict what one process does."""
    fit = (*FIT, "--run")
    first = Paused(here, IN_FIT, *fit, "both")
    assert tiewise(*fit, "both", "--fold", "1")[0] == 0
    assert first.release() == 0
    tables = [read_oof(open_run(name, here / "artifacts")) for name in ("both", "one")]
    pd.testing.assert_frame_equal(*tables, check_exact=True)


def test_name_of_a_killed_start_is_free(here, tiewise):
    """A fit that is killed before it wrote anything does not keep the name."""
    fit = (*FIT, "--run", "new")
    Paused(here, IN_FIT, *fit).kill()
    rows = (here / "train.csv").read_text().splitlines(keepends=True)
    (here / "half.csv").write_text("".join([rows[0], *rows[20:]]))
    assert tiewise(*fit, "--seed", "1", "--data", "half.csv")[0] == 0
    run = open_run("new", here / "artifacts")
    assert run.config.train.seed == 1
    assert len(read_folds(run)) == len(rows) - 20


def test_start_waits_for_the_lock(here, tiewise):
    """While a process has the lock of a run, another does not give it a configuration."""
    run_dir = here / "artifacts" / "runs" / "new"
    with file_lock(run_dir / ".lock"):
        waiting = Paused(here, "tiewise.runs.fold_lock:file_lock", *FIT, "--run", "new")
        waiting._released.set()
        waiting._process.join(3)
        assert waiting._process.is_alive()
        assert not (run_dir / "config.json").exists()
    assert waiting.release() == 0
