"""Anybody's predictions are judged as a run's are."""

import numpy as np
import pandas as pd
import pytest

from run_folders import simulated_run, simulated_tables
from tiewise.data.labels import PROB_COLUMNS
from tiewise.data.simulation.simulate import simulate, write_simulation
from tiewise.errors import RunError, ScoresError
from tiewise.evaluation.references import evaluate_tables
from tiewise.judges.labelled_predictions import judge_file, judge_run, score_judged
from tiewise.judges.streaming import write_table

BOTH_ORDERS = [f"{name}_{order}" for order in ("given", "swapped") for name in PROB_COLUMNS]


@pytest.fixture
def files(tmp_path):
    """Write 100 simulated pairs, and what some judge said of them."""
    data, predictions = tmp_path / "data.csv", tmp_path / "judge.csv"
    write_simulation(simulate(100, seed=0), data)
    simulated_tables(100)[2][["id", *PROB_COLUMNS, *BOTH_ORDERS]].to_csv(predictions, index=False)
    return data, predictions


def test_a_table_of_predictions_is_scored_as_out_of_fold_rows_are(files):
    """The same numbers, Bayes among the references since the truth lies beside the data."""
    _, folds, oof = simulated_tables(100)
    scores = score_judged(judge_file([files[0]], files[1]))
    expected = evaluate_tables(oof, folds)
    assert scores.scores.log_loss.value == pytest.approx(expected.scores.log_loss.value)
    assert scores.baselines.keys() == {"uniform", "class_prior", "length_only", "bayes"}
    assert scores.baselines["bayes"].log_loss.value < scores.scores.log_loss.value
    assert scores.position_bias.to_dict() == expected.position_bias.to_dict()


def test_rows_are_joined_by_id_and_the_rest_is_counted(files):
    """The order of the predictions does not matter; what nobody asked about is said."""
    table = pd.read_csv(files[1])
    extra = table.head(1).assign(id=999)
    pd.concat([table.sample(frac=1, random_state=0), extra]).to_csv(files[1], index=False)
    judged = judge_file([files[0]], files[1])
    assert judged.oof["id"].tolist() == list(range(100))
    assert judged.counts == {"n_unused_predictions": 1}
    pd.testing.assert_frame_equal(judged.oof[PROB_COLUMNS], table[PROB_COLUMNS])


def test_a_row_without_a_prediction_is_named(files):
    """Nothing is scored on a part in silence."""
    pd.read_csv(files[1]).drop(index=7).to_csv(files[1], index=False)
    with pytest.raises(ScoresError, match=r"1 rows of .* no prediction, such as id=7"):
        judge_file([files[0]], files[1])


@pytest.mark.parametrize("suffix", ["csv", "parquet", "jsonl"])
def test_every_container_gives_the_same_predictions(files, tmp_path, suffix):
    """To the last bit; and ids that are words for nothing are ids."""
    pairs = pd.read_csv(files[0], dtype=str).head(4).assign(id=["NA", "null", "nan", "None"])
    pairs.to_csv(tmp_path / "words.csv", index=False)
    path = tmp_path / f"judge.{suffix}"
    probs = np.random.default_rng(0).dirichlet([1, 1, 1], 4)
    table = pd.DataFrame(probs, columns=PROB_COLUMNS).assign(id=["NA", "null", "nan", "None"])
    write_table([table], path)
    judged = judge_file([tmp_path / "words.csv"], path)
    np.testing.assert_array_equal(judged.oof[PROB_COLUMNS], probs)


@pytest.mark.parametrize("n", [1, 2, 7])
def test_few_conversations_are_scored_beside_what_they_can_be_held_against(files, tmp_path, n):
    """One conversation leaves nothing to fit a reference on, and it is said."""
    pd.read_csv(files[0], dtype=str).head(n).to_csv(tmp_path / "few.csv", index=False)
    scores = score_judged(judge_file([tmp_path / "few.csv"], files[1]))
    assert ("class_prior" in scores.baselines) == (n > 1)
    assert ("class_prior" in scores.omitted) == (n == 1)


def test_a_column_that_holds_no_numbers_is_named(files):
    """Also one that need not be there."""
    table = pd.read_csv(files[1])
    for name in ("prob_a", "n_truncated"):
        table.assign(**{name: "many"}).to_csv(files[1], index=False)
        with pytest.raises(ScoresError, match=f"{name} holds what is no number.*many"):
            judge_file([files[0]], files[1])


def test_votes_on_one_pair_say_how_far_people_agree(files, tmp_path):
    """Three people on each of fifty pairs; the ids are new."""
    rows = pd.read_csv(files[0]).head(50)
    votes = pd.concat([rows] * 3, ignore_index=True).assign(id=range(150))
    votes.to_csv(tmp_path / "votes.csv", index=False)
    uniform = pd.DataFrame({"id": range(150), **dict.fromkeys(PROB_COLUMNS, 1 / 3)})
    uniform.to_csv(tmp_path / "uniform.csv", index=False)
    scores = score_judged(judge_file([tmp_path / "votes.csv"], tmp_path / "uniform.csv"))
    assert scores.human_agreement.n == 150
    assert scores.human_agreement.agreement.value == 1
    assert scores.to_dict()["human_agreement"]["agreement"]["value"] == 1
    assert "another person agrees" in str(scores)


def test_a_runs_texts_are_read_when_asked_for(tmp_path):
    """Scores need none; what needs them says so."""
    run, _ = simulated_run(tmp_path, 60)
    judged = judge_run(run)
    assert np.isfinite(score_judged(judged).scores.log_loss.value)
    with pytest.raises(RunError, match="--data"):
        judged.texts()
