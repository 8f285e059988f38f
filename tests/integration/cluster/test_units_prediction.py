"""A prediction in units equals that of one process, resumes, and refuses what differs."""

from __future__ import annotations

import errno
import functools
import json
import re
import shutil
from dataclasses import replace

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import tiewise as tw
from tiewise.cluster.archive import pack_run
from tiewise.cluster.output import Output
from tiewise.cluster.prediction import predict_to, predict_units
from tiewise.cluster.scoring import UnitWorker, run_here
from tiewise.data.pairs import TEXT_COLUMNS
from tiewise.data.simulation.simulate import simulate
from tiewise.errors import ConfigError, FilesError, PairsError, RunError
from tiewise.judges.prediction import PredictOptions, predict_file

OPTIONS = PredictOptions(chunk_rows=4, unit_rows=8)
PAIRS = simulate(60, seed=1)
GROUPS = ([7, 9], [12], [3, 0, 10])
"""Rows of the row groups of three files."""


@pytest.fixture
def run(home):
    return tw.open_run("one", home)


def write_file(path, pairs, groups, ids=None):
    """Write pairs as plain text in row groups of these sizes, with ids unless they are empty."""
    texts = {name: [json.dumps(turns) for turns in pairs[name]] for name in TEXT_COLUMNS}
    ids = pairs["id"].tolist() if ids is None else ids
    table = pa.table({**({"id": ids} if len(ids) else {}), **texts})
    with pq.ParquetWriter(path, table.schema) as writer:
        start = 0
        for size in groups:
            writer.write_table(table.slice(start, size))
            start += size


def write_folder(folder, spell=lambda ids, _: ids):
    """Write three files of 41 pairs; `spell` gives the ids of a file."""
    folder.mkdir(exist_ok=True)
    start = 0
    for number, groups in enumerate(GROUPS):
        rows = PAIRS.iloc[start : start + sum(groups)]
        ids = spell(rows["id"].tolist(), number)
        write_file(folder / f"part-{number}.parquet", rows, groups, ids)
        start += sum(groups)
    return folder


@pytest.fixture
def data(tmp_path):
    return write_folder(tmp_path / "in")


@pytest.fixture
def predict(run, data, tmp_path):
    """Return a function that predicts the data into ``out/`` of the temporary folder."""

    def call(**changes):
        arguments = {"run": run, "data": str(data), "out": str(tmp_path / "out")}
        arguments |= {"cache_dir": tmp_path / "cache", "options": OPTIONS}
        return predict_units(**{**arguments, **changes})

    return call


def join(folder):
    return pd.concat(tw.read_predictions(folder), ignore_index=True)


def parts(folder):
    return sorted(folder.glob("parts-*/*.parquet"))


SPELLINGS = {
    "integers": lambda ids, _: ids,
    "floats": lambda ids, number: [f"{name}.0" for name in ids] if number else map(str, ids),
    "mixed": lambda ids, number: [f"{name}.0" for name in ids] if number < 2 else ["x7"] * len(ids),
    "words": lambda ids, _: [f"id-{name}" for name in ids],
    "later words": lambda ids, number: [f"id-{name}" if number else str(name) for name in ids],
    "none": lambda *_: [],
}


@pytest.mark.parametrize(
    ("spelling", "suffix"),
    [
        ("integers", ".csv"),
        ("integers", ".parquet"),
        ("later words", ".parquet"),
        *((name, ".jsonl") for name in SPELLINGS),
    ],
)
def test_units_equal_one_process(run, tmp_path, spelling, suffix):
    """Parts joined to a file have the bytes of a prediction by one process, for all ids."""
    spell = SPELLINGS[spelling]
    data = write_folder(tmp_path / "in", lambda ids, number: list(spell(ids, number)))
    options = {"cache_dir": tmp_path / "cache", "options": OPTIONS}
    alone, units = tmp_path / f"alone{suffix}", tmp_path / f"units{suffix}"
    expected = predict_file(run, data, alone, **options)
    execute = functools.partial(run_here, cache_dir=tmp_path / "cache")
    found = predict_to(run, str(data), units, execute=execute, **options)
    assert units.read_bytes() == alone.read_bytes()
    assert found.facts == expected.facts
    assert found.n_units == 8
    assert not list(tmp_path.glob("*.parts"))


