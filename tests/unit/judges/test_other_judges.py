"""Predictions of another judge: rounded, incomplete, as verdicts, or with Kaggle's names."""

from __future__ import annotations

import logging

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tiewise as tw
from tiewise.data.labels import ONE_HOT_COLUMNS, PROB_COLUMNS
from tiewise.errors import PairsError, ScoresError
from tiewise.judges.labelled_predictions import (
    load_file_predictions,
    score_predictions,
    score_rewardbench_file,
)

N = 40
LABELS = np.random.default_rng(0).integers(0, 3, N)
PROBS = np.random.default_rng(1).dirichlet([2, 2, 2], N)


@pytest.fixture
def judge(tmp_path):
    """Return a function that joins a table of predictions with the labelled pairs."""
    texts = {
        name: [f"{name} {i}" for i in range(N)] for name in ("prompt", "response_a", "response_b")
    }
    winners = np.array(["A", "B", "tie"])[LABELS]
    pd.DataFrame({"id": range(N), **texts, "winner": winners}).to_csv(
        tmp_path / "votes.csv", index=False
    )

    def load(table, **options):
        table.to_csv(tmp_path / "judged.csv", index=False)
        return load_file_predictions(
            [str(tmp_path / "votes.csv")], tmp_path / "judged.csv", **options
        )

    return load


def table(probs, names=PROB_COLUMNS, ids=range(N)):
    """Return predictions in columns of these names."""
    return pd.DataFrame({"id": ids, **dict(zip(names, np.asarray(probs).T, strict=True))})


def test_rounded_probabilities_are_normalised(judge):
    """Rounded probabilities are refused with the flag named; with it they equal rows over sums."""
    rounded = PROBS.round(2)
    assert not np.allclose(rounded.sum(1), 1, atol=1e-4)
    with pytest.raises(ScoresError, match=r"normalize=True.*--normalize"):
        score_predictions(judge(table(rounded)))
    found = judge(table(rounded), normalize=True)
    exact = rounded / rounded.sum(1, keepdims=True)
    np.testing.assert_allclose(found.oof[PROB_COLUMNS], exact, rtol=0, atol=1e-15)
    scores = score_predictions(found).to_frame()
    groups = found.oof["group"]
    normalised = tw.evaluate(LABELS, rounded, groups=groups, normalize=True)
    assert scores.equals(normalised.to_frame())
    assert scores.equals(tw.evaluate(LABELS, exact, groups=groups).to_frame())


def test_both_orders_are_normalised(judge):
    """The probabilities of each order are normalised too."""
    rounded = PROBS.round(2)
    both = table(rounded).assign(
        **{f"{name}_{order}": rounded[:, place] for order in ("given", "swapped")
           for place, name in enumerate(PROB_COLUMNS)}
    )  # fmt: skip
    found = judge(both, normalize=True).oof
    for order in ("given", "swapped"):
        sums = found[[f"{name}_{order}" for name in PROB_COLUMNS]].sum(axis=1)
        np.testing.assert_allclose(sums, 1)


@pytest.mark.parametrize("row", [[0, 0, 0], [-0.1, 0.6, 0.5]])
def test_wrong_rows_are_not_normalised(judge, row):
    """Zeros and negative numbers are no probabilities, also when they are to be normalised."""
    probs = PROBS.copy()
    probs[3] = row
    with pytest.raises(ScoresError, match="cannot be normalised in 1 rows, the first at row 3"):
        judge(table(probs), normalize=True)
    with pytest.raises(ScoresError, match="cannot be normalised"):
        tw.evaluate(LABELS, probs, normalize=True)


@settings(suppress_health_check=list(HealthCheck))
@given(kept=st.sets(st.integers(0, N - 1), min_size=2), seed=st.integers(0, 9))
def test_missing_rows_are_counted(judge, kept, seed):
    """Scores are those of the rows that have a prediction; the others are counted."""
    rows = np.random.default_rng(seed).permutation(sorted(kept))
    found = judge(table(PROBS[rows], ids=rows), allow_missing=True)
    scored = score_predictions(found)
    expected = tw.evaluate(LABELS[sorted(kept)], PROBS[sorted(kept)], groups=found.oof["group"])
    assert scored.to_frame().equals(expected.to_frame())
    assert scored.counts["n_missing_predictions"] == N - len(kept)


