"""Tests of reference models and of the scores of a run next to them."""

import dataclasses
import html
import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import log_loss

from tiewise.data.labels import PROB_COLUMNS, swap_probs
from tiewise.errors import ScoresError
from tiewise.evaluation.intervals import Interval
from tiewise.evaluation.references import (
    LENGTH_COLUMNS,
    count_rows,
    evaluate_tables,
    predict_class_prior,
    predict_length_only,
    reference_probs,
)
from tiewise.evaluation.scores import compare, evaluate

FEW = 99
lengths = st.integers(0, 100_000)


@st.composite
def folds_tables(draw, n_folds=3):
    """Return rows of any lengths and labels, with at least one labelled row in each fold."""
    row = st.tuples(st.sampled_from([0, 1, 2, None]), lengths, lengths, lengths)
    rows = draw(st.lists(row, min_size=n_folds, max_size=15))
    table = pd.DataFrame(rows, columns=["label", *LENGTH_COLUMNS])
    table["fold"] = np.arange(len(table)) % n_folds
    table.loc[: n_folds - 1, "label"] = draw(st.integers(0, 2))
    return table.astype({"label": "Int8"})


@given(folds_tables())
def test_references_are_probabilities(table):
    """For any lengths and labels, rows sum to one and no probability is zero."""
    references, omitted = reference_probs(table, np.arange(len(table)))
    assert references.keys() == {"uniform", "class_prior", "length_only"}
    assert not omitted
    for probs in references.values():
        np.testing.assert_allclose(probs.sum(1), 1)
        assert (probs > 0).all()


@given(folds_tables())
def test_length_only_is_symmetric(table):
    """Swapping the responses exchanges P(A) and P(B) bit for bit."""
    columns = {"n_chars_a": "n_chars_b", "n_chars_b": "n_chars_a"}
    given_order = predict_length_only(table.dropna(), table)
    swapped = predict_length_only(table.dropna(), table.rename(columns=columns)[table.columns])
    np.testing.assert_array_equal(given_order, swap_probs(swapped))


@given(folds_tables(), st.integers(0, 2))
def test_references_do_not_see_their_fold(table, label):
    """The labels of a held-out fold have no effect on its predictions."""
    rows = np.flatnonzero(table["fold"] == 0)
    changed = table.assign(label=table["label"].where(table["fold"] != 0, label))
    before, after = reference_probs(table, rows)[0], reference_probs(changed, rows)[0]
    for name, probs in before.items():
        np.testing.assert_array_equal(probs, after[name])


@given(st.lists(st.integers(0, 2), min_size=1), st.integers(1, 4))
def test_class_prior_has_one_row_more_per_class(labels, n):
    """Laplace's rule; every row gets the same probabilities."""
    probs = predict_class_prior(pd.DataFrame({"label": labels}), pd.DataFrame(index=range(n)))
    counts = np.array([labels.count(k) + 1 for k in range(3)])
    np.testing.assert_allclose(probs, np.tile(counts / counts.sum(), (n, 1)))


def test_length_only_learns_length():
    """Where the longer response wins, accuracy is nearly one."""
    generator = np.random.default_rng(0)
    table = pd.DataFrame(generator.integers(50, 4000, (600, 3)), columns=LENGTH_COLUMNS)
    table["label"] = (table["n_chars_b"] > table["n_chars_a"]).astype(int)
    probs = predict_length_only(table, table)
    assert (probs.argmax(1) == table["label"]).mean() > 0.97


def test_length_only_allows_unseen_ties():
    """A class without a training row is rare, not impossible."""
    table = pd.DataFrame({"label": [0, 1], "n_chars_prompt": 5, "n_chars_a": 5, "n_chars_b": 5})
    probs = predict_length_only(pd.concat([table] * 50), table)
    assert 0 < probs[0, 2] < 0.1
    assert probs[0, 0] == probs[0, 1]


def test_bayes_is_a_reference():
    """Simulated data have the probabilities that their labels were drawn from."""
    table = pd.DataFrame({"fold": [0, 1], "label": [0, 1]})
    table[["bayes_a", "bayes_b", "bayes_tie"]] = [[0.7, 0.1, 0.2], [0.2, 0.5, 0.3]]
    assert reference_probs(table, [1])[0]["bayes"].tolist() == [[0.2, 0.5, 0.3]]


def test_missing_references_are_explained():
    """A single fold has no other rows to fit on."""
    references, omitted = reference_probs(pd.DataFrame({"fold": [0, 0], "label": [0, 1]}), [0])
    assert references.keys() == {"uniform"}
    assert "no labelled row outside fold 0" in omitted["class_prior"]
    assert "no column n_chars_prompt" in omitted["length_only"]


@pytest.mark.parametrize("fold", [0, 1])
def test_references_keep_requested_order(fold):
    """The prediction of a row does not depend on the other requested rows, up to rounding."""
    generator = np.random.default_rng(fold)
    table = pd.DataFrame(generator.integers(0, 900, (30, 3)), columns=LENGTH_COLUMNS)
    table = table.assign(fold=np.arange(30) % 3, label=generator.integers(0, 3, 30))
    whole = reference_probs(table, np.arange(30))[0]["length_only"]
    some = reference_probs(table, [17, 3, 4])[0]["length_only"]
    np.testing.assert_allclose(some, whole[[17, 3, 4]], rtol=1e-12)


