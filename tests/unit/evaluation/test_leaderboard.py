"""Tests of leaderboards from labels and predictions, with and without length control."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import softmax
from scipy.stats import kendalltau, norm, t

from tiewise.data.labels import PROB_COLUMNS
from tiewise.errors import ScoresError
from tiewise.evaluation.davidson import Contests, fit_davidson
from tiewise.evaluation.leaderboard import _agreement, _intervals, _widening, rank_models
from tiewise.evaluation.references import LENGTH_COLUMNS, predict_length_only

SKILL = pd.Series({"ash": 1.2, "box": 0.5, "elm": -0.4, "fir": -1.3})
WORDS = pd.Series({"ash": 300, "box": 100, "elm": 400, "fir": 150})


@pytest.fixture(scope="module")
def tables():
    """Return pairs whose labels depend on skill and length, true probabilities, a length judge."""
    generator = np.random.default_rng(0)
    names = SKILL.index.to_numpy()
    first = generator.integers(0, 4, 1500)
    second = (first + generator.integers(1, 4, 1500)) % 4
    sizes = [generator.poisson(WORDS.to_numpy()[side]) + 1 for side in (first, second)]
    gap = np.log(sizes[0]) - np.log(sizes[1])
    lead = (SKILL.to_numpy()[first] - SKILL.to_numpy()[second] + 0.6 * gap) / 2
    true = softmax(np.column_stack([lead, -lead, np.full(1500, -0.2)]), axis=1)
    labels = (generator.random(1500)[:, None] > true.cumsum(1)[:, :2]).sum(1)
    pairs = pd.DataFrame(
        {
            "id": np.arange(1500),
            "response_a": [["x" * size] for size in sizes[0]],
            "response_b": [["x" * size] for size in sizes[1]],
            "model_a": names[first],
            "model_b": names[second],
        }
    )
    oof = pd.DataFrame({"id": pairs["id"], "label": labels, "group": np.arange(1500) // 5})
    oof[PROB_COLUMNS] = true
    lengths = pd.DataFrame(np.column_stack([np.full(1500, 9), *sizes]), columns=LENGTH_COLUMNS)
    meter = oof.copy()
    meter[PROB_COLUMNS] = predict_length_only(lengths.assign(label=labels), lengths)
    return pairs, oof, meter


def test_true_probabilities_rank_like_labels(tables):
    """Order, strengths and weight of length agree."""
    pairs, oof, _ = tables
    boards = rank_models(pairs, oof)
    assert boards.observed_controlled.models == tuple(SKILL.index)
    assert boards.agreement_controlled.value == 1
    board = boards.predicted_controlled
    strengths = dict(zip(board.models, [each.value for each in board.strengths], strict=True))
    np.testing.assert_allclose([strengths[model] for model in SKILL.index], SKILL, atol=0.1)
    weight = boards.observed_controlled.length_weight
    assert weight.low < 0.6 < weight.high
    assert boards.predicted_controlled.length_weight.value == pytest.approx(0.6, abs=0.05)


def test_intervals_contain_true_strengths(tables):
    """They exclude zero for the strongest and the weakest model."""
    pairs, oof, _ = tables
    board = rank_models(pairs, oof).observed_controlled
    for model, interval in zip(board.models, board.strengths, strict=True):
        assert interval.low < SKILL[model] < interval.high
    assert board.strengths[0].low > 0
    assert board.strengths[-1].high < 0


def test_intervals_are_clustered(tables):
    """A second copy of each row in its group is no evidence: the intervals stay as wide."""
    pairs, oof, _ = tables
    copies = [table.assign(id=table["id"] + 5000) for table in (pairs, oof)]
    once = rank_models(pairs, oof, n_resamples=299).observed_controlled
    twice = rank_models(
        pd.concat([pairs, copies[0]]), pd.concat([oof, copies[1]]), n_resamples=299
    ).observed_controlled
    for one, other in zip(once.strengths, twice.strengths, strict=True):
        assert other.high - other.low == pytest.approx(one.high - one.low, rel=0.25)


@pytest.mark.parametrize("name", ["observed", "observed_controlled"])
def test_intervals_match_refitted_resamples(tables, name):
    """Half widths are 1.96 standard deviations of the fits to 50 bootstrap samples of groups."""
    pairs, oof, _ = tables
    board = getattr(rank_models(pairs, oof), name)
    found = dict(zip(board.models, board.strengths, strict=True))
    gap = [np.log1p([len(text[0]) for text in pairs[f"response_{side}"]]) for side in "ab"]
    codes = [pairs[f"model_{side}"].map(list(SKILL.index).index).to_numpy() for side in "ab"]
    rows_of = np.arange(1500).reshape(300, 5)
    generator = np.random.default_rng(1)
    refitted = []
    for _ in range(50):
        rows = rows_of[generator.integers(0, 300, 300)].ravel()
        outcomes = np.eye(3)[oof["label"].to_numpy()[rows]]
        drawn = Contests(codes[0][rows], codes[1][rows], outcomes, (gap[0] - gap[1])[rows], 4)
        is_controlled = name.endswith("controlled")
        refitted.append(fit_davidson(drawn.with_prior(), is_controlled=is_controlled).strengths)
    widths = [(found[model].high - found[model].low) / 2 for model in SKILL.index]
    ratios = widths / (1.96 * np.std(refitted, axis=0))
    np.testing.assert_allclose(ratios, 1, atol=0.3)
    assert ratios.mean() == pytest.approx(1, abs=0.15)


def test_length_control_exposes_length_judge(tables):
    """Strengths of a judge that measures length shrink; those of labels and a real judge do not."""
    pairs, oof, meter = tables
    found = rank_models(pairs, meter)
    assert found.predicted_controlled.spread.high < 0.35 * found.predicted.spread.value
    real = rank_models(pairs, oof)
    assert real.predicted_controlled.spread.low > 0.7 * real.predicted.spread.value
    assert real.observed_controlled.spread.low > 0.7 * real.observed.spread.value


@given(st.integers(2, 6), st.integers(0, 100))
def test_agreement_matches_scipy(n_models, seed):
    """Kendall's tau-b, with and without equal strengths; NaN where all are equal."""
    generator = np.random.default_rng(seed)
    one, other = generator.integers(0, 3, (2, 20, n_models)).astype(float)
    with np.errstate(invalid="ignore"):
        theirs = [kendalltau(*both).statistic for both in zip(one, other, strict=True)]
    expected = _intervals(np.array(theirs)[:, None], 0.9)[0].clip(-1, 1)
    found = _agreement(one, other, 0.9)
    assert vars(found) == pytest.approx(vars(expected), nan_ok=True)