def test_second_call_scores_nothing(predict, tmp_path):
    """A finished folder is not scored again, and the manifest names the units in order."""
    first, again = predict(), predict()
    assert (first.n_scored, first.n_found) == (8, 0)
    assert (again.n_scored, again.n_found, again.facts) == (0, 8, first.facts)
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    n_rows = [each["unit"]["n_rows"] for each in manifest["units"]]
    assert n_rows == [7, 8, 1, 8, 4, 3, 8, 2]
    assert all(each["device"] == "cpu" and each["seconds"] >= 0 for each in manifest["units"])
    assert len(join(tmp_path / "out")) == 41


def test_interrupted_prediction_resumes(predict, tmp_path):
    """Parts without a manifest are found by their digest; the result is the same."""
    predict()
    expected = join(tmp_path / "out")
    (tmp_path / "out" / "manifest.json").unlink()
    with pytest.raises(RunError, match=r"has no manifest\.json"):
        join(tmp_path / "out")
    for part in parts(tmp_path / "out")[::2]:
        part.unlink()
    assert predict().n_scored == 4
    pd.testing.assert_frame_equal(join(tmp_path / "out"), expected)


DAMAGES = {"cut": lambda data: data[:-3], "empty": lambda _: b"", "longer": lambda data: data * 2}


@pytest.mark.parametrize("has_manifest", [True, False])
@pytest.mark.parametrize("damage", DAMAGES)
def test_torn_part_is_scored_again(predict, tmp_path, caplog, damage, has_manifest):
    """A part that is cut off or too long is removed, named and scored again."""
    predict()
    expected = join(tmp_path / "out")
    part = parts(tmp_path / "out")[3]
    part.write_bytes(DAMAGES[damage](part.read_bytes()))
    with pytest.raises(RunError, match="is missing or damaged"):
        join(tmp_path / "out")
    if not has_manifest:
        (tmp_path / "out" / "manifest.json").unlink()
    assert predict().n_scored == 1
    assert "is damaged; its rows are predicted again" in caplog.text
    pd.testing.assert_frame_equal(join(tmp_path / "out"), expected)


def test_replaced_file_costs_its_units(predict, data, tmp_path):
    """A file that is written again or added is scored; the parts of all others are kept."""
    predict()
    kept = set(parts(tmp_path / "out"))
    write_file(data / "part-1.parquet", PAIRS.iloc[41:55], [14])
    write_file(data / "part-3.parquet", PAIRS.iloc[55:], [5])
    done = predict()
    assert (done.n_scored, done.n_found) == (3, 6)
    assert kept <= set(parts(tmp_path / "out"))
    expected = [*range(16), *range(41, 55), *range(28, 41), *range(55, 60)]
    assert join(tmp_path / "out")["id"].tolist() == PAIRS["id"].iloc[expected].tolist()


def change(**options):
    """Return other options of a prediction."""
    return {"options": replace(OPTIONS, **options)}


IDENTITY_CHANGES = {
    "run": lambda home, tmp_path: {"run": tw.open_run("two", home)},
    "data": lambda home, tmp_path: {"data": str(tmp_path / "in" / "part-0.parquet")},
    "options.swap": lambda home, tmp_path: change(swap=True),
    "options.chunk_rows": lambda home, tmp_path: change(chunk_rows=2),
    "options.device": lambda home, tmp_path: change(device="cpu"),
    "options.unit_rows": lambda home, tmp_path: change(unit_rows=4),
    "format.columns": lambda home, tmp_path: change(
        columns={"response_a": "response_b", "response_b": "response_a"}
    ),
}  # fmt: skip


