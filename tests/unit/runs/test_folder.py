"""Tests of run folders: names, configurations, finished folds."""

import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from tiewise.config import defining_fields, load_preset
from tiewise.errors import ConfigError, RunError
from tiewise.files import write_json
from tiewise.runs.fold_lock import check_fingerprint, lock_fold
from tiewise.runs.folder import default_artifacts, open_run, start_run

TINY = load_preset("tiny")


def test_run_opens_by_name_or_path(tmp_path):
    """Either way the result is the same folder and configuration."""
    run = start_run(tmp_path, TINY, name="r")
    assert open_run("r", tmp_path) == open_run(run.path, tmp_path) == run


def test_unnamed_run_states_configuration(tmp_path):
    """The name ends in eight hex digits of the configuration's SHA-256."""
    assert start_run(tmp_path, TINY).name.endswith(TINY.digest()[:8])


@pytest.mark.parametrize("name", ["a/b", "..", ".", "../x"])
def test_name_stays_in_artifacts(tmp_path, name):
    """A name with a path is refused."""
    with pytest.raises(RunError, match="plain name"):
        start_run(tmp_path, TINY, name=name)


def test_unknown_run_suggests_existing(tmp_path):
    """The message suggests the run that was meant, or says that there is none."""
    with pytest.raises(RunError, match="no runs yet"):
        open_run("first", tmp_path)
    start_run(tmp_path, TINY, name="first")
    with pytest.raises(RunError, match=r"Did you mean first\? `tiewise runs` lists them"):
        open_run("frist", tmp_path)
    with pytest.raises(RunError, match=r"runs\. `tiewise runs` lists them"):
        open_run("another", tmp_path)


def test_other_configuration_is_refused(tmp_path):
    """A started run keeps its configuration; the message names the field."""
    run = start_run(tmp_path, TINY, name="r")
    check_fingerprint(run.fold(0), {"fold": 0}, resume=False)
    other = replace(TINY, train=replace(TINY.train, learning_rate=9.0))
    with pytest.raises(RunError, match=r"train\.learning_rate was 0\.001 and is now 9\.0"):
        start_run(tmp_path, other, name="r")


def test_operational_fields_may_change(tmp_path):
    """Fields that do not change results may differ between folds of a started run."""
    run = start_run(tmp_path, TINY, name="r")
    check_fingerprint(run.fold(0), {"fold": 0}, resume=False)
    other = replace(TINY, train=replace(TINY.train, micro_batch_tokens=64, save_steps=9))
    assert start_run(tmp_path, other, name="r").path == tmp_path / "runs" / "r"


def test_unstarted_run_takes_new_configuration(tmp_path):
    """After a refused attempt, the same name can be used with another configuration."""
    start_run(tmp_path, TINY, name="r")
    other = replace(TINY, train=replace(TINY.train, seed=1))
    start_run(tmp_path, other, name="r")
    assert open_run("r", tmp_path).config == other


@pytest.mark.parametrize("content", ["{", "[]", '{"unknown": 1}'])
def test_damaged_configuration_is_reported(tmp_path, content):
    """Broken JSON, a list and an unknown field are errors that name the file."""
    run = start_run(tmp_path, TINY, name="r")
    (run.path / "config.json").write_text(content)
    with pytest.raises((RunError, ConfigError), match=r"config\.json"):
        open_run("r", tmp_path)


def test_scores_finish_a_fold(tmp_path):
    """A fold is finished when it has scores."""
    run = start_run(tmp_path, TINY, name="r")
    run.fold(1).path.mkdir()
    assert run.finished_folds() == []
    write_json(run.fold(1).scores_path, {})
    assert run.finished_folds() == [1]


def test_launch_needs_a_name(tmp_path, monkeypatch):
    """Several processes must share one name; a name made from the time differs between them."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(RunError, match="--run"):
        start_run(tmp_path, TINY)


def test_other_processes_write_nothing(tmp_path, monkeypatch):
    """Processes of a launch other than the first leave no files."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    start_run(tmp_path, TINY, name="r")
    assert list(tmp_path.iterdir()) == []


def test_environment_is_written(tmp_path):
    """The run folder states the versions."""
    run = start_run(tmp_path, TINY, name="r")
    assert json.loads((run.path / "env.json").read_text())["packages"]["numpy"]


def test_run_comes_before_local_folder(tmp_path, monkeypatch):
    """A plain name is a run, also where a folder of that name exists (`export first --out first`).

    The path of that folder still means the folder.
    """
    monkeypatch.chdir(tmp_path)
    run = start_run(tmp_path / "artifacts", TINY, name="first")
    write_json(tmp_path / "first" / "config.json", {"architectures": ["X"]})
    assert open_run("first", tmp_path / "artifacts") == run
    with pytest.raises(ConfigError, match="architectures"):
        open_run(tmp_path / "first", tmp_path / "artifacts")


def test_artifacts_follow_environment(monkeypatch):
    """TIEWISE_ARTIFACTS names the artifacts folder."""
    monkeypatch.delenv("TIEWISE_ARTIFACTS", raising=False)
    assert str(default_artifacts()) == "artifacts"
    monkeypatch.setenv("TIEWISE_ARTIFACTS", "")
    assert str(default_artifacts()) == "artifacts"
    monkeypatch.setenv("TIEWISE_ARTIFACTS", "elsewhere")
    assert str(default_artifacts()) == "elsewhere"


