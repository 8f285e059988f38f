"""Each row of a file is read, refused by name, or repaired and counted."""

from __future__ import annotations

import csv
import io
import itertools
import json
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal

from strategies import pairs_tables, probs
from tiewise.data.formats import read_chunks, read_many, read_pairs, write_pairs, write_submission
from tiewise.data.formats.joining import name_files
from tiewise.data.formats.parquet import read_row_group
from tiewise.data.pairs import COLUMNS, build_pairs, check_pairs
from tiewise.errors import PairsError

KAGGLE_HEADER = (
    "id,model_a,model_b,prompt,response_a,response_b,winner_model_a,winner_model_b,winner_tie"
)
KAGGLE = f"""{KAGGLE_HEADER}
30192,gpt,llama,"[""Hi"",""And?""]","[""Hello"",null]","[""\\ud83d\\ude00"",""x\\/y""]",1,0,0
53567,gpt,NA,"[""null""]","[""NA""]","[""a, \\""b\\""\\nc""]",0,1,0
65089,null,llama,"[""Hi""]","[""x""]","[""y""]",0,0,1
"""


def written(folder, text, name="train.csv", encoding="utf-8"):
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode(encoding))
    return path


def kaggle_rows(*rows, header=KAGGLE_HEADER):
    """Return a csv with the Kaggle columns and these rows."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(header.split(","))
    writer.writerows(rows)
    return file.getvalue()


def kaggle_row(**cells):
    """Return the cells of one correct row, with some replaced."""
    right = dict(
        zip(
            KAGGLE_HEADER.split(","),
            ["7", "m", "n", '["p"]', '["a"]', '["b"]', "1", "0", "0"],
            strict=True,
        )
    )
    return list((right | cells).values())


def json_row(**cells):
    """Return a line of JSON with one correct row, with some cells replaced."""
    right = dict(zip(KAGGLE_HEADER.split(","), kaggle_row(), strict=True))
    return json.dumps(right | cells)


class TestKaggle:
    """The csv of the LMSYS competition."""

    def test_every_column_is_read(self, tmp_path):
        """Turns, nulls, emoji, labels, words and models are as in the file."""
        pairs = read_pairs(written(tmp_path, KAGGLE))
        assert tuple(pairs.columns) == COLUMNS
        assert pairs["id"].tolist() == [30192, 53567, 65089]
        assert pairs["prompt"].tolist() == [["Hi", "And?"], ["null"], ["Hi"]]
        assert pairs["response_a"].tolist() == [["Hello", None], ["NA"], ["x"]]
        assert pairs["response_b"].tolist() == [["😀", "x/y"], ['a, "b"\nc'], ["y"]]
        assert pairs["label"].tolist() == [0, 1, 2]
        assert pairs["winner"].tolist() == ["model_a", "model_b", "tie"]
        assert pairs["model_b"].tolist() == ["llama", "NA", "llama"]
        assert pairs["model_a"].tolist() == ["gpt", "gpt", "null"]
        assert pairs[["language", "source"]].isna().all(axis=None)
        assert pairs["group"][0] == pairs["group"][2] != pairs["group"][1]
        assert pairs.attrs == {
            "format": "kaggle",
            "rejected": [],
            "repaired": 0,
            "unread": [],
            "notes": [],
        }

    def test_unlabelled_ignores_winners(self, tmp_path):
        """A test file has no winners; those of a training file are ignored with labelled=False."""
        test = 'id,prompt,response_a,response_b\n1,[null],[],"[""x""]"\n'
        for text in (test, KAGGLE):
            pairs = read_pairs(written(tmp_path, text), labelled=False)
            assert pairs["label"].isna().all()
            assert pairs["winner"].isna().all()
        assert read_pairs(written(tmp_path, test), labelled=False)["response_a"].tolist() == [[]]

    def test_optional_winners_are_read(self, tmp_path):
        """With labelled=None a row may have no winner, but not a wrong one."""
        lines = KAGGLE.splitlines()
        lines[1] = lines[1].removesuffix("1,0,0") + "0,0,0"
        pairs = read_pairs(written(tmp_path, "\n".join(lines)), labelled=None)
        assert pairs["winner"].fillna("none").tolist() == ["none", "model_b", "tie"]
        lines[1] = lines[1].removesuffix("0,0,0") + "1,1,0"
        with pytest.raises(PairsError, match="exactly one must be 1"):
            read_pairs(written(tmp_path, "\n".join(lines)), labelled=None)

    def test_missing_winner_columns_are_named(self, tmp_path):
        """Without winners the message names labelled=False."""
        with pytest.raises(PairsError, match=r"no column names the winner[\s\S]*labelled=False"):
            read_pairs(written(tmp_path, "id,prompt,response_a,response_b\n1,[],[],[]\n"))

    def test_header_alone_is_empty_table(self, tmp_path):
        """A file without rows gives a table without rows, with the right columns and types."""
        pairs = read_pairs(written(tmp_path, KAGGLE_HEADER + "\n"))
        assert len(pairs) == 0
        check_pairs(pairs)

    def test_duplicate_ids_are_kept(self, tmp_path):
        """A prediction needs every row, whatever its id."""
        pairs = read_pairs(written(tmp_path, kaggle_rows(kaggle_row(), kaggle_row())))
        assert pairs["id"].tolist() == [7, 7]

    @pytest.mark.parametrize(
        "form", ["table", "lists", "arrays", "dataset", "jsonl", "json", "parquet", "tsv"]
    )
    def test_containers_give_equal_tables(self, tmp_path, form):
        """csv, tsv, parquet, JSON, a frame of text or of lists, and a data set are read alike."""
        expected = read_pairs(written(tmp_path, KAGGLE))
        frame = pd.read_csv(io.StringIO(KAGGLE), keep_default_na=False)
        texts = ["prompt", "response_a", "response_b"]
        lists = frame.assign(**{name: frame[name].map(json.loads) for name in texts})
        if form == "table":
            source = frame
        elif form == "lists":
            source = lists
        elif form == "arrays":
            source = lists.assign(
                **{name: lists[name].map(lambda cell: np.array(cell, object)) for name in texts}
            )
        elif form == "dataset":
            source = type("Dataset", (), {"to_pandas": lambda _: lists})()
        elif form == "tsv":
            rows = csv.reader(io.StringIO(KAGGLE))
            file = io.StringIO()
            csv.writer(file, delimiter="\t").writerows(rows)
            source = written(tmp_path, file.getvalue(), "train.tsv")
        elif form == "parquet":
            source = tmp_path / "train.parquet"
            lists.to_parquet(source)
        else:
            records = lists.to_dict("records")
            lines = "\n".join(map(json.dumps, records))
            source = written(
                tmp_path, json.dumps(records) if form == "json" else lines, f"t.{form}"
            )
        assert_frame_equal(read_pairs(source), expected)

    @pytest.mark.parametrize("suffix", ["csv", "parquet"])
    def test_read_write_read_is_identity(self, tmp_path, suffix):
        """A table that was read is written and read as the same table."""
        pairs = read_pairs(written(tmp_path, KAGGLE))
        write_pairs(pairs, tmp_path / f"pairs.{suffix}")
        read = read_pairs(tmp_path / f"pairs.{suffix}")
        read.attrs = pairs.attrs  # how it was read
        assert_frame_equal(read, pairs)


class TestPlainText:
    """The files of the WSDM competition, one turn in a field."""

    ROWS = (
        ("a1", "Hi", "[1, 2]", "null", "model_b", "m", "n", "English"),
        ("a2", "[x]", "", '😀\n"quoted"', "model_a", "m", "n", "NA"),
    )
    HEADER = "id,prompt,response_a,response_b,winner,model_a,model_b,language"

    def test_plain_texts_are_kept(self, tmp_path):
        """Plain text is never parsed, taken for missing or repaired."""
        pairs = read_pairs(written(tmp_path, kaggle_rows(*self.ROWS, header=self.HEADER)))
        assert pairs.attrs["format"] == "wsdm"
        assert pairs["prompt"].tolist() == [["Hi"], ["[x]"]]
        assert pairs["response_a"].tolist() == [["[1, 2]"], [""]]
        assert pairs["response_b"].tolist() == [["null"], ['😀\n"quoted"']]
        assert pairs["winner"].tolist() == ["model_b", "model_a"]
        assert pairs["language"].tolist() == ["English", "NA"]

    @pytest.mark.parametrize("suffix", ["csv", "parquet"])
    def test_read_write_read_is_identity(self, tmp_path, suffix):
        """A table that was read is written and read as the same table."""
        pairs = read_pairs(written(tmp_path, kaggle_rows(*self.ROWS, header=self.HEADER)))
        write_pairs(pairs, tmp_path / f"pairs.{suffix}")
        assert_frame_equal(read_pairs(tmp_path / f"pairs.{suffix}"), pairs)

    def test_plain_test_file_is_found(self, tmp_path):
        """Without a winner only the texts tell plain text from lists of turns."""
        text = kaggle_rows(
            ("a1", "Hi", "x", "y", "1"), header="id,prompt,response_a,response_b,scored"
        )
        pairs = read_pairs(written(tmp_path, text), labelled=False)
        assert (pairs.attrs["format"], pairs["response_b"].tolist()) == ("wsdm", [["y"]])

    def test_malformed_lists_are_refused(self, tmp_path):
        """A file of Python literals is refused, not read as plain text with brackets."""
        row = ("1", "['Hi']", "['x']", "['y']")
        text = kaggle_rows(row, header="id,prompt,response_a,response_b")
        with pytest.raises(PairsError, match=r"row 0.*prompt: .* expected a string"):
            read_pairs(written(tmp_path, text), labelled=False)
        with pytest.raises(PairsError, match=r"row 0.*expected a list as strict JSON"):
            read_pairs(written(tmp_path, text), labelled=False, format="wsdm")

    def test_null_text_is_missing_turn(self):
        """A null is a missing turn, as `[null]` is in a list, and not the empty text."""
        frame = pd.DataFrame([self.ROWS[0]], columns=self.HEADER.split(","))
        for missing in (None, float("nan"), pd.NA):
            pairs = read_pairs(frame.assign(response_a=pd.Series([missing], dtype=object)))
            assert pairs["response_a"].tolist() == [[None]]

    @pytest.mark.parametrize("cell", [1, b"text", pd.Timestamp("2026-01-01"), True, {"a": 1}])
    def test_other_types_are_no_text(self, cell):
        """Bytes, numbers and dates are refused by the name of the column."""
        frame = pd.DataFrame([self.ROWS[0]], columns=self.HEADER.split(","))
        with pytest.raises(PairsError, match=r"row 0 \(id=a1\): response_a is .*; expected text"):
            read_pairs(frame.assign(response_a=pd.Series([cell], dtype=object)))

    def test_lists_with_winner_word_are_lists(self, tmp_path):
        """The texts decide between lists and plain text, not how the winner is written."""
        row = ("1", '["Hi"]', "[null]", "[]", "tie")
        text = kaggle_rows(row, header="id,prompt,response_a,response_b,winner")
        pairs = read_pairs(written(tmp_path, text))
        assert (pairs.attrs["format"], pairs["response_a"].tolist()) == ("kaggle", [[None]])


class TestWinners:
    """Columns that name the winner."""

    @pytest.mark.parametrize(
        ("flags", "label"),
        [
            ("1 0 0", 0),
            ("0.0 1.0 0.0", 1),
            ("False False True", 2),
            ("false true false", 1),
            (" 1 0 0", 0),
        ],
    )
    def test_flags_of_every_type_are_read(self, tmp_path, flags, label):
        """Tables write 0 and 1 as integers, floats or booleans."""
        cells = dict(zip(KAGGLE_HEADER.split(",")[6:], flags.rsplit(" ", 2), strict=True))
        pairs = read_pairs(written(tmp_path, kaggle_rows(kaggle_row(**cells))))
        assert pairs["label"].tolist() == [label]

    @given(
        flags=st.tuples(
            *[st.sampled_from(["0", "1", "", "nan", "0.7", "2", "-1", "yes", "null"])] * 3
        )
    )
    def test_wrong_flags_are_refused(self, flags):
        """All zero, two ones, missing, fractions, words: the row is refused by its id."""
        cells = dict(zip(KAGGLE_HEADER.split(",")[6:], flags, strict=True))
        frame = pd.read_csv(
            io.StringIO(kaggle_rows(kaggle_row(**cells))), dtype=str, keep_default_na=False
        )
        if sorted(flags) == ["0", "0", "1"]:
            assert read_pairs(frame)["label"].tolist() == [flags.index("1")]
        else:
            with pytest.raises(PairsError, match=r"row 0 \(id=7\): winner_model_a, .* exactly one"):
                read_pairs(frame)

    @pytest.mark.parametrize("flag", [float("nan"), None, pd.NA, 0.7, 2, "True!", [1], b"1"])
    def test_flags_of_wrong_type_are_refused(self, flag):
        """Values other than 0 and 1 are refused, whatever their type."""
        columns = dict(zip(KAGGLE_HEADER.split(","), kaggle_row(), strict=True))
        frame = pd.DataFrame(
            {name: pd.Series([cell], dtype=object) for name, cell in columns.items()}
        )
        frame["winner_model_a"] = pd.Series([flag], dtype=object)
        with pytest.raises(PairsError, match="id=7"):
            read_pairs(frame)

    def test_all_zero_winners_are_refused(self, tmp_path):
        """The notebook takes them for ties; here the message names --unlabelled."""
        text = kaggle_rows(kaggle_row(winner_model_a="0"))
        with pytest.raises(
            PairsError, match=r"are '0', '0', '0'; exactly one must be 1[\s\S]*--unlabelled"
        ):
            read_pairs(written(tmp_path, text))

    def test_winner_word_and_flags_must_agree(self, tmp_path):
        """The word for both bad is kept; a contradiction is refused."""
        header = f"{KAGGLE_HEADER},winner"
        tie = {"winner_model_a": "0", "winner_tie": "1"}
        text = kaggle_rows([*kaggle_row(**tie), "tie (bothbad)"], header=header)
        pairs = read_pairs(written(tmp_path, text))
        assert (pairs["winner"][0], pairs["label"][0]) == ("tie (bothbad)", 2)
        text = kaggle_rows([*kaggle_row(**tie), "model_a"], header=header)
        with pytest.raises(PairsError, match="name model_a and tie as winners"):
            read_pairs(written(tmp_path, text))

    def test_two_winner_columns_are_refused(self, tmp_path):
        """Two of the three columns are not enough."""
        text = kaggle_rows(kaggle_row()[:-1], header=KAGGLE_HEADER.rsplit(",", 1)[0])
        with pytest.raises(PairsError, match="no column names the winner"):
            read_pairs(written(tmp_path, text))


class TestHostileFiles:
    """Damaged and unusual csv files."""

    @pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
    def test_byte_order_marks_are_read(self, tmp_path, encoding):
        """Files with a byte order mark are read in its encoding."""
        expected = read_pairs(written(tmp_path, KAGGLE))
        assert_frame_equal(read_pairs(written(tmp_path, KAGGLE, encoding=encoding)), expected)

    @pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
    def test_utf_16_without_mark_is_refused(self, tmp_path, encoding):
        """Its columns have no known name."""
        with pytest.raises(PairsError, match="UTF-16"):
            read_pairs(written(tmp_path, KAGGLE, encoding=encoding))

    def test_wrong_encoding_is_refused(self, tmp_path):
        """Bytes that are not UTF-8 are never read as other characters; the row is named."""
        text = kaggle_rows(kaggle_row(id=1), kaggle_row(id=2, prompt='["café"]'))
        path = written(tmp_path, text, encoding="latin-1")
        with pytest.raises(PairsError, match=r"row 1 \(id=2\): is not UTF-8"):
            read_pairs(path)
        pairs = read_pairs(path, on_error="skip")
        assert pairs["id"].tolist() == [1]
        assert len(pairs.attrs["rejected"]) == 1

    @pytest.mark.parametrize(
        "cut",
        [
            KAGGLE[:-20] + '"',
            KAGGLE.replace('"[""null""]"', '"[""null""]'),
            KAGGLE.replace('"[""null""]"', '"[""null""]"x'),
            KAGGLE + '1,a,b,"[""unclosed',
        ],
    )
    def test_unbalanced_quotes_are_refused(self, tmp_path, cut):
        """No row after a quote that is not closed can be trusted; the line is named."""
        for on_error in ("raise", "skip"):
            with pytest.raises(PairsError, match=r"line \d+: .* quote is not closed"):
                read_pairs(written(tmp_path, cut), on_error=on_error)

    @pytest.mark.parametrize("row", [kaggle_row()[:-1], [*kaggle_row(), "more"], kaggle_row()[:1]])
    def test_wrong_field_counts_are_refused(self, tmp_path, row):
        """A field too few or too many moves no value into another column."""
        text = kaggle_rows(kaggle_row(id=1), row)
        with pytest.raises(
            PairsError, match=r"row 1 \(id=7\): has \d+ fields where the header has 9"
        ):
            read_pairs(written(tmp_path, text))

    def test_null_and_na_are_text(self, tmp_path):
        """Cells that pandas would read as missing are refused, never read as empty text."""
        for cell in ("null", "NA", "", "nan"):
            with pytest.raises(PairsError, match=r"row 0 \(id=7\): prompt"):
                read_pairs(written(tmp_path, kaggle_rows(kaggle_row(prompt=cell))))

    def test_float_ids_are_repaired(self, tmp_path):
        """Integer ids written as floats are read as integers and counted; text ids stay text."""
        text = kaggle_rows(kaggle_row(id="7.0"), kaggle_row(id="8"), kaggle_row(id="-9.00"))
        pairs = read_pairs(written(tmp_path, text))
        assert (pairs["id"].tolist(), pairs.attrs["repaired"]) == ([7, 8, -9], 2)
        frame = pd.DataFrame([kaggle_row(id=7.0)], columns=KAGGLE_HEADER.split(","))
        assert read_pairs(frame)["id"].tolist() == [7]
        text = kaggle_rows(kaggle_row(id="7.0"), kaggle_row(id="a"), kaggle_row(id="007"))
        pairs = read_pairs(written(tmp_path, text))
        assert (pairs["id"].tolist(), pairs.attrs["repaired"]) == (["7.0", "a", "007"], 0)

    @pytest.mark.parametrize("others", [["7.0", "8.0", "9.0"], ["7.0", "8.0", "a"]])
    def test_chunk_size_changes_no_id(self, tmp_path, others):
        """Whether 7.0 is an integer depends on the whole file, not on the chunk."""
        path = written(tmp_path, kaggle_rows(*(kaggle_row(id=name) for name in others)))
        ids = [str(name) for name in read_pairs(path)["id"]]
        for size in (1, 2, 3):
            chunks = [load() for load in read_chunks(path, size=size)]
            assert [str(name) for chunk in chunks for name in chunk["id"]] == ids

    def test_missing_id_is_refused(self, tmp_path):
        """A prediction is joined with its row by id."""
        with pytest.raises(PairsError, match="row 0: id is missing"):
            read_pairs(written(tmp_path, kaggle_rows(kaggle_row(id=""))))

    def test_lone_surrogates_are_repaired(self, tmp_path):
        """They become U+FFFD, and the row counts as repaired."""
        text = kaggle_rows(kaggle_row(), kaggle_row(prompt='["\\ud83d"]'))
        pairs = read_pairs(written(tmp_path, text))
        assert (pairs["prompt"][1], pairs.attrs["repaired"]) == (["\ufffd"], 1)

    def test_ten_megabyte_field_is_read(self, tmp_path):
        """A long field is no error."""
        prompt = json.dumps(["x" * 10_000_000])
        pairs = read_pairs(written(tmp_path, kaggle_rows(kaggle_row(prompt=prompt))))
        assert len(pairs["prompt"][0][0]) == 10_000_000

    def test_skipped_rows_are_named(self, tmp_path, caplog):
        """Other rows stay in order; each skipped one has a message, and the log has the first."""
        rows = [kaggle_row(id=number) for number in range(6)]
        rows[1], rows[4] = kaggle_row(id=1, prompt="x"), kaggle_row(id=4, winner_tie="1")
        path = written(tmp_path, kaggle_rows(*rows))
        pairs = read_pairs(path, on_error="skip")
        assert pairs["id"].tolist() == [0, 2, 3, 5]
        assert [why.split(":")[0] for why in pairs.attrs["rejected"]] == [
            "row 1 (id=1)",
            "row 4 (id=4)",
        ]
        assert "skipped 2 rows that cannot be read:\n  row 1 (id=1): " in caplog.text
        with pytest.raises(PairsError, match=r"2 rows cannot be read:\n  row 1 .*\n  row 4"):
            read_pairs(path)

    def test_message_stays_short(self, tmp_path):
        """A file of wrong rows names three and counts the rest."""
        path = written(tmp_path, kaggle_rows(*[kaggle_row(prompt="x" * 999)] * 50))
        with pytest.raises(PairsError, match="and 47 more") as caught:
            read_pairs(path)
        assert len(str(caught.value)) < 1000

    @pytest.mark.parametrize(
        ("text", "match"),
        [
            ("", "the file is empty"),
            (
                "a,b\n1,2\n",
                r"no known format has the columns a, b[\s\S]*kaggle: prompt, response_a",
            ),
            ("id,id\n1,2\n", "id occur twice"),
            (KAGGLE.replace("response_b", "answer_b", 1), "response_b=answer_b"),
        ],
    )
    def test_unknown_columns_are_refused(self, tmp_path, text, match):
        """The message lists the columns that were found and those that each format needs."""
        with pytest.raises(PairsError, match=match):
            read_pairs(written(tmp_path, text))

    def test_wrong_arguments_are_refused(self, tmp_path):
        """No file, an unknown suffix, no table, an unknown format: each has its message."""
        with pytest.raises(PairsError, match="no such file"):
            read_pairs(tmp_path / "absent.csv")
        with pytest.raises(PairsError, match=r"ends in \.csv, \.tsv, \.parquet"):
            read_pairs(tmp_path / "train.xlsx")
        with pytest.raises(PairsError, match="found int; expected a path or a table"):
            read_pairs(3)
        with pytest.raises(PairsError, match="the splits train, test"):
            read_pairs({"train": 1, "test": 2})
        with pytest.raises(PairsError, match="format is 'lmsys'"):
            read_pairs(written(tmp_path, KAGGLE), format="lmsys")
        with pytest.raises(PairsError, match="on_error"):
            read_pairs(written(tmp_path, KAGGLE), on_error="ignore")
        with pytest.raises(PairsError, match="missing for the format pairs"):
            read_pairs(written(tmp_path, KAGGLE), format="pairs")


class TestHostileJson:
    """Damaged and unusual JSON files."""

    @pytest.mark.parametrize("id_", [[1, 2], {"a": 1}, []])
    def test_lists_are_no_ids(self, tmp_path, id_):
        """A list or an object as id is refused."""
        row = dict(zip(KAGGLE_HEADER.split(","), kaggle_row(), strict=True)) | {"id": id_}
        path = written(tmp_path, json.dumps(row), "pairs.jsonl")
        with pytest.raises(PairsError, match=r"row 0 .*expected a number or text"):
            read_pairs(path)

    @pytest.mark.parametrize(
        ("line", "match"),
        [
            ("[" * 100_000, "nested"),
            ('{"id": 1, "id": 2}', "names a key twice"),
            ("[1]", "not a JSON object"),
            ("{", "row 1"),
            ('{"id": ' + "9" * 5000 + "}", "row 1"),
        ],
    )
    def test_wrong_json_line_is_refused(self, tmp_path, line, match):
        """Depth, repeated keys, huge numbers: the row is named and the others are read."""
        right = json.dumps(dict(zip(KAGGLE_HEADER.split(","), kaggle_row(), strict=True)))
        path = written(tmp_path, f"{right}\n{line}\n", "pairs.jsonl")
        with pytest.raises(PairsError, match=match):
            read_pairs(path)
        assert read_pairs(path, on_error="skip")["id"].tolist() == [7]
        with pytest.raises(PairsError, match="row 0" if match == "row 1" else match):
            read_pairs(written(tmp_path, line, "first.jsonl"))

    def test_huge_weight_is_refused(self, tmp_path):
        """A number beyond the range of float64 is no weight."""
        with pytest.raises(PairsError, match=r"weight is 1.*; expected a number"):
            read_pairs(written(tmp_path, json_row(weight=10**400), "pairs.jsonl"))

    def test_ids_with_surrogates_are_repaired(self, tmp_path):
        """A lone surrogate becomes U+FFFD, also in the message about a wrong row."""
        pairs = read_pairs(written(tmp_path, json_row(id="\ud83d"), "pairs.jsonl"))
        assert pairs["id"].tolist() == ["\ufffd"]
        line = json_row(id="\ud83d", prompt=3)
        with pytest.raises(PairsError, match="id=\ufffd"):
            read_pairs(written(tmp_path, line, "pairs.jsonl"))

    def test_json_without_objects_is_refused(self, tmp_path):
        """A JSON file that is no list of objects is refused as a whole."""
        for text in ("[" * 100_000, "{}", '[{"id": 1}', "\ud83d"):
            with pytest.raises(PairsError):
                read_pairs(written(tmp_path, text.encode("utf-8", "surrogatepass"), "pairs.json"))

    def test_brackets_in_texts_do_not_nest(self, tmp_path):
        """Only brackets outside strings count for the depth."""
        record = dict(zip(KAGGLE_HEADER.split(","), kaggle_row(), strict=True))
        record["prompt"] = ["[{" * 500 + '"']
        pairs = read_pairs(written(tmp_path, json.dumps(record), "pairs.jsonl"))
        assert pairs["prompt"][0] == record["prompt"]


class TestParquet:
    """Parquet files of this package."""

    def test_damaged_parquet_is_refused(self, tmp_path):
        """A truncated, zeroed or flipped file is refused, or read as the same pairs."""
        path = tmp_path / "pairs.parquet"
        expected = read_pairs(written(tmp_path, KAGGLE))
        write_pairs(expected, path)
        data = path.read_bytes()
        generator = np.random.default_rng(0)
        for _ in range(150):
            damaged = bytearray(data)
            place = int(generator.integers(len(data)))
            kind = generator.integers(3)
            if kind == 0:
                damaged[place] ^= 1 << int(generator.integers(8))
            elif kind == 1:
                damaged[place : place + 64] = bytes(len(damaged[place : place + 64]))
            else:
                del damaged[place:]
            path.write_bytes(damaged)
            try:
                pairs = read_pairs(path)
            except PairsError:
                continue
            assert_frame_equal(pairs, expected)

    @pytest.mark.parametrize(
        "error", [ConnectionResetError(104, "reset"), TimeoutError("late"), OSError(5, "disk")]
    )
    def test_failing_stores_are_not_damage(self, tmp_path, error):
        """An error of disk, network or store is raised as it is: it may pass."""

        class FailingFile(io.BytesIO):
            def read(self, size=-1):
                if self.is_failing:
                    raise error
                return super().read(size)

        write_pairs(read_pairs(written(tmp_path, KAGGLE)), tmp_path / "pairs.parquet")
        file = FailingFile((tmp_path / "pairs.parquet").read_bytes())
        file.is_failing = False
        _, records = read_row_group(file, "pairs.parquet", 0, 0, 1)
        file.is_failing = True
        for fails in (lambda: list(records), lambda: read_row_group(file, "pairs", 0, 0, 1)):
            with pytest.raises(type(error)) as raised:
                fails()
            assert raised.value is error


class TestRoundTrip:
    """Written tables are read as the same tables."""

    @given(pairs=pairs_tables().filter(len))
    def test_parquet_round_trip(self, pairs):
        """Parquet keeps everything that a table can hold."""
        labelled = "prob_a" in pairs or bool(pairs["label"].notna().all())
        if not labelled:
            pairs = pairs.assign(label=pd.array([pd.NA] * len(pairs), "Int8"), winner=pd.NA)
            pairs["winner"] = pairs["winner"].astype("string")
        assert_same(round_trip(pairs, "pairs.parquet", labelled=labelled), pairs)

    @given(pairs=pairs_tables().filter(len))
    def test_csv_round_trip(self, pairs):
        """The Kaggle columns and those after them keep everything."""
        assume(pairs["label"].notna().any())
        pairs = pairs[pairs["label"].notna()].reset_index(drop=True)
        pairs["id"] = pd.Series(range(len(pairs)), dtype=np.int64)
        assert_same(round_trip(pairs, "pairs.csv", labelled=True), pairs)

    def test_csv_refuses_some_missing_labels(self, tmp_path):
        """Rows without a label among rows with one are refused, not written as ties."""
        columns = {name: [["x"]] * 2 for name in ("prompt", "response_a", "response_b")}
        pairs = build_pairs({"id": [1, 2], **columns, "label": [0, None]})
        with pytest.raises(PairsError, match="1 of 2 rows have no label"):
            write_pairs(pairs, tmp_path / "pairs.csv")
        assert list(tmp_path.iterdir()) == []

    def test_submission_needs_csv_suffix(self, tmp_path):
        """Any other suffix is refused."""
        with pytest.raises(PairsError, match=r"ends in \.csv"):
            write_submission([7], [[1, 0, 0]], tmp_path / "submission.parquet")

    def test_write_refuses_other_suffix(self, tmp_path):
        """The message names both formats that are written."""
        with pytest.raises(PairsError, match=r"\.parquet or \.csv"):
            write_pairs(read_pairs(written(tmp_path, KAGGLE)), tmp_path / "pairs.txt")

    @pytest.mark.parametrize("suffix", ["parquet", "csv"])
    def test_unknown_columns_are_not_written(self, tmp_path, caplog, suffix):
        """Other columns, whatever they hold, are named in the log and not written."""
        pairs = read_pairs(written(tmp_path, KAGGLE))
        path = tmp_path / f"pairs.{suffix}"
        write_pairs(pairs.assign(fold=1, mine=0.5, seen=True), path)
        assert "no such columns: fold, mine, seen" in caplog.text
        assert_same(read_pairs(path), read_pairs(written(tmp_path, KAGGLE)))


def round_trip(pairs, name, *, labelled):
    with tempfile.TemporaryDirectory() as folder:
        write_pairs(pairs, Path(folder) / name)
        return read_pairs(Path(folder) / name, labelled=labelled)


def assert_same(read, expected):
    """Compare two tables without their attributes."""
    read.attrs = {}
    assert_frame_equal(read, expected)


class TestSubmission:
    """Kaggle submissions."""

    @given(prob_array=probs(6))
    def test_submission_round_trip(self, prob_array):
        """Every float64 reads back as itself, under Kaggle's header, in the order given."""
        ids = [f"{number % 3}" for number in range(len(prob_array))]
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "submission.csv"
            write_submission(ids, prob_array, path)
            lines = path.read_text().splitlines()
        assert lines[0] == "id,winner_model_a,winner_model_b,winner_tie"
        rows = [line.split(",") for line in lines[1:]]
        assert [row[0] for row in rows] == ids
        np.testing.assert_array_equal(
            np.array([row[1:] for row in rows], float).reshape(-1, 3), prob_array
        )

    @pytest.mark.parametrize(
        "prob_array",
        [
            [[0.5, 0.5]],
            [[0.5, 0.5, 0.5]],
            [[1.5, -0.5, 0]],
            [[np.nan, 0, 1]],
            [[1, 0, 0]] * 2,
            [1, 0, 0],
        ],
    )
    def test_submission_needs_distributions(self, tmp_path, prob_array):
        """Logits, NaN, or rows that do not match the ids are never written."""
        with pytest.raises(PairsError):
            write_submission([7], prob_array, tmp_path / "submission.csv")
        assert list(tmp_path.iterdir()) == []


