"""Tests of the data set of a run: the rows that a limit draws, and unique ids."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tiewise import api
from tiewise.config import DataConfig, load_preset
from tiewise.data.folds import fold_by_group, fold_by_id, fold_by_position
from tiewise.data.formats import read_pairs, write_pairs
from tiewise.data.pairs import COLUMNS
from tiewise.data.simulation.simulate import simulate
from tiewise.errors import PairsError, RunError
from tiewise.files import digest_file
from tiewise.runs.dataset import assign_folds, find_data, load_dataset, reread_pairs
from tiewise.runs.folder import claim_run, name_run
from tiewise.runs.tables import read_folds
from tiewise.runs.training_rows import load_training_rows

PAIRS = simulate(60)[list(COLUMNS)]


@pytest.fixture
def path(tmp_path):
    """Write 60 pairs and return the name of the file."""
    write_pairs(PAIRS, tmp_path / "pairs.csv")
    return str(tmp_path / "pairs.csv")


def test_limit_draws_at_random(path):
    """The rows of a limit are drawn by the seed from the whole file, and keep its order."""
    drawn = [load_dataset(DataConfig(data=(path,), limit=20, data_seed=seed)) for seed in (0, 0, 1)]
    ids = [dataset.pairs["id"].tolist() for dataset in drawn]
    assert ids[0] == ids[1] != ids[2]
    for own in ids:
        assert len(own) == 20
        assert own == sorted(own, key=PAIRS["id"].tolist().index)
        assert set(own) - set(PAIRS["id"].head(40))
    assert drawn[0].counts["n_left_out_by_limit"] == 40


def test_digest_covers_the_draw(path):
    """Other rows of the same file have another digest; without a limit the seed is no matter."""

    def digest(**fields):
        return load_dataset(DataConfig(data=(path,), **fields)).digest

    draws = [{}, {"limit": 20}, {"limit": 20, "data_seed": 1}, {"limit": 21}]
    assert len({digest(**fields) for fields in draws}) == len(draws)
    assert digest(data_seed=1) == digest()
    assert digest(limit=20) == digest(limit=20)


def test_repeated_ids_are_refused(path):
    """Predictions are joined by id, so that the folds of a file with a repeated id are refused."""
    dataset = load_dataset(DataConfig(data=(path,)))
    table = assign_folds(dataset, DataConfig(n_splits=3))
    assert table["id"].tolist() == PAIRS["id"].tolist()
    assert np.unique(table["fold"]).tolist() == [0, 1, 2]
    dataset.pairs.loc[7, "id"] = dataset.pairs["id"][3]
    with pytest.raises(PairsError, match=rf"id={PAIRS['id'][3]} occurs more than once"):
        assign_folds(dataset, DataConfig(n_splits=3))


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Go to an empty folder, without data in the environment."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TIEWISE_DATA", raising=False)
    for name in ("one.csv", "two.csv"):
        (tmp_path / name).touch()
    return tmp_path


def test_data_are_looked_for_in_order(here, monkeypatch):
    """Named files come first, then those of the environment, then data/train.csv."""
    assert find_data(DataConfig()) == []
    (here / "data").mkdir()
    assert find_data(DataConfig()) == []
    (here / "data" / "train.csv").touch()
    assert find_data(DataConfig()) == ["data/train.csv"]
    monkeypatch.setenv("TIEWISE_DATA", f"two.csv{os.pathsep}{os.pathsep}one.csv")
    assert find_data(DataConfig()) == ["two.csv", "one.csv"]
    assert find_data(DataConfig(data=("one.csv",))) == ["one.csv"]


def test_similar_file_is_suggested(here):
    """A misspelled file is answered with the similar one in its folder."""
    (here / "data").mkdir()
    (here / "data" / "votes.csv").touch()
    with pytest.raises(PairsError, match=r"Did you mean data/votes\.csv\?"):
        find_data(DataConfig(data=("data/vots.csv",)))
    with pytest.raises(PairsError, match=r"such file\. Did you mean data/votes\.csv\?$"):
        read_pairs("data/vots.csv")


def test_file_without_rows_is_refused(here):
    """A header alone is no data: the message says so, and names the file."""
    (here / "empty.csv").write_text("prompt,response_a,response_b,winner\n")
    with pytest.raises(PairsError, match=r"empty\.csv: there are no rows"):
        load_dataset(DataConfig(data=("empty.csv",)))
    with pytest.raises(PairsError, match=r"empty\.csv: there are no rows"):
        api.audit("empty.csv")


@pytest.mark.parametrize("is_named", [True, False])
def test_missing_file_is_named(here, monkeypatch, is_named):
    """A file that does not exist is an error that says where data are looked for."""
    monkeypatch.setenv("TIEWISE_DATA", "gone.csv")
    with pytest.raises(PairsError, match=r"gone\.csv: there is no such file\. .*data/train\.csv"):
        find_data(DataConfig(data=("one.csv", "gone.csv") if is_named else ()))


def test_hub_paths_in_the_environment(here, monkeypatch):
    """The separator of paths does not split hf:// from its name, and nothing is looked up first."""
    asked = []
    monkeypatch.setattr(
        "tiewise.runs.dataset.fetch_files", lambda path: asked.append(path) or [path]
    )
    monkeypatch.setenv("TIEWISE_DATA", f"hf://datasets/a/b{os.pathsep}one.csv")
    assert find_data(DataConfig()) == asked == ["hf://datasets/a/b", "one.csv"]


