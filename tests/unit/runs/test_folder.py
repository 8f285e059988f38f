"""Tests of run folders: names, configurations, finished folds."""

import json
from dataclasses import replace

import pytest

from tiewise.config import load_preset
from tiewise.errors import ConfigError, RunError
from tiewise.files import write_json
from tiewise.runs.fold_lock import check_fingerprint
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