@pytest.mark.parametrize("field", IDENTITY_CHANGES)
def test_other_identity_is_refused(predict, home, tmp_path, field):
    """A folder keeps the predictions of one run, data set and set of options; others are named."""
    predict()
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    with pytest.raises(RunError, match=rf"has predictions with {field} .* name another folder"):
        predict(**IDENTITY_CHANGES[field](home, tmp_path))
    after = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert after == before


@pytest.mark.parametrize("field", ["version", "models.0", "calibration.method", "format.name"])
def test_other_models_are_refused(predict, tmp_path, field):
    """The version, models, calibration and format of the folder are compared as well."""
    predict()
    path = tmp_path / "out" / "identity.json"
    identity = json.loads(path.read_text())
    inner, *names = identity, *field.split(".")
    for name in names[:-1]:
        inner = inner[name]
    inner[names[-1]] = "another"
    path.write_text(json.dumps(identity))
    with pytest.raises(RunError, match=f'has predictions with {field} "another"'):
        predict()


def test_worker_of_another_version_is_refused(predict, tmp_path):
    """A worker with another version of tiewise does not score."""
    predict()
    path = tmp_path / "out" / "identity.json"
    identity = json.loads(path.read_text())
    path.write_text(json.dumps(identity | {"version": "0.0.1"}))
    with pytest.raises(RunError, match=r"written by tiewise 0\.0\.1"):
        UnitWorker.open(str(tmp_path / "out"), cache_dir=tmp_path / "cache")


def test_worker_needs_only_the_folder(predict, home, tmp_path):
    """The run is opened from the archive, which is unpacked once and checked."""
    run = shutil.copytree(home / "runs" / "one", tmp_path / "copy" / "one")
    predict(run=tw.open_run(run))
    shutil.rmtree(run)
    expected = join(tmp_path / "out")
    shutil.rmtree(next((tmp_path / "out").glob("parts-*")))
    units = [each.unit for each in Output(tmp_path / "out").read_manifest()]
    worker = UnitWorker.open(str(tmp_path / "out"), cache_dir=tmp_path / "other")
    for unit in units:
        worker.compute(unit)
    pd.testing.assert_frame_equal(join(tmp_path / "out"), expected)
    archive = next((tmp_path / "out").glob("run-*.tar"))
    archive.write_bytes(archive.read_bytes()[:-512])
    UnitWorker.open(str(tmp_path / "out"), cache_dir=tmp_path / "other")
    with pytest.raises(RunError, match=r"\.tar is damaged"):
        UnitWorker.open(str(tmp_path / "out"), cache_dir=tmp_path / "third")


def test_unreadable_unit_is_named(predict, data, tmp_path):
    """Rows that cannot be read are named; all other units are scored, and there is no manifest."""
    path = data / "part-1.parquet"
    table = pq.read_table(path).to_pandas()
    good = path.read_bytes()
    table.loc[9, "prompt"] = '["not closed'
    pq.write_table(pa.Table.from_pandas(table), path)
    with pytest.raises(
        PairsError,
        match=r"1 of 8 units .*:\n  /\S*part-1\S*, row group 0: .*\n  row 9",
    ):
        predict()
    assert len(parts(tmp_path / "out")) == 7
    assert not (tmp_path / "out" / "manifest.json").exists()
    path.write_bytes(good)
    assert predict().n_scored == 2


def test_failing_store_keeps_other_units(predict, tmp_path, monkeypatch):
    """Errors of disk or store leave out their units; the same call, once they passed, ends it."""
    predict(out=f"{tmp_path}/good")
    compute, calls = UnitWorker.compute, []

    def compute_or_fail(worker, unit):
        calls.append(unit)
        if len(calls) in (2, 3):
            raise ConnectionResetError(104, "Connection reset by peer")
        return compute(worker, unit)

    monkeypatch.setattr(UnitWorker, "compute", compute_or_fail)
    with pytest.raises(PairsError, match=r"2 of 8 units .*\n.*rows 0 to 7: Connection reset"):
        predict()
    assert predict().n_scored == 2
    pd.testing.assert_frame_equal(join(tmp_path / "out"), join(tmp_path / "good"))


