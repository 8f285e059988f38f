"""Hub data sets are read and models pushed through the hub's own client, with a local server."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys

import pandas as pd
import pytest

from hub_stub import serve_hub
from tiewise.data.formats import read_pairs
from tiewise.data.simulation.simulate import simulate, write_simulation
from tiewise.runs.manifest import write_manifest


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
    environment = os.environ | {
        "HF_ENDPOINT": hub,
        "HF_HOME": str(folder / "hf"),
        "HF_TOKEN": "hf_x",
    }
    environment |= {"HF_HUB_OFFLINE": "0" if online else "1", "HF_HUB_DISABLE_XET": "1"}
    return subprocess.run(
        [sys.executable, "-m", "tiewise", *map(str, words)],
        env=environment, cwd=folder, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def test_shards_are_one_cached_table(tmp_path, shards):
    """The training files are read in the order of their names, and later without a network."""
    files, whole = shards
    with serve_hub(files) as hub:
        words = ("convert", "hf://datasets/me/votes", "--out")
        done = run_at(hub.address, tmp_path, *words, tmp_path / "a.parquet")
        assert done.returncode == 0, done.stderr
    expected = read_pairs(whole).drop(columns="source")
    pd.testing.assert_frame_equal(
        read_pairs(tmp_path / "a.parquet").drop(columns="source"), expected, check_flags=False
    )
    again = run_at(hub.address, tmp_path, *words, tmp_path / "b.parquet", online=False)
    assert again.returncode == 0, again.stderr
    missing = run_at(hub.address, tmp_path, "audit", "hf://datasets/me/else/x.csv", online=False)
    assert missing.returncode == 2
    assert "the hub did not provide it" in missing.stderr


def test_hub_data_predicts_like_file(tmp_path, shards):
    """Predictions of the shards equal those of the whole file, byte for byte."""
    files, whole = shards
    with serve_hub(files) as hub:
        fitted = run_at(
            hub.address, tmp_path, "fit", "--preset", "baseline", "--data", whole,
            "--n-splits", "2", "--fold", "0", "--run", "first",
        )  # fmt: skip
        assert fitted.returncode == 0, fitted.stderr
        tables = []
        for data in ("hf://datasets/me/votes", whole):
            out = tmp_path / f"{len(tables)}.csv"
            words = ("predict", "--run", "first", "--data", data, "--out", out)
            done = run_at(hub.address, tmp_path, *words)
            assert done.returncode == 0, done.stderr
            tables.append(out.read_text())
    assert tables[0] == tables[1]


def test_push_uploads_visible_files(tmp_path):
    """A private repository gets every file but hidden ones, byte for byte."""
    model = tmp_path / "model"
    model.mkdir()
    (model / "README.md").write_text("---\nlicense: mit\n---\n# A model\n")
    (model / "template.json").write_text("{}")
    (model / ".secret").write_text("token")
    write_manifest(model)
    with serve_hub({}) as hub:
        done = run_at(hub.address, tmp_path, "push", model, "--repo", "me/model", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["url"].endswith("/me/model")
    created = json.loads(next(body for path, body in hub.posted if path.endswith("/create")))
    expected = {"name": "model", "organization": "me", "visibility": "private"}
    assert expected.items() <= created.items()
    lines = next(body for path, body in hub.posted if "/commit/" in path).splitlines()
    sent = [json.loads(line)["value"] for line in lines if json.loads(line)["key"] == "file"]
    contents = {file["path"]: base64.b64decode(file["content"]) for file in sent}
    names = ("README.md", "manifest.json", "template.json")
    assert contents == {name: (model / name).read_bytes() for name in names}