def test_fold_rules(path):
    """Rows are assigned by the rule of the configuration; with one fold all are in it."""
    dataset = load_dataset(DataConfig(data=(path,)))
    pairs = dataset.pairs

    def folds(**fields):
        return assign_folds(dataset, replace(DataConfig(n_splits=3), **fields))["fold"].tolist()

    assert folds(fold_rule="position") == fold_by_position(60, 3).tolist()
    assert folds(fold_rule="id") == fold_by_id(pairs["id"], 3).tolist()
    for seed in (0, 5):
        expected = fold_by_group(pairs["group"], pairs["label"], 3, seed=seed).tolist()
        assert folds(data_seed=seed) == expected
    assert folds(data_seed=5) != folds()
    assert folds(n_splits=1) == [0] * 60


def test_columns_of_the_table_of_folds(path):
    """Lengths of the texts follow; pair and vote only where people voted on a pair twice."""
    dataset = load_dataset(DataConfig(data=(path,)))
    table = assign_folds(dataset, DataConfig(n_splits=2))
    columns = ["id", "fold", "label", "group", "n_chars_prompt", "n_chars_a", "n_chars_b"]
    assert table.columns.tolist() == columns
    twice = pd.concat([dataset.pairs, dataset.pairs.head(1).assign(id="again")], ignore_index=True)
    table = assign_folds(replace(dataset, pairs=twice), DataConfig(n_splits=2))
    assert table.columns.tolist() == [*columns, "pair", "vote"]
    assert table["pair"].iloc[0] == table["pair"].iloc[-1]


def test_counts_of_a_file(tmp_path, path):
    """Rows read, rejected, repaired and left out are counted; a limit above the rows keeps all."""
    table = pd.read_csv(path)
    table.loc[3, [name for name in table if name.startswith("winner_")]] = 0
    table.to_csv(tmp_path / "gap.csv", index=False)
    config = DataConfig(data=(str(tmp_path / "gap.csv"),), on_error="skip", limit=100)
    dataset = load_dataset(config)
    counts = {"n_read": 59, "n_rejected": 1, "n_repaired": 0, "n_left_out_by_limit": 0}
    assert dataset.counts == counts
    assert len(dataset.pairs) == 59
    assert dataset.sources == (f"gap.csv {digest_file(tmp_path / 'gap.csv')}",)
    with pytest.raises(PairsError, match=r"row 3 \(id=3\): winner_model_a"):
        load_dataset(replace(config, on_error="raise"))
    assert len(load_dataset(replace(config, on_error="raise"), labelled=False).pairs) == 60


def test_sample_without_files(here):
    """Without any file the embedded sample is read: always the same 1,500 rows."""
    one, two = load_dataset(DataConfig()), load_dataset(DataConfig(limit=1500))
    assert one.pairs.equals(two.pairs)
    assert len(one.pairs) == 1500
    assert one.sources == two.sources
    assert one.sources[0].startswith("embedded sample of 1500 rows ")


