"""Files are planned as units, whose chunks are those of one process."""

from __future__ import annotations

import logging
from itertools import accumulate, chain

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiewise.cluster.units import find_inputs, plan_units, read_unit, read_units_format
from tiewise.data.formats import read_chunks, read_pairs
from tiewise.errors import ConfigError, PairsError

GROUPS = st.lists(st.integers(0, 14), max_size=4)


def write_groups(path, group_sizes, start=0):
    """Write Kaggle's columns in row groups of these sizes; ids are numbered from `start`."""
    n = sum(group_sizes)
    ids = [*range(start, start + n)]
    texts = [f'["{name}"]' for name in ids]
    names = ("prompt", "response_a", "response_b")
    columns = {
        "id": pa.array(ids, pa.int64()),
        **{key: pa.array(texts, pa.string()) for key in names},
    }
    table = pa.table(columns)
    with pq.ParquetWriter(path, table.schema) as writer:
        for end, size in zip(accumulate(group_sizes), group_sizes, strict=True):
            writer.write_table(table.slice(end - size, size))
    return path


def write_files(folder, files):
    """Write a folder of numbered files, given by the sizes of their row groups."""
    start = 0
    for number, group_sizes in enumerate(files):
        write_groups(folder / f"part-{number:03d}.parquet", group_sizes, start)
        start += sum(group_sizes)
    return folder


def plan(folder, unit_rows):
    fs, paths = find_inputs(str(folder))
    return plan_units(paths, fs, unit_rows)


@given(files=st.lists(GROUPS, min_size=1, max_size=4), unit_rows=st.integers(1, 9))
def test_units_cover_each_row_once(tmp_path_factory, files, unit_rows):
    """The units of a row group follow one another, none is empty or longer than asked."""
    folder = write_files(tmp_path_factory.mktemp("in"), files)
    if not sum(map(sum, files)):
        with pytest.raises(PairsError, match="no rows"):
            plan(folder, unit_rows)
        return
    expected = [
        (f"part-{number:03d}.parquet", group, skip, min(unit_rows, n - skip))
        for number, sizes in enumerate(files)
        for group, n in enumerate(sizes)
        for skip in range(0, n, unit_rows)
    ]
    units = plan(folder, unit_rows)
    found = [(u.path.split("/")[-1], u.group, u.skip, u.n_rows) for u in units]
    assert found == expected
    assert len({unit.key for unit in units}) == len(units)


@given(
    files=st.lists(GROUPS, min_size=1, max_size=3).filter(lambda files: sum(map(sum, files))),
    size=st.integers(1, 6),
    n_chunks=st.integers(1, 3),
)
def test_chunks_of_units_are_equal(tmp_path_factory, files, size, n_chunks):
    """Units of whole chunks hold the chunks that one process reads, row by row."""
    folder = write_files(tmp_path_factory.mktemp("in"), files)
    whole = [load() for load in read_chunks(folder, size=size, labelled=False)]
    units = plan(folder, size * n_chunks)
    known = read_units_format(units)
    parts = [load() for unit in units for load in read_unit(unit, known, size)]
    assert [table["id"].tolist() for table in parts] == [table["id"].tolist() for table in whole]
    pd.testing.assert_frame_equal(
        pd.concat(parts, ignore_index=True), pd.concat(whole, ignore_index=True)
    )
    pairs = read_pairs(folder, labelled=False)
    assert pairs["id"].tolist() == list(chain.from_iterable(table["id"] for table in whole))


@pytest.mark.parametrize("name", ["wsdm", "preference", "mt_bench"])
def test_unread_ids_do_not_count(tmp_path, name):
    """A column of ids that the format does not read gives no ids: they are row numbers."""
    texts = {"prompt": ["Why?"] * 4, "response_a": ["a b"] * 4, "response_b": ["c d"] * 4}
    talk = [[{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "a b"}]] * 4
    columns = {
        "wsdm": {"question_id": [*"abcd"], **texts},
        "preference": {"question_id": [*"abcd"], "prompt": texts["prompt"],
                       "chosen": ["a b"] * 4, "rejected": ["c d"] * 4},
        "mt_bench": {"question_id": [*"abcd"], "id": [*"abcd"], "judge": ["j"] * 4,
                     "turn": [1] * 4, "conversation_a": talk, "conversation_b": talk},
    }  # fmt: skip
    pq.write_table(pa.table(columns[name]), tmp_path / "pairs.parquet", row_group_size=2)
    known = read_units_format(plan(tmp_path / "pairs.parquet", 2))
    assert (known.name, known.has_ids) == (name, False)


def test_missing_ids_are_refused(tmp_path):
    """A row without an id in a table of ids has no number that is unique in the table."""
    columns = {"id": ["x", None], "question_id": ["q", "r"], "prompt": ["p"] * 2}
    columns |= {"chosen": ["a b"] * 2, "rejected": ["c d"] * 2}
    pq.write_table(pa.table(columns), tmp_path / "pairs.parquet")
    [unit] = plan(tmp_path / "pairs.parquet", 9)
    [load] = read_unit(unit, read_units_format([unit]), 9)
    with pytest.raises(PairsError, match=r"row 1 has no id.* Give every row an id"):
        load()


def test_cut_groups_are_noted(tmp_path, caplog):
    """Row groups of more than eight units are named as slow to read."""
    path = write_groups(tmp_path / "pairs.parquet", [17])
    with caplog.at_level(logging.INFO, "tiewise"):
        assert len(plan(path, 2)) == 9
        assert "has 9 units" in caplog.text
        caplog.clear()
        plan(path, 3)
    assert "units" not in caplog.text


@pytest.mark.parametrize("name", ["pairs.csv", "pairs.jsonl", "pairs"])
def test_other_files_need_convert(tmp_path, name):
    """A file without row groups is refused, with the command that helps."""
    path = tmp_path / name
    path.write_text("id,prompt,response_a,response_b\n1,a,b,c\n")
    with pytest.raises(PairsError, match="tiewise convert FILE --out"):
        plan(path, 10)


def test_wrong_inputs_are_refused(tmp_path):
    """A missing or damaged file, unequal columns and an empty unit are named."""
    write_groups(tmp_path / "part-0.parquet", [2])
    pq.write_table(pa.table({"id": [1]}), tmp_path / "part-1.parquet")
    with pytest.raises(PairsError, match=r"part-1\.parquet and .* different columns"):
        plan(tmp_path, 10)
    (tmp_path / "part-1.parquet").write_bytes(b"PAR1 is not enough")
    with pytest.raises(PairsError, match=r"part-1\.parquet is no parquet file, or is damaged"):
        plan(tmp_path, 10)
    with pytest.raises(PairsError, match="no such file"):
        plan(tmp_path / "other.parquet", 10)
    with pytest.raises(ConfigError, match="--unit-rows is 0"):
        plan(tmp_path, 0)


def test_replaced_file_changes_its_tag(tmp_path):
    """Only the units of the file that is written again get other keys."""
    folder = write_files(tmp_path, [[3, 3], [4]])
    before = plan(folder, 2)
    write_groups(folder / "part-001.parquet", [5], start=6)
    after = plan(folder, 2)
    assert before[:4] == after[:4]
    assert not {unit.key for unit in before[4:]} & {unit.key for unit in after[4:]}


def test_changed_file_is_not_read(tmp_path):
    """A file that was replaced since the plan is refused when its unit is read."""
    path = write_groups(tmp_path / "pairs.parquet", [3])
    [unit] = plan(path, 10)
    known = read_units_format([unit])
    write_groups(path, [4])
    with pytest.raises(PairsError, match="was changed"):
        list(read_unit(unit, known, 10))
