"""Several tables in one folder or data set are never taken for one."""

import shutil

import pandas as pd
import pytest

import tiewise as tw
from tiewise.data.formats.hub import choose_files
from tiewise.errors import PairsError

ULTRAFEEDBACK = [
    f"data/{part}_{split}-00000-of-00001.parquet"
    for part in ("test", "train")
    for split in ("gen", "prefs", "sft")
]


@pytest.fixture
def write(tmp_path, case):
    """Return a function that writes ten pairs to each of some names in a folder."""

    def write_rows(*names):
        for name in names:
            (tmp_path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(case("06-hub-splits/rows.parquet"), tmp_path / "set" / name)
        return tmp_path / "set"

    return write_rows


def test_splits_of_a_hub_set(write, monkeypatch):
    """Three training splits are three tables: all are named, none is read."""
    folder = write(*ULTRAFEEDBACK)
    monkeypatch.setattr("tiewise.data.formats.hub._download", lambda *_: folder)
    with pytest.raises(PairsError, match=r"train_gen-.*, .*train_prefs-.*, .*train_sft-"):
        tw.read_pairs("hf://datasets/HuggingFaceH4/ultrafeedback_binarized")


def test_shards_of_one_split_are_read(write, caplog):
    """Numbered shards are one table in their order; other splits are not read, and named."""
    names = [f"data/train_prefs-{shard:05d}-of-00002.parquet" for shard in (1, 0)]
    folder = write(*names, "data/test_prefs-00000-of-00001.parquet")
    with caplog.at_level("INFO"):
        pairs = tw.read_pairs(folder)
    assert (len(pairs), pairs["id"].nunique()) == (20, 20)
    assert "not read: data/test_prefs-00000-of-00001.parquet" in caplog.text


@pytest.mark.parametrize(
    "names",
    [
        ["data/human-0.parquet", "data/gpt4_pair-0.parquet"],
        ["data/constrained-test.parquet", "data/validation.parquet"],
        ["a.csv", "b.csv"],
        ["train.csv", "train.csv.gz"],
        ["train.csv", "train.jsonl"],
        ["train.csv", "train-0.csv"],
        ["en/train.csv", "de/train.csv"],
        ["train_v1.csv", "train_v2.csv"],
        ["train-2019.csv", "train-2020.csv"],
        ["raw/train-0.csv", "filtered/train-1.csv"],
    ],
    ids=" ".join,
)
def test_several_tables_are_refused(names):
    """Files of several names, folders or suffixes are refused, all named."""
    with pytest.raises(PairsError, match="several tables") as caught:
        choose_files(names)
    assert all(name in str(caught.value) for name in names)


@pytest.mark.parametrize(
    "names",
    [
        ["train-00000-of-00003.parquet", "train-00001-of-00003.parquet"],
        ["train-00000-of-00002-a09b74b3ef.parquet", "train-00000-of-00002-b19b74b3ef.parquet"],
        ["train-00001-of-00002.parquet"],
    ],
    ids=" ".join,
)
def test_missing_shards_are_refused(names):
    """A part of a table, as a download leaves it that was stopped, is not read as the whole."""
    with pytest.raises(PairsError, match="shards are missing"):
        choose_files(names)


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["constrained-test.csv"], ["constrained-test.csv"]),
        (["constrained-test.csv", "my-train.csv"], ["my-train.csv"]),
        (["Train.CSV", "Test.CSV"], ["Train.CSV"]),
        (["x/train/0000.parquet", "x/test/0000.parquet"], ["x/train/0000.parquet"]),
        (
            ["train/data-00000-of-00001.arrow", "train/state.json", "train/dataset_info.json"],
            ["train/data-00000-of-00001.arrow"],
        ),
        (["README.md", "_SUCCESS", ".part-0.csv.crc", "part-0.csv"], ["part-0.csv"]),
        ([f"t.{n}.csv" for n in range(1, 12)], [f"t.{n}.csv" for n in range(1, 12)]),
    ],
    ids=str,
)
def test_one_table_is_chosen(names, chosen):
    """`train` is a whole word of the split's name; shards are in the order of their numbers."""
    assert choose_files(names) == chosen


def test_folder_is_data_of_every_command(write, tiewise):
    """A folder of shards is audited and converted as the files are."""
    folder = write("train-0.parquet", "train-1.parquet")
    assert tiewise("audit", folder).status == 0
    assert tiewise("convert", folder, "--out", "pairs.parquet").status == 0
    assert len(pd.read_parquet("pairs.parquet")) == 20
    write("train_more-0.parquet")
    refused = tiewise("convert", folder, "--out", "all.parquet")
    assert refused.status == 2
    assert "several tables" in refused.errors


@pytest.mark.parametrize(
    "name", [".train.csv", "_train.csv", ".cache/train.csv", "_logs/train.csv"]
)
def test_hidden_files_are_no_tables(name):
    """Files and folders whose names begin with a dot or an underscore are passed over."""
    assert choose_files([name, "train.csv"], [".csv"]) == ["train.csv"]
