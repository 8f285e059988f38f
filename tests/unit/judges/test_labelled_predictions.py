"""Tests of predictions from files and runs, joined with their labelled pairs."""

import numpy as np
import pandas as pd
import pytest

from run_folders import simulated_run, simulated_tables
from tiewise.data.labels import PROB_COLUMNS
from tiewise.data.simulation.simulate import simulate, write_simulation
from tiewise.errors import RunError, ScoresError
from tiewise.evaluation.references import evaluate_tables
from tiewise.judges.labelled_predictions import (
    load_file_predictions,
    load_run_predictions,
    score_predictions,
)
from tiewise.judges.streaming import write_table

BOTH_ORDERS = [f"{name}_{order}" for order in ("given", "swapped") for name in PROB_COLUMNS]


@pytest.fixture
def files(tmp_path):
    """Write 100 simulated pairs, and predictions of a judge for them."""
    data, predictions = tmp_path / "data.csv", tmp_path / "judge.csv"
    write_simulation(simulate(100, seed=0), data)
    simulated_tables(100)[2][["id", *PROB_COLUMNS, *BOTH_ORDERS]].to_csv(predictions, index=False)
    return data, predictions


def _score(data, path):
    return score_predictions(load_file_predictions(data, path))


def test_file_is_scored_like_a_run(files):
    """A file scores like a run; the true probabilities stored with the data are a reference."""
    _, folds, oof = simulated_tables(100)
    scores = _score([files[0]], files[1])
    expected = evaluate_tables(oof, folds)
    assert scores.log_loss.value == pytest.approx(expected.log_loss.value)
    assert scores.baselines.keys() == {"uniform", "class_prior", "length_only", "bayes"}
    assert scores.baselines["bayes"].log_loss.value < scores.log_loss.value
    assert scores.position_bias.to_dict() == expected.position_bias.to_dict()


def test_rows_are_joined_by_id(files):
    """The order of the predictions does not matter; unused predictions are counted."""
    table = pd.read_csv(files[1])
    extra = table.head(1).assign(id=999)
    pd.concat([table.sample(frac=1, random_state=0), extra]).to_csv(files[1], index=False)
    judged = load_file_predictions([files[0]], files[1])
    assert judged.oof["id"].tolist() == list(range(100))
    assert judged.counts == {"n_unused_predictions": 1}
    pd.testing.assert_frame_equal(judged.oof[PROB_COLUMNS], table[PROB_COLUMNS])


def test_missing_prediction_is_refused(files):
    """The message names the row."""
    pd.read_csv(files[1]).drop(index=7).to_csv(files[1], index=False)
    with pytest.raises(ScoresError, match="no prediction for 1 of 100 pairs, the first ids 7"):
        load_file_predictions([files[0]], files[1])


@pytest.mark.parametrize("suffix", ["csv", "parquet", "jsonl"])
def test_file_formats_give_equal_predictions(files, tmp_path, suffix):
    """Each format keeps probabilities bit for bit, and ids such as NA and null as text."""
    pairs = pd.read_csv(files[0], dtype=str).head(4).assign(id=["NA", "null", "nan", "None"])
    pairs.to_csv(tmp_path / "words.csv", index=False)
    path = tmp_path / f"judge.{suffix}"
    probs = np.random.default_rng(0).dirichlet([1, 1, 1], 4)
    table = pd.DataFrame(probs, columns=PROB_COLUMNS).assign(id=["NA", "null", "nan", "None"])
    write_table([table], path)
    judged = load_file_predictions([tmp_path / "words.csv"], path)
    np.testing.assert_array_equal(judged.oof[PROB_COLUMNS], probs)


@pytest.mark.parametrize("n", [1, 2, 7])
def test_few_groups_are_scored(files, tmp_path, n):
    """With one group no reference can be fitted, and the reason is given."""
    pd.read_csv(files[0], dtype=str).head(n).to_csv(tmp_path / "few.csv", index=False)
    scores = _score([tmp_path / "few.csv"], files[1])
    assert ("class_prior" in scores.baselines) == (n > 1)
    assert ("class_prior" in scores.omitted) == (n == 1)


def test_text_in_number_column_is_refused(files):
    """Required and optional columns of numbers must be numeric."""
    table = pd.read_csv(files[1])
    for name in ("prob_a", "n_truncated"):
        table.assign(**{name: "many"}).to_csv(files[1], index=False)
        with pytest.raises(ScoresError, match=f"{name} of .* is not numeric.*many"):
            load_file_predictions([files[0]], files[1])


def test_repeated_pairs_give_human_agreement(files, tmp_path):
    """Equal pairs with several labels are a reference: agreement between people."""
    rows = pd.read_csv(files[0]).head(50)
    votes = pd.concat([rows] * 3, ignore_index=True).assign(id=range(150))
    votes.to_csv(tmp_path / "votes.csv", index=False)
    uniform = pd.DataFrame({"id": range(150), **dict.fromkeys(PROB_COLUMNS, 1 / 3)})
    uniform.to_csv(tmp_path / "uniform.csv", index=False)
    scores = score_predictions(
        load_file_predictions([tmp_path / "votes.csv"], tmp_path / "uniform.csv")
    )
    assert scores.human_agreement.n == 150
    assert scores.human_agreement.agreement.value == 1
    assert scores.to_dict()["human_agreement"]["agreement"]["value"] == 1
    assert "another person agrees" in str(scores)


def test_texts_are_read_on_demand(tmp_path):
    """Scores need no texts; a request for texts that are not stored is refused."""
    run, _ = simulated_run(tmp_path, 60)
    judged = load_run_predictions(run)
    assert np.isfinite(score_predictions(judged).log_loss.value)
    with pytest.raises(RunError, match="--data"):
        judged.texts()