def test_full_disk_ends_prediction(predict, monkeypatch):
    """After five failing units in a row the error itself is raised."""

    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(UnitWorker, "compute", fail)
    with pytest.raises(OSError, match="No space left"):
        predict()


def test_failed_extension_has_no_manifest(predict, data, tmp_path):
    """After a file is replaced, the manifest of the old files is gone before a unit is scored."""
    predict()
    write_file(data / "part-0.parquet", PAIRS.iloc[41:57], [16])
    with pytest.raises(PairsError, match="1 of 7 units"):
        predict(execute=lambda units, address, on_done: {units[0]: "cannot be read"})
    with pytest.raises(RunError, match=r"has no manifest\.json"):
        join(tmp_path / "out")
    assert predict().n_found == 5


def test_linked_runs_are_packed_whole(predict, home, tmp_path):
    """Linked folds and files reach the workers, in an archive of the same bytes."""
    run = shutil.copytree(home / "runs" / "one", tmp_path / "linked" / "runs" / "one")
    predict()
    for part in (run / "fold1", next((run / "fold0").rglob("*.skops"))):
        part.symlink_to(shutil.move(part, tmp_path / part.name))
    predict(run=tw.open_run(run), out=str(tmp_path / "other"), cache_dir=tmp_path / "c")
    pd.testing.assert_frame_equal(join(tmp_path / "other"), join(tmp_path / "out"))
    names = [next((tmp_path / name).glob("run-*.tar")).name for name in ("out", "other")]
    assert names[0] == names[1]


def test_archive_of_other_folds_is_refused(predict, home, tmp_path, monkeypatch):
    """A fold that ends between identity and archive is not averaged without a word."""
    folder = shutil.copytree(home / "runs" / "one", tmp_path / "copy" / "runs" / "one")
    scores = shutil.move(folder / "fold1" / "scores.json", tmp_path / "scores.json")

    def end_fit_and_pack(run, path):
        shutil.copy(scores, folder / "fold1")
        pack_run(run, path)

    monkeypatch.setattr("tiewise.cluster.output.pack_run", end_fit_and_pack)
    with pytest.raises(RunError, match="another copy of run one"):
        predict(run=tw.open_run(folder))


def test_joining_keeps_other_files(run, data, tmp_path):
    """The folder of parts of a joined file is removed, except for files of others."""
    other = tmp_path / "x.csv.parts" / "notes.txt"
    other.parent.mkdir()
    other.write_text("mine")
    execute = functools.partial(run_here, cache_dir=tmp_path / "cache")
    options = {"options": OPTIONS, "cache_dir": tmp_path / "cache", "execute": execute}
    predict_to(run, str(data), tmp_path / "x.csv", **options)
    assert [*other.parent.iterdir()] == [other]


def test_submission_is_checked_first(run, tmp_path):
    """A format without a competition is refused before a unit is scored."""
    columns = {"instruction": ["x"], "output_1": ["a b"], "output_2": ["c d"]}
    pq.write_table(pa.table(columns), tmp_path / "pairs.parquet")

    def execute(*_):
        pytest.fail("a unit is scored")

    options = {"cache_dir": tmp_path, "execute": execute, "is_submission": True}
    with pytest.raises(PairsError, match="alpaca_eval, which no competition uses"):
        predict_to(run, str(tmp_path / "pairs.parquet"), tmp_path / "x.csv", **options)


