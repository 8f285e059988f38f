"""What a model leans on, counted."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import log_loss

from run_folders import simulated_tables
from tiewise.data.labels import PROB_COLUMNS
from tiewise.report import bias_tables
from tiewise.report.diagnostics import probs_of


@pytest.fixture(scope="module")
def tables():
    return simulated_tables(400)


def test_log_loss_by_length_adds_up_to_the_log_loss(tables):
    """No row is lost between the bins, of the model and of a reference."""
    _, folds, oof = tables
    uniform = np.full((len(oof), 3), 1 / 3)
    table = bias_tables.length_gap(oof, folds, {"uniform": uniform})
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
        bias_tables.length_gap(*both).groupby("quantity").apply(
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
        bias_tables.length_gap(oof, folds), bias_tables.length_gap(oof, shuffled)
    )


def test_the_lead_of_the_longer_is_counted_by_hand():
    """Votes and probabilities of the longer response minus those of the shorter."""
    folds = pd.DataFrame({"id": [1, 2, 3], "n_chars_a": [9, 1, 5], "n_chars_b": [1, 9, 5]})
    probs = {"prob_a": [0.6, 0.2, 0.9], "prob_b": [0.2, 0.4, 0.1], "prob_tie": [0.2, 0.4, 0.0]}
    oof = pd.DataFrame({"id": [1, 2, 3], "label": [0, 2, 1], "group": list("xyz"), **probs})
    leads = bias_tables.lead_of_longer(oof, folds)
    assert leads["votes"].value == 0.5
    assert leads["predictions"].value == pytest.approx(0.3)
    assert leads["difference"].value == pytest.approx(-0.2)


def test_where_no_response_is_longer_nothing_leads(tables):
    """Then there is no number, and no failure."""
    _, folds, oof = tables
    leads = bias_tables.lead_of_longer(oof, folds.assign(n_chars_a=1, n_chars_b=1))
    assert np.isnan(leads["votes"].value)


def test_without_a_second_order_there_is_nothing_to_compare(tables):
    """One order gives no position bias."""
    oof = tables[2].drop(columns="prob_tie_swapped")
    assert bias_tables.both_orders(oof) is None


def test_both_orders_agree_for_a_model_that_does_not_care(tables):
    """Equal predictions lie on the diagonal and never flip."""
    oof = tables[2].copy()
    for name in PROB_COLUMNS:
        oof[f"{name}_swapped"] = oof[f"{name}_given"]
    table = bias_tables.both_orders(oof)
    assert (table["given"] == table["swapped"]).all()
    assert not table["is_flipped"].any()
