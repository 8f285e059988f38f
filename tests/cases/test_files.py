"""Files as spreadsheets, downloads leave them are read, or refused by what they are."""

import bz2
import gzip
import io
import json
import lzma
import shutil

import pandas as pd
import pyarrow as pa
import pytest

import tiewise as tw
from tiewise.errors import PairsError

HANDED = [
    "semicolon.csv",
    "sep.csv",
    "utf16tab.csv",
    "trailing.csv",
    "lines.json",
    "zipped.csv.gz",
    "part.parquet",
]
FOLDER = "16-unclear-messages"
HEADER = "id,prompt,response_a,response_b,winner_model_a,winner_model_b,winner_tie"
ROWS = [
    (1, '["one, two"]', '["a; b"]', '["c\\td"]', 1, 0, 0),
    (2, '["x|y"]', '["\\"quoted\\""]', "[null]", 0, 0, 1),
]
COLUMNS = HEADER.split(",")
EXPECTED = [["one, two"], ["x|y"]]


def frame():
    """Return two pairs, with every delimiter in the texts."""
    return pd.DataFrame(ROWS, columns=COLUMNS)


def as_text(delimiter=",", **options):
    """Return the two pairs as csv."""
    return frame().to_csv(index=False, sep=delimiter, **options)


def read(path, data, encoding="utf-8"):
    """Write a file and read it."""
    path.write_bytes(data if isinstance(data, bytes) else data.encode(encoding))
    return tw.read_pairs(path)


def check(pairs):
    """Compare with the two pairs."""
    assert pairs["id"].tolist() == [1, 2]
    assert pairs["prompt"].tolist() == EXPECTED
    assert pairs["response_a"].tolist() == [["a; b"], ['"quoted"']]
    assert pairs["response_b"].tolist() == [["c\td"], [None]]
    assert pairs["label"].tolist() == [0, 2]


@pytest.mark.parametrize("name", HANDED)
def test_handed_files_are_read(case, tiewise, name):
    """Each of the handed files is read whole."""
    found = tiewise("audit", case(f"{FOLDER}/{name}"), "--json")
    assert found.status == 0
    rows = json.loads(found.output)["rows"]
    assert (rows["read"], rows["rejected"]) == (5 if name == "part.parquet" else 10, 0)


def test_folder_named_like_a_file(case, tmp_path, tiewise):
    """A folder of parquet shards is read, also where its own name ends in .parquet."""
    folder = tmp_path / "folder.parquet"
    folder.mkdir()
    shutil.copy(case(f"{FOLDER}/part.parquet"), folder / "part-0.parquet")
    assert json.loads(tiewise("audit", folder, "--json").output)["rows"]["read"] == 5


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"], ids=repr)
@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
def test_delimiters_are_found(tmp_path, encoding, delimiter, suffix):
    """The header decides on the delimiter, whatever the texts hold and the suffix says."""
    check(read(tmp_path / f"t{suffix}", as_text(delimiter), encoding))
    check(read(tmp_path / f"t{suffix}", as_text(delimiter, quoting=1), encoding))


@pytest.mark.parametrize("line", ["sep={}\n", '"sep={}"\r\n', "\n\nsep={}\r\n", "\r\n"], ids=repr)
@pytest.mark.parametrize("delimiter", [",", ";", "\t"], ids=repr)
def test_lines_before_the_header(tmp_path, line, delimiter):
    """Excel's line that names the delimiter, and empty lines, are skipped."""
    check(read(tmp_path / "t.csv", line.format(delimiter) + as_text(delimiter)))


def test_columns_without_a_name(tmp_path):
    """Empty columns are not read; the index of pandas is none; text without a name is refused."""
    lines = as_text().splitlines()
    for ends in (",,", ","):
        check(read(tmp_path / "t.csv", "\n".join(line + ends for line in lines)))
    check(read(tmp_path / "t.csv", "\n".join([lines[0] + ",,", *lines[1:]])))
    check(read(tmp_path / "t.csv", frame().to_csv()))
    wrong = "\n".join([lines[0] + ",,", lines[1] + ",,", lines[2] + ",,lost"])
    with pytest.raises(PairsError, match=r"row 1 \(id=2\): has text in column 9.*no name"):
        read(tmp_path / "t.csv", wrong)
    with pytest.raises(PairsError, match=r"row 1.*has 8 fields where the header has 7"):
        read(tmp_path / "t.csv", "\n".join([*lines[:2], lines[2] + ","]))


def test_repeated_header_is_refused(tmp_path):
    """A second header in joined csv files is no pair, also where texts are plain."""
    text = "id,prompt,response_a,response_b\n1,p,a,b\n"
    path = tmp_path / "t.csv"
    for mark in ("", "\ufeff"):
        path.write_text(text + mark + text)
        with pytest.raises(PairsError, match=r"row 1.*repeats the header"):
            tw.read_pairs(path, labelled=False)


def test_decimal_commas_are_read(tmp_path):
    """Excel writes 0,25 where the comma is the decimal point."""
    table = frame().assign(
        weight=[0.25, 1.5], prob_a=[0.5, 0], prob_b=[0.25, 0], prob_tie=[0.25, 1]
    )
    pairs = read(tmp_path / "t.csv", table.to_csv(sep=";", decimal=",", index=False))
    assert pairs[["weight", "prob_a", "prob_tie"]].to_numpy().tolist() == [
        [0.25, 0.5, 0.25],
        [1.5, 0, 1],
    ]


