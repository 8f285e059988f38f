"""Files are converted without holding their texts in memory, to the same bytes."""

from __future__ import annotations

import json
import tracemalloc

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tiewise as tw
from strategies import pairs_tables
from tiewise import api
from tiewise.data.formats import converting, parquet, read_many, write_pairs, write_preference
from tiewise.data.pairs import TEXT_COLUMNS, build_pairs
from tiewise.errors import PairsError


@pytest.fixture(autouse=True, scope="module")
def small_parts():
    """Read three rows at a time and write five, so that small files have several of each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(converting, "CHUNK_ROWS", 3)
        for module in (converting, parquet):
            patch.setattr(module, "UNIT_ROWS", 5)
        yield


def convert_whole(paths, out, **options):
    """Convert with all texts in memory, or return the error."""
    try:
        pairs = read_many(paths, **options)
        if out.suffix == ".jsonl":
            return write_preference(pairs, out)
        write_pairs(pairs, out)
    except PairsError as error:
        return str(error)
    return 0


def convert_in_parts(paths, out, **options):
    try:
        return converting.convert_files(paths, out, **options).n_ties_dropped
    except PairsError as error:
        return str(error)


def check_equal(folder, paths, **options):
    """Compare both ways, by the bytes of each kind of output or by the message of the error."""
    for suffix in (".parquet", ".csv", ".jsonl"):
        whole, parts = folder / f"whole{suffix}", folder / f"parts{suffix}"
        expected = convert_whole(paths, whole, **options)
        found = convert_in_parts(paths, parts, **options)
        names = (str(parts), str(whole))
        assert (found.replace(*names) if isinstance(found, str) else found) == expected
        assert parts.is_file() == whole.is_file()
        if whole.is_file() and suffix != ".csv":
            assert parts.read_bytes() == whole.read_bytes()
        if whole.is_file() and suffix == ".csv":  # parts are quoted one by one
            pd.testing.assert_frame_equal(tw.read_pairs(parts, labelled=None),
                                          tw.read_pairs(whole, labelled=None))  # fmt: skip
    assert not list(folder.glob(".tiewise-tmp*"))


@given(tables=st.lists(pairs_tables(14), min_size=1, max_size=3))
def test_any_tables_are_converted_equally(tmp_path_factory, tables):
    """Ids, groups, sessions, weights and soft labels of several files are joined as in memory."""
    folder = tmp_path_factory.mktemp("convert")
    paths = [folder / f"in-{number}.parquet" for number in range(len(tables))]
    for table, path in zip(tables, paths, strict=True):
        write_pairs(table, path)
    check_equal(folder, paths, labelled=None)


def write_rows(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def make_rows(n, **changes):
    """Return n rows whose columns differ between the chunks of the file."""
    rows = [
        {"id": f"{number}.0", "prompt": f"p{number % 4}", "response_a": "x", "response_b": "y",
         "winner": ("A", "B", "tie")[number % 3]}
        for number in range(n)
    ]  # fmt: skip
    for name, (at, value) in changes.items():
        rows[at][name] = value
    return rows


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"weight": (4, 2.5)},
        {"language": (7, "de\rfr")},
        {"id": (10, "word")},
        {"session": (9, "s")},
        {"unknown": (6, 1)},
    ],
    ids=lambda changes: next(iter(changes), "nothing"),
)
def test_late_columns_are_converted_equally(tmp_path, changes):
    """A column or a type that only a later chunk has is that of the whole file."""
    paths = [write_rows(tmp_path / "a.jsonl", make_rows(11, **changes))]
    check_equal(tmp_path, paths)
    check_equal(tmp_path, [*paths, write_rows(tmp_path / "b.jsonl", make_rows(4))])


@pytest.mark.parametrize("on_error", ["raise", "skip"])
@pytest.mark.parametrize("wrong", [[1, 8], [*range(9)]])
def test_rejected_rows_are_counted_once(tmp_path, caplog, on_error, wrong):
    """Rows that cannot be read are named for the whole file, in an error or in one warning."""
    rows = make_rows(9)
    for number in wrong:
        rows[number]["winner"] = "unheard of"
    path = write_rows(tmp_path / "a.jsonl", rows)
    check_equal(tmp_path, [path], on_error=on_error)
    caplog.clear()
    if on_error == "skip" and len(wrong) < 9:
        done = api.convert(path, tmp_path / "out.parquet", on_error="skip")
        assert (done.n_read, done.n_rejected) == (7, 2)
        assert caplog.text.count("skipped 2 rows") == 1


@pytest.mark.parametrize("late", ['{"not closed', '{"id": "word", "prompt": "p"}', "null id"])
def test_unread_rows_do_not_change_ids(tmp_path, late):
    """Ids are integers where those of the rows that are read are, whatever else the file has."""
    rows = make_rows(7)
    if late == "null id":
        rows = [{"id": row["id"], "chosen": "x y", "rejected": "z", "prompt": "p"} for row in rows]
        rows[5]["id"] = None
    path = write_rows(tmp_path / "a.jsonl", rows)
    if late != "null id":
        path.write_text(path.read_text() + late + "\n")
    check_equal(tmp_path, [path], on_error="skip")
    done = converting.convert_files([path], tmp_path / "out.csv", on_error="skip")
    expected = read_many([path], on_error="skip")
    assert done.pairs["id"].tolist() == expected["id"].tolist()
    assert done.pairs.attrs["repaired"] == expected.attrs["repaired"]


def test_memory_does_not_hold_texts(tmp_path, monkeypatch):
    """Of 600 more rows, with 12 kB of text each, memory holds a tenth at most."""
    monkeypatch.setattr(converting, "CHUNK_ROWS", 50)
    monkeypatch.setattr(converting, "UNIT_ROWS", 50)
    peaks = []
    for n in (300, 900):
        texts = {name: [[f"{number:04d}" * 1000] for number in range(n)] for name in TEXT_COLUMNS}
        path = tmp_path / f"in-{n}.parquet"
        write_pairs(build_pairs({"id": range(n), **texts, "winner": ["tie"] * n}), path)
        del texts
        tracemalloc.start()
        converting.convert_files([path], tmp_path / "out.parquet")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < 600 * 1_200


def test_output_suffix_is_checked_first(tmp_path):
    """Before anything is read, a suffix that is not written is refused with those that are."""
    with pytest.raises(PairsError, match=r"x\.json: expected .*\.parquet or \.csv or \.jsonl\."):
        api.convert(tmp_path / "missing.csv", tmp_path / "x.json")
