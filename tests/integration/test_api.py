"""Tests of the Python functions behind the commands."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

import tiewise as tw
from tiewise import api
from tiewise.cli import main
from tiewise.data.simulation.simulate import simulate
from tiewise.errors import ConfigError, RunError
from tiewise.features import binary_models

PAIRS = simulate(60, seed=0)


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """Write pairs, and fit the feature model on them."""
    folder = tmp_path_factory.mktemp("api")
    tw.write_pairs(PAIRS.iloc[:40], folder / "first.csv")
    tw.write_pairs(PAIRS.iloc[40:], folder / "second.csv")
    files = [folder / "first.csv", folder / "second.csv"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(binary_models, "_MAX_TREES", 5)
        tw.fit(files, preset="baseline", run="known", artifacts=folder, n_splits=3)
    return folder


def test_fit_equals_command(here, monkeypatch):
    """`tw.fit` gives the predictions of `tiewise fit` with the same flags, bit for bit."""
    monkeypatch.setattr(binary_models, "_MAX_TREES", 5)
    files = [str(here / "first.csv"), str(here / "second.csv")]
    place = ["--artifacts", str(here), "--run", "command", "--n-splits", "3"]
    assert main(["fit", "--preset", "baseline", "--data", *files, *place]) == 0
    by_command, run = tw.open_run("command", here), tw.open_run("known", here)
    pd.testing.assert_frame_equal(by_command.oof, run.oof)
    assert by_command.scores.to_dict() == run.scores.to_dict()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"folds": "some"}, "--folds is 'some'; expected all"),
        ({"fold": True}, "--fold is True; expected a whole number"),
        ({"fold": 1.5}, "--fold is 1.5; expected a whole number"),
        ({"fold": 0, "folds": "all"}, "contradict"),
        ({"n_epoch": 1}, "n_epoch is not a field"),
    ],
)
def test_invalid_arguments_are_refused(tmp_path, fields, message):
    """Nothing is written."""
    with pytest.raises(ConfigError, match=message):
        tw.fit(preset="baseline", artifacts=tmp_path / "new", **fields)
    assert not (tmp_path / "new").exists()


def test_table_instead_of_file_is_refused(tmp_path):
    """The message says how to write the table to a file."""
    with pytest.raises(ConfigError, match=r"data is a DataFrame; .*write_pairs"):
        tw.fit(PAIRS, preset="baseline", artifacts=tmp_path)


def test_one_order_fits_from_command(here, monkeypatch):
    """`tiewise fit --no-swap` sets the field `swap`."""
    monkeypatch.setattr(binary_models, "_MAX_TREES", 5)
    words = ["fit", "--preset", "baseline", "--data", str(here / "first.csv"), "--no-swap"]
    assert main([*words, "--run", "one", "--artifacts", str(here)]) == 0
    assert not tw.open_run("one", here).config.predict.swap


def test_several_files_are_labelled(here, capsys):
    """`predict --out-of-fold` joins the files; the plain prediction takes one."""
    files = [str(here / "first.csv"), str(here / "second.csv")]
    words = ["predict", "--run", "known", "--artifacts", str(here), "--data", *files]
    assert main([*words, "--out", str(here / "soft.parquet"), "--out-of-fold", "--json"]) == 0
    done = json.loads(capsys.readouterr().out)
    assert done["n"] + done["n_seen"] == 60
    assert done["n_out_of_fold"] == 20
    assert main([*words, "--out", str(here / "probs.csv")]) == 2
    assert "--data names 2 files; expected one" in capsys.readouterr().err


@pytest.mark.parametrize("key", ["digest", "counts", "sources", "folds_sha256"])
def test_damaged_description_is_refused(here, tmp_path, monkeypatch, key):
    """A key of data.json that is gone is a RunError that names the file."""
    run = tw.open_run("known", here)
    content = run.data_path.read_text("utf-8")
    damaged = json.loads(content)
    del damaged[key]
    run.data_path.write_text(json.dumps(damaged), "utf-8")
    try:
        with pytest.raises(RunError, match=r"damaged"):
            api.evaluate_run_or_file(run, str(here / "first.csv"), kind="slices")
            tw.read_folds(run)
    finally:
        run.data_path.write_text(content, "utf-8")


def test_unfinished_fold_is_named(here):
    """The message lists the finished folds."""
    with pytest.raises(RunError, match=r"fold 2 is not finished \(finished: 0\)"):
        tw.open_run("known", here).choose_fold(2)


def test_oof_is_probabilities(here):
    """Rows sum to 1 and have the fold that held them out."""
    oof = tw.open_run("known", here).oof
    assert np.allclose(oof[["prob_a", "prob_b", "prob_tie"]].sum(axis=1), 1)
    assert set(oof["fold"]) == {0}
