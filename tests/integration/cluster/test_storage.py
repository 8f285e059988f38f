"""Files of a folder and of an object store are written once, by whoever is first."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor

import fsspec
import pandas as pd
import pytest

import tiewise as tw
from tiewise.cli import main
from tiewise.cluster.storage import open_storage, put_new
from tiewise.cluster.units import find_inputs, plan_units, read_unit, read_units_format
from tiewise.data.simulation.simulate import simulate
from tiewise.errors import FilesError, PairsError

N_THREADS = 8


@pytest.fixture(params=["folder", "store"])
def root(request, tmp_path):
    """Return the address of an empty folder, on this machine or in an object store."""
    return request.getfixturevalue("bucket") if request.param == "store" else str(tmp_path)


def test_first_writer_wins(root):
    """Of eight threads that write one file, one succeeds, and the file has its bytes."""
    fs, folder = open_storage(root)
    for number in range(5):
        path = f"{folder}/deep/file-{number}"
        barrier = threading.Barrier(N_THREADS)

        def write(name, path=path, barrier=barrier):
            barrier.wait(60)
            return put_new(fs, path, bytes([name]) * 5_000)

        with ThreadPoolExecutor(N_THREADS) as pool:
            wrote = list(pool.map(write, range(N_THREADS)))
        assert wrote.count(True) == 1
        assert fs.cat_file(path) == bytes([wrote.index(True)]) * 5_000
    assert len(fs.find(folder)) == 5, "no temporary file is left"


def write_data(root, n_files=2, seed=0):
    """Write numbered parquet files of 20 pairs; return the pairs."""
    fs, folder = open_storage(root)
    tables = [simulate(20, seed=seed + number) for number in range(n_files)]
    for number, pairs in enumerate(tables):
        with fs.open(f"{folder}/in/part-{number}.parquet", "wb") as file:
            pairs[["id", "prompt", "response_a", "response_b"]].to_parquet(file)
    return pd.concat(tables, ignore_index=True)


def test_store_equals_folder(bucket, home, tmp_path, capsys):
    """The command line predicts a bucket as it does a folder, joins it, and resumes it."""
    write_data(bucket)
    words = ["predict", "--run", str(home / "runs" / "one"), "--data", f"{bucket}/in"]
    words += ["--unit-rows", "8", "--chunk-rows", "4", "--artifacts", str(tmp_path / "artifacts")]
    assert main([*words, "--out", f"{bucket}/out", "--json"]) == 0
    first = json.loads(capsys.readouterr().out)
    assert (first["n_scored"], first["path"]) == (6, f"{bucket}/out")
    assert main([*words, "--out", f"{bucket}/out"]) == 0
    assert "6 units, 6 of them scored before; 40 pairs" in capsys.readouterr().out
    table = pd.concat(tw.read_predictions(f"{bucket}/out"), ignore_index=True)
    assert main([*words, "--out", str(tmp_path / "joined.parquet")]) == 0
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "joined.parquet"), table)

    (tmp_path / "in").mkdir()
    open_storage(bucket)[0].get(f"{bucket}/in/", f"{tmp_path}/in/", recursive=True)
    assert main([*words[:4], str(tmp_path / "in"), *words[5:], "--out", f"{tmp_path}/out/"]) == 0
    local = pd.concat(tw.read_predictions(tmp_path / "out"), ignore_index=True)
    pd.testing.assert_frame_equal(local, table)


def test_replaced_object_costs_its_units(bucket, home, tmp_path):
    """An object with another ETag is predicted again; the others are found."""
    write_data(bucket)
    options = {"run": "one", "artifacts": home, "out": f"{bucket}/out"}
    assert tw.predict(f"{bucket}/in", **options).n_scored == 2
    other = fsspec.filesystem("s3", skip_instance_cache=True)  # as another process
    fs, paths = find_inputs(f"{bucket}/in")
    units = plan_units(paths, fs)
    with other.open(f"{bucket}/in/part-1.parquet", "wb") as file:
        simulate(20, seed=9)[["id", "prompt", "response_a", "response_b"]].to_parquet(file)
    known = read_units_format(units[:1])
    with pytest.raises(PairsError, match=r"part-1\.parquet was changed"):
        list(read_unit(units[1], known, 10))
    done = tw.predict(f"{bucket}/in", **options)
    assert (done.n_scored, done.n_found) == (1, 1)


def test_unknown_stores_are_refused(bucket, home, monkeypatch):
    """A scheme without its package, and a missing object, are errors that say what to do."""
    with pytest.raises(FilesError, match="gs:// gcsfs"):
        open_storage("gs://bucket/in")
    with pytest.raises(PairsError, match="there is no such file"):
        tw.predict(f"{bucket}/missing.parquet", run="one", artifacts=home, out=f"{bucket}/out")
    monkeypatch.setitem(fsspec.config.conf["s3"], "endpoint_url", "http://127.0.0.1:9")
    monkeypatch.setitem(fsspec.config.conf["s3"], "config_kwargs", {"retries": {"max_attempts": 0}})
    with pytest.raises(FilesError, match=r"in cannot be accessed: .* credentials"):
        tw.predict(f"{bucket}/in", run="one", artifacts=home, out=f"{bucket}/out")
