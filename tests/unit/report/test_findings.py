"""The first screen says in words what the scores show."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from run_folders import simulated_run
from tiewise.config import load_preset
from tiewise.data.labels import PROB_COLUMNS
from tiewise.evaluation.agreement import agreement_of_votes
from tiewise.evaluation.references import evaluate_tables
from tiewise.report.findings import find_results
from tiewise.report.page import gather
from tiewise.runs.training_rows import LEAKS


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Gather the data of a report on 1,000 simulated pairs."""
    return gather(*simulated_run(tmp_path_factory.mktemp("artifacts"), 1_000))


def change(data, probs, **columns):
    """Replace the probabilities of one order and of the average by `probs`, (n, 3)."""
    oof = data.oof.assign(**dict(zip(PROB_COLUMNS, np.asarray(probs).T, strict=True)), **columns)
    return replace(data, oof=oof, scores=evaluate_tables(oof, data.folds, n_resamples=99))


def findings(data):
    """Return the findings by the section that shows them."""
    return {finding.section: finding for finding in find_results(data)}


def probs_of(data):
    return data.oof[PROB_COLUMNS].to_numpy()


def test_every_finding_has_a_section(data):
    """Gain, calibration, both biases and the worst slice are found, in this order."""
    found = find_results(data)
    wanted = ["scores", "calibration", "position", "length", "slices"]
    assert [finding.section for finding in found] == wanted
    assert all("[" in finding.text for finding in found)  # an interval


def test_gain_has_the_sign_of_the_command_line(data):
    """A better run has a negative difference, as in `tiewise evaluate`."""
    difference = data.scores.differences["length_only"]["log_loss"]
    finding = findings(data)["scores"]
    assert (finding.kind, finding.title) == (
        "good",
        "Better than the lengths of the responses alone",
    )
    assert difference.high < 0
    assert f"difference {difference:.3f}".replace("-", "−") in finding.text


def test_useless_run_is_called_so(data):
    """Uniform probabilities are worse than the lengths alone."""
    finding = findings(change(data, np.full((1_000, 3), 1 / 3)))["scores"]
    assert (finding.kind, finding.title) == ("bad", "Worse than the lengths of the responses alone")


def test_class_prior_replaces_missing_lengths(data):
    """An old run has no lengths; it is compared with the class frequencies."""
    folds = data.folds.drop(columns=["n_chars_prompt", "n_chars_a", "n_chars_b"])
    bare = replace(data, folds=folds, scores=evaluate_tables(data.oof, folds, n_resamples=99))
    assert findings(bare)["scores"].title == "Better than the frequencies of the outcomes"
    assert "length" not in findings(bare)


def test_overconfident_run_is_not_calibrated(data):
    """The finding names the calibration and the command that applies it."""
    odds = probs_of(data) ** 3
    finding = findings(change(data, odds / odds.sum(axis=1, keepdims=True)))["calibration"]
    assert (finding.kind, finding.title) == ("bad", "Calibration can be improved")
    assert "tiewise evaluate simulated --calibrate" in finding.text


def test_position_bias_is_found(data):
    """The simulated preference for the first response is named with its share of flips."""
    finding = findings(data)["position"]
    assert finding.title == "Prefers the first position, before both orders are averaged"
    assert "leads by +0." in finding.text


def test_symmetric_predictions_have_no_position_bias(data):
    """Equal probabilities in both orders are no preference."""
    columns = {
        f"{name}_{order}": data.oof[name] for name in PROB_COLUMNS for order in ("given", "swapped")
    }
    finding = findings(change(data, probs_of(data), **columns))["position"]
    assert (finding.kind, finding.title) == ("good", "No clear preference for a position")


def test_feature_model_has_no_position_bias(data):
    """It is symmetric by construction."""
    run = replace(data.run, config=load_preset("baseline"))
    scores = replace(data.scores, position_bias=None)
    assert findings(replace(data, run=run, scores=scores))["position"].title == "No position bias"


@pytest.mark.parametrize(("direction", "word"), [(1, "more"), (-1, "less")])
def test_preference_for_length_is_compared_with_people(data, direction, word):
    """Predictions that follow length, or its opposite, differ from votes."""
    lengths = data.folds.set_index("id").loc[data.oof["id"]]
    is_longer = (lengths["n_chars_a"] > lengths["n_chars_b"]).to_numpy()
    lead = np.where(is_longer, 0.45, -0.45) * direction
    probs = np.column_stack([0.5 + lead, 0.5 - lead, np.full(1_000, 1e-3)])
    finding = findings(change(data, probs / probs.sum(axis=1, keepdims=True)))["length"]
    assert finding.title == f"Prefers length {word} than people do"


def test_worst_slice_is_a_minority(data):
    """The slice with useless predictions is named; the outcome of a pair is no slice here."""
    is_bad = (data.pairs["id"] % 5 == 0).to_numpy()
    pairs = data.pairs.assign(source=np.where(is_bad, "odd <i>", "even"))
    probs = np.where(is_bad[:, None], probs_of(data)[:, ::-1], probs_of(data))
    finding = findings(replace(change(data, probs), pairs=pairs))["slices"]
    assert finding.title == "Weakest slice: source: odd <i>"
    assert "on 200 pairs" in finding.text


def test_equal_slices_are_not_weak(data):
    """Uniform probabilities have the same log loss on every slice."""
    finding = findings(change(data, np.full((1_000, 3), 1 / 3)))["slices"]
    assert (finding.kind, finding.title) == ("good", "No weak slice")
    assert "Not counted: slices by outcome" in finding.text


def test_few_groups_are_not_the_weakest_slice(data):
    """A bad slice of fewer than 30 prompt groups is not counted, and the finding says so."""
    groups = data.oof["group"].unique()[:12]
    is_bad = data.oof["group"].isin(groups).to_numpy()
    pairs = data.pairs.assign(source=np.where(is_bad, "odd", "even"))
    probs = np.where(is_bad[:, None], np.eye(3)[(data.oof["label"].to_numpy(int) + 1) % 3], 1 / 3)
    probs = (probs + 1e-3) / (probs + 1e-3).sum(axis=1, keepdims=True)
    finding = findings(replace(change(data, probs), pairs=pairs))["slices"]
    assert "odd" not in finding.title
    assert "fewer than 30 prompt groups" in finding.text


def test_leaks_come_first(data):
    """Held-out pairs that a teacher was trained on make the scores too good."""
    counts = {**data.scores.counts, LEAKS: 12}
    finding = find_results(replace(data, scores=replace(data.scores, counts=counts)))[0]
    assert (finding.kind, finding.title) == ("bad", "The scores are too good")
    assert "trained on 12 of the held-out pairs" in finding.text


@pytest.mark.parametrize("n_groups", [4, 200])
def test_agreement_of_people_needs_enough_groups(data, n_groups):
    """The first finding compares with people only from 30 prompt groups."""
    votes = pd.DataFrame({"pair": np.repeat(np.arange(n_groups), 2), "vote": [0, 0] * n_groups})
    votes = votes.assign(group=votes["pair"])
    people = agreement_of_votes(votes, n_resamples=99)
    finding = findings(replace(data, scores=replace(data.scores, human_agreement=people)))["scores"]
    assert ("Two people agree" in finding.text) == (n_groups >= 30)