@pytest.mark.parametrize("inner", ["", "labels/", "a/b/"])
def test_output_inside_input_is_refused(predict, data, inner):
    """An output folder that the same command would read as input is refused at the start."""
    before = sorted(data.rglob("*"))
    with pytest.raises(ConfigError, match=f"--out is {data}/{inner}, inside --data"):
        predict(out=f"{data}/{inner}")
    assert sorted(data.rglob("*")) == before


def test_older_chunks_are_not_joined(run, tmp_path):
    """Unfinished shards that were cut into other chunks are refused."""
    data, out = tmp_path / "pairs.csv", tmp_path / "x.csv"
    texts = {name: ['["text"]'] * 7 + ['["open'] for name in TEXT_COLUMNS}
    pd.DataFrame({"id": range(8), **texts}).to_csv(data, index=False)
    with pytest.raises(PairsError):
        predict_file(run, data, out, cache_dir=tmp_path, options=OPTIONS)
    path = tmp_path / "x.csv.shards" / "fingerprint.json"
    fingerprint = json.loads(path.read_text())
    path.write_text(json.dumps({k: v for k, v in fingerprint.items() if k != "chunks"}))
    with pytest.raises(RunError, match=r"another job \(chunks differs\)"):
        predict_file(run, data, out, cache_dir=tmp_path, options=OPTIONS)


def test_processes_share_the_units(predict, tmp_path, monkeypatch):
    """Each process of a launch scores its share; the last one writes the manifest."""
    alone = predict(out=str(tmp_path / "alone"))
    for rank in (0, 1):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", "2")
        done = predict()
        assert done.is_finished == bool(rank)
        assert done.n_scored == 4
    assert done.facts == alone.facts
    pd.testing.assert_frame_equal(join(tmp_path / "out"), join(tmp_path / "alone"))


def test_wrong_requests_are_refused(predict, run, data, tmp_path):
    """Units that are no whole chunks, a folder for a submission, and a remote file are refused."""
    with pytest.raises(ConfigError, match="--unit-rows is 6; expected a multiple of --chunk-rows"):
        predict(**change(unit_rows=6))
    with pytest.raises(ConfigError, match="a folder; expected a file for --submission"):
        tw.api.predict_file(run, data, f"{tmp_path}/out/", submission=True)
    with pytest.raises(ConfigError, match="a file in an object store"):
        tw.api.predict_file(run, data, "s3://bucket/x.csv")
    with pytest.raises(RunError, match=r"has no identity\.json"):
        next(tw.read_predictions(tmp_path / "in"))


def test_python_names_and_replaces(run, home, data, tmp_path):
    """`tw.predict` reads columns as the run named its own, and replaces a file if asked to."""
    copy = shutil.copytree(home / "runs" / "one", tmp_path / "copy" / "runs" / "one")
    table = pd.read_parquet(data / "part-0.parquet")
    table.rename(columns={"prompt": "q9"}).to_parquet(tmp_path / "q9.parquet")
    for path in copy.rglob("*.json"):
        path.write_text(re.sub(r'"columns": \[\]', '"columns": ["prompt=q9"]', path.read_text()))
    named, out = tw.open_run(copy), tmp_path / "x.csv"
    with pytest.raises(FilesError, match="overwrite"):
        for _ in range(2):
            tw.predict(str(tmp_path / "q9.parquet"), run=named, out=out, artifacts=home)
    before = out.read_bytes()
    out.write_text("old")
    tw.predict(tmp_path / "q9.parquet", run=named, out=out, artifacts=home, overwrite=True)
    assert out.read_bytes() == before


def test_python_writes_and_reads_folders(run, home, data, tmp_path):
    """`tw.predict` writes the folder that `tw.read_predictions` reads; both give the same table."""
    done = tw.predict(str(data), run=run, out=f"{tmp_path}/out/", artifacts=home)
    assert str(done).startswith("5 units, 0 of them scored before; 41 pairs, 2 folds averaged")
    expected = tw.predict(str(data), run=run)
    pd.testing.assert_frame_equal(join(tmp_path / "out")[[*expected]], expected)
