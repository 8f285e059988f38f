"""Tests of predictions that are written chunk by chunk."""

from __future__ import annotations

import json
import multiprocessing
import shutil

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fp64 import read_csv
from streamed import cut, predict, predict_and_wait
from tiewise.errors import FilesError, PairsError, RunError
from tiewise.judges.streaming import SUFFIXES, predict_stream, write_table

TABLES = st.integers(1, 40).map(
    lambda n: pd.DataFrame({"id": np.arange(n), "length": np.arange(n) % 7})
)


def read(path) -> pd.DataFrame:
    """Read a prediction file by its suffix."""
    if path.suffix == ".parquet":
        return pd.read_parquet(path)
    if path.suffix == ".csv":
        return read_csv(path)
    return pd.DataFrame([json.loads(line) for line in path.read_text().splitlines()])


@given(
    TABLES, st.integers(1, 9), st.integers(1, 4), st.sampled_from([".csv", ".parquet", ".jsonl"])
)
def test_shards_are_joined(tmp_path_factory, table, size, n_processes, suffix):
    """Any chunks and processes write the direct prediction, bit for bit and in input order."""
    path = tmp_path_factory.mktemp("stream") / f"out{suffix}"
    for index in reversed(range(n_processes)):
        report = predict_stream(
            cut(table, size), path, predict,
            fingerprint={}, process_index=index, n_processes=n_processes,
        )  # fmt: skip
        assert report.is_joined <= path.exists()
        assert report.is_joined == (index == 0)
    pd.testing.assert_frame_equal(read(path), predict(table), check_exact=True)
    assert report.n_rows == len(table)
    assert [found.name for found in path.parent.iterdir()] == [path.name]


def test_idle_process_leaves_no_files(tmp_path):
    """A process without a chunk leaves no file, also when the others have finished."""
    table = pd.DataFrame({"id": [1], "length": [1]})
    for index in (0, 1):
        report = predict_stream(
            cut(table, 1), tmp_path / "out.csv", predict,
            fingerprint={}, process_index=index, n_processes=2,
        )  # fmt: skip
        assert report.is_joined == (index == 0)
    assert [found.name for found in tmp_path.iterdir()] == ["out.csv"]


@given(st.integers(0, 5))
@settings(max_examples=6, deadline=None)
def test_interrupted_job_is_resumed(tmp_path_factory, n_before):
    """Shards that are finished are not computed again."""
    path = tmp_path_factory.mktemp("stream") / "out.csv"
    table = pd.DataFrame({"id": np.arange(12), "length": np.arange(12)})
    calls = []

    def fail_after(pairs):
        if len(calls) == n_before:
            raise KeyboardInterrupt
        calls.append(len(pairs))
        return predict(pairs)

    with pytest.raises(KeyboardInterrupt):
        predict_stream(cut(table, 2), path, fail_after, fingerprint={"model": "x"})
    assert not path.exists()
    report = predict_stream(cut(table, 2), path, predict, fingerprint={"model": "x"})
    assert (report.n_found, report.n_written) == (n_before, 6 - n_before)
    pd.testing.assert_frame_equal(read(path), predict(table), check_exact=True)


@given(
    damage=st.sampled_from(["flip", "zero", "cut", "empty", "of another"]),
    position=st.floats(0, 1, exclude_max=True),
)
def test_damaged_shard_is_predicted_again(tmp_path_factory, damage, position):
    """After any damage to a shard, the joined file is the direct prediction."""
    path = tmp_path_factory.mktemp("stream") / "out.csv"
    table = pd.DataFrame({"id": np.arange(12), "length": np.arange(12)})
    job = {"fingerprint": {}, "n_processes": 2}
    predict_stream(cut(table, 2), path, predict, process_index=0, **job)
    shard, other, _ = sorted(path.with_name("out.csv.shards").glob("shard-*"))
    content = bytearray(shard.read_bytes())
    start = int(position * len(content))
    if damage == "flip":
        content[start] ^= 1 << start % 8
    elif damage == "zero":
        content[start : start + 64] = bytes(len(content[start : start + 64]))
    elif damage == "cut":
        del content[start:]
    else:
        content = b"" if damage == "empty" else other.read_bytes()
    is_changed = bytes(content) != shard.read_bytes()
    shard.write_bytes(content)
    report = predict_stream(cut(table, 2), path, predict, process_index=1, **job)
    assert report.is_joined == (not is_changed)
    report = predict_stream(cut(table, 2), path, predict, process_index=0, **job)
    assert report.n_rows == 12
    pd.testing.assert_frame_equal(read(path), predict(table), check_exact=True)