def test_interval_of_two_models_by_hand():
    """With 8 groups the half width is Student's t times the clustered error of the log odds."""
    n_groups = 8
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 2, (n_groups, 6))
    ids = np.arange(labels.size)
    names = {"model_a": "x", "model_b": "y", "response_a": [["t"]] * 48, "response_b": [["t"]] * 48}
    oof = pd.DataFrame({"id": ids, "label": labels.ravel(), "group": ids // 6})
    oof[PROB_COLUMNS] = 1 / 3
    board = rank_models(pd.DataFrame({"id": ids, **names}), oof, n_resamples=9999).observed
    wins = 6 - labels.sum(1)
    share = wins.mean() / 6
    error = np.std(wins, ddof=1) / np.sqrt(n_groups) / 6 / (share * (1 - share)) / 2
    half = t.ppf(0.975, n_groups - 1) * error
    interval = board.strengths[0]
    assert interval.value == pytest.approx(abs(np.log(share / (1 - share))) / 2, abs=0.01)
    assert (interval.high - interval.low) / 2 == pytest.approx(half, rel=0.06)


def test_unbeaten_model_has_finite_intervals(tables):
    """A model that wins every vote has a strength, by labels and by certain predictions."""
    pairs, oof, _ = tables
    pairs = pairs.assign(model_a="ash", model_b=pairs["model_b"].replace("ash", "box"))
    certain = oof.assign(label=0, prob_a=1.0, prob_b=0.0, prob_tie=0.0)
    boards = rank_models(pairs, certain, n_resamples=19)
    for board in (boards.observed, boards.predicted, boards.observed_controlled):
        assert board.models[0] == "ash"
        ends = [end for strength in board.strengths for end in vars(strength).values()]
        assert np.isfinite(ends).all()
        assert np.abs(ends).max() < 20


def test_only_connected_models_are_ranked(tables):
    """The set with most rows is ranked, even if another has more models; the others are named."""
    pairs, oof, _ = tables
    elsewhere = pairs.head(10).assign(
        id=np.arange(10) + 9000, model_a="oak", model_b=[f"yew{k % 5}" for k in range(10)]
    )
    votes = oof.head(10).assign(id=np.arange(10) + 9000, group=9000)
    boards = rank_models(pd.concat([pairs, elsewhere]), pd.concat([oof, votes]), n_resamples=19)
    assert boards.omitted == ("oak", "yew0", "yew1", "yew2", "yew3", "yew4")
    assert boards.n == 1500
    assert str(boards).startswith(
        "not ranked, as no chain of pairs connects them to the others: oak"
    )


def test_incomplete_rows_are_left_out(tables):
    """Rows without a label or name, and a model paired with itself."""
    pairs, oof, _ = tables
    pairs, oof = pairs.copy(), oof.astype({"label": "Int8"})
    pairs.loc[0, "model_a"] = None
    pairs.loc[1, "model_b"] = pairs.loc[1, "model_a"]
    oof.loc[2, "label"] = pd.NA
    assert rank_models(pairs, oof, n_resamples=19).n == 1497


def test_single_group_has_no_intervals(tables):
    """The spread over groups is unknown."""
    pairs, oof, _ = tables
    boards = rank_models(pairs, oof.assign(group="only"), n_resamples=19)
    assert np.isnan(boards.observed.strengths[0].low)
    assert boards.agreement.to_dict()["low"] is None


def test_leaderboards_print_and_convert_to_json(tables):
    """Four boards and the agreement, without NaN; names are escaped in HTML."""
    pairs, oof, _ = tables
    pairs = pairs.assign(model_a=pairs["model_a"].replace("ash", "<a>"))
    pairs["model_b"] = pairs["model_b"].replace("ash", "<a>")
    boards = rank_models(pairs, oof, n_resamples=19)
    value = boards.to_dict()
    assert json.loads(json.dumps(value, allow_nan=False)) == value
    assert value["observed"]["models"][0]["model"] == "<a>"
    assert str(boards).count("spread") == 4
    assert "<a>" not in boards._repr_html_()


def test_missing_model_names_are_refused(tables):
    """A table without model names cannot be ranked."""
    pairs, oof, _ = tables
    with pytest.raises(ScoresError, match="names two different models"):
        rank_models(pairs.assign(model_a=None), oof)


@pytest.mark.parametrize("n_groups", [2, 5, 40])
def test_few_groups_widen_by_two_factors(n_groups):
    """Student's quantile over the normal one, and the square root of G / (G - 1)."""
    quantiles = t.ppf(0.975, n_groups - 1) / norm.ppf(0.975)
    expected = quantiles * np.sqrt(n_groups / (n_groups - 1))
    assert _widening(n_groups, 0.95) == pytest.approx(expected, rel=1e-12)
