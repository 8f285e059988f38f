"""The section on slices says which parts differ, and names what it leaves out."""

from dataclasses import replace

import pandas as pd
import pytest

from run_folders import simulated_run
from tiewise.evaluation.intervals import Interval
from tiewise.evaluation.slices import Slices, SliceScores
from tiewise.report.report import gather
from tiewise.report.sections import Omission, negated
from tiewise.report.slice_chapter import MAX_SLICES, _summarise, build_slices


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    return gather(*simulated_run(tmp_path_factory.mktemp("artifacts"), 400))


def names_in(section):
    return [row[0] for row in section.tables[0].rows]


def test_every_slice_has_its_size_interval_and_corrected_p(material):
    """Nobody reads a difference without what chance would do."""
    section = build_slices(material)
    assert "p (Holm)" in section.tables[0].columns
    assert "outcome: tie" in names_in(section)
    assert "slices differ from the rest by more than chance" in section.text


def test_the_slice_that_differs_most_is_named(material):
    """Ties are what this model knows least about; one slice of the family says so."""
    text = build_slices(material).text
    assert "the most: outcome: A or B won better by" in text
    assert "outcome: tie" not in text


def test_of_two_slices_the_smaller_is_named():
    """What differs from nearly everything is the few rows, not the many."""
    gap = Interval(0.5, 0.4, 0.6)
    many, few = (
        SliceScores("blank", name, n, n, gap, gap, of, 0.001, 0.002)
        for name, n, of in (("both complete", 900, gap), ("one empty", 60, negated(gap)))
    )
    assert "blank: one empty better by" in _summarise(Slices((many, few), {}, 0.95))


def test_without_texts_families_are_named_as_left_out(material):
    """What the run folder itself knows is still cut."""
    section = build_slices(replace(material, pairs=None))
    assert "truncated: whole" in names_in(section)
    assert any(note.startswith("Not cut by code: no column") for note in section.notes)


def test_of_very_many_slices_the_largest_are_shown(material):
    """A thousand sources are no figure; how many there are is said."""
    sources = [f"source {k % 40}" for k in range(len(material.pairs))]
    pairs = material.pairs.assign(source=pd.Series(sources, dtype="string"))
    section = build_slices(replace(material, pairs=pairs))
    assert sum(name.startswith("source: ") for name in names_in(section)) == MAX_SLICES
    assert f"Of 40 slices by source the {MAX_SLICES} largest stand." in section.notes


def test_a_family_of_one_slice_is_no_slice(material):
    """All rows have the same source: nothing is cut."""
    section = build_slices(material)
    assert "Not cut by source: all pairs are «simulated»." in section.notes
    assert not [name for name in names_in(section) if name.startswith("source")]


def test_a_run_that_can_be_cut_by_nothing(material):
    """Without texts and without a column of its own the section names what it needs."""
    columns = ["id", "fold", "label", "group"]
    oof = material.oof.drop(columns=["n_tokens", "n_truncated", "is_degenerate"])
    bare = replace(material, pairs=None, folds=material.folds[columns], oof=oof)
    left_out = build_slices(bare)
    assert isinstance(left_out, Omission)
    assert "--data" in left_out.reason
