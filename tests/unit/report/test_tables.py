"""The tables behind the figures have the plain values, with intervals."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix, log_loss, recall_score

from run_folders import simulated_tables
from tiewise.data.labels import PROB_COLUMNS
from tiewise.report import tables
from tiewise.report.tables import OUTCOMES, probs_of


@pytest.fixture(scope="module")
def simulated():
    """Return pairs, folds and out-of-fold predictions."""
    return simulated_tables(400)


def weighted_mean(points, column="value"):
    return np.average(points[column], weights=points["n"])


@given(st.lists(st.tuples(st.integers(0, 3), st.floats(-5, 5)), min_size=2, max_size=40))
def test_bin_means_match_pandas(rows):
    """Mean and number of rows per bin are those of groupby."""
    bins, values = np.array([b for b, _ in rows]), np.array([v for _, v in rows])
    bins = np.unique(bins, return_inverse=True)[1]
    table = tables.bin_means(bins, {"x": values}, np.arange(len(rows)))
    expected = pd.Series(values).groupby(bins).agg(["mean", "size"])
    np.testing.assert_allclose(table["value"], expected["mean"], atol=1e-9)
    assert table["n"].tolist() == expected["size"].tolist()


def test_intervals_contain_their_values(simulated):
    """No value is outside its interval."""
    _, folds, oof = simulated
    for table in (tables.reliability(oof), tables.length_gap(oof, folds)):
        assert (table["low"] <= table["value"]).all()
        assert (table["value"] <= table["high"]).all()


def test_reliability_sums_to_class_shares(simulated):
    """Weighted by rows, the bins give the share of each outcome and the mean probability."""
    oof = simulated[2]
    table = tables.reliability(oof)
    for k, outcome in enumerate(OUTCOMES):
        points = table[table["outcome"] == outcome]
        assert points["n"].sum() == len(oof)
        assert weighted_mean(points) == pytest.approx((oof["label"] == k).mean())
        assert weighted_mean(points, "predicted") == pytest.approx(oof[PROB_COLUMNS[k]].mean())


def test_confusion_matches_sklearn(simulated):
    """Rows are labels, columns the most probable outcomes."""
    oof = simulated[2]
    expected = confusion_matrix(oof["label"].to_numpy(int), probs_of(oof).argmax(1))
    assert tables.confusion(oof).to_numpy().tolist() == expected.tolist()


def test_recall_matches_sklearn(simulated):
    """It is the share of the pairs of a label that are predicted so; absent labels are left out."""
    oof = simulated[2]
    found = tables.recall_by_class(oof)
    labels, predicted = oof["label"].to_numpy(int), probs_of(oof).argmax(1)
    expected = recall_score(labels, predicted, average=None)
    assert list(found) == list(OUTCOMES)
    assert [share.value for share in found.values()] == pytest.approx(expected)
    assert list(tables.recall_by_class(oof[oof["label"] == 1])) == ["B"]


def test_length_bins_sum_to_log_loss(simulated):
    """Weighted by rows, the bins give the log loss of the model and of a reference."""
    _, folds, oof = simulated
    uniform = np.full((len(oof), 3), 1 / 3)
    table = tables.length_gap(oof, folds, {"uniform": uniform})
    for quantity, probs in (("log loss", probs_of(oof)), ("log loss of uniform", uniform)):
        points = table[table["quantity"] == quantity]
        expected = log_loss(oof["label"].to_numpy(int), probs)
        assert weighted_mean(points) == pytest.approx(expected)


def test_swapping_pairs_negates_the_lead(simulated):
    """The lead of A is minus the lead of B."""
    _, folds, oof = simulated
    swapped = oof.rename(columns={"prob_a": "prob_b", "prob_b": "prob_a"})
    swapped = swapped.assign(label=oof["label"].map({0: 1, 1: 0, 2: 2}))
    lengths = folds.rename(columns={"n_chars_a": "n_chars_b", "n_chars_b": "n_chars_a"})
    before, after = tables.length_gap(oof, folds), tables.length_gap(swapped, lengths)
    for quantity in ("observed lead", "predicted lead"):
        means = [weighted_mean(t[t["quantity"] == quantity]) for t in (before, after)]
        assert means[0] == pytest.approx(-means[1])


def test_lengths_are_matched_by_id(simulated):
    """The order of the table of folds does not matter."""
    _, folds, oof = simulated
    shuffled = folds.sample(frac=1, random_state=0)
    pd.testing.assert_frame_equal(tables.length_gap(oof, folds), tables.length_gap(oof, shuffled))


def test_lead_of_longer_by_hand():
    """Votes and probabilities of the longer response minus those of the shorter one."""
    folds = pd.DataFrame({"id": [1, 2, 3], "n_chars_a": [9, 1, 5], "n_chars_b": [1, 9, 5]})
    probs = {"prob_a": [0.6, 0.2, 0.9], "prob_b": [0.2, 0.4, 0.1], "prob_tie": [0.2, 0.4, 0.0]}
    oof = pd.DataFrame({"id": [1, 2, 3], "label": [0, 2, 1], "group": list("xyz"), **probs})
    leads = tables.lead_of_longer(oof, folds)
    assert leads["votes"].value == 0.5
    assert leads["predictions"].value == pytest.approx(0.3)
    assert leads["difference"].value == pytest.approx(-0.2)


def test_equal_lengths_have_no_lead(simulated):
    """Without a longer response the lead is NaN."""
    _, folds, oof = simulated
    leads = tables.lead_of_longer(oof, folds.assign(n_chars_a=1, n_chars_b=1))
    assert np.isnan(leads["votes"].value)


def test_costliest_rows_come_first(simulated):
    """They have the largest losses, in order, and are no more than asked for."""
    oof = simulated[2]
    worst = tables.costliest_errors(oof, 7)
    own = probs_of(oof)[np.arange(len(oof)), oof["label"].to_numpy(int)]
    assert worst["log_loss"].tolist() == sorted(-np.log(own))[::-1][:7]
    assert len(tables.costliest_errors(oof.head(3), 7)) == 3


def test_loss_by_fold_matches_sklearn(simulated):
    """Each fold has the log loss of its own rows."""
    oof = simulated[2]
    losses = tables.loss_by_fold(oof)
    assert list(losses) == [0, 1, 2, 3, 4]
    rows = oof[oof["fold"] == 3]
    assert losses[3].value == pytest.approx(log_loss(rows["label"].to_numpy(int), probs_of(rows)))


def test_incomplete_history_line_is_skipped(tmp_path):
    """A process that was killed while it wrote costs one line, not the report."""
    line = {"step": 1, "loss": 1.0, "grad_norm": 1, "learning_rate": 0.1, "rows": 2, "tokens": 3}
    path = tmp_path / "history.jsonl"
    path.write_text(f"{json.dumps(line)}\n[1]\n{json.dumps(line)[:20]}")
    assert tables.read_history(path).to_dict("records") == [line]


def test_missing_history_is_empty(tmp_path):
    """The feature model has no history."""
    assert tables.read_history(tmp_path / "history.jsonl").empty
