"""The numbers behind the figures are the plain ones, with intervals."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix

from run_folders import simulated_tables
from tiewise.data.labels import PROB_COLUMNS
from tiewise.report import diagnostics
from tiewise.report.bias_tables import length_gap
from tiewise.report.diagnostics import OUTCOMES, probs_of


@pytest.fixture(scope="module")
def tables():
    return simulated_tables(400)


@given(st.lists(st.tuples(st.integers(0, 3), st.floats(-5, 5)), min_size=2, max_size=40))
def test_means_by_bin_are_pandas_means(rows):
    """Only the interval is new; the mean is the mean."""
    bins, values = np.array([b for b, _ in rows]), np.array([v for _, v in rows])
    bins = np.unique(bins, return_inverse=True)[1]
    table = diagnostics.bin_means(bins, {"x": values}, np.arange(len(rows)))
    expected = pd.Series(values).groupby(bins).agg(["mean", "size"])
    np.testing.assert_allclose(table["value"], expected["mean"], atol=1e-9)
    assert table["n"].tolist() == expected["size"].tolist()


def test_every_interval_holds_its_value(tables):
    """A whisker never misses its dot."""
    _, folds, oof = tables
    for table in (diagnostics.reliability(oof), length_gap(oof, folds)):
        assert (table["low"] <= table["value"]).all()
        assert (table["value"] <= table["high"]).all()


def test_reliability_adds_up_to_the_class_shares(tables):
    """Weighted by rows, the bins give back the share of each outcome and the mean probability."""
    oof = tables[2]
    table = diagnostics.reliability(oof)
    for k, outcome in enumerate(OUTCOMES):
        points = table[table["outcome"] == outcome]
        assert points["n"].sum() == len(oof)
        assert np.average(points["value"], weights=points["n"]) == pytest.approx(
            (oof["label"] == k).mean()
        )
        assert np.average(points["predicted"], weights=points["n"]) == pytest.approx(
            oof[PROB_COLUMNS[k]].mean()
        )


def test_the_confusion_matrix_is_sklearns(tables):
    """Rows are votes, columns are what was likeliest."""
    oof = tables[2]
    expected = confusion_matrix(oof["label"].to_numpy(int), probs_of(oof).argmax(1))
    assert diagnostics.confusion(oof).to_numpy().tolist() == expected.tolist()


def test_a_torn_line_of_history_is_left_out(tmp_path):
    """A process killed while it wrote costs one line, not the report."""
    line = {"step": 1, "loss": 1.0, "grad_norm": 1, "learning_rate": 0.1, "rows": 2, "tokens": 3}
    path = tmp_path / "history.jsonl"
    path.write_text(f"{json.dumps(line)}\n[1]\n{json.dumps(line)[:20]}")
    assert diagnostics.read_history(path).to_dict("records") == [line]


def test_no_history_is_an_empty_one(tmp_path):
    """A baseline has none."""
    assert diagnostics.read_history(tmp_path / "history.jsonl").empty


def test_the_costliest_rows_come_first(tables):
    """They are the largest losses, in order, and no more than asked for."""
    oof = tables[2]
    worst = diagnostics.costly_errors(oof, 7)
    own = probs_of(oof)[np.arange(len(oof)), oof["label"].to_numpy(int)]
    assert worst["log_loss"].tolist() == sorted(-np.log(own))[::-1][:7]
    assert len(diagnostics.costly_errors(oof.head(3), 7)) == 3


def test_unlabelled_rows_are_left_out(tables):
    """A row that nobody voted on cannot be scored."""
    oof = tables[2].copy()
    oof["label"] = oof["label"].astype("Int8")
    oof.loc[3, "label"] = pd.NA
    assert len(diagnostics.labelled(oof)) == len(oof) - 1