@pytest.fixture
def tables():
    """Return predictions better than uniform, and the table of folds: 40 groups in five folds."""
    generator = np.random.default_rng(0)
    group = np.repeat(np.arange(40), 5)
    folds = pd.DataFrame(
        {
            "id": np.arange(200) + 1000,
            "fold": group % 5,
            "label": pd.array(generator.integers(0, 3, 200), dtype="Int8"),
            "group": [f"g{name}" for name in group],
            "n_chars_prompt": generator.integers(1, 500, 200),
            "n_chars_a": generator.integers(1, 5000, 200),
            "n_chars_b": generator.integers(1, 5000, 200),
        }
    )
    known = np.eye(3)[folds["label"].to_numpy(int)]
    probs = 0.7 * generator.dirichlet([3, 3, 3], 200) + 0.3 * known
    return folds.assign(**dict(zip(PROB_COLUMNS, probs.T, strict=True))), folds


def test_run_scores_match_evaluate(tables):
    """evaluate_tables gives the numbers of evaluate and compare."""
    oof, folds = tables
    run = evaluate_tables(oof, folds, n_resamples=FEW)
    labels, probs = oof["label"], oof[PROB_COLUMNS].to_numpy()
    expected = vars(evaluate(labels, probs, groups=oof["group"], n_resamples=FEW))
    assert {name: vars(run)[name] for name in expected} == expected
    uniform = np.full((200, 3), 1 / 3)
    expected = compare(labels, probs, uniform, groups=oof["group"], n_resamples=FEW)
    assert run.differences["uniform"]["log_loss"] == expected
    assert run.verdict("uniform") == "better"


def test_rows_are_matched_by_id(tables):
    """Neither the order of the predictions nor the number of finished folds matters."""
    oof, folds = tables
    first = oof[oof["fold"] == 1]
    run = evaluate_tables(first, folds, n_resamples=FEW)
    shuffled = evaluate_tables(first.sample(frac=1, random_state=1), folds, n_resamples=FEW)
    assert run.to_dict() == shuffled.to_dict()
    assert run.n == 40


def test_scores_json_has_promised_keys(tables):
    """The keys of the interface, baselines in the same form, no NaN."""
    value = evaluate_tables(*tables, counts={"dropped": 3}, n_resamples=FEW).to_dict()
    assert json.loads(json.dumps(value, allow_nan=False)) == value
    assert value["baselines"].keys() == {"uniform", "class_prior", "length_only"}
    for scores in (value, *value["baselines"].values()):
        assert scores["n"] == 200
        for name in ("log_loss", "accuracy", "brier", "ece", "decisive_accuracy"):
            assert scores[name].keys() == {"value", "low", "high"}
    assert value["counts"] == {"rows": 200, "unlabelled": 0, "dropped": 3}
    assert value["position_bias"] is None


def test_unlabelled_rows_are_left_out(tables):
    """They are counted."""
    oof, folds = tables
    oof.loc[:9, "label"] = pd.NA
    run = evaluate_tables(oof, folds, n_resamples=FEW)
    assert run.n == 190
    assert run.counts == {"rows": 200, "unlabelled": 10}


def test_both_orders_give_position_bias(tables):
    """The swapped order is stored permuted back; a preference for the first is positive."""
    oof, folds = tables
    given_order = oof[PROB_COLUMNS].to_numpy()
    tilted = given_order * [1.5, 1, 1] / (given_order * [1.5, 1, 1]).sum(1, keepdims=True)
    other = swap_probs(given_order) * [1.5, 1, 1]
    other = swap_probs(other / other.sum(1, keepdims=True))
    for order, probs in (("given", tilted), ("swapped", other)):
        for column, name in enumerate(PROB_COLUMNS):
            oof[f"{name}_{order}"] = probs[:, column]
    run = evaluate_tables(oof, folds, n_resamples=FEW)
    assert run.position_bias.bias_before.low > 0
    assert run.position_bias.bias_after.value == 0
    assert "position bias" in str(run)
    single = oof.assign(prob_a_swapped=np.nan)
    assert evaluate_tables(single, folds, n_resamples=FEW).position_bias is None


def test_other_judges_can_be_references(tables):
    """Probabilities of any judge for the same rows; here the run itself."""
    oof, folds = tables
    run = evaluate_tables(
        oof, folds, others={"judge": oof[PROB_COLUMNS].to_numpy()}, n_resamples=FEW
    )
    assert run.differences["judge"]["log_loss"].value == 0
    assert run.verdict("judge") == "no clear difference"


