"""The run folder belongs to its inputs, and says so."""

import json
from dataclasses import replace

import pandas as pd
import pytest

from tiewise.config import load_preset
from tiewise.errors import ConfigError, RunError
from tiewise.files import digest_file, write_json
from tiewise.runs.fold_lock import check_fingerprint
from tiewise.runs.folder import open_run, read_object, start_run
from tiewise.runs.tables import (
    delete_scores,
    read_data,
    read_fold_oof,
    read_folds,
    read_oof,
    save_data,
    save_folds,
    save_scored,
)

TINY = load_preset("tiny")


def begun(tmp_path):
    """Start a run in which a fold was begun."""
    run = start_run(tmp_path, TINY, name="r")
    check_fingerprint(run.fold(0), {"fold": 0}, resume=False)
    return run


def test_a_run_is_found_by_name_and_by_path(tmp_path):
    """Either way the same folder and the same configuration come back."""
    run = start_run(tmp_path, TINY, name="r")
    assert open_run("r", tmp_path) == open_run(run.path, tmp_path) == run


def test_a_run_without_a_name_is_called_by_time_and_configuration(tmp_path):
    """The name ends in eight digits of the configuration's digest."""
    assert start_run(tmp_path, TINY).name.endswith(TINY.digest()[:8])


@pytest.mark.parametrize("name", ["a/b", "..", ".", "../x"])
def test_a_name_cannot_leave_the_artifacts(tmp_path, name):
    """A name is a plain name."""
    with pytest.raises(RunError, match="plain name"):
        start_run(tmp_path, TINY, name=name)


def test_an_unknown_run_lists_the_known(tmp_path):
    """Whoever mistypes a name sees the names there are."""
    start_run(tmp_path, TINY, name="first")
    with pytest.raises(RunError, match="first"):
        open_run("frist", tmp_path)


def test_a_name_is_not_shared_by_two_configurations(tmp_path):
    """Joining a run with another configuration is refused, naming the field."""
    begun(tmp_path)
    other = replace(TINY, train=replace(TINY.train, learning_rate=9.0))
    with pytest.raises(RunError, match=r"train\.learning_rate was 0\.001 and is now 9\.0"):
        start_run(tmp_path, other, name="r")


def test_operational_fields_do_not_make_another_run(tmp_path):
    """Where and how fast a run goes may change between its folds."""
    start_run(tmp_path, TINY, name="r")
    other = replace(TINY, train=replace(TINY.train, micro_batch_tokens=64, save_steps=9))
    assert start_run(tmp_path, other, name="r").path == tmp_path / "runs" / "r"


def test_folds_of_a_run_do_not_change(tmp_path):
    """The table of folds is written once; other rows are refused."""
    run = begun(tmp_path)
    table = pd.DataFrame({"id": [1, 2], "fold": [0, 1]})
    save_folds(run, table)
    save_folds(run, table)
    with pytest.raises(RunError, match="other rows"):
        save_folds(run, table.assign(fold=[1, 0]))


def test_a_damaged_configuration_is_a_message(tmp_path):
    """Broken JSON, or an unknown field, is a message that names the file."""
    run = start_run(tmp_path, TINY, name="r")
    (run.path / "config.json").write_text("{")
    with pytest.raises(RunError, match=r"config\.json"):
        open_run("r", tmp_path)


def test_only_folds_with_scores_are_finished(tmp_path):
    """The scores are the finished marker."""
    run = start_run(tmp_path, TINY, name="r")
    run.fold(1).path.mkdir()
    assert run.finished_folds() == []
    write_json(run.fold(1).scores_path, {})
    assert run.finished_folds() == [1]


def test_a_name_binds_only_once_a_fold_was_begun(tmp_path):
    """After an attempt that was refused the same name can be used for what was meant."""
    other = replace(TINY, train=replace(TINY.train, seed=1))
    run = start_run(tmp_path, TINY, name="r")
    save_folds(run, pd.DataFrame({"id": [1], "fold": [0]}))
    save_data(run, {"digest": "one", "counts": {}})
    run = start_run(tmp_path, other, name="r")
    assert open_run("r", tmp_path).config == other
    save_folds(run, pd.DataFrame({"id": [2], "fold": [0]}))
    save_data(run, {"digest": "two", "counts": {}})
    assert read_folds(run)["id"].tolist() == [2]
    assert read_data(run)["digest"] == "two"


