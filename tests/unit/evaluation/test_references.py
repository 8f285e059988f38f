"""The table that says whether a run beats what it must beat."""

import json

import numpy as np
import pandas as pd
import pytest

from tiewise.data.labels import PROB_COLUMNS, swap_probs
from tiewise.errors import ScoresError
from tiewise.evaluation.references import count_rows, evaluate_tables
from tiewise.evaluation.scores import compare, evaluate

FEW = 99


@pytest.fixture
def tables():
    """Make a run that knows something: forty groups in five folds, drawn towards the label."""
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


def test_the_scores_are_those_of_the_tables_rows(tables):
    """evaluate_tables says what evaluate and compare say of the same numbers."""
    oof, folds = tables
    run = evaluate_tables(oof, folds, n_resamples=FEW)
    labels, probs = oof["label"], oof[PROB_COLUMNS].to_numpy()
    assert run.scores == evaluate(labels, probs, groups=oof["group"], n_resamples=FEW)
    uniform = np.full((200, 3), 1 / 3)
    expected = compare(labels, probs, uniform, groups=oof["group"], n_resamples=FEW)
    assert run.differences["uniform"]["log_loss"] == expected
    assert run.beats("uniform")


def test_rows_are_matched_by_id(tables):
    """Neither the order of the predictions nor which folds are done matters."""
    oof, folds = tables
    first = oof[oof["fold"] == 1]
    run = evaluate_tables(first, folds, n_resamples=FEW)
    shuffled = evaluate_tables(first.sample(frac=1, random_state=1), folds, n_resamples=FEW)
    assert run.to_dict() == shuffled.to_dict()
    assert run.scores.n == 40


def test_scores_json_has_the_promised_shape(tables):
    """The keys of interfaces.md, baselines in the same shape, no NaN."""
    value = evaluate_tables(*tables, counts={"dropped": 3}, n_resamples=FEW).to_dict()
    assert json.loads(json.dumps(value, allow_nan=False)) == value
    assert value["baselines"].keys() == {"uniform", "class_prior", "length_only"}
    for scores in (value, *value["baselines"].values()):
        assert scores["n"] == 200
        for name in ("log_loss", "accuracy", "brier", "ece", "decisive_accuracy"):
            assert scores[name].keys() == {"value", "low", "high"}
    assert value["counts"] == {"rows": 200, "unlabelled": 0, "dropped": 3}
    assert value["position_bias"] is None


def test_rows_without_a_label_are_left_out_and_counted(tables):
    """Nothing is lost in silence."""
    oof, folds = tables
    oof.loc[:9, "label"] = pd.NA
    run = evaluate_tables(oof, folds, n_resamples=FEW)
    assert run.scores.n == 190
    assert run.counts == {"rows": 200, "unlabelled": 10}


def test_both_orders_give_the_position_bias(tables):
    """The swapped order stands in the table permuted back; a tilt to the first is positive."""
    oof, folds = tables
    given = oof[PROB_COLUMNS].to_numpy()
    tilted = given * [1.5, 1, 1] / (given * [1.5, 1, 1]).sum(1, keepdims=True)
    other = swap_probs(given) * [1.5, 1, 1]
    other = swap_probs(other / other.sum(1, keepdims=True))
    for order, probs in (("given", tilted), ("swapped", other)):
        for column, name in enumerate(PROB_COLUMNS):
            oof[f"{name}_{order}"] = probs[:, column]
    run = evaluate_tables(oof, folds, n_resamples=FEW)
    assert run.position_bias.bias_before.low > 0
    assert run.position_bias.bias_after.value == 0
    assert "bias before" in str(run)
    single = oof.assign(prob_a_swapped=np.nan)
    assert evaluate_tables(single, folds, n_resamples=FEW).position_bias is None


def test_another_predictor_can_be_a_reference(tables):
    """Any judge's probabilities of the same rows stand beside the rest."""
    oof, folds = tables
    run = evaluate_tables(
        oof, folds, others={"judge": oof[PROB_COLUMNS].to_numpy()}, n_resamples=FEW
    )
    assert run.differences["judge"]["log_loss"].value == 0
    assert not run.beats("judge")


def test_it_prints_every_score_with_its_interval_and_names_what_is_missing(tables):
    """A column per reference, a verdict each, a reason for what is omitted."""
    oof, folds = tables
    run = evaluate_tables(oof, folds.drop(columns="n_chars_a"), n_resamples=FEW)
    text = str(run)
    assert "beats uniform: -" in text
    assert "length_only: omitted, there is no column n_chars_a" in text
    assert text.splitlines()[2].count("[") == 3


def test_html_is_escaped(tables):
    """A reference may be called anything."""
    oof, folds = tables
    others = {"<script>": oof[PROB_COLUMNS].to_numpy()}
    run = evaluate_tables(oof, folds, others=others, n_resamples=FEW)
    assert "<script>" not in run._repr_html_()
    assert "&lt;script&gt;" in run._repr_html_()


def test_counts_follow_the_columns_there_are():
    """Truncated and degenerate rows are counted where the table says which they are."""
    table = pd.DataFrame(
        {"label": [0, 1, None], "n_truncated": [0, 5, 1], "is_degenerate": [True, False, False]}
    )
    expected = {"rows": 3, "unlabelled": 1, "truncated": 2, "degenerate": 1}
    assert count_rows(table) == expected


def test_predictions_of_another_run_are_refused(tables):
    """Ids that the folds table does not know, or knows twice, are named."""
    oof, folds = tables
    with pytest.raises(ScoresError, match=r"40 predicted ids are not in the folds table: 1000"):
        evaluate_tables(oof, folds[folds["fold"] != 0])
    with pytest.raises(ScoresError, match="more than once: 1000"):
        evaluate_tables(oof, pd.concat([folds, folds.head(1)]))
