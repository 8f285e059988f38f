"""The Python functions that need no fit."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import tiewise as tw
from run_folders import fit_small, simulated_run
from tiewise.data.simulation.simulate import simulate
from tiewise.features import binary_models
from tiewise.runs.calibration import read_calibration
from tiewise.runs.tables import save_scored

PAIRS = simulate(60, seed=0)


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory):
    """Return a folder with two small runs of the feature model."""
    folder = tmp_path_factory.mktemp("artifacts")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(binary_models, "_MAX_TREES", 5)
        for seed, name in enumerate(("one", "two")):
            fit_small(folder, name, seed=seed)
    return folder


def spellings(artifacts, name):
    """Return a run as a name, as paths, and opened."""
    path = artifacts / "runs" / name
    return [name, path, str(path), tw.open_run(path)]


def test_predictions_take_every_spelling(artifacts, monkeypatch):
    """A judge and its one-line forms take a run, its name or its path, here or in `artifacts`."""
    pairs = PAIRS.head(3)
    expected = tw.Judge.from_pretrained(artifacts / "runs" / "one").predict(pairs)
    for run in spellings(artifacts, "one"):
        pd.testing.assert_frame_equal(tw.predict(pairs, run=run, artifacts=artifacts), expected)
        judge = tw.Judge.from_pretrained(run, artifacts=artifacts)
        pd.testing.assert_frame_equal(judge.predict(pairs), expected)
    monkeypatch.setenv("TIEWISE_ARTIFACTS", str(artifacts))
    pd.testing.assert_frame_equal(tw.predict(pairs, run="one"), expected)
    texts = "Say hi", "Hi there!", "No."
    probs = tw.score(*texts, run="one")
    np.testing.assert_array_equal(probs, tw.Judge.from_pretrained("one").score(*texts))
    assert tw.rank(texts[0], texts[1:], run=tw.open_run("one")).order[0] == np.argmax(probs[:2])


def test_runs_are_compared_by_every_spelling(artifacts, monkeypatch):
    """The differences are those of `tw.compare` on the rows of both."""
    monkeypatch.setenv("TIEWISE_ARTIFACTS", str(artifacts))
    one, two = tw.read_oof("one"), tw.read_oof("two")
    expected = tw.compare(one["label"], one, two, groups=one["group"])
    for run in spellings(artifacts, "two"):
        [difference] = tw.compare_runs(["one", run]).overall
        assert float(difference.log_loss) == pytest.approx(float(expected))
    with pytest.raises(tw.ConfigError, match="expected two or more"):
        tw.compare_runs(["one"])


def test_calibration_is_kept_if_it_helps(tmp_path):
    """Overconfident predictions get a calibration, which stays with the run."""
    run, _ = simulated_run(tmp_path, 400)
    table = pd.read_parquet(run.oof_path)
    sharp = table[["logit_a", "logit_b", "logit_tie"]].to_numpy() * 4
    probs = np.exp(sharp - sharp.max(1, keepdims=True))
    table[["prob_a", "prob_b", "prob_tie"]] = probs / probs.sum(1, keepdims=True)
    save_scored(run, table, {})
    result = tw.calibrate(run.name, artifacts=tmp_path)
    assert result.is_worth_it
    assert result.differences[result.adopted.method].high < 0
    assert read_calibration(run) == result.adopted


def test_slices_of_run_are_a_table(artifacts):
    """Each slice has its rows; the largest of an attribute has no more than all of them."""
    run = tw.open_run("one", artifacts)
    table = run.slices().to_frame()
    assert {"turns", "length gap"} <= set(table["family"])
    assert table["n"].max() <= len(run.oof)


def test_audit_takes_file_or_table(tmp_path):
    """A file, several paths, and the table read from the file have the same findings and counts."""
    tw.write_pairs(PAIRS, tmp_path / "votes.csv")
    by_file = tw.audit(tmp_path / "votes.csv")
    assert by_file.findings
    assert by_file.to_dict() == tw.audit([str(tmp_path / "votes.csv")]).to_dict()
    by_table = tw.audit(tw.read_pairs(tmp_path / "votes.csv"))
    for section in ("findings", "rows", "classes", "leakage"):
        assert by_table.to_dict()[section] == by_file.to_dict()[section]


def test_audit_refuses_other_objects():
    """An object that is no table, and a table in a list, are refused with a way."""
    with pytest.raises(tw.PairsError):
        tw.audit(7)
    with pytest.raises(tw.ConfigError, match=r"holds a DataFrame; .* pandas\.concat"):
        tw.audit([PAIRS])


def test_run_is_shown_in_one_line(artifacts):
    """Name, finished folds and path, not the configuration."""
    run = tw.open_run("one", artifacts)
    assert repr(run) == f"<Run one: 2 of 2 folds finished, in {artifacts / 'runs' / 'one'}>"


def test_audits_of_tables_and_files_agree(tmp_path):
    """A table is audited as its file: given groups never hide that a prompt is in two folds."""
    texts = {"response_a": ["a"] * 20, "response_b": ["b"] * 20, "winner": ["A", "B"] * 10}
    prompts = ["One prompt"] * 10 + [f"Prompt {n}" for n in range(10)]
    table = pd.DataFrame({"prompt": prompts, **texts, "group": range(20)})
    table.to_csv(tmp_path / "votes.csv", index=False)
    found = [tw.audit(each) for each in (tmp_path / "votes.csv", table, tw.read_pairs(table))]
    assert [each.leakage for each in found] == [found[0].leakage] * 3
    assert found[0].leakage["random"] > 0


def test_lost_groups_are_named(tmp_path):
    """A file of preferences has no groups: they are named as dropped where they were given."""
    for name, groups in (("plain", {}), ("own", {"group": "one"})):
        pairs = PAIRS[["id", "prompt", "response_a", "response_b", "winner"]].assign(**groups)
        done = tw.api.convert(
            write(pairs, tmp_path / f"{name}.parquet"), tmp_path / f"{name}.jsonl"
        )
        assert ("group" in done.columns_dropped) == bool(groups)
        done = tw.api.convert(tmp_path / f"{name}.parquet", tmp_path / f"{name}.csv")
        assert "group" not in done.columns_dropped


def write(table, path):
    """Write a table as parquet and return its path."""
    table.to_parquet(path)
    return path


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_predictions_need_no_weights(artifacts, tmp_path, suffix):
    """A missing weight matters to a fit, and not to a prediction."""
    pairs = PAIRS.iloc[1:4].reset_index(drop=True)  # of one turn
    table = pairs[["id", "prompt", "response_a", "response_b"]]
    table = table.map(lambda cell: cell[0] if isinstance(cell, list) else cell)
    table = table.assign(weight=[1.0, np.nan, 2.0])
    path = tmp_path / f"new.{suffix}"
    if suffix == "csv":
        table.to_csv(path, index=False)
    else:
        table.to_json(path, orient="records", lines=True)
    judge = tw.Judge.from_pretrained(artifacts / "runs" / "one")
    expected = judge.predict(pairs)["prob_a"].tolist()
    for labelled in (False, None):
        read = tw.read_pairs(path, labelled=labelled)
        assert judge.predict(read)["prob_a"].tolist() == pytest.approx(expected)
    assert judge.predict(table)["prob_a"].tolist() == pytest.approx(expected)
    with pytest.raises(tw.PairsError, match="weight"):
        tw.read_pairs(table.assign(winner="A"))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: tw.evaluate([0, 1], np.eye(3)[:2], seed=-1), tw.ScoresError, "seed is -1"),
        (lambda: tw.evaluate([0], np.eye(3)[:1], n_resamples=9.0), tw.ScoresError, "n_resamples"),
        (lambda: tw.evaluate([0], np.eye(3)[:1], n_resamples=0), tw.ScoresError, "at least 1"),
        (lambda: tw.fold_by_group(["a", "b"], ["A", "B"], 2), tw.FoldError, "invalid literal"),
        (lambda: tw.fold_by_group(["a", "b"], [0.5, 1], 2), tw.FoldError, "labels are not 0"),
        (lambda: tw.fold_by_group(["a", "b"], [0, 1], 2.0), tw.FoldError, "n_splits is 2.0"),
        (lambda: tw.rank("Q", iter(["one"])), tw.PairsError, "at least two"),
        (lambda: tw.rank("Q", ["a", "b"], seed=-1), tw.ScoresError, "expected an integer"),
    ],
)
def test_wrong_arguments_are_named(call, error, message):
    """A wrong argument is an error of ours that names it, not one of a library below."""
    with pytest.raises(error, match=message):
        call()


def test_generators_are_ranked():
    """Responses may come from any iterable."""
    texts = ["Red, green, blue.", "No."]
    assert tw.rank("Three colours?", iter(texts)).order.tolist() == [0, 1]
