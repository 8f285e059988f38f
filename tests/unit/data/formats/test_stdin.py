"""Standard input is read as the file that it is, whatever its kind."""

from __future__ import annotations

import gzip
import io
from types import SimpleNamespace

import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

from tiewise.data.formats import read_chunks, read_pairs
from tiewise.data.formats.stdin import copy_stdin
from tiewise.errors import PairsError

TABLE = pd.DataFrame(
    {
        "id": [1.0, 2.0],
        "prompt": ["Sky?", "Sea?"],
        "response_a": ["blue", "wet"],
        "response_b": ["red", "dry"],
        "winner": [1, 2],
    }
)


def as_bytes(write):
    """Return what a writer of TABLE writes to a file."""
    buffer = io.BytesIO()
    write(buffer)
    return buffer.getvalue()


CSV = TABLE.to_csv(index=False).encode()
KINDS = {
    "csv": CSV,
    "semicolon": TABLE.to_csv(index=False, sep=";").encode(),
    "tab, utf-16": TABLE.to_csv(index=False, sep="\t").encode("utf-16"),
    "csv, blank line": b"\n" + CSV,
    "csv.gz": gzip.compress(CSV),
    "jsonl": TABLE.to_json(orient="records", lines=True).encode(),
    "json": TABLE.to_json(orient="records").encode(),
    "jsonl.gz": gzip.compress(TABLE.to_json(orient="records", lines=True).encode()),
    "parquet": as_bytes(TABLE.to_parquet),
    "arrow": as_bytes(TABLE.to_feather),
}


@pytest.fixture
def pipe(monkeypatch):
    """Return a function that makes bytes the standard input."""
    copy_stdin.cache_clear()

    def put(content, *, is_terminal=False):
        stream = SimpleNamespace(buffer=io.BytesIO(content), isatty=lambda: is_terminal)
        monkeypatch.setattr("sys.stdin", stream)

    yield put
    copy_stdin.cache_clear()


@pytest.mark.parametrize("kind", KINDS)
def test_input_is_read_by_its_content(pipe, kind):
    """Each kind gives the table of the file, as a whole and in chunks, and is read once."""
    expected = read_pairs(TABLE)
    assert expected["id"].tolist() == [1, 2]
    pipe(KINDS[kind])
    assert_frame_equal(read_pairs("-"), expected)
    chunks = pd.concat([parse() for parse in read_chunks("-", size=1)], ignore_index=True)
    assert_frame_equal(chunks, expected)


def test_other_input_is_refused(pipe):
    """A terminal, an empty input and a file of another kind have their messages."""
    pipe(b"", is_terminal=True)
    with pytest.raises(PairsError, match="which is a terminal; pipe a file"):
        read_pairs("-")
    pipe(b"")
    with pytest.raises(PairsError, match="standard input is empty"):
        read_pairs("-")
    pipe(b"PK\x03\x04 sheet")
    with pytest.raises(PairsError, match=r"standard-input.csv is a zip archive or an Excel"):
        read_pairs("-")


def test_closed_input_is_refused(pipe, monkeypatch):
    """A process without standard input has none to read, and the message says so."""
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(PairsError, match="which is closed; pipe a file"):
        read_pairs("-")


def test_copy_is_private(pipe):
    """The copy is in a folder of its own that other users cannot read."""
    pipe(CSV)
    path = copy_stdin()
    assert path.read_bytes() == CSV
    assert path.parent.stat().st_mode & 0o077 == 0