class TestManyFiles:
    """Several files in one table."""

    def test_sources_groups_ids_are_joined(self, tmp_path):
        """Rows name their file; equal prompts share a group; repeated ids get the file's name."""
        second = kaggle_rows(kaggle_row(id=65089, prompt='["hi"]'))
        paths = [written(tmp_path, KAGGLE, "a.csv"), written(tmp_path, second, "b.csv")]
        pairs = read_many(paths)
        assert pairs["source"].tolist() == ["a.csv"] * 3 + ["b.csv"]
        assert pairs["id"].tolist() == ["a.csv:30192", "a.csv:53567", "a.csv:65089", "b.csv:65089"]
        assert pairs["group"][0] == pairs["group"][3]
        check_pairs(pairs)

    def test_unique_ids_are_kept(self, tmp_path):
        """One file, or files with different ids, keep their ids."""
        paths = [
            written(tmp_path, KAGGLE, "a.csv"),
            written(tmp_path, kaggle_rows(kaggle_row()), "b.csv"),
        ]
        assert read_many(paths)["id"].tolist() == [30192, 53567, 65089, 7]
        one = read_many(paths[:1])
        assert_frame_equal(one.drop(columns="source"), read_pairs(paths[0]).drop(columns="source"))

    def test_optional_columns_get_defaults(self, tmp_path):
        """A file without soft labels or weights gets its labels as such, and weight 1."""
        header = f"{KAGGLE_HEADER},prob_a,prob_b,prob_tie,weight,session"
        soft = kaggle_rows([*kaggle_row(), 0.5, 0.25, 0.25, 2, "s"], header=header)
        pairs = read_many([written(tmp_path, KAGGLE, "a.csv"), written(tmp_path, soft, "b.csv")])
        assert pairs[["prob_a", "prob_b", "prob_tie"]].to_numpy().tolist() == [
            *np.eye(3).tolist(),
            [0.5, 0.25, 0.25],
        ]
        assert pairs["weight"].tolist() == [1, 1, 1, 2]
        assert pairs["session"].isna().tolist() == [True, True, True, False]

    def test_skipped_rows_name_their_file(self, tmp_path):
        """Counts and messages of all files are kept."""
        wrong = kaggle_rows(kaggle_row(prompt="x"), kaggle_row(id="7.0"))
        paths = [written(tmp_path, KAGGLE, "a.csv"), written(tmp_path, wrong, "b.csv")]
        pairs = read_many(paths, on_error="skip")
        assert pairs.attrs["rejected"][0].startswith("b.csv, row 0 (id=7): prompt")
        assert (pairs.attrs["repaired"], pairs.attrs["format"]) == (1, "kaggle")

    def test_empty_file_list_is_refused(self):
        """At least one file is needed."""
        with pytest.raises(PairsError, match="at least one"):
            read_many([])


