"""Tests of blends: how they are fitted, written, refused, and how they predict."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy.special import log_softmax

from run_folders import fit_small, simulated_tables, write_run
from tiewise.cli import main
from tiewise.config import config_from_dict
from tiewise.crossfit import cross_fit
from tiewise.data.formats import write_pairs
from tiewise.data.labels import LOGIT_COLUMNS, PROB_COLUMNS, swap_probs
from tiewise.data.pairs import swap_pairs
from tiewise.data.simulation.simulate import simulate
from tiewise.errors import NumericsError, RunError
from tiewise.files import write_json
from tiewise.judges.blending import Mixture, blend_runs, fit_weights, load_mixture, mix
from tiewise.judges.kinds import BlendJudge, ShippedJudge, TwoClassJudge, open_judge
from tiewise.judges.labelled_predictions import compare_runs
from tiewise.runs.dataset import reread_pairs
from tiewise.runs.folder import open_run
from tiewise.runs.references import score_finished_folds
from tiewise.runs.tables import drop_ties, has_ties, read_data, read_oof

PAIRS, FOLDS, OOF = simulated_tables(240)


def blur(spread, seed=1):
    """Return the predictions of `OOF` with normal noise in their logits."""
    noise = np.random.default_rng(seed).normal(0, spread, (len(OOF), 3))
    oof = OOF[[name for name in OOF if not name.endswith(("_given", "_swapped"))]].copy()
    oof[LOGIT_COLUMNS] = log_softmax(OOF[LOGIT_COLUMNS].to_numpy() + noise, axis=1)
    oof[PROB_COLUMNS] = np.exp(oof[LOGIT_COLUMNS])
    return oof


def write_two(folder, first=0.3, second=0.6):
    """Write two runs of the same rows."""
    one = write_run(folder, FOLDS, blur(first, 1), name="one", is_scored=False)
    return one, write_run(folder, FOLDS, blur(second, 2), name="two", is_scored=False)


@pytest.fixture(scope="module")
def blended(tmp_path_factory):
    """Blend two runs."""
    folder = tmp_path_factory.mktemp("artifacts")
    runs = write_two(folder)
    return folder, runs, blend_runs(runs, folder, name="both", overwrite=False)


def test_ids_are_compared_as_text(tmp_path):
    """A run whose ids are text, because one of its rows has a name, shares its other rows."""
    named = pd.DataFrame({"id": ["a name"], "label": [0], "group": ["its own"], "fold": [0]})
    tables = []
    for table in (FOLDS, blur(0.6, 2)):
        known = {name: named[name] for name in named if name in table}
        more = pd.concat([table.astype({"id": str}), table.head(1).assign(**known)])
        tables.append(more.astype({"label": table["label"].dtype}))
    one = write_run(tmp_path, FOLDS, blur(0.3), name="one", is_scored=False)
    two = write_run(tmp_path, *tables, name="two", is_scored=False)
    for runs in ([one, two], [two, one]):
        blend = blend_runs(runs, tmp_path, name="both", overwrite=True)
        oof = read_oof(blend.run)
        assert oof["id"].astype(int).tolist() == OOF["id"].tolist()
        assert blend.n_left_out == {"one": 0, "two": 1}


def test_texts_of_a_partial_blend_are_read(tmp_path):
    """A blend of runs with two of five folds has those rows; its texts are those of the data."""
    write_pairs(simulate(90, seed=0), tmp_path / "train.csv")
    fields = {"model": {"backbone": "baseline"}, "data": {"data": [str(tmp_path / "train.csv")]}}
    runs = []
    for seed in (0, 1):
        config = config_from_dict(fields | {"train": {"seed": seed}})
        run, _ = cross_fit(config, [0, 1], tmp_path, name=f"run {seed}")
        score_finished_folds(run)
        runs.append(run)
    blend = blend_runs(runs, tmp_path, name="both", overwrite=False)
    texts = reread_pairs(blend.run)
    assert len(read_oof(blend.run)) < len(texts) == 90
    assert set(read_oof(blend.run)["id"]) < set(texts["id"])
    found = compare_runs(runs[0], blend.run, by_slice=True, n_resamples=19)
    assert found.overall[0].n == len(read_oof(blend.run))
    assert len(found.differences) > 1


def test_weights_are_fitted_out_of_fold(blended):
    """Each row is mixed with weights fitted on the other folds; no prompt group is in two folds."""
    _, runs, blend = blended
    tables = [read_oof(run).set_index("id") for run in runs]
    oof = read_oof(blend.run).set_index("id")
    assert oof.groupby("group")["fold"].nunique().max() == 1
    assert sorted(oof.index) == sorted(FOLDS["id"])
    for fold, held_out in oof.groupby("fold"):
        others = oof.index[oof["fold"] != fold]
        log_probs = [log_softmax(table.loc[others, LOGIT_COLUMNS], axis=1) for table in tables]
        weights = fit_weights(oof.loc[others, "label"].to_numpy(int), np.stack(log_probs))
        log_probs = [
            log_softmax(table.loc[held_out.index, LOGIT_COLUMNS], axis=1) for table in tables
        ]
        expected = mix(np.stack(log_probs), weights)
        np.testing.assert_allclose(held_out[LOGIT_COLUMNS], expected, atol=1e-9)


def test_blend_is_a_run(blended):
    """A blend is opened, scored and compared as a run is; it counts the rows it left out."""
    folder, runs, blend = blended
    run = open_run("both", folder)
    assert score_finished_folds(run).to_dict() == blend.scores.to_dict()
    difference = compare_runs(run, runs[1])
    assert difference.overall[0].n == len(FOLDS)
    assert difference.overall[0].log_loss.value < 0
    assert blend.against[1] == difference
    assert blend.n_left_out == {"one": 0, "two": 0}


def test_mixture_is_fitted_on_all_rows(blended):
    """The mixture that predicts new rows has weights fitted on all rows."""
    _, _, blend = blended
    log_probs = np.stack(
        [log_softmax(blur(*pair)[LOGIT_COLUMNS], axis=1) for pair in ((0.3, 1), (0.6, 2))]
    )
    expected = fit_weights(OOF["label"].to_numpy(int), log_probs)
    assert load_mixture(blend.run.mixture_path) == blend.mixture
    np.testing.assert_allclose(blend.mixture.weights, expected, atol=1e-9)


def test_rows_not_shared_are_counted(tmp_path):
    """A blend has the rows that all members predicted; counts and text name the others."""
    one = write_run(tmp_path, FOLDS, blur(0.3, 1), name="one", is_scored=False)
    fewer = blur(0.6, 2).query("fold < 4")
    two = write_run(tmp_path, FOLDS, fewer, name="two", is_scored=False)
    blend = blend_runs([one, two], tmp_path, name=None, overwrite=False)
    n_lost = len(OOF) - len(fewer)
    assert blend.n_left_out == {"one": n_lost, "two": 0}
    assert blend.scores.counts["n_left_out_one"] == n_lost
    assert f"one: {n_lost} rows left out" in str(blend)
    assert len(read_oof(blend.run)) == len(fewer)


def test_invalid_blends_are_refused(tmp_path):
    """One run, one run twice, a run of another folder, other labels, or a name that is taken."""
    one, two = write_two(tmp_path / "here")
    elsewhere = write_run(tmp_path / "there", FOLDS, blur(0.3), name="elsewhere", is_scored=False)
    other = blur(0.3).assign(label=(OOF["label"] + 1) % 3)
    odd = write_run(
        tmp_path / "here", FOLDS.assign(label=other["label"]), other, name="odd", is_scored=False
    )
    cases = [
        ([one], "two or more"),
        ([one, one], "two or more different"),
        ([one, elsewhere], "the folder of the blend"),
        ([one, odd], "different labels"),
    ]
    for runs, message in cases:
        with pytest.raises(RunError, match=message):
            blend_runs(runs, tmp_path / "here", name="b", overwrite=False)
    with pytest.raises(RunError, match="a member of the blend"):
        blend_runs([one, two], tmp_path / "here", name="two", overwrite=True)
    with pytest.raises(RunError, match="another configuration"):
        blend_runs([one, two], tmp_path / "here", name="odd", overwrite=True)
    assert read_oof(odd)["label"].tolist() == other["label"].tolist()


def test_command_needs_overwrite(blended, capsys):
    """The command replaces a blend only with --overwrite; it prints weights and scores."""
    folder, _, _ = blended
    arguments = ["blend", "one", "two", "--run", "both", "--artifacts", str(folder), "--json"]
    assert main(arguments) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert main([*arguments, "--overwrite"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert set(printed["weights"]) == {"one", "two"}
    assert len(printed["fold_weights"]) == 5
    log_loss = printed["log_loss"]
    assert log_loss["low"] < log_loss["value"] < log_loss["high"]


@pytest.mark.parametrize("weights", [(0.0, 1.0), (0.4, 0.7)])
def test_blend_of_two_classes_is_finite(tmp_path, weights):
    """Members that give a tie no probability are mixed, also with weight 0."""
    members = [TwoClassJudge(ShippedJudge()), TwoClassJudge(ShippedJudge())]
    table = BlendJudge(members, Mixture(("one", "two"), weights)).predict(simulate(20, seed=9))
    probs = table[PROB_COLUMNS].to_numpy()
    np.testing.assert_allclose(probs.sum(axis=1), 1, atol=1e-12)
    assert (probs[:, 2] < 1e-10).all()


def test_blend_of_two_classes_mixes_a_and_b(tmp_path):
    """Its weights and out-of-fold rows are those of P(A) and P(B) alone, and P(tie) is 0."""
    decided = [drop_ties(blur(*pair)).assign(label=OOF["label"] % 2) for pair in ((1, 1), (2, 2))]
    folds = FOLDS.assign(label=FOLDS["label"] % 2)
    runs = [
        write_run(tmp_path, folds, table, name=name, is_scored=False)
        for name, table in zip(("one", "two"), decided, strict=True)
    ]
    for run in runs:
        write_json(run.data_path, read_data(run) | {"has_ties": False})
    blend = blend_runs(runs, tmp_path, name="both", overwrite=False)
    log_probs = np.log(np.stack([table[PROB_COLUMNS[:2]].to_numpy() for table in decided]))
    expected = fit_weights(OOF["label"].to_numpy(int) % 2, log_probs)
    np.testing.assert_allclose(blend.mixture.weights, expected, atol=1e-6)
    oof = read_oof(blend.run)
    assert (oof["prob_tie"] == 0).all()
    np.testing.assert_allclose(oof[PROB_COLUMNS].sum(axis=1), 1, atol=1e-12)
    assert blend.scores.n_classes == 2
    assert not has_ties(blend.run)


@pytest.mark.parametrize("n_wrong", [1, 7])
def test_predictions_that_are_no_numbers_are_refused(n_wrong):
    """The rows are named, and nothing is returned that could be written."""
    pairs = simulate(9, seed=9)

    class Broken:
        def predict(self, pairs, *, swap=None):
            probs = np.full((len(pairs), 3), 1 / 3)
            probs[:n_wrong, 1] = np.nan
            return pairs[["id"]].assign(**dict(zip(PROB_COLUMNS, probs.T, strict=True)))

    named = f"id={pairs['id'][0]}"
    with pytest.raises(NumericsError, match=rf"probabilities of {n_wrong} rows .*{named}"):
        BlendJudge([Broken()], Mixture(("one",), (1.0,))).predict(pairs)


def test_blend_of_feature_models_predicts(tmp_path, monkeypatch):
    """It predicts the mixture of its members, exactly symmetric, and refuses a changed member."""
    monkeypatch.setattr("tiewise.features.binary_models._MAX_TREES", 10)
    runs = [fit_small(tmp_path, name, seed=seed) for name, seed in (("one", 0), ("two", 1))]
    blend = blend_runs(runs, tmp_path, name="both", overwrite=False)
    fresh = simulate(40, seed=9)
    predict = open_judge(blend.run, cache_dir=tmp_path / "cache").predict
    members = [
        open_judge(run, cache_dir=tmp_path / "cache").predict(fresh)[PROB_COLUMNS] for run in runs
    ]
    found = predict(fresh)
    expected = np.exp(blend.mixture.apply([np.log(probs) for probs in members]))
    np.testing.assert_allclose(found[PROB_COLUMNS], expected, atol=1e-12)
    swapped = predict(swap_pairs(fresh))[PROB_COLUMNS].to_numpy()
    assert np.array_equal(swapped, swap_probs(found[PROB_COLUMNS].to_numpy()))
    for run in (*runs, blend.run):
        write_json(run.data_path, read_data(run) | {"has_ties": False})
    probs = open_judge(blend.run, cache_dir=tmp_path / "cache").predict(fresh)[PROB_COLUMNS]
    assert (probs["prob_tie"] == 0).all()
    np.testing.assert_allclose(probs.sum(axis=1), 1, atol=1e-12)
    changed = read_oof(runs[0]).assign(more=1)
    changed.to_parquet(runs[0].oof_path)
    with pytest.raises(RunError, match="has changed since it became a member"):
        open_judge(blend.run, cache_dir=tmp_path / "cache")
