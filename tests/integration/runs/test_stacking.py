"""What is built on other runs sees of a row only what models say that never saw it."""

import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from run_folders import fit_small, simulated_tables, write_run
from tiewise.baseline.feature_model import fit_baseline, load_baseline
from tiewise.baseline.features import extract_features
from tiewise.baseline.stacked import add_stacked, stacked_names
from tiewise.config.loading import config_from_dict
from tiewise.errors import ConfigError, ModelError, RunError
from tiewise.files import read_json, write_json
from tiewise.pairs.labels import LOGIT_COLUMNS, PROB_COLUMNS, swap_probs
from tiewise.pairs.table import swap_pairs
from tiewise.predicting.predictors import PredictOptions, open_predictor
from tiewise.runs.stacking import open_stack, read_stack, stack_columns
from tiewise.runs.tables import read_fold_oof
from tiewise.simulation.simulate import BAYES_COLUMNS, simulate
from tiewise.training_data.dataset import deal_folds, load_dataset

_, FOLDS, OOF = simulated_tables(120)
OPTIONS = PredictOptions()


@given(st.lists(st.tuples(*[st.floats(-30, 30)] * 3), min_size=1, max_size=4))
def test_exchanged_logits_negate_what_is_signed_and_keep_what_is_shared(rows):
    """Bit for bit: that is what the symmetry of the whole rests on."""
    features = extract_features(*([["text"]] * len(rows) for _ in range(3)))
    logits = np.array(rows)
    given_, exchanged = (
        add_stacked(features, {"r": part}) for part in (logits, swap_probs(logits))
    )
    assert np.array_equal(exchanged.signed[:, -1], -given_.signed[:, -1])
    assert np.array_equal(exchanged.shared, given_.shared)
    assert stacked_names(given_.signed_names) == ["r"]


def test_each_row_gets_its_own_out_of_fold_logits(tmp_path):
    """In whatever order the predictions stand in the run's file."""
    run = write_run(tmp_path, FOLDS, OOF.sample(frac=1, random_state=0), name="r", is_scored=False)
    stack = read_stack([run], FOLDS)
    np.testing.assert_array_equal(stack[stack_columns("r")], OOF[LOGIT_COLUMNS])


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda folds: folds.assign(fold=(folds["fold"] + 1) % 5), id="fold"),
        pytest.param(lambda folds: folds.assign(label=0), id="label"),
        pytest.param(lambda folds: folds.assign(n_chars_a=1), id="text"),
        pytest.param(lambda folds: folds.head(60), id="rows"),
    ],
)
def test_other_folds_are_refused(tmp_path, change):
    """A row in another fold, another label, another text, other rows: each could leak."""
    run = write_run(tmp_path, FOLDS, OOF, name="r", is_scored=False)
    with pytest.raises(RunError, match="its folds hold other rows"):
        read_stack([run], change(FOLDS))


def test_unfinished_and_one_sided_runs_are_refused(tmp_path):
    """A fold without predictions, and a run that looks at the order of A and B."""
    run = write_run(tmp_path, FOLDS, OOF, name="r", is_scored=False)
    run.fold(2).scores_path.unlink()
    with pytest.raises(RunError, match="fold 2 is not finished"):
        read_stack([run], FOLDS)
    path = run.path / "config.json"
    config = read_json(path)
    config["predict"]["swap"] = False
    write_json(path, config)
    with pytest.raises(RunError, match="one order of A and B only"):
        read_stack(open_stack(["r"], run.path.parent), FOLDS)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"stack": ["r"]}, "add --preset baseline"),
        ({"stack": ["r", "r"], "backbone": "baseline"}, "names a run twice"),
    ],
)
def test_only_the_cpu_class_model_is_stacked(model, message):
    """A network has no place for logits, and a run counts once."""
    with pytest.raises(ConfigError, match=message):
        config_from_dict({"model": model})


