"""Each section states in a sentence what its figure shows."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from run_folders import LEAD_OF_FIRST, simulated_run
from tiewise.config import BASELINE
from tiewise.data.labels import PROB_COLUMNS
from tiewise.evaluation.agreement import agreement_of_votes
from tiewise.evaluation.intervals import Interval
from tiewise.evaluation.references import evaluate_tables
from tiewise.evaluation.slices import Slices, SliceScores
from tiewise.report import sections
from tiewise.report.page import gather
from tiewise.report.sections import MAX_SLICES, Omission
from tiewise.report.text import negate


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Gather the data of a report on 400 simulated pairs."""
    return gather(*simulated_run(tmp_path_factory.mktemp("artifacts"), 400))


def change_predictions(data, change):
    """Replace the probabilities by `change` of them."""
    oof = data.oof.copy()
    oof[PROB_COLUMNS] = change(oof[PROB_COLUMNS].to_numpy())
    return replace(data, oof=oof, scores=evaluate_tables(oof, data.folds, n_resamples=99))


def slice_names(section):
    return section.table["slice"].tolist()


def test_references_are_ranked(data):
    """The run comes first, then the best reference, and the Bayes optimum last."""
    section = sections.build_scores(data)
    columns = list(section.table.columns)
    assert columns[:2] == ["score", "this run"]
    assert columns[-1] == "Bayes"
    assert set(columns[2:-1]) == {"uniform", "class prior", "length only"}
    assert "Better than length only by 0." in section.text
    assert "above the Bayes optimum" in section.text


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
    assert section.text.startswith("Better than baseline by ")
    assert "baseline" in section.table.columns


def test_useless_run_is_not_praised(data):
    """Uniform probabilities are not reported as an improvement."""
    uniform = change_predictions(data, lambda probs: np.full(probs.shape, 1 / 3))
    assert "Not significantly better than class prior" in sections.build_scores(uniform).text
    assert "No gain is shown over a reference" in sections.build_length(uniform).text


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


@pytest.mark.parametrize(
    ("backbone", "reason"), [(BASELINE, "by construction"), ("x", "one order")]
)
def test_missing_position_bias_has_a_reason(data, backbone, reason):
    """The feature model has none; another run scored one order."""
    config = data.run.config
    run = replace(data.run, config=replace(config, model=replace(config.model, backbone=backbone)))
    scores = replace(data.scores, position_bias=None)
    omission = sections.build_position(replace(data, run=run, scores=scores))
    assert isinstance(omission, Omission)
    assert reason in omission.reason


def test_slices_have_corrected_p_values(data):
    """Each slice has its size, interval, difference and corrected p-value."""
    section = sections.build_slices(data)
    assert "p (Holm)" in section.table.columns
    assert "outcome: tie" in slice_names(section)
    assert "slices differ significantly from the rest" in section.text


def test_most_different_slice_is_named(data):
    """One slice per attribute is named."""
    text = sections.build_slices(data).text
    assert "most of all outcome: A or B won better by" in text
    assert "outcome: tie" not in text


def test_smaller_of_two_slices_is_named():
    """The larger one differs from it by the same amount."""
    gap = Interval(0.5, 0.4, 0.6)
    many, few = (
        SliceScores("blank", name, n, n, gap, gap, difference, 0.001, 0.002)
        for name, n, difference in (("both complete", 900, gap), ("one empty", 60, negate(gap)))
    )
    assert "blank: one empty better by" in sections._name_different(Slices((many, few), {}, 0.95))


def test_missing_columns_are_named(data):
    """Without texts the run folder's own columns are used, and the others are listed."""
    section = sections.build_slices(replace(data, pairs=None))
    assert "truncated: whole" in slice_names(section)
    assert any(note.startswith("Not sliced by code: no column") for note in section.notes)


def test_run_without_any_slices(data):
    """Without texts and columns to slice by the section is omitted."""
    oof = data.oof.drop(columns=["n_tokens", "n_truncated", "is_degenerate"])
    folds = data.folds[["id", "fold", "label", "group"]]
    omission = sections.build_slices(replace(data, pairs=None, folds=folds, oof=oof))
    assert isinstance(omission, Omission)
    assert "--data" in omission.reason


def test_largest_of_many_slices_are_shown(data):
    """At most 16 slices per attribute are shown, and a note states their number."""
    sources = [f"source {k % 40}" for k in range(len(data.pairs))]
    pairs = data.pairs.assign(source=pd.Series(sources, dtype="string"))
    section = sections.build_slices(replace(data, pairs=pairs))
    assert sum(name.startswith("source: ") for name in slice_names(section)) == MAX_SLICES
    assert f"Showing the {MAX_SLICES} largest of 40 slices by source." in section.notes


def test_single_slice_is_not_shown(data):
    """All rows have the same source: there is no rest to compare with."""
    section = sections.build_slices(data)
    assert 'Not sliced by source: all pairs are "simulated".' in section.notes
    assert not [name for name in slice_names(section) if name.startswith("source")]
