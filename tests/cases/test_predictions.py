"""Predictions are joined with their pairs by one rule for ids, from a file of any format."""

import datetime
import itertools
import json
import shutil
import uuid
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import tiewise as tw
from tiewise.data.labels import PROB_COLUMNS
from tiewise.errors import TiewiseError
from tiewise.judges.labelled_predictions import load_file_predictions
from tiewise.judges.streaming import write_table

FLAGS = ["winner_model_a", "winner_model_b", "winner_tie"]
PROBS = np.array([[0.5, 0.25, 0.25], [0.125, 0.75, 0.125]])
SPELLINGS = {
    "integers": [1000, 2],
    "floats": [1000.0, 2.0],
    "text": ["1000", "2"],
    "text of floats": ["1000.0", "2.0"],
    "text of R": ["1e+03", "2"],
    "exponents": ["1e3", "2e0"],
    "decimals": [Decimal("1E+3"), Decimal("2.00")],
    "int16": np.array([1000, 2], np.int16),
    "float32": np.array([1000, 2], np.float32),
    "nullable": pd.array([1000, 2], "Int64"),
}
TEXTS = {"text", "text of floats", "text of R", "exponents"}
DIFFERENT_IN_CSV = ("integers", "floats", "text of R", "exponents", "decimals")
JOINED = [
    *(("csv", *both) for both in itertools.product(DIFFERENT_IN_CSV, repeat=2)),
    *(
        ("parquet", *both)
        for both in itertools.product(SPELLINGS, repeat=2)
        if {"integers", "text"} & set(both) or TEXTS.issuperset(both)
    ),
]


def pairs_frame(ids):
    """Return two labelled pairs with these ids."""
    texts = {"prompt": ['["p"]', '["q"]'], "response_a": ['["a"]'] * 2, "response_b": ['["b"]'] * 2}
    flags = dict(zip(FLAGS, ([1, 0], [0, 1], [0, 0]), strict=True))
    return pd.DataFrame({"id": ids, **texts, **flags})


def predictions_frame(ids, names=PROB_COLUMNS):
    """Return two predictions with these ids."""
    return pd.DataFrame({"id": ids, **dict(zip(names, PROBS.T, strict=True))})


@pytest.mark.parametrize(("suffix", "ours", "theirs"), JOINED)
def test_ids_of_any_type_are_joined(tmp_path, suffix, ours, theirs):
    """An integer is the same id in every type and spelling, on either side."""
    data, judged = tmp_path / f"data.{suffix}", tmp_path / f"judged.{suffix}"
    for frame, path in (
        (pairs_frame(SPELLINGS[ours]), data),
        (predictions_frame(SPELLINGS[theirs]).iloc[::-1], judged),
    ):
        frame.to_parquet(path) if suffix == "parquet" else frame.to_csv(path, index=False)
    found = load_file_predictions([data], judged).oof
    np.testing.assert_array_equal(found[PROB_COLUMNS], PROBS)
    assert found["id"].tolist() == [1000, 2]


def test_text_ids_are_compared_exactly(tmp_path):
    """Where both sides have text such as version numbers, 1 and 1.0 are two ids."""
    ids = ["1", "1.0"]
    pairs_frame([*ids]).assign(id=["1", "1.5"]).to_csv(tmp_path / "data.csv", index=False)
    predictions_frame(["1", "1.5"]).to_csv(tmp_path / "judged.csv", index=False)
    assert len(load_file_predictions([tmp_path / "data.csv"], tmp_path / "judged.csv").oof) == 2
    more = pd.concat([predictions_frame(["1", "1.5"]), predictions_frame(["1.0", "x"])])
    more.to_csv(tmp_path / "judged.csv", index=False)
    found = load_file_predictions([tmp_path / "data.csv"], tmp_path / "judged.csv")
    assert found.counts == {"n_unused_predictions": 2}
    predictions_frame(["1", "1.0"]).to_csv(tmp_path / "judged.csv", index=False)
    with pytest.raises(TiewiseError, match="more than once: 1"):
        load_file_predictions([tmp_path / "data.csv"], tmp_path / "judged.csv")


