"""Submissions in the columns of the competition that the data are of."""

import numpy as np
import pandas as pd
import pytest

from tiewise.cli import main
from tiewise.data.formats import read_pairs, write_pairs

DATA = "10-wsdm-submission"
LMSYS = ["id", "winner_model_a", "winner_model_b", "winner_tie"]


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory, request):
    """Fit a run to a few rows of the case's data."""
    folder = tmp_path_factory.mktemp("fitted")
    data = request.path.parent / "data" / DATA / "train.parquet"
    fit = ("fit", "--preset", "baseline", "--n-splits", "2", "--limit", "10", "--run", "wsdmcase")
    assert main([*fit, "--data", str(data), "--artifacts", str(folder)]) == 0
    return folder


@pytest.fixture
def predict(artifacts, tiewise, tmp_path):
    """Return a function that predicts a file, with flags, and returns what it wrote."""

    def run(data, out="submission.csv", *flags):
        words = ("--run", "wsdmcase", "--data", data, "--out", out, "--artifacts", artifacts)
        ended = tiewise("predict", *words, "--overwrite", *flags)
        assert ended.status == 0, ended.errors
        return pd.read_csv(tmp_path / out, dtype={"id": str})

    return run


def test_wsdm_submission(predict, case):
    """Case 10: the WSDM Cup takes one winner a row, the more probable of A and B."""
    data = case(f"{DATA}/test.parquet")
    written = predict(data, "submission.csv", "--submission")
    probs = predict(data, "probs.csv")
    assert list(written) == ["id", "winner"]
    assert written["id"].tolist() == pd.read_parquet(data)["id"].tolist()
    expected = np.where(probs["prob_a"] >= probs["prob_b"], "model_a", "model_b")
    assert written["winner"].tolist() == expected.tolist()


@pytest.mark.parametrize("variant", ["csv", "jsonl", "columns in other order", "more columns"])
def test_plain_text_is_of_wsdm(predict, case, tmp_path, variant):
    """Other writers and orders of the same data give the same submission."""
    data = case(f"{DATA}/test.parquet")
    expected = predict(data, "expected.csv", "--submission")
    table = pd.read_parquet(data)
    path = tmp_path / "data.csv"
    if variant == "jsonl":
        table.to_json(path := tmp_path / "data.jsonl", orient="records", lines=True)
    elif variant == "columns in other order":
        table[list(table)[::-1]].to_csv(path, index=False)
    else:
        (table.assign(language="en") if variant == "more columns" else table).to_csv(
            path, index=False
        )
    pd.testing.assert_frame_equal(predict(path, "submission.csv", "--submission"), expected)


@pytest.mark.parametrize("chunk_rows", ["1", "1000"])
def test_lists_are_of_lmsys(predict, case, tmp_path, chunk_rows):
    """The same run writes three probabilities a row for data of the LMSYS competition."""
    pairs = read_pairs(case(f"{DATA}/test.parquet"), labelled=False)
    write_pairs(pairs, tmp_path / "test.csv")
    flags = ("--submission", "--chunk-rows", chunk_rows)
    written = predict("test.csv", "submission.csv", *flags)
    probs = predict("test.csv", "probs.csv")
    assert list(written) == LMSYS
    np.testing.assert_array_equal(
        written[LMSYS[1:]].to_numpy(), probs[["prob_a", "prob_b", "prob_tie"]].to_numpy()
    )


@pytest.mark.parametrize("form", ["pairs", "preference", "arena"])
def test_other_data_are_of_no_competition(artifacts, tiewise, case, tmp_path, form):
    """Data that no competition hands out are refused, and the two known headers are named."""
    path = tmp_path / "data.parquet"
    if form == "pairs":
        write_pairs(read_pairs(case(f"{DATA}/test.parquet"), labelled=False), path)
    elif form == "preference":
        columns = {"prompt": ["p"], "chosen": ["good"], "rejected": ["bad"]}
        pd.DataFrame(columns).to_parquet(path)
    else:
        texts = [{"role": "user", "content": "p"}, {"role": "assistant", "content": "r"}]
        pd.DataFrame({"conversation_a": [texts], "conversation_b": [texts]}).to_parquet(path)
    words = ("--run", "wsdmcase", "--data", path, "--out", "s.csv", "--artifacts", artifacts)
    ended = tiewise("predict", *words, "--submission")
    assert ended.status == 2
    assert f"is {form}, which no competition uses" in ended.errors
    assert "winner_model_a, winner_model_b, winner_tie" in ended.errors
    assert not (tmp_path / "s.csv").exists()


def test_named_format_decides(predict, case, tmp_path):
    """Pairs that were converted from LMSYS data are submitted with --data-format kaggle."""
    write_pairs(read_pairs(case(f"{DATA}/test.parquet"), labelled=False), tmp_path / "p.parquet")
    written = predict("p.parquet", "submission.csv", "--submission", "--data-format", "kaggle")
    assert list(written) == LMSYS
