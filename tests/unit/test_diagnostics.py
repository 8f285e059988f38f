"""The numbers behind the figures are the plain ones, with intervals."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix, log_loss

from run_folders import simulated_tables
from tiewise import diagnostics
from tiewise.diagnostics import OUTCOMES, PROB_COLUMNS, probs_of


@pytest.fixture(scope="module")
def tables():
    return simulated_tables(400)


@settings(deadline=None, max_examples=20)
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
    pairs, folds, oof = tables
    for table in (diagnostics.reliability(oof), diagnostics.length_gap(oof, folds)):
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


def test_log_loss_by_length_adds_up_to_the_log_loss(tables):
    """No row is lost between the bins, of the model and of a reference."""
    _, folds, oof = tables
    uniform = np.full((len(oof), 3), 1 / 3)
    table = diagnostics.length_gap(oof, folds, {"uniform": uniform})
    for quantity, probs in (("log loss", probs_of(oof)), ("log loss of uniform", uniform)):
        points = table[table["quantity"] == quantity]
        mean = np.average(points["value"], weights=points["n"])
        assert mean == pytest.approx(log_loss(oof["label"].to_numpy(int), probs))


def test_swapping_every_pair_turns_the_lead_around(tables):
    """The lead of A is minus the lead of B."""
    _, folds, oof = tables
    exchanged = {"prob_a": "prob_b", "prob_b": "prob_a"}
    swapped = oof.rename(columns=exchanged).assign(label=oof["label"].map({0: 1, 1: 0, 2: 2}))
    turned = folds.rename(columns={"n_chars_a": "n_chars_b", "n_chars_b": "n_chars_a"})
    means = [
        diagnostics.length_gap(*both).groupby("quantity").apply(
            lambda part: np.average(part["value"], weights=part["n"]), include_groups=False
        )
        for both in ((oof, folds), (swapped, turned))
    ]  # fmt: skip
    for quantity in ("observed lead", "predicted lead"):
        assert means[0][quantity] == pytest.approx(-means[1][quantity])


def test_rows_are_matched_to_their_lengths_by_id(tables):
    """The order of the table of folds does not matter."""
    _, folds, oof = tables
    shuffled = folds.sample(frac=1, random_state=0)
    pd.testing.assert_frame_equal(
        diagnostics.length_gap(oof, folds), diagnostics.length_gap(oof, shuffled)
    )


def test_without_a_second_order_there_is_nothing_to_compare(tables):
    """One order gives no position bias."""
    oof = tables[2].drop(columns="prob_tie_swapped")
    assert diagnostics.both_orders(oof) is None


def test_both_orders_agree_for_a_model_that_does_not_care(tables):
    """Equal predictions lie on the diagonal and never flip."""
    oof = tables[2].copy()
    for name in PROB_COLUMNS:
        oof[f"{name}_swapped"] = oof[f"{name}_given"]
    table = diagnostics.both_orders(oof)
    assert (table["given"] == table["swapped"]).all()
    assert not table["is_flipped"].any()


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
