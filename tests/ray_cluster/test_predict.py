"""Predictions on a cluster equal those of one process, resume, and name what is left out."""

import json
import shutil

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from run_folders import fit_small
from tiewise.data.pairs import TEXT_COLUMNS
from tiewise.data.simulation.simulate import simulate

N_UNITS = 15


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Make a folder with a run `one`, 60 pairs in two files of five row groups, and no output."""
    folder = tmp_path_factory.mktemp("place")
    fit_small(folder / "artifacts", "one")
    pairs = simulate(120, seed=1)
    texts = {name: [json.dumps(turns) for turns in pairs[name]] for name in TEXT_COLUMNS}
    table = pa.table({"id": pairs["id"].tolist(), **texts})
    (folder / "in").mkdir()
    for number in range(3):
        path = folder / "in" / f"part-{number}.parquet"
        pq.write_table(table.slice(40 * number, 40), path, row_group_size=8)
    return folder


@pytest.fixture(scope="module")
def parts(cluster, place):
    """Predict in one process; return the names of the parts, which have the digests."""
    _end(_predict(cluster, place, "alone/"))
    return _parts(place / "alone")


def _predict(cluster, place, out, *flags, run="one", data="in"):
    words = ("predict", "--run", run, "--data", data, "--out", out, "--json")
    sizes = ("--chunk-rows", "4", "--unit-rows", "8")
    return cluster.drive("-m", "tiewise", *words, *sizes, *flags, cwd=place)


def _end(driver, status=0):
    out, messages = driver.communicate(timeout=120)
    assert driver.returncode == status, messages
    return json.loads(out) if status == 0 else messages


def _parts(folder):
    return sorted(path.name for path in folder.glob("parts-*/*.parquet"))


@pytest.mark.parametrize("workers", ["1", "2"])
def test_units_equal_one_process(cluster, place, parts, workers):
    """Workers write the bytes of one process, and a second call needs no cluster."""
    out, flags = f"out-{workers}/", ("--workers", workers)
    done = _end(_predict(cluster, place, out, "--ray", cluster.address, *flags))
    assert done["n_units"] == N_UNITS
    assert _parts(place / out) == parts
    assert len(parts) == N_UNITS
    again = _end(_predict(cluster, place, out, "--ray", "127.0.0.2:1", *flags))
    assert again["n_found"] == N_UNITS
    assert again["facts"] == done["facts"]


@pytest.mark.parametrize("suffix", ["csv", "parquet", "jsonl"])
def test_file_equals_one_process(cluster, place, suffix):
    """A joined file has the bytes of a prediction of the same files in this process."""
    _end(_predict(cluster, place, f"a.{suffix}", "--ray", cluster.address))
    _end(_predict(cluster, place, f"b.{suffix}"))
    assert (place / f"a.{suffix}").read_bytes() == (place / f"b.{suffix}").read_bytes()
    assert not list(place.glob("*.parts"))


WITHOUT_RUN = """
import sys
from pathlib import Path
from tiewise.cluster.ray_pool import Cluster
from tiewise.cluster.scoring import run_on
from tiewise.cluster.units import find_inputs, plan_units
assert not Path("artifacts/runs/one").exists()
fs, paths = find_inputs("in")
failures = run_on(Cluster(sys.argv[1]), plan_units(paths, fs, 8), sys.argv[2], lambda record: None)
assert not failures, failures
"""


def test_run_comes_from_the_archive(cluster, place, parts):
    """Workers open the run from the output folder: no machine needs the folder of the run."""
    out = place / "archived"
    shutil.copytree(place / "alone", out)
    for path in [*out.glob("parts-*/*"), out / "manifest.json"]:
        path.unlink()
    runs = place / "artifacts" / "runs"
    runs.rename(place / "hidden")
    try:
        for node in cluster.nodes.values():
            shutil.rmtree(node.home, ignore_errors=True)
        driver = cluster.drive("-c", WITHOUT_RUN, cluster.address, str(out), cwd=place)
        _, messages = driver.communicate(timeout=120)
    finally:
        (place / "hidden").rename(runs)
    assert driver.returncode == 0, messages
    assert _parts(out) == parts


def test_damaged_row_group_named(cluster, place, parts):
    """A row group that cannot be read is named, and all other units are predicted."""
    data = place / "damaged"
    shutil.copytree(place / "in", data)
    path = data / "part-1.parquet"
    group = pq.read_metadata(path).row_group(2)
    start = group.column(1).data_page_offset
    content = bytearray(path.read_bytes())
    content[start : start + 60] = bytes(60)
    path.write_bytes(content)
    message = _end(
        _predict(cluster, place, "some/", "--ray", cluster.address, data="damaged"), status=2
    )
    assert f"1 of {N_UNITS} units are not scored" in message
    assert "part-1.parquet, row group 2" in message
    assert len(_parts(place / "some")) == N_UNITS - 1
    assert not (place / "some" / "manifest.json").exists()


def test_csv_is_refused(cluster, place):
    """A file without row groups is refused before a worker starts."""
    pd.DataFrame({"prompt": ["a"], "response_a": ["b"], "response_b": ["c"]}).to_csv(
        place / "in.csv", index=False
    )
    message = _end(_predict(cluster, place, "c/", "--ray", "127.0.0.2:1", data="in.csv"), status=2)
    assert "tiewise convert" in message
