"""Each section states in a sentence what its figure shows."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from run_folders import LEAD_OF_FIRST, simulated_run
from tiewise.config import BASELINE, load_preset
from tiewise.data.labels import PROB_COLUMNS
from tiewise.evaluation.agreement import agreement_of_votes
from tiewise.evaluation.references import evaluate_tables
from tiewise.report import sections
from tiewise.report.content import Omission, Section
from tiewise.report.page import gather


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Gather the data of a report on 400 simulated pairs."""
    return gather(*simulated_run(tmp_path_factory.mktemp("artifacts"), 400))


def change_predictions(data, change):
    """Replace the probabilities by `change` of them."""
    oof = data.oof.copy()
    oof[PROB_COLUMNS] = change(oof[PROB_COLUMNS].to_numpy())
    return replace(data, oof=oof, scores=evaluate_tables(oof, data.folds, n_resamples=99))


def test_references_are_ranked(data):
    """The run comes first, then the best reference, and the Bayes optimum last."""
    section = sections.build_scores(data)
    columns = list(section.table.columns)
    assert columns[:2] == ["score", "this run"]
    assert columns[-1] == "Bayes"
    assert set(columns[2:-1]) == {"uniform", "class prior", "length only"}
    assert "Better than length only: log loss −0." in section.text
    assert "From the Bayes optimum: log loss +0." in section.text


def test_agreement_of_people_is_stated(data):
    """Human agreement and the feature model are shown where they are known."""
    assert "two people" not in sections.build_scores(data).text
    votes = pd.DataFrame({"pair": ["p", "p"] * 4, "vote": [0, 0, 0, 1] * 2, "group": range(8)})
    people = agreement_of_votes(votes, n_resamples=99)
    uniform = np.full((len(data.oof), 3), 1 / 3)
    others = {BASELINE: uniform}
    known = evaluate_tables(data.oof, data.folds, others=others, n_resamples=99)
    section = sections.build_scores(replace(data, scores=replace(known, human_agreement=people)))
    assert "(8 votes, only 8 prompt groups): 57.1%" in section.text
    assert section.text.startswith("Better than baseline: log loss −")
    assert "baseline" in section.table.columns


def test_useless_run_is_not_praised(data):
    """Uniform probabilities are not reported as an improvement."""
    uniform = change_predictions(data, lambda probs: np.full(probs.shape, 1 / 3))
    text = sections.build_scores(uniform).text
    assert "Worse than length only" in text
    assert "Better" not in text


def test_helpful_calibration_is_named(data):
    """For overconfident predictions the section states the gain of a calibration."""

    def sharpen(probs):
        odds = probs**4
        return odds / odds.sum(axis=1, keepdims=True)

    overconfident = change_predictions(data, sharpen)
    assert "changes the log loss by −" in sections.build_calibration(overconfident).text


def test_position_bias_has_its_sign(data):
    """The simulated preference for the first response is found; averaging removes it."""
    section = sections.build_position(data)
    first, averaged = (float(section.table.iloc[0, k].split()[0]) for k in (1, 2))
    assert 0 < first < LEAD_OF_FIRST
    assert averaged == 0
    assert "of 0.0% [0.0%, 0.0%]." in section.text


def test_confusion_counts_every_pair(data):
    """The nine cells add up to the number of rows."""
    table = sections.build_confusion(data).table
    assert table.drop(columns="label").astype(int).to_numpy().sum() == 400


def test_training_lists_each_fold(data):
    """Each fold has a row with its held-out log loss and interval."""
    section = sections.build_training(data)
    assert section.table["fold"].tolist() == [f"fold {k}" for k in range(5)]
    assert section.table["held-out log loss"].str.contains("[", regex=False).all()
    assert section.text.startswith("5 of 5 folds are finished.")


def test_missing_lengths_omit_the_section(data):
    """Older runs may have no lengths in their table of folds."""
    bare = data.folds.drop(columns=["n_chars_a", "n_chars_b"])
    assert isinstance(sections.build_length(replace(data, folds=bare)), Omission)


def test_missing_position_bias_has_a_reason(data):
    """The feature model has none, which is a result; another run scored one order."""
    unknown = replace(data, scores=replace(data.scores, position_bias=None))
    assert sections.build_position(unknown).reason == "only one order of the responses was scored"
    symmetric = replace(unknown, run=replace(data.run, config=load_preset("baseline")))
    section = sections.build_position(symmetric)
    assert isinstance(section, Section)
    assert section.text.startswith("None: the feature model is symmetric by construction.")