def test_run_scores_fit_hundred_columns(tables):
    """Scores with intervals, then a line per reference with its verdict, then those omitted."""
    oof, folds = tables
    run = evaluate_tables(oof, folds.drop(columns="n_chars_a"), n_resamples=FEW)
    lines = str(run).splitlines()
    assert max(map(len, lines)) <= 100
    assert all(
        line.count("[") == 1 for line in lines if line.startswith(("log loss  ", "accuracy"))
    )
    uniform = next(line for line in lines if line.startswith("uniform"))
    assert uniform.count("[") == 2
    assert uniform.endswith("better")
    assert "length_only: omitted, there is no column n_chars_a" in lines


def test_headline_compares_with_lengths(tables):
    """The first line says whether the run is better than the lengths, worse, or neither."""
    oof, folds = tables
    run = evaluate_tables(oof, folds, n_resamples=FEW)
    words = {
        -1.0: "Better than the len", -0.1: "No clear difference", 0.1: "No clear difference",
        1.0: "Worse than the lengths",
    }  # fmt: skip
    for value, expected in words.items():
        difference = Interval(value, value - 0.5, value + 0.5)
        differences = {**run.differences, "length_only": {"log_loss": difference}}
        text = str(dataclasses.replace(run, differences=differences))
        assert text.startswith(expected)
        assert f": log loss {difference:+.4f}" in text.splitlines()[0]


def test_verdicts_are_compared_by_accuracy(tables):
    """Of predictions of 0 and 1, neither log losses nor calibration errors are printed."""
    oof, folds = tables
    verdicts = np.eye(3)[oof[PROB_COLUMNS].to_numpy().argmax(1)]
    run = evaluate_tables(oof.assign(**dict(zip(PROB_COLUMNS, verdicts.T, strict=True))), folds)
    for text in (str(run), run._repr_html_()):
        for absent in ("log loss", "brier", "ECE", "auc"):
            assert absent not in text
        assert f"{run.decisive_accuracy:.4f}" in text
    assert str(run).startswith("Better than the lengths of the responses alone: accuracy +")
    assert not set(run.to_frame().index) & {"log_loss", "brier", "ece"}
    labels, reference = oof["label"], np.full((len(oof), 3), 1 / 3)
    line = next(line for line in str(run).splitlines() if line.startswith("uniform"))
    for metric in ("accuracy", "decisive_accuracy"):
        found = compare(labels, verdicts, reference, groups=oof["group"], metric=metric)
        assert f"{found:+.4f}" in line
    worst = np.eye(3)[(oof["label"].to_numpy(int) + 1) % 3]
    run = evaluate_tables(oof.assign(**dict(zip(PROB_COLUMNS, worst.T, strict=True))), folds)
    assert run.verdict("length_only") == "worse"
    assert str(run).startswith("Worse than the lengths")


def test_html_is_escaped(tables):
    """The name of a reference may be any text."""
    oof, folds = tables
    others = {"<script>": oof[PROB_COLUMNS].to_numpy()}
    run = evaluate_tables(oof, folds, others=others, n_resamples=FEW)
    assert "<script>" not in run._repr_html_()
    assert "&lt;script&gt;" in run._repr_html_()
    assert html.escape(f"{run.baselines['uniform'].log_loss:.4f}") in run._repr_html_()
    assert run._repr_html_().startswith("<p>Better than the lengths")


def test_counts_follow_the_columns():
    """Truncated and degenerate rows are counted if the table has the columns."""
    table = pd.DataFrame(
        {"label": [0, 1, None], "n_truncated": [0, 5, 1], "is_degenerate": [True, False, False]}
    )
    expected = {"rows": 3, "unlabelled": 1, "truncated": 2, "degenerate": 1}
    assert count_rows(table) == expected


def test_predictions_of_another_run_are_refused(tables):
    """The message names ids that the table of folds does not have, or has twice."""
    oof, folds = tables
    with pytest.raises(ScoresError, match="the folds table has no row for 40 ids: 1000"):
        evaluate_tables(oof, folds[folds["fold"] != 0])
    with pytest.raises(ScoresError, match="more than once: 1000"):
        evaluate_tables(oof, pd.concat([folds, folds.head(1)]))


def test_two_classes_are_scored_as_two(tables):
    """Without ties in labels and predictions, scores and references are those of two classes."""
    oof, folds = tables
    oof, folds = (table[table["label"] != 2].reset_index(drop=True) for table in (oof, folds))
    found = evaluate_tables(oof.assign(**_without_ties(oof)), folds, n_resamples=9)
    a, b = oof[["prob_a", "prob_b"]].to_numpy().T
    expected = log_loss(oof["label"].to_numpy(int), b / (a + b), labels=[0, 1])
    assert found.log_loss.value == pytest.approx(expected)
    assert found.baselines["uniform"].log_loss.value == pytest.approx(np.log(2))
    assert found.n_classes == 2
    assert "two classes" in str(found)
    as_given = evaluate_tables(oof, folds, n_resamples=9)
    assert as_given.n_classes == 3
    assert as_given.baselines["uniform"].log_loss.value == pytest.approx(np.log(3))


def _without_ties(oof):
    total = oof["prob_a"] + oof["prob_b"]
    return {"prob_a": oof["prob_a"] / total, "prob_b": oof["prob_b"] / total, "prob_tie": 0.0}