@pytest.mark.parametrize("value", ["007", "00000000", "0e12", "12e34567", "7.5", " 7", "1_0"])
def test_other_text_is_kept(tmp_path, value):
    """Text that only resembles a number is no integer."""
    assert tw.read_pairs(pairs_frame([value, "3"]))["id"].tolist() == [value, "3"]


@pytest.mark.parametrize(
    "value",
    [
        datetime.date(2026, 1, 1),
        datetime.timedelta(1),
        pd.Timestamp("2026-01-01"),
        b"7",
        True,
        np.bool_(True),
        [7],
        {"id": 7},
        2.0**53,
        1.2345678901234568e17,
        float("inf"),
        np.float32(1e20),
        "1.23457E+15",
        "1.23457e+06",
    ],
    ids=repr,
)
def test_other_types_are_no_ids(value):
    """Dates, bytes, flags and rounded numbers are refused by row, in data and predictions."""
    frame = pairs_frame(pd.Series([3, value], dtype=object))
    with pytest.raises(TiewiseError, match=r"row 1.*id is"):
        tw.read_pairs(frame)


@pytest.mark.parametrize(("dtype", "largest"), [("float32", 2**24), ("float16", 2**11)])
@pytest.mark.parametrize("suffix", ["parquet", "arrow", "frame"])
def test_narrow_floats_are_no_ids(tmp_path, dtype, largest, suffix):
    """Different integers are one number in a narrow float; smaller ones are read."""
    for ids, is_read in (([largest - 1, 3], True), ([largest + 1, 3], False)):
        source = frame = pairs_frame(np.array(ids, dtype))
        if suffix != "frame":
            source = tmp_path / f"t.{suffix}"
            frame.to_parquet(source) if suffix == "parquet" else frame.to_feather(source)
        if is_read:
            assert tw.read_pairs(source)["id"].tolist() == ids
        else:
            with pytest.raises(TiewiseError, match=r"row 0.*cannot hold every digit"):
                tw.read_pairs(source)


def test_uuid_is_its_text(tmp_path):
    """A parquet file can hold UUIDs as a type."""
    ids = [uuid.UUID(int=1), uuid.UUID(int=2)]
    frame = pairs_frame(pd.Series(ids, dtype=object))
    assert tw.read_pairs(frame)["id"].tolist() == list(map(str, ids))


@pytest.mark.parametrize("suffix", ["csv", "tsv", "parquet", "jsonl", "json", "csv.gz"])
def test_predictions_of_any_format(tmp_path, suffix):
    """Predictions are read in every format of data."""
    pairs_frame([1, 2]).to_csv(tmp_path / "data.csv", index=False)
    path = tmp_path / f"judged.{suffix}"
    table = predictions_frame([1, 2])
    if suffix in ("jsonl", "json"):
        table.to_json(path, orient="records", lines=suffix == "jsonl")
    elif suffix == "parquet":
        table.to_parquet(path)
    else:
        table.to_csv(path, index=False, sep="\t" if suffix == "tsv" else ";", decimal=",")
    found = load_file_predictions([tmp_path / "data.csv"], path).oof
    np.testing.assert_array_equal(found[PROB_COLUMNS], PROBS)