class TestChooseFolds:
    """The finished folds that a command uses."""

    @pytest.fixture
    def run(self, tmp_path):
        """Start a run with folds 0, 2 and 4 finished."""
        run = start_run(tmp_path, TINY, name="r")
        for fold in (4, 0, 2):
            write_json(run.fold(fold).scores_path, {})
        return run

    def test_named_or_finished(self, run):
        """All finished folds are chosen unless some are named; each once, ascending."""
        assert run.choose_folds() == run.finished_folds() == [0, 2, 4]
        assert run.choose_folds([4, 0, 4]) == [0, 4]

    @pytest.mark.parametrize(("folds", "named"), [([3, 1, 0], 1), ([0, 9], 9)])
    def test_unfinished_fold_is_named(self, run, folds, named):
        """The first fold that is not finished is named, with those that are."""
        message = rf"fold {named} is not finished \(finished: 0, 2, 4\)\. .*--resume"
        with pytest.raises(RunError, match=message):
            run.choose_folds(folds)

    @pytest.mark.parametrize("folds", [None, []])
    def test_no_fold(self, run, tmp_path, folds):
        """A run without a finished fold, or a choice of none, is refused."""
        empty = start_run(tmp_path, TINY, name="empty")
        with pytest.raises(RunError, match=r"empty: no fold is finished\. Continue"):
            empty.choose_folds(folds)
        with pytest.raises(RunError, match="no fold is finished"):
            run.choose_folds([])

    def test_one_fold(self, run, tmp_path):
        """One fold is chosen by name, or because it is the only finished one."""
        assert run.choose_fold(2) == 2
        with pytest.raises(RunError, match="folds 0, 2, 4 are finished; name one with --fold"):
            run.choose_fold()
        single = start_run(tmp_path, TINY, name="single")
        write_json(single.fold(3).scores_path, {})
        assert single.choose_fold() == 3

    def test_folds_of_other_fits(self, run):
        """Inputs that one of the folds before has differently are refused, and named."""
        write_json(run.fold(0).fingerprint_path, {"fold": 0, "data": "d", "init_from": "x"})
        inner = {"data": "d", "backbone": {"sha256": "b"}}
        write_json(run.fold(2).fingerprint_path, {"fold": 2, "init_from": "y", **inner})
        assert run.choose_folds() == [0, 2, 4]  # fold 4 has no fingerprint, as copied results
        write_json(run.fold(4).fingerprint_path, inner | {"backbone": {"sha256": "c"}})
        with pytest.raises(RunError, match=r"backbone\.sha256 is c for fold 4, and b for the run"):
            run.choose_folds()
        assert run.choose_folds([0, 2]) == [0, 2]

    def test_folds_of_another_configuration(self, run):
        """A fold whose fingerprint states another configuration than the run's is refused."""
        own = defining_fields(TINY)
        write_json(run.fold(0).fingerprint_path, {"config": own})
        run.check_folds([0])
        other = own | {"train": own["train"] | {"seed": 7}}
        write_json(run.fold(2).fingerprint_path, {"config": other})
        with pytest.raises(RunError, match=r"config\.train\.seed is 7 for fold 2, and 0 for"):
            run.check_folds([0, 2])


def test_paths_of_a_run(tmp_path):
    """The layout that artifacts/README.md shows."""
    run = start_run(tmp_path, TINY, name="r")
    fold = run.fold(1)
    found = [run.lock_path, run.oof_path, run.scores_path, run.folds_path, run.rows_path]
    found += [run.data_path, run.mixture_path, fold.fingerprint_path, fold.checkpoints_dir]
    found += [fold.adapter_dir, fold.history_path, fold.oof_path, fold.lock_path]
    names = ".lock oof.parquet scores.json folds.parquet rows.parquet data.json mixture.json"
    names += " fold1/fingerprint.json fold1/checkpoints fold1/adapter fold1/history.jsonl"
    names += " fold1/oof.parquet fold1/.lock"
    assert [path.relative_to(tmp_path / "runs/r").as_posix() for path in found] == names.split()


def test_run_is_started_or_in_use(tmp_path):
    """A run is started with its first fingerprint, and in use while a fold is locked."""
    run = start_run(tmp_path, TINY, name="r")
    write_json(run.path / "other" / "fingerprint.json", {})
    run.fold(0).path.mkdir()
    assert not run.is_started
    assert not run.is_in_use
    with lock_fold(run.fold(0)):
        assert run.is_in_use
        assert not run.is_started
        other = replace(TINY, train=replace(TINY.train, seed=1))
        with pytest.raises(RunError, match=r"train\.seed was 0 and is now 1"):
            start_run(tmp_path, other, name="r")
    assert not run.is_in_use
    check_fingerprint(run.fold(3), {}, resume=False)
    assert run.is_started


def test_start_that_failed_leaves_no_tables(tmp_path):
    """A run that is claimed again before its start loses data, folds and rows."""
    run = start_run(tmp_path, TINY, name="r")
    paths = (run.data_path, run.folds_path, run.rows_path)
    for path in paths:
        path.write_text("old")
    run.oof_path.write_text("kept")
    start_run(tmp_path, TINY, name="r")
    assert not any(path.exists() for path in paths)
    assert run.oof_path.exists()


def test_unnamed_runs_sort_by_time(tmp_path):
    """A name begins with the time in UTC: year to second."""
    name = start_run(tmp_path, TINY).name
    begun = datetime.strptime(name.split("-")[0], "%Y%m%dT%H%M%S").replace(tzinfo=UTC)
    assert abs((datetime.now(UTC) - begun).total_seconds()) < 60


def test_run_opens_from_inside(tmp_path, monkeypatch):
    """The current folder, and the one above it, are runs too."""
    run = start_run(tmp_path, TINY, name="r")
    run.fold(0).path.mkdir()
    monkeypatch.chdir(run.path)
    assert open_run(".", tmp_path).path.resolve() == run.path.resolve()
    monkeypatch.chdir(run.fold(0).path)
    assert open_run("..", tmp_path).name == "r"