PACKERS = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": lambda data: pa.compress(data, "zstd", asbytes=True),
}


@pytest.mark.parametrize("kind", PACKERS)
@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".json"])
def test_compressed_files_are_read(tmp_path, kind, suffix):
    """The first bytes decide on the compression; a file that is cut off is refused."""
    if suffix in (".csv", ".tsv"):
        data = as_text().encode("utf-16")
    else:
        data = frame().to_json(orient="records", lines=suffix == ".jsonl").encode()
    packed = PACKERS[kind](data)
    check(read(tmp_path / f"t{suffix}{kind}", packed))
    check(read(tmp_path / f"t{suffix}{kind}", data))
    check(read(tmp_path / f"t{suffix}", packed))
    with pytest.raises(PairsError, match=r"damaged|ended|end-of-stream|Truncated"):
        read(tmp_path / f"t{suffix}{kind}", packed[:-10])


@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".ndjson"])
@pytest.mark.parametrize("form", ["list", "indented list", "lines", "one line", "mark"])
def test_json_of_either_form(tmp_path, suffix, form):
    """A list of objects, and objects line by line, are told apart by their first character."""
    lines = frame().to_json(orient="records", lines=True)
    texts = {
        "list": frame().to_json(orient="records"),
        "indented list": frame().to_json(orient="records", indent=2),
        "lines": "\n" + lines,
        "one line": lines.splitlines()[0],
        "mark": "\ufeff" + lines,
    }
    pairs = read(tmp_path / f"t{suffix}", texts[form])
    assert pairs["prompt"].tolist() == EXPECTED[: len(pairs)]
    assert len(pairs) == (1 if form == "one line" else 2)


@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
@pytest.mark.parametrize("options", [{}, {"orient": "index"}, {"indent": 2}], ids=str)
def test_json_of_columns_is_refused(tmp_path, suffix, options):
    """The object that pandas writes by default is named, and how to write a list."""
    with pytest.raises(PairsError, match="orient='records'"):
        read(tmp_path / f"t{suffix}", frame().to_json(**options))


@pytest.mark.parametrize(
    ("name", "start", "message"),
    [
        ("t.xlsx", b"PK\x03\x04", "Excel workbook; unpack it, or save the sheet as csv"),
        ("t.csv", b"PK\x03\x04", "Excel workbook"),
        ("t.csv.zip", b"PK\x03\x04", "zip archive"),
        ("t.xls", b"\xd0\xcf\x11\xe0", "Excel workbook"),
        ("t.csv", b"PAR1", "is parquet; let its name end in .parquet"),
        ("t.csv", b"<!DOCTYPE html>", "a web page"),
        ("t.csv", b"%PDF-1.4\n1 0 obj\n", "a PDF document; export the table as csv"),
        ("t.parquet", b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        ("t.txt", b"id,prompt", "expected a file that ends in .csv"),
        ("t.csv", b"", "the file is empty"),
    ],
    ids=repr,
)
def test_other_files_are_named(tmp_path, name, start, message):
    """A file that is something else is refused by what it is and what to do."""
    with pytest.raises(PairsError, match=message):
        read(tmp_path / name, start)


def test_arrow_files_are_read(tmp_path):
    """Files and streams of Arrow are read, as `datasets` and pandas save them."""
    table = pa.Table.from_pandas(frame(), preserve_index=False)
    for new in (pa.ipc.new_file, pa.ipc.new_stream):
        sink = io.BytesIO()
        with new(sink, table.schema) as writer:
            writer.write_table(table)
        check(read(tmp_path / "t.arrow", sink.getvalue()))
        with pytest.raises(PairsError, match="damaged"):
            read(tmp_path / "t.arrow", sink.getvalue()[:300])


@pytest.mark.parametrize("command", ["audit", "convert"])
def test_no_readable_row_is_an_error(tmp_path, tiewise, command):
    """The exit status is 2 when every row was rejected, and the first rows are named."""
    (tmp_path / "t.csv").write_text(frame().assign(winner_model_b=1).to_csv(index=False))
    words = {"audit": (), "convert": ("--out", "o.csv", "--on-error", "skip")}[command]
    found = tiewise(command, "t.csv", *words)
    assert found.status == 2
    assert "no row can be read" in found.errors
    assert "id=1" in found.errors


def test_blank_lines_are_no_rows(tmp_path):
    """Lines without a field, between rows and at the end, are passed over."""
    header = "id,prompt,response_a,response_b,winner\n"
    rows = ["1,Ask,Yes.,No.,model_a\n", "2,Say,Hi.,Ho.,model_b\n"]
    (tmp_path / "blank.csv").write_text(header + "\n" + rows[0] + "\n\n" + rows[1] + "\n")
    (tmp_path / "plain.csv").write_text(header + "".join(rows))
    found, expected = (tw.read_pairs(tmp_path / name) for name in ("blank.csv", "plain.csv"))
    pd.testing.assert_frame_equal(found, expected)
    assert len(found) == 2