def test_submission_is_evaluated(tmp_path, tiewise):
    """A submission is a file of predictions by its header, and a file of data is none."""
    pairs_frame([1, 2]).to_csv(tmp_path / "data.csv", index=False)
    tw.write_submission([2, 1], PROBS[::-1], tmp_path / "submission.csv")
    words = ("evaluate", "--data", "data.csv", "--json", "--predictions")
    found = tiewise(*words, "submission.csv")
    assert found.status == 0
    loss = json.loads(found.output)["log_loss"]["value"]
    assert loss == pytest.approx(-np.log([0.5, 0.75]).mean())
    refused = tiewise(*words, "data.csv")
    assert refused.status == 2
    assert "prob_a, prob_b, prob_tie are missing" in refused.errors


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("2,many,0,1", "prob_a of .*row 1, is not numeric"),
        (",1,0,0", "row 1: id is missing"),
        ("2,1,0", "row 1 has 3 fields"),
        ("1.23457E+15,1,0,0", "id is '1.23457E.15', a rounded number"),
    ],
)
def test_wrong_prediction_is_named(tmp_path, line, message):
    """The row of a wrong prediction is named."""
    pairs_frame([1, 2]).to_csv(tmp_path / "data.csv", index=False)
    (tmp_path / "judged.csv").write_text(f"id,prob_a,prob_b,prob_tie\n1,1,0,0\n{line}\n")
    with pytest.raises(TiewiseError, match=message):
        load_file_predictions([tmp_path / "data.csv"], tmp_path / "judged.csv")


def test_null_text_is_predicted(case, fitted, tiewise, monkeypatch):
    """A null of an unlabelled file is a missing turn in every format, and is predicted."""
    monkeypatch.setenv("TIEWISE_ARTIFACTS", str(fitted / "art"))
    Path("shards").mkdir()
    shutil.copy(case("11-null-response/null.parquet"), "shards/part-0.parquet")
    files = [case(f"11-null-response/null.{suffix}") for suffix in ("parquet", "jsonl", "csv")]
    tables = []
    for place, data in enumerate([*files, "shards"]):
        out = f"{place}.csv"
        assert tiewise("predict", "--run", "told", "--data", data, "--out", out).status == 0
        tables.append(pd.read_csv(out, dtype={"id": str}))
        assert len(tables[-1]) == 10
        pd.testing.assert_frame_equal(tables[-1], tables[0])


def test_messages_name_no_other_flag(fitted, tiewise, tmp_path, monkeypatch):
    """What `predict` says about a wrong row names no flag that it does not take."""
    monkeypatch.setenv("TIEWISE_ARTIFACTS", str(fitted / "art"))
    (tmp_path / "t.csv").write_text("id,prompt,response_a,response_b\n1,p,a\n2,p,a,b\n")
    found = tiewise("predict", "--run", "told", "--data", "t.csv", "--out", "o.csv")
    assert found.status == 2
    assert "row 0 (id=1): has 3 fields" in found.errors
    assert "tiewise convert with --on-error skip" in found.errors
    convert = ("convert", "t.csv", "--unlabelled", "--on-error", "skip", "--out", "rest.csv")
    assert tiewise(*convert).status == 0
    assert tiewise("predict", "--run", "told", "--data", "rest.csv", "--out", "o.csv").status == 0


def test_header_is_written_once(tmp_path):
    """A first table without rows does not bring a second header."""
    table = predictions_frame([1, 2])
    for suffix in ("csv", "jsonl", "parquet"):
        path = tmp_path / f"t.{suffix}"
        assert write_table([table.head(0), table, table.head(0)], path) == 2
        pairs_frame([1, 2]).to_csv(tmp_path / "data.csv", index=False)
        found = load_file_predictions([tmp_path / "data.csv"], path).oof
        np.testing.assert_array_equal(found[PROB_COLUMNS], PROBS)
    assert (tmp_path / "t.csv").read_text().count("prob_a") == 1


def test_half_precision_probabilities():
    """The sum of three float16 numbers is 1 up to their precision."""
    probs = np.random.default_rng(0).dirichlet([1, 1, 1], 400)
    labels = np.arange(400) % 3
    half = tw.evaluate(labels, probs.astype(np.float16))
    assert half.log_loss.value == pytest.approx(tw.evaluate(labels, probs).log_loss.value, abs=1e-3)
    with pytest.raises(TiewiseError, match="does not sum to 1"):
        tw.evaluate(labels, (probs * 1.002).clip(0, 1).astype(np.float16))
