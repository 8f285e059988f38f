"""Data sets of the hub are read through the hub's own client, with a local server."""

from __future__ import annotations

import pandas as pd
import pytest

from hub_stub import run_with_hub, serve_hub
from tiewise.data.formats import read_pairs
from tiewise.data.simulation.simulate import simulate, write_simulation


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """Return the files of a data set in two shards, and the path of the whole table."""
    folder = tmp_path_factory.mktemp("data")
    write_simulation(simulate(12, seed=0), folder / "train.csv")
    whole = pd.read_csv(folder / "train.csv", dtype=str, keep_default_na=False)
    parts = {
        "data/train-1.csv": whole[7:],
        "data/train-0.csv": whole[:7],
        "data/test.csv": whole[:2],
    }
    files = {name: part.to_csv(index=False).encode() for name, part in parts.items()}
    return {"README.md": b"# Votes", **files}, folder / "train.csv"


def run_at(hub, folder, *words, online=True):
    return run_with_hub(hub, folder, "-m", "tiewise", *words, online=online)


def test_shards_are_one_cached_table(tmp_path, shards):
    """The training files are read in the order of their names, and later without a network."""
    files, whole = shards
    with serve_hub(files) as hub:
        words = ("convert", "hf://datasets/me/votes", "--out")
        done = run_at(hub, tmp_path, *words, tmp_path / "a.parquet")
        assert done.returncode == 0, done.stderr
    expected = read_pairs(whole).drop(columns="source")
    pd.testing.assert_frame_equal(
        read_pairs(tmp_path / "a.parquet").drop(columns="source"), expected, check_flags=False
    )
    again = run_at(hub, tmp_path, *words, tmp_path / "b.parquet", online=False)
    assert again.returncode == 0, again.stderr
    missing = run_at(hub, tmp_path, "audit", "hf://datasets/me/else/x.csv", online=False)
    assert missing.returncode == 2
    assert "the hub did not provide it" in missing.stderr


def test_hub_data_predicts_like_file(tmp_path, shards):
    """Predictions of the shards equal those of the whole file, byte for byte."""
    files, whole = shards
    with serve_hub(files) as hub:
        fitted = run_at(
            hub, tmp_path, "fit", "--preset", "baseline", "--data", whole,
            "--n-splits", "2", "--fold", "0", "--run", "first",
        )  # fmt: skip
        assert fitted.returncode == 0, fitted.stderr
        tables = []
        for data in ("hf://datasets/me/votes", whole):
            out = tmp_path / f"{len(tables)}.csv"
            words = ("predict", "--run", "first", "--data", data, "--out", out)
            done = run_at(hub, tmp_path, *words)
            assert done.returncode == 0, done.stderr
            tables.append(out.read_text())
    assert tables[0] == tables[1]
