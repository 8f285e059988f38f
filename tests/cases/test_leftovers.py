"""Two commands at once, and what a command that was stopped leaves behind."""

import shutil

import pandas as pd
import pytest

from fp64 import read_csv
from paused import Paused
from tiewise.files import digest_bytes, is_locked
from tiewise.runs import references
from tiewise.runs.folder import open_run

DATA = "05-stale-shards"
IN_PREDICT = "tiewise.judges.kinds:FeatureJudge.predict"
CHUNK_ROWS = "8"  # four shards


@pytest.fixture
def here(fitted, tmp_path, case):
    """Copy the runs and the inputs to the temporary folder."""
    shutil.copytree(fitted / "art", tmp_path / "artifacts")
    for name in ("first.csv", "second.csv"):
        shutil.copy(case(f"{DATA}/{name}"), tmp_path)
    return tmp_path


def predict(run, data, out, *flags):
    """Return the words of a prediction in several shards."""
    words = ("--run", run, "--data", data, "--out", out, "--chunk-rows", CHUNK_ROWS)
    return ("predict", *words, *flags)


def names(folder):
    """Return the names of the prediction files in a folder."""
    return sorted(path.name for path in folder.glob("*.csv*") if "out" in path.name)


def test_two_predictions_to_one_output(here, tiewise):
    """Case 05: the second is refused; what a stopped one leaves is not taken by another run."""
    first = Paused(here, IN_PREDICT, *predict("told", "first.csv", "out.csv"))
    second = tiewise(*predict("told", "first.csv", "out.csv"))
    assert second.status == 2
    assert f"out.csv is being written now, locked by process {first.id} " in second.errors
    assert first.release() == 0
    assert names(here) == ["out.csv"]
    assert len(read_csv(here / "out.csv")) == len(read_csv(here / "first.csv"))

    for out in ("out.csv", "clean.csv"):
        words = predict("other", "second.csv", out, "--overwrite")
        assert tiewise(*words).status == 0
    assert (here / "out.csv").read_bytes() == (here / "clean.csv").read_bytes()


@pytest.mark.parametrize("fingerprint", ["fingerprint.json", "identity.json", None])
def test_leftover_shards_are_not_joined(here, tiewise, fingerprint):
    """Shards of an unknown job, of this or an earlier version, are removed and named."""
    folder = here / "out.csv.shards"
    folder.mkdir()
    for number in range(3):
        foreign = pd.DataFrame({"id": [-1], "prob_a": 1.0, "prob_b": 0.0, "prob_tie": 0.0})
        data = foreign.to_parquet(index=False)
        (folder / f"shard-{number:06d}-{digest_bytes(data)}.parquet").write_bytes(data)
    if fingerprint:
        (folder / fingerprint).write_text("{")
    ended = tiewise(*predict("other", "second.csv", "out.csv"))
    assert ended.status == 0
    assert "3 shards without a valid fingerprint.json" in ended.errors
    assert tiewise(*predict("other", "second.csv", "clean.csv")).status == 0
    assert (here / "out.csv").read_bytes() == (here / "clean.csv").read_bytes()


def test_input_is_not_the_output(here, tiewise):
    """The predictions never replace their own input, under any of its names."""
    (here / "link.csv").symlink_to("first.csv")
    before = (here / "first.csv").read_bytes()
    for out in ("first.csv", here / "first.csv", "link.csv"):
        ended = tiewise(*predict("told", "first.csv", out, "--overwrite"))
        assert ended.status == 2
        assert "is the input; expected another file" in ended.errors
    assert (here / "first.csv").read_bytes() == before


def test_summary_waits_for_the_lock(here, tiewise, monkeypatch):
    """The scores of a run are written under its lock, so two summaries do not mix their files."""
    run, save, locked = open_run("told", here / "artifacts"), references.save_scored, []

    def save_and_look(folder, *args):
        locked.append((folder, is_locked(folder.lock_path)))
        save(folder, *args)

    monkeypatch.setattr(references, "save_scored", save_and_look)
    references.score_finished_folds(run)
    assert locked == [(run, True)]
    assert not is_locked(run.lock_path)


def test_folds_of_two_fits_are_refused(here, tiewise):
    """A folder with folds of different configurations is refused by name, by every command."""
    runs = here / "artifacts" / "runs"
    shutil.rmtree(runs / "told" / "fold1")
    shutil.copytree(runs / "other" / "fold1", runs / "told" / "fold1")
    for words in (
        ("evaluate", "told"),
        ("evaluate", "told", "--by-slice"),
        ("evaluate", "told", "--calibrate"),
        ("report", "told"),
        ("leaderboard", "told"),
        ("compare", "told", "other"),
        ("blend", "told", "other"),
        predict("told", "first.csv", "out.csv"),
        predict("told", "first.csv", "out.parquet", "--out-of-fold"),
    ):
        ended = tiewise(*words)
        assert ended.status == 2
        assert "holds folds of different fits: config.train.seed is 5 for fold 1" in ended.errors
    shutil.rmtree(runs / "told" / "fold0")  # now all folds are of another fit than the run
    assert tiewise("evaluate", "told").status == 2
