"""Slices, models and other runs are compared with their rest, by votes, and with this run."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.stats import kendalltau

from run_folders import simulated_run, simulated_tables, write_run
from tiewise.data.labels import PROB_COLUMNS
from tiewise.evaluation.intervals import Interval
from tiewise.evaluation.scores import compare
from tiewise.evaluation.slices import Slices, SliceScores
from tiewise.report import comparisons
from tiewise.report.comparisons import MAX_SLICES, build_leaderboard, build_runs, build_slices
from tiewise.report.content import Omission
from tiewise.report.findings import find_results
from tiewise.report.page import gather


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Gather the data of a report on 400 simulated pairs."""
    return gather(*simulated_run(tmp_path_factory.mktemp("artifacts"), 400))


@pytest.fixture(scope="module")
def with_others(tmp_path_factory):
    """Gather the data of a report next to a better, a useless and an incomparable run."""
    artifacts_dir = tmp_path_factory.mktemp("artifacts")
    pairs, folds, oof = simulated_tables(400)
    run = write_run(artifacts_dir, folds, oof)
    informed = oof[PROB_COLUMNS] * 0.8 + np.eye(3)[oof["label"].to_numpy(int)] * 0.2
    best = oof.assign(**{name: informed[name] for name in PROB_COLUMNS})
    write_run(artifacts_dir, folds, best, name="better")
    write_run(artifacts_dir, folds, oof.assign(**dict.fromkeys(PROB_COLUMNS, 1 / 3)), name="flat")
    write_run(artifacts_dir, folds, best, name="other data", digest="e" * 64)
    return gather(run, pairs)


def slice_names(section):
    return section.table["slice"].tolist()


def test_slices_have_corrected_p_values(data):
    """Each slice has its size, interval, difference and corrected p-value."""
    section = build_slices(data)
    assert "p (Holm)" in section.table.columns
    assert "outcome: tie" in slice_names(section)
    assert "slices differ significantly from the rest" in section.text


def test_most_different_slice_is_named(data):
    """One slice per attribute is named."""
    text = build_slices(data).text
    assert "most of all in log loss outcome: A or B won −0." in text
    assert "outcome: tie" not in text


def test_smaller_of_two_slices_is_named():
    """The larger one differs from it by the same amount."""
    gap, opposite = Interval(0.5, 0.4, 0.6), Interval(-0.5, -0.6, -0.4)
    many, few = (
        SliceScores("blank", name, n, n, gap, gap, difference, 0.001, 0.002)
        for name, n, difference in (("both complete", 900, gap), ("one empty", 60, opposite))
    )
    text = comparisons._name_different(Slices((many, few), {}, 0.95))
    assert "in log loss blank: one empty −0.500 [−0.600, −0.400]." in text


def test_missing_columns_are_named(data):
    """Without texts the run folder's own columns are used, and the others are listed."""
    section = build_slices(replace(data, pairs=None))
    assert "truncated: whole" in slice_names(section)
    assert any(note.startswith("Not sliced by code: no column") for note in section.notes)


def test_run_without_any_slices(data):
    """Without texts and columns to slice by the section is omitted."""
    oof = data.oof.drop(columns=["n_tokens", "n_truncated", "is_degenerate"])
    folds = data.folds[["id", "fold", "label", "group"]]
    omission = build_slices(replace(data, pairs=None, folds=folds, oof=oof))
    assert isinstance(omission, Omission)
    assert "--data" in omission.reason


def test_largest_of_many_slices_are_shown(data):
    """At most 16 slices per attribute are shown, and a note states their number."""
    sources = [f"source {k % 40}" for k in range(len(data.pairs))]
    pairs = data.pairs.assign(source=pd.Series(sources, dtype="string"))
    section = build_slices(replace(data, pairs=pairs))
    assert sum(name.startswith("source: ") for name in slice_names(section)) == MAX_SLICES
    assert f"Showing the {MAX_SLICES} largest of 40 slices by source." in section.notes


def test_single_slice_is_not_shown(data):
    """All rows have the same source: there is no rest to compare with."""
    section = build_slices(data)
    assert 'Not sliced by source: all pairs are "simulated".' in section.notes
    assert not [name for name in slice_names(section) if name.startswith("source")]


def test_other_runs_are_compared(with_others):
    """Each difference is that of `tiewise.compare`; a run on other data is left out."""
    section = build_runs(with_others)
    assert sorted(section.table["run"]) == ["better", "flat"]
    oof = with_others.oof
    for name, shown in zip(section.table["run"], section.table["log loss"], strict=True):
        probs = with_others.others[name].set_index("id").loc[oof["id"], PROB_COLUMNS]
        expected = compare(oof["label"], probs, oof[PROB_COLUMNS], groups=oof["group"])
        assert float(shown.split()[0].replace("−", "-")) == pytest.approx(expected.value, abs=6e-4)
    assert section.text.startswith(
        "2 other runs have the same data and folds. Clearly better than this run: 1; clearly "
        "worse: 1. The best, by log loss: better −0."
    )
    [finding] = [each for each in find_results(with_others) if each.section == "runs"]
    assert (finding.title, finding.text) == ("Another run is better", section.text)


def test_single_run_has_no_comparison(data):
    """A report does not look outside its folder of runs."""
    assert isinstance(build_runs(data), Omission)


def test_damaged_run_is_not_compared(tmp_path, caplog):
    """A run whose predictions cannot be read is named in a warning."""
    pairs, folds, oof = simulated_tables(60)
    run = write_run(tmp_path, folds, oof)
    damaged = write_run(tmp_path, folds, oof, name="damaged")
    damaged.oof_path.write_bytes(b"")
    assert gather(run, pairs).others == {}
    assert "damaged" in caplog.text


def test_leaderboard_orders_match_its_strengths(data):
    """Kendall's tau in the text is that of the two columns of strengths."""
    section = build_leaderboard(data)
    columns = [section.table[name].str.split().str[0] for name in ("votes", "predictions")]
    votes, predictions = (column.str.replace("−", "-").astype(float) for column in columns)
    assert votes.is_monotonic_decreasing
    tau = kendalltau(votes, predictions).statistic
    assert float(section.text.split("unrelated): ")[1].split()[0]) == pytest.approx(tau, abs=1e-3)


def test_unconnected_models_are_named(data):
    """Models that no chain of pairs connects with the others are not ranked."""
    pairs = data.pairs.copy()
    pairs.loc[:2, ["model_a", "model_b"]] = ["one <b>", "two"]
    section = build_leaderboard(replace(data, pairs=pairs))
    assert section.notes[0].endswith("connects them to these models: one <b>, two.")


@pytest.mark.parametrize("is_named", [True, False])
def test_data_without_models_have_no_leaderboard(data, is_named):
    """Without texts the flag that helps is named, without models the columns."""
    bare = data.pairs.assign(model_a=pd.NA, model_b=pd.NA)
    omission = build_leaderboard(replace(data, pairs=bare if is_named else None))
    assert isinstance(omission, Omission)
    assert ("model_a and model_b" if is_named else "--data") in omission.reason


def test_strengths_are_limited(data):
    """Only the strongest of many models are shown, and a note says so."""
    names = np.array([f"model {k}" for k in range(40)])
    places = np.arange(len(data.pairs))
    pairs = data.pairs.assign(model_a=names[places % 40], model_b=names[(places + 1) % 40])
    section = build_leaderboard(replace(data, pairs=pairs))
    assert len(section.table) == comparisons.MAX_MODELS
    assert "Showing the 30 strongest models by votes." in section.notes
