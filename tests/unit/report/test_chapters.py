"""Each section says in a sentence what its figure shows."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from run_folders import LEAD_OF_FIRST, simulated_run
from tiewise.config.run_config import BASELINE
from tiewise.data.labels import PROB_COLUMNS
from tiewise.evaluation.agreement import agreement_of_votes
from tiewise.evaluation.references import evaluate_tables
from tiewise.report.bias_chapters import build_length, build_position
from tiewise.report.chapters import (
    build_calibration,
    build_confusion,
    build_headline,
    build_learning,
)
from tiewise.report.report import gather
from tiewise.report.sections import Omission


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    return gather(*simulated_run(tmp_path_factory.mktemp("artifacts")))


def change_predictions(material, change):
    """Replace the predictions by what `change` makes of them."""
    oof = material.oof.copy()
    oof[PROB_COLUMNS] = change(oof[PROB_COLUMNS].to_numpy())
    scores = evaluate_tables(oof, material.folds, n_resamples=99)
    return replace(material, oof=oof, scores=scores)


def test_the_headline_ranks_what_must_be_beaten(material):
    """The run first, the nearest reference next, the unbeatable last."""
    section = build_headline(material)
    columns = section.tables[0].columns
    assert columns[:2] == ["score", "this run"]
    assert columns[-1] == "Bayes"
    assert set(columns[2:-1]) == {"uniform", "class prior", "length only"}
    assert "It beats length only by" in section.text
    assert "above the best there is" in section.text


def test_people_and_the_cpu_model_stand_in_the_headline(material):
    """How far people agree is said where it is known, and from how little."""
    assert "another person" not in build_headline(material).text
    votes = pd.DataFrame({"pair": ["p", "p"] * 4, "vote": [0, 0, 0, 1] * 2, "group": range(8)})
    people = agreement_of_votes(votes, n_resamples=99)
    known = evaluate_tables(
        material.oof,
        material.folds,
        others={BASELINE: np.full((len(material.oof), 3), 1 / 3)},
        n_resamples=99,
    )
    scores = replace(known, human_agreement=people)
    section = build_headline(replace(material, scores=scores))
    assert "8 votes, of only 8 conversations" in section.text
    assert "another person says the same in 57.1%" in section.text
    assert section.text.startswith("It beats baseline by")
    assert "baseline" in section.tables[0].columns


def test_a_run_that_beats_nothing_is_told_so(material):
    """Uniform guesses do not pass for a result."""
    guesses = change_predictions(material, lambda probs: np.full(probs.shape, 1 / 3))
    assert "It is not shown to beat class prior" in build_headline(guesses).text
    assert "not shown to read more than length" in build_length(guesses).text


def test_a_calibration_is_called_for_where_it_would_help(material):
    """Overconfidence is found, and what mending it would gain is said."""

    def sharpen(probs):
        odds = probs**4
        return odds / odds.sum(axis=1, keepdims=True)

    assert "would gain" in build_calibration(change_predictions(material, sharpen)).text


def test_the_position_section_finds_what_was_put_in(material):
    """The taste for the first is measured with its sign, averaged orders have none."""
    section = build_position(material)
    first = float(section.tables[0].rows[0][1].split()[0])
    assert 0 < first < LEAD_OF_FIRST
    assert "Averaged over both orders, predictions do not depend on it." in section.text


def test_the_confusion_section_counts_every_pair(material):
    """Nine cells, all rows."""
    section = build_confusion(material)
    cells = [int(cell.replace(",", "")) for row in section.tables[0].rows for cell in row[1:]]
    assert sum(cells) == 300


def test_the_learning_section_knows_each_fold(material):
    """A line a fold, with its held-out loss and interval."""
    section = build_learning(material)
    assert [row[0] for row in section.tables[0].rows] == [f"fold {k}" for k in range(5)]
    assert all("[" in row[-1] for row in section.tables[0].rows)
    assert section.text.startswith("5 of 5 folds are finished.")


def test_without_lengths_nothing_is_said_of_them(material):
    """A run of another hand may have none."""
    bare = material.folds.drop(columns=["n_chars_a", "n_chars_b"])
    assert isinstance(build_length(replace(material, folds=bare)), Omission)


@pytest.mark.parametrize(
    ("backbone", "reason"), [(BASELINE, "by construction"), ("x", "one order")]
)
def test_a_missing_position_bias_has_its_reason(material, backbone, reason):
    """A baseline has none; another run did not look."""
    config = material.run.config
    model = replace(config.model, backbone=backbone)
    run = replace(material.run, config=replace(config, model=model))
    one_order = material.oof.drop(columns=[n for n in material.oof if n.endswith("_swapped")])
    omission = build_position(replace(material, run=run, oof=one_order))
    assert isinstance(omission, Omission)
    assert reason in omission.reason