def test_shards_of_another_job_are_refused(tmp_path):
    """Shards of another model are not used; the message names the difference."""
    table = pd.DataFrame({"id": [1, 2], "length": [1, 2]})
    options = {"process_index": 0, "n_processes": 2}
    predict_stream(
        cut(table, 1), tmp_path / "out.csv", predict, fingerprint={"run": "a"}, **options
    )
    with pytest.raises(RunError, match=r"another job \(run differs\)"):
        predict_stream(
            cut(table, 1), tmp_path / "out.csv", predict, fingerprint={"run": "b"}, **options
        )


@pytest.mark.parametrize("content", [None, b"", b"[]", b"{", b"\xff"])
@pytest.mark.parametrize("job", ["a", "b"])
def test_shards_without_fingerprint_are_removed(tmp_path, caplog, content, job):
    """Shards whose job is not known are not joined with those of this job, even of an equal one."""
    path, table = tmp_path / "out.csv", pd.DataFrame({"id": [1, 2], "length": [1, 2]})
    other = table.assign(length=[5, 6])
    options = {"process_index": 0, "n_processes": 2}
    predict_stream(cut(other, 1), path, predict, fingerprint={"run": "a"}, **options)
    fingerprint_path = tmp_path / "out.csv.shards" / "fingerprint.json"
    fingerprint_path.unlink()
    if content is not None:
        fingerprint_path.write_bytes(content)
    report = predict_stream(cut(table, 1), path, predict, fingerprint={"run": job})
    assert (report.n_written, report.n_found) == (2, 0)
    assert "1 shards without a valid fingerprint.json" in caplog.text
    pd.testing.assert_frame_equal(read(path), predict(table), check_exact=True)
    assert [found.name for found in tmp_path.iterdir()] == ["out.csv"]


def test_shard_of_another_job_is_not_joined(tmp_path):
    """A shard that another job leaves after the fingerprint was written is not taken over."""
    path, table = tmp_path / "out.csv", pd.DataFrame({"id": [1, 2], "length": [1, 2]})
    other = table.assign(length=[5, 6])
    part = {"process_index": 0, "n_processes": 2}
    predict_stream(cut(other, 1), tmp_path / "b.csv", predict, fingerprint={"run": "b"}, **part)
    predict_stream(cut(table, 1), path, predict, fingerprint={"run": "a"}, **part)
    for shard in (tmp_path / "b.csv.shards").glob("shard-*"):
        shard.rename(tmp_path / "out.csv.shards" / shard.name.replace("000000", "000001"))
    report = predict_stream(cut(table, 1), path, predict, fingerprint={"run": "a"})
    assert (report.n_written, report.n_found) == (1, 1)
    pd.testing.assert_frame_equal(read(path), predict(table), check_exact=True)
    assert not (tmp_path / "out.csv.shards").exists()


@pytest.mark.parametrize("suffix", SUFFIXES[:1])
def test_second_command_is_refused(tmp_path, suffix):
    """While a process writes an output, another cannot; the first ends whole and leaves nothing."""
    path = tmp_path / f"out{suffix}"
    context = multiprocessing.get_context("spawn")
    ready, go_on = context.Event(), context.Event()
    first = context.Process(target=predict_and_wait, args=(path, 5, ready, go_on))
    first.start()
    assert ready.wait(60)
    table = pd.DataFrame({"id": np.arange(9), "length": np.arange(9)})
    for fingerprint in ({"data": 5}, {"data": 0}):
        with pytest.raises(RunError, match=f"being written now, locked by process {first.pid} "):
            predict_stream(cut(table, 1), path, predict, fingerprint=fingerprint)
    assert not path.exists()
    go_on.set()
    first.join(60)
    assert first.exitcode == 0
    expected = predict(pd.DataFrame({"id": np.arange(4), "length": np.full(4, 5)}))
    pd.testing.assert_frame_equal(read(path), expected, check_exact=True)
    assert [found.name for found in tmp_path.iterdir()] == [path.name]


def test_output_of_another_command_is_kept(tmp_path):
    """An output that appears after the start is not replaced without `overwrite`."""
    path, table = tmp_path / "out.csv", pd.DataFrame({"id": [1, 2], "length": [1, 2]})

    def chunks():
        path.write_text("of another command")
        yield from cut(table, 1)

    with pytest.raises(FilesError, match="exists already"):
        predict_stream(chunks(), path, predict, fingerprint={}, overwrite=False)
    assert path.read_text() == "of another command"
    assert not (tmp_path / "out.csv.shards").exists()


def test_late_process_leaves_joined_file(tmp_path):
    """A process of a launch that begins after the others have joined all shards changes nothing."""
    path, table = tmp_path / "out.csv", pd.DataFrame({"id": [1, 2], "length": [1, 2]})
    options = {"fingerprint": {}, "overwrite": False}

    def chunks():  # the whole launch ends before this process reads its first chunk
        for index in (1, 0):
            predict_stream(
                cut(table, 1), path, predict, **options, process_index=index, n_processes=2
            )
        yield from cut(table, 1)

    report = predict_stream(chunks(), path, fail, **options, process_index=1, n_processes=2)
    assert not report.is_joined
    pd.testing.assert_frame_equal(read(path), predict(table), check_exact=True)
    assert not (tmp_path / "out.csv.shards").exists()