def test_missing_rows_are_refused(judge):
    """Without the flag the number of missing rows and the first ids are named, also empty rows."""
    message = r"no prediction for 3 of 40 pairs, the first ids 37, 38, 39.*--allow-missing"
    with pytest.raises(ScoresError, match=message):
        judge(table(PROBS[:37], ids=range(37)))
    probs = PROBS.copy()
    probs[37:] = np.nan
    with pytest.raises(ScoresError, match=message):
        judge(table(probs))
    assert judge(table(probs), allow_missing=True).counts["n_missing_predictions"] == 3
    with pytest.raises(ScoresError, match="no prediction for 40 of 40"):
        judge(table(PROBS, ids=range(N, 2 * N)), allow_missing=True)


def test_kaggle_names_with_other_columns(judge):
    """Kaggle's names are known next to other columns, but not next to texts, which are data."""
    found = judge(table(PROBS, ONE_HOT_COLUMNS).assign(model="gpt"))
    np.testing.assert_array_equal(found.oof[PROB_COLUMNS], PROBS)
    with pytest.raises(ScoresError, match="prob_a, prob_b, prob_tie are missing"):
        judge(table(PROBS, ONE_HOT_COLUMNS).assign(prompt="p"))


@pytest.mark.parametrize("names", [PROB_COLUMNS, ONE_HOT_COLUMNS])
def test_verdicts_are_read_with_a_warning(judge, caplog, names):
    """One-hot columns and words give the same accuracy, and a warning about log loss."""
    verdicts = np.random.default_rng(2).integers(0, 3, N)
    one_hot = score_predictions(judge(table(np.eye(3)[verdicts], names)))
    assert "log loss, Brier score" in caplog.text
    assert one_hot.accuracy.value == np.mean(verdicts == LABELS)
    words = np.array(["[[A]]", "b", "Tie"])[verdicts]
    spoken = score_predictions(judge(pd.DataFrame({"id": range(N), "winner": words, "cost": 1})))
    assert spoken.to_frame().equals(one_hot.to_frame())
    caplog.clear()
    tw.evaluate(LABELS, np.eye(3)[verdicts])
    assert "log loss, Brier score" in caplog.text


@pytest.mark.parametrize("first", ["winner", "winner_given"])
def test_verdicts_of_both_orders_are_averaged(judge, caplog, first):
    """Words for both orders, in A and B of the pair, give accuracy and position bias."""
    words, draws = np.array(["A", "B", "tie"]), np.random.default_rng(3).integers(0, 3, (2, N))
    found = judge(pd.DataFrame({"id": range(N), first: words[draws[0]],
                                "winner_swapped": words[draws[1]]}))  # fmt: skip
    given, swapped = np.eye(3)[draws]
    np.testing.assert_array_equal(found.oof[PROB_COLUMNS], (given + swapped) / 2)
    scores = score_predictions(found)
    assert scores.has_verdicts
    assert scores.position_bias.flip_rate_before.value == np.mean(draws[0] != draws[1])
    assert "verdicts" in caplog.text


def test_both_orders_alone_are_averaged(judge):
    """Probabilities of both orders need no third triple."""
    other = np.roll(PROBS, 1, axis=0)
    both = [table(each, [f"{name}_{order}" for name in PROB_COLUMNS])
            for each, order in ((PROBS, "given"), (other, "swapped"))]  # fmt: skip
    found = judge(both[0].merge(both[1], on="id"))
    np.testing.assert_allclose(found.oof[PROB_COLUMNS], (PROBS + other) / 2)
    assert score_predictions(found).position_bias is not None
    with pytest.raises(ScoresError, match="prob_a, prob_b, prob_tie are missing"):
        judge(both[0])


@pytest.mark.parametrize("order", ["given", "swapped"])
def test_wrong_probabilities_are_named(judge, order):
    """The message names the file, the columns and the row, also after rows without numbers."""
    names = [f"{name}_{order}" for name in PROB_COLUMNS]
    both = table(PROBS).merge(table(PROBS, names), on="id")
    both.loc[3, names] = np.nan
    both.loc[4, names[0]] += 0.4
    message = rf"judged\.csv: {', '.join(names)} does not sum to 1 .* the first at row 4"
    with pytest.raises(ScoresError, match=message):
        judge(both)