@pytest.fixture(scope="module")
def stacked(tmp_path_factory):
    """Fit a model, and another on top of it."""
    folder = tmp_path_factory.mktemp("artifacts")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tiewise.baseline.parts._MOST_TREES", 10)
        below = fit_small(folder, "below")
        above = fit_small(folder, "above", stack=("below",))
    return folder, below, above


def test_the_model_above_learns_from_the_one_below(stacked):
    """Its features hold the other's log odds, and it knows the other's predictions by digest."""
    _, below, above = stacked
    identity = read_json(above.fold(0).identity_path)
    assert identity["stack"] == {"below": read_json(below.scores_path)["oof_sha256"]}
    model = read_json(above.fold(0).adapter_dir / "baseline.json")
    assert model["signed_names"][-1] == model["shared_names"][-1] == "stack:below"


def test_what_the_run_below_knows_the_model_above_knows(monkeypatch):
    """With the true log odds among its features it comes nearer to the truth."""
    monkeypatch.setattr("tiewise.baseline.parts._MOST_TREES", 10)
    train, fresh = simulate(200, seed=1), simulate(200, seed=2)
    for pairs in (train, fresh):
        pairs[stack_columns("truth")] = np.log(pairs[BAYES_COLUMNS].to_numpy() + 1e-6)
    labels = fresh["label"].to_numpy(int)

    def log_loss(**options):
        probs = fit_baseline(train, groups=["one"] * 200, **options).predict(fresh)
        return -np.log(probs[np.arange(200), labels]).mean()

    assert log_loss(stack=("truth",)) < log_loss() - 0.05


def test_held_out_rows_are_predicted_from_out_of_fold_logits(stacked):
    """The features of a held-out row come from the model that did not see its fold."""
    _, below, above = stacked
    dataset = load_dataset(above.config.data)
    table = deal_folds(dataset, above.config.data)
    pairs = dataset.pairs.join(read_stack([below], table))
    for fold in range(2):
        held = pairs[(table["fold"] == fold).to_numpy()]
        expected = load_baseline(above.fold(fold).adapter_dir).predict(held)
        np.testing.assert_array_equal(read_fold_oof(above.fold(fold))[PROB_COLUMNS], expected)
        own = read_fold_oof(below.fold(fold)).set_index("id").loc[held["id"], LOGIT_COLUMNS]
        np.testing.assert_array_equal(held[stack_columns("below")], own)


def test_it_predicts_new_rows_alike_in_either_order(stacked):
    """The run below is asked first; exchanging A and B exchanges the answer bit for bit."""
    folder, _, above = stacked
    fresh = simulate(30, seed=9)
    predict = open_predictor(above, cache_dir=folder / "cache")
    found = predict(fresh, OPTIONS)[PROB_COLUMNS].to_numpy()
    assert np.array_equal(
        predict(swap_pairs(fresh), OPTIONS)[PROB_COLUMNS].to_numpy(), swap_probs(found)
    )


def test_without_the_run_below_nothing_is_predicted(stacked):
    """A table that lacks the logits, and a run below that was fitted again, are refused."""
    folder, below, above = stacked
    with pytest.raises(ModelError, match="stands on the run below"):
        load_baseline(above.fold(0).adapter_dir).predict(simulate(3))
    whole = below.oof_path.read_bytes()
    pd.read_parquet(below.oof_path).assign(more=1).to_parquet(below.oof_path)
    with pytest.raises(RunError, match="has changed since another run was built on it"):
        open_predictor(above, cache_dir=folder / "cache")
    below.oof_path.write_bytes(whole)


def test_other_folds_stop_the_fit(stacked):
    """The command line refuses before anything is fitted."""
    folder, _, _ = stacked
    with pytest.raises(RunError, match=re.escape("--stack below: its folds hold other rows")):
        fit_small(folder, "other", stack=("below",), n_splits=3)
    assert not (folder / "runs" / "other" / "fold0" / "adapter").exists()
