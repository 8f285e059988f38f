"""Tests of the paired comparison of runs with a reference, overall and by slice."""

import json

import numpy as np
import pandas as pd
import pytest

from tiewise.data.labels import PROB_COLUMNS
from tiewise.errors import ScoresError
from tiewise.evaluation.paired import OVERALL, compare_many
from tiewise.evaluation.scores import compare


@pytest.fixture
def tables():
    """Return a reference with the true probabilities, a worse and an equal run, and the texts."""
    generator = np.random.default_rng(0)
    true = generator.dirichlet([2, 2, 2], 300)
    labels = (generator.random(300)[:, None] > true.cumsum(1)[:, :2]).sum(1)
    reference = pd.DataFrame({"id": np.arange(300), "label": labels, "group": np.arange(300) // 3})
    reference[PROB_COLUMNS] = true
    worse = reference.assign(
        **dict(zip(PROB_COLUMNS, (0.5 * true + 0.5 * true[:, ::-1]).T, strict=True))
    )
    noise = true * generator.lognormal(0, 0.05, true.shape)
    equal = reference.copy()
    equal[PROB_COLUMNS] = noise / noise.sum(1, keepdims=True)
    pairs = pd.DataFrame(
        {"id": np.arange(300), "prompt": [["Hi"] * (1 + k % 2) for k in range(300)]}
    )
    return reference, {"worse": worse, "equal": equal}, pairs


def test_overall_difference_equals_compare(tables):
    """Values and intervals are bit for bit those of `compare`, and p-values fit the intervals."""
    reference, runs, _ = tables
    found = compare_many(runs, reference)
    rows = {row.run: row for row in found.overall}
    for name, run in runs.items():
        probs = [table[PROB_COLUMNS].to_numpy() for table in (run, reference)]
        for metric in ("log_loss", "accuracy"):
            expected = compare(reference["label"], *probs, groups=reference["group"], metric=metric)
            assert getattr(rows[name], metric) == expected
        assert (rows[name].p_value < 0.05) == rows[name].log_loss.excludes_zero
    assert rows["worse"].p_holm < 0.01
    assert rows["worse"].log_loss.low > 0
    assert rows["equal"].p_holm > 0.05
    _, worse, equal = str(found).splitlines()
    assert worse.endswith(", worse")
    assert "worse" not in equal


def test_differences_of_accuracy_are_within_bounds():
    """A run that is wrong where the reference is right, in all or nearly all of few rows."""
    oof = pd.DataFrame({"id": range(6), "label": 0, "group": range(6)})
    right, wrong = np.array([0.8, 0.1, 0.1]), np.array([0.1, 0.8, 0.1])
    reference = oof.copy()
    reference[PROB_COLUMNS] = np.tile(right, (6, 1))
    for n_wrong in (1, 5, 6):
        run = oof.copy()
        run[PROB_COLUMNS] = np.where(np.arange(6)[:, None] < n_wrong, wrong, right)
        found = compare_many({"run": run}, reference).overall[0].accuracy
        assert found.value == pytest.approx(-n_wrong / 6)
        assert -1 <= found.low <= found.value <= found.high <= 1
        mirrored = compare_many({"run": reference}, run).overall[0].accuracy
        assert mirrored.low == pytest.approx(-found.high)
        single = compare(
            oof["label"], run[PROB_COLUMNS], reference[PROB_COLUMNS], metric="accuracy"
        )
        assert -1 <= single.low <= single.value <= single.high <= 1


def test_slice_differences_average_to_overall(tables):
    """The mean of the slices' differences, weighted by rows, is the overall difference."""
    reference, runs, pairs = tables
    found = compare_many(runs, reference, pairs=pairs, n_resamples=19)
    frame = pd.json_normalize([row.to_dict() for row in found.differences], sep="_")
    worse = frame[frame["run"] == "worse"]
    turns = worse[worse["family"] == "turns"]
    assert turns["n"].sum() == 300
    whole = worse.loc[worse["family"] == OVERALL, "log_loss_value"].iloc[0]
    assert np.average(turns["log_loss_value"], weights=turns["n"]) == pytest.approx(whole)


def test_slices_of_all_rows_are_left_out(tables):
    """They would repeat the test of all rows, and raise the adjusted p-values of the others."""
    reference, runs, pairs = tables
    longer = pairs.assign(language="English", response_a=[["a"]] * 300, response_b=[["b"]] * 300)
    found = compare_many(runs, reference, pairs=longer, n_resamples=99)
    assert {row.family for row in found.differences} == {OVERALL, "turns"}
    assert found.omitted["language"] == "all rows are in one part"
    alone = compare_many(runs, reference, pairs=pairs, n_resamples=99)
    assert [row.p_holm for row in found.differences] == [row.p_holm for row in alone.differences]


def test_one_part_with_missing_rows_is_compared(tables):
    """A slice of some rows is no slice of all, and an attribute that one run has is not omitted."""
    reference, runs, pairs = tables
    known = pairs.assign(source=pd.Series(["s"] * 100 + [None] * 200, dtype="string"))
    found = compare_many(runs, reference, pairs=known, n_resamples=19)
    assert [row.n for row in found.differences if row.family == "source"] == [100, 100]
    two = pairs.assign(source=["x"] * 90 + ["y"] * 210)
    some = {"whole": runs["worse"], "part": runs["worse"].head(90)}
    for names in (["whole", "part"], ["part", "whole"]):
        found = compare_many(
            {name: some[name] for name in names}, reference, pairs=two, n_resamples=19
        )
        shown = {(row.run, row.slice) for row in found.differences if row.family == "source"}
        assert shown == {("whole", "x"), ("whole", "y")}
        assert "source" not in found.omitted


@pytest.mark.parametrize("confidence_level", [0.5, 0.95])
def test_verdicts_follow_adjusted_p_values(confidence_level):
    """Among many slices of two models that are equally bad, none is said to be better by chance."""
    rng = np.random.default_rng(1)
    n = 600
    reference = pd.DataFrame({"id": range(n), "label": rng.integers(0, 3, n), "group": range(n)})
    run = reference.copy()
    for table in (reference, run):
        table[PROB_COLUMNS] = rng.dirichlet([2, 2, 2], n)
    pairs = pd.DataFrame({"id": range(n), "source": [f"s{k % 15}" for k in range(n)]})
    found = compare_many(
        {"run": run}, reference, pairs=pairs, confidence_level=confidence_level
    ).differences
    outside = [row for row in found if row.log_loss.excludes_zero]
    assert outside
    for row in found:
        is_said = str(row).endswith(("better", "worse"))
        assert is_said == row.is_clear == (row.p_holm < 1 - confidence_level)
        assert row.n_groups >= 30
    assert sum(row.is_clear for row in found) < len(outside)


def test_rough_slices_have_no_verdict():
    """A slice of 29 groups is not called better, whatever its p-value."""
    n = 89
    reference = pd.DataFrame({"id": range(n), "label": 0, "group": range(n)})
    run = reference.copy()
    reference[PROB_COLUMNS], run[PROB_COLUMNS] = [0.4, 0.3, 0.3], [0.8, 0.1, 0.1]
    run.loc[::2, PROB_COLUMNS] = [[0.7, 0.2, 0.1]] * 45
    pairs = pd.DataFrame({"id": range(n), "source": ["few"] * 29 + ["many"] * 60})
    whole, *slices = compare_many({"run": run}, reference, pairs=pairs).differences
    few, many = sorted(slices, key=lambda row: row.n)
    assert whole.is_clear
    assert many.is_clear
    assert few.p_holm < 0.05
    assert not few.is_clear


def test_only_shared_rows_are_compared(tables):
    """A run of one fold is compared on that fold, in any row order."""
    reference, runs, _ = tables
    part = runs["worse"].head(90).sample(frac=1, random_state=0)
    found = compare_many({"part": part}, reference)
    row = found.overall[0]
    assert (row.n, row.n_groups) == (90, 30)
    assert found.left_out == {"part": {"only_run": 0, "only_reference": 210, "unlabelled": 0}}
    assert "left out: 0 rows only in part, 210 only in the reference" in str(found)
    ordered = compare_many({"part": runs["worse"].head(90)}, reference).overall[0]
    assert row.to_dict() == ordered.to_dict()


def test_unlabelled_rows_are_left_out(tables):
    """Rows without a label are counted and not compared."""
    reference, runs, _ = tables
    reference["label"] = reference["label"].astype("Int8")
    reference.loc[:99, "label"] = pd.NA
    runs = {name: run.drop(columns="label") for name, run in runs.items()}
    found = compare_many(runs, reference)
    assert found.overall[0].n == 200
    assert found.left_out["worse"]["unlabelled"] == 100
    with pytest.raises(ScoresError, match="worse shares no labelled row"):
        compare_many(runs, reference.head(50))


def test_slices_do_not_change_overall_p(tables):
    """p-values are adjusted for the runs and for their slices separately."""
    reference, runs, pairs = tables
    alone = [row.p_holm for row in compare_many(runs, reference).overall]
    with_slices = [row.p_holm for row in compare_many(runs, reference, pairs=pairs).overall]
    assert alone == with_slices


def test_differences_print_and_convert_to_json(tables):
    """One line per run and slice; null where nothing is defined; omitted attributes are named."""
    reference, runs, pairs = tables
    found = compare_many(runs, reference, pairs=pairs, n_resamples=19)
    value = found.to_dict()
    assert json.loads(json.dumps(value, allow_nan=False)) == value
    assert "code: omitted" in str(found)
    assert str(found).splitlines()[1].startswith("worse ")
    escaped = compare_many({"<i>": runs["worse"]}, reference, n_resamples=19)._repr_html_()
    assert "<i>" not in escaped


def test_runs_on_other_data_are_refused(tables):
    """The message names the run, or the id that repeats."""
    reference, runs, _ = tables
    other = runs["worse"].assign(id=lambda table: table["id"] + 1000)
    with pytest.raises(ScoresError, match="other shares no labelled row"):
        compare_many({"other": other}, reference)
    with pytest.raises(ScoresError, match="id 0 more than once"):
        compare_many({"twice": pd.concat([other, runs["worse"], runs["worse"]])}, reference)
    with pytest.raises(ScoresError, match="different labels"):
        compare_many({"other": runs["worse"].assign(label=0)}, reference)