@pytest.fixture
def fitted(tmp_path, monkeypatch):
    """Return a run that was started in the folder `first` with its ``pairs.csv``."""
    monkeypatch.delenv("TIEWISE_DATA", raising=False)
    (tmp_path / "first").mkdir()
    (tmp_path / "second").mkdir()
    monkeypatch.chdir(tmp_path / "first")
    write_pairs(PAIRS, "pairs.csv")
    config = load_preset("baseline")
    config = replace(config, data=replace(config.data, data=("pairs.csv",)))
    run = name_run(tmp_path, config, name="run")
    run.path.mkdir(parents=True)
    claim_run(run)
    load_training_rows(config.data).save(run)
    monkeypatch.chdir(tmp_path / "second")
    return run


def test_data_are_found_from_another_folder(fitted):
    """A file of the same name in the current folder is not mistaken for that of the fit."""
    write_pairs(PAIRS.head(9), "pairs.csv")
    assert reread_pairs(fitted)["id"].tolist() == PAIRS["id"].tolist()
    assert fitted.config.data.data == ("pairs.csv",)


def test_notes_are_not_repeated(fitted, caplog):
    """What the fit said about rows and columns is not said again, and later reads say it."""
    caplog.set_level("INFO", logger="tiewise")
    pairs = read_pairs("../first/pairs.csv").drop(columns=["id", "group"])
    table = pairs.assign(extra=1)[["prompt", "response_a", "response_b", "winner", "extra"]]
    table.to_parquet("own.parquet")
    with pytest.raises(RunError, match="not the data that run was fitted on"):
        reread_pairs(fitted, ["own.parquet"])
    assert "there is no column id" not in caplog.text
    load_dataset(replace(fitted.config.data, data=("own.parquet",)))
    assert "there is no column id" in caplog.text


def test_moved_data_are_found_as_configured(fitted):
    """When the file of the fit is gone, that of the current folder is read, if it is equal."""
    Path("../first/pairs.csv").replace("pairs.csv")
    assert len(reread_pairs(fitted)) == len(PAIRS)


def test_message_names_the_tried_file(fitted, tmp_path, caplog):
    """It says which file was tried, which one the fit read, and what to do."""
    write_pairs(PAIRS.head(9), "pairs.csv")
    Path("../first/pairs.csv").unlink()
    assert reread_pairs(fitted) is None
    assert f"{tmp_path / 'second' / 'pairs.csv'}: these are not the data that run" in caplog.text
    assert f"The fit read {tmp_path / 'first' / 'pairs.csv'}." in caplog.text
    assert "--data" in caplog.text


@pytest.mark.parametrize("spelling", ["as fitted", "relative", "absolute"])
def test_files_of_one_name_are_read_again(tmp_path, monkeypatch, spelling):
    """Two files with one name and the same ids are the run's data, from whatever folder."""
    folders = [tmp_path / "new", tmp_path / "old"]
    for seed, folder in enumerate(folders):
        folder.mkdir()
        write_pairs(simulate(30, seed=seed)[list(COLUMNS)], folder / "votes.csv")
    monkeypatch.chdir(tmp_path)
    config = load_preset("baseline")
    given = ("new/votes.csv", "old/votes.csv")
    config = replace(config, data=replace(config.data, data=given))
    run = name_run(tmp_path, config, name="run")
    run.path.mkdir(parents=True)
    claim_run(run)
    rows = load_training_rows(config.data)
    rows.save(run)
    if spelling == "relative":
        monkeypatch.chdir(folders[0])
        given = ("votes.csv", "../old/votes.csv")
    named = [str(folder / "votes.csv") for folder in folders] if spelling == "absolute" else given
    for paths in ((), named):
        assert reread_pairs(run, paths)["id"].tolist() == rows.table["id"].tolist()
    assert rows.table["id"].tolist()[0] == "new/votes.csv:0"


def test_ids_are_those_of_the_fit(fitted, tmp_path, monkeypatch):
    """A run keeps its ids when names of files are spelled in another way, as in version 0.1."""
    monkeypatch.chdir(tmp_path / "first")
    table = read_folds(fitted)
    ids = [f"/old/pairs.csv:{name}" for name in table["id"]]
    data = json.loads(fitted.data_path.read_text())
    table.assign(id=ids).to_parquet(fitted.folds_path)
    data["folds_sha256"] = digest_file(fitted.folds_path)
    fitted.data_path.write_text(json.dumps(data))
    assert reread_pairs(fitted)["id"].tolist() == ids