@given(
    prompts=st.lists(st.sampled_from("pqrs"), min_size=1, max_size=12),
    names=st.lists(st.sampled_from(["g", "h", None]), min_size=12, max_size=12),
)
def test_given_groups_unite_prompts(prompts, names):
    """Rows share a group if they share the prompt or the given group, also through other rows."""
    n = len(prompts)
    texts = {"prompt": prompts, "response_a": ["r"] * n, "response_b": ["s"] * n}
    table = pd.DataFrame({"id": range(n), **texts, "winner": ["A"] * n})
    table["group"] = pd.Series(names[:n], dtype=object)
    groups = read_pairs(table)["group"].tolist()
    links = [
        {(0, text), (1, name)} - {(1, None)} for text, name in zip(prompts, names[:n], strict=True)
    ]
    assert {name for name in groups if len(name) == 1} <= {*names[:n]}
    for _ in range(n):
        links = [set().union(*(b for b in links if a & b)) for a in links]
    for i, j in itertools.combinations(range(n), 2):
        assert (groups[i] == groups[j]) == bool(links[i] & links[j])


def test_file_names_do_not_depend_on_the_folder(tmp_path, monkeypatch):
    """Files are named by the folders that tell them apart, however their paths are spelled."""
    (tmp_path / "x" / "a").mkdir(parents=True)
    spellings = {
        tmp_path / "x": ["a/votes.csv", "votes.csv"],
        tmp_path / "x" / "a": ["votes.csv", "../votes.csv"],
        tmp_path: [str(tmp_path / "x/a/votes.csv"), "./x/votes.csv"],
    }
    for folder, paths in spellings.items():
        monkeypatch.chdir(folder)
        assert name_files(paths) == ["a/votes.csv", "x/votes.csv"]
    assert name_files(["s3://b/pairs/", "t.csv"]) == ["pairs", "t.csv"]
    assert name_files(["hf://datasets/o/n/"]) == ["n"]
    assert name_files(["t.csv", "t.csv"]) == ["t.csv", "t.csv"]