def test_unread_columns_are_named(judge, caplog):
    """Columns that are neither read nor written by `predict` are named once."""
    caplog.set_level(logging.INFO, logger="tiewise.judges")
    judge(table(PROBS).assign(cost=1, winner="A", n_tokens=3, is_degenerate=False))
    (record,) = caplog.records
    assert record.getMessage().endswith("judged.csv: not read: cost, winner")


def test_probabilities_are_no_verdicts(judge, caplog):
    """Probabilities bring no warning."""
    caplog.set_level(logging.WARNING)
    score_predictions(judge(table(PROBS)))
    assert not caplog.records


def test_judge_of_two_classes_meets_ties(judge, caplog):
    """One line says that no tie is predicted where labels have ties; one P(tie) is enough."""
    caplog.set_level(logging.WARNING)
    decided = np.column_stack([PROBS[:, :2] / PROBS[:, :2].sum(1, keepdims=True), np.zeros(N)])
    score_predictions(judge(table(decided)))
    (record,) = caplog.records
    n_ties = int((LABELS == 2).sum())
    assert f"{n_ties} of {N} rows are ties, and every P(tie) is 0" in record.getMessage()
    assert "decisive accuracy" in record.getMessage()
    caplog.clear()
    tw.evaluate(np.minimum(LABELS, 1), decided)
    decided[0] = PROBS[0]
    score_predictions(judge(table(decided)))
    assert not caplog.records


def test_unknown_verdicts_are_refused(judge):
    """A word that names no winner is refused by row; an empty one is a missing prediction."""
    words = pd.DataFrame({"id": range(N), "winner": ["A"] * N})
    words.loc[5, "winner"] = "I cannot judge"
    with pytest.raises(ScoresError, match=r"row 5: winner is 'I cannot judge'"):
        judge(words)
    words.loc[5, "winner"] = None
    assert judge(words, allow_missing=True).counts["n_missing_predictions"] == 1


def test_data_are_read_as_told(tmp_path, judge):
    """Columns and winners of the data are those that are given."""
    judge(table(PROBS))
    own = pd.read_csv(tmp_path / "votes.csv").rename(
        columns={"prompt": "question", "winner": "best"}
    )
    own["best"] = LABELS
    own.to_csv(tmp_path / "own.csv", index=False)
    reading = {"columns": ["prompt=question,winner=best", "a=0,b=1,tie=2"]}
    found = load_file_predictions([str(tmp_path / "own.csv")], tmp_path / "judged.csv", **reading)
    assert found.oof["label"].tolist() == LABELS.tolist()


def test_columns_are_renamed_where_they_are(tmp_path, judge):
    """Columns of the data and of the predictions are renamed together, in either file or both."""
    expected = judge(table(PROBS)).oof
    own = pd.read_csv(tmp_path / "votes.csv").rename(columns={"prompt": "question", "id": "pair"})
    own.to_csv(tmp_path / "own.csv", index=False)
    names = {"id": "pair", "prob_a": "p_first", "prob_b": "p_second"}
    table(PROBS).rename(columns=names).to_csv(tmp_path / "renamed.csv", index=False)
    files = [str(tmp_path / "own.csv")], tmp_path / "renamed.csv"
    columns = ["prob_a=p_first,prob_b=p_second", "prompt=question,id=pair"]
    pd.testing.assert_frame_equal(load_file_predictions(*files, columns=columns).oof, expected)
    with pytest.raises(PairsError, match="there is no column p_third"):
        load_file_predictions(*files, columns=[*columns, "prob_tie=p_third"])


def test_rewardbench_needs_all_rows(tmp_path, judge):
    """RewardBench is about all pairs."""
    judge(table(PROBS))
    files = [str(tmp_path / "votes.csv")], tmp_path / "judged.csv"
    with pytest.raises(ScoresError, match="about all pairs"):
        score_rewardbench_file(*files, allow_missing=True)