def test_a_run_is_about_one_data_set(tmp_path):
    """Other data under the same ids are refused; the same are welcome again."""
    run = begun(tmp_path)
    described = {"digest": "one", "sources": [], "counts": {}}
    save_folds(run, pd.DataFrame({"id": [1], "fold": [0]}))
    save_data(run, described)
    save_data(run, described)
    with pytest.raises(RunError, match="other data: their digest was one and is now two"):
        save_data(run, described | {"digest": "two"})


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b"\xff", b'{"digest": 1'])
def test_a_damaged_data_file_is_a_message(tmp_path, content):
    """Whatever stands in data.json, it is said in words."""
    run = start_run(tmp_path, TINY, name="r")
    run.data_path.write_bytes(content)
    with pytest.raises(RunError, match=r"data\.json"):
        read_data(run)


@pytest.mark.parametrize("position", [5, 2000, 4000, -20, -1])
def test_a_flipped_byte_of_a_table_is_seen(tmp_path, position):
    """A run's tables are read as they were written or not at all."""
    run = start_run(tmp_path, TINY, name="r")
    table = pd.DataFrame({"id": range(900), "fold": 0})
    save_folds(run, table)
    save_data(run, {"digest": "one", "counts": {}})
    save_scored(run.fold(0), table, {})
    save_scored(run, table, {})
    for path, read, place in [
        (run.folds_path, read_folds, run),
        (run.fold(0).oof_path, read_fold_oof, run.fold(0)),
        (run.oof_path, read_oof, run),
    ]:
        pd.testing.assert_frame_equal(read(place), table)
        damaged = bytearray(path.read_bytes())
        damaged[position] ^= 4
        path.write_bytes(damaged)
        with pytest.raises(RunError, match=f"{path.name} is damaged"):
            read(place)


def test_processes_of_one_launch_need_a_name(tmp_path, monkeypatch):
    """A name made from the time would be another in each process."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RunError, match="--run"):
        start_run(tmp_path, TINY)


def test_only_the_first_process_writes(tmp_path, monkeypatch):
    """The others take part and leave no trace."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    start_run(tmp_path, TINY, name="r")
    assert list(tmp_path.iterdir()) == []


def test_the_environment_is_json(tmp_path):
    """What is written beside the configuration can be read by anything."""
    run = start_run(tmp_path, TINY, name="r")
    assert json.loads((run.path / "env.json").read_text())["packages"]["numpy"]


def finished(run, fold):
    """Finish a fold that held out one row of its own."""
    oof = pd.DataFrame({"id": [fold], "fold": fold, "prob_a": [1.0]})
    save_scored(run.fold(fold), oof, {})


def test_predictions_are_those_of_the_folds_that_are_finished(tmp_path):
    """Joined or not: a fold finished since is there, and one that is fitted anew is not."""
    run = start_run(tmp_path, TINY, name="r")
    finished(run, 0)
    assert read_oof(run)["fold"].tolist() == [0]
    save_scored(run, read_oof(run), {})
    finished(run, 1)
    assert read_oof(run)["fold"].tolist() == [0, 1]
    save_scored(run, read_oof(run), {})
    delete_scores(run)
    run.fold(0).scores_path.unlink()
    assert read_oof(run)["fold"].tolist() == [1]


def test_a_run_is_found_although_a_folder_of_its_name_stands_here(tmp_path, monkeypatch):
    """As `tiewise export first --out first` leaves one; its path still means the folder."""
    monkeypatch.chdir(tmp_path)
    run = start_run(tmp_path / "artifacts", TINY, name="first")
    write_json(tmp_path / "first" / "config.json", {"architectures": ["X"]})
    assert open_run("first", tmp_path / "artifacts") == run
    with pytest.raises(ConfigError, match="architectures"):
        open_run(tmp_path / "first", tmp_path / "artifacts")


def test_predictions_that_stand_there_keep_their_file(tmp_path):
    """Scored again after an upgrade, whose files differ, a run keeps what others know it by."""
    run = begun(tmp_path)
    oof = pd.DataFrame({"id": [1, 2], "fold": [0, 0], "prob_a": [0.25, 0.5]})
    oof.to_parquet(run.oof_path, compression="gzip")
    before = run.oof_path.read_bytes()
    save_scored(run, oof, {"n": 2})
    assert run.oof_path.read_bytes() == before
    save_scored(run, oof.assign(prob_a=[0.25, 0.75]), {"n": 2})
    assert run.oof_path.read_bytes() != before
    assert read_object(run.scores_path)["oof_sha256"] == digest_file(run.oof_path)