def fail(pairs):
    raise AssertionError("nothing is left to predict")


def test_removed_shards_are_reported(tmp_path):
    """A process whose folder was taken away does not end as if all were written."""
    path, table = tmp_path / "out.csv", pd.DataFrame({"id": [1, 2], "length": [1, 2]})

    def predict_and_remove(pairs):
        shutil.rmtree(tmp_path / "out.csv.shards")
        return predict(pairs)

    with pytest.raises(RunError, match="removed or used by another command"):
        predict_stream(cut(table, 2), path, predict_and_remove, fingerprint={})
    assert not path.exists()


def test_failed_first_chunk_leaves_nothing(tmp_path):
    """After an error in the first chunk, other data can be predicted into the same output."""
    path, table = tmp_path / "out.csv", pd.DataFrame({"id": [1, 2], "length": [1, 2]})

    def refuse(pairs):
        raise PairsError("row 1")

    with pytest.raises(PairsError, match="row 1"):
        predict_stream(cut(table, 1), path, refuse, fingerprint={"data": 1})
    assert list(tmp_path.iterdir()) == []
    predict_stream(cut(table, 1), path, predict, fingerprint={"data": 2})
    pd.testing.assert_frame_equal(read(path), predict(table), check_exact=True)


def test_files_of_others_are_kept(tmp_path):
    """A file in the folder of shards that is none of the job's is not removed with it."""
    path, table = tmp_path / "out.csv", pd.DataFrame({"id": [1, 2], "length": [1, 2]})
    (tmp_path / "out.csv.shards").mkdir()
    (tmp_path / "out.csv.shards" / "notes.txt").write_text("mine")
    predict_stream(cut(table, 1), path, predict, fingerprint={})
    assert [found.name for found in (tmp_path / "out.csv.shards").iterdir()] == ["notes.txt"]


def test_mixed_ids_become_text(tmp_path):
    """Ids that are numbers in one chunk and text in another are text in the joined file."""
    table = pd.DataFrame({"id": [1, 2], "length": [1, 2]})
    words = pd.DataFrame({"id": ["x", "y"], "length": [1, 2]})
    chunks = [lambda: table, lambda: words]
    predict_stream(chunks, tmp_path / "out.parquet", predict, fingerprint={})
    assert read(tmp_path / "out.parquet")["id"].tolist() == ["1", "2", "x", "y"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_ids_with_line_ends_are_one_cell(tmp_path, suffix):
    """An id with a carriage return, a line feed, a comma or a quote reads back, one row each."""
    ids = ["a\rb", "c\nd", "e\r\nf", "g,h", 'i"j']
    write_table([pd.DataFrame({"id": ids, "prob_a": 0.5})] * 2, tmp_path / f"out{suffix}")
    found = read(tmp_path / f"out{suffix}")
    assert found["id"].tolist() == ids * 2


def test_invalid_requests_are_refused(tmp_path):
    """An input without rows and an unknown suffix are refused before anything is written."""
    with pytest.raises(PairsError, match="no rows"):
        predict_stream([], tmp_path / "out.csv", predict, fingerprint={})
    with pytest.raises(PairsError, match=r"\.xlsx"):
        predict_stream([], tmp_path / "out.xlsx", predict, fingerprint={})


@given(
    st.lists(st.floats(allow_infinity=False, allow_nan=False) | st.none(), min_size=1, max_size=10),
    st.sampled_from([".csv", ".parquet", ".jsonl"]),
)
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_floats_round_trip(tmp_path, values, suffix):
    """Every float reads back equal to the last bit, and a missing one stays missing."""
    table = pd.DataFrame({"id": range(len(values)), "prob_a": np.array(values, dtype=float)})
    path = tmp_path / f"out{suffix}"
    write_table([table, table], path)
    if suffix == ".csv":  # pandas' own reader may be off by one in the last bit
        lines = path.read_text().splitlines()[1:]
        again = np.array([float(line.split(",")[1] or "nan") for line in lines])
    else:
        again = read(path)["prob_a"].to_numpy(dtype=float)
    np.testing.assert_array_equal(again, np.tile(table["prob_a"].to_numpy(), 2))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_different_columns_are_refused(tmp_path, suffix):
    """A chunk with other columns than the first is refused, and no file is written."""
    path = tmp_path / f"out{suffix}"
    table = pd.DataFrame({"id": [1], "prob_a": [0.5]})
    with pytest.raises(PairsError, match="as in the first chunk"):
        write_table([table, table.assign(more=1)], path)
    assert not path.exists()
