"""Each score uses the options of its intervals, has the same defaults, and clusters by group."""

from __future__ import annotations

import inspect
import json

import numpy as np
import pandas as pd
import pytest

from run_folders import simulated_tables
from tiewise.data.labels import PROB_COLUMNS
from tiewise.evaluation.agreement import agreement_of_votes, name_votes
from tiewise.evaluation.calibration import calibrate
from tiewise.evaluation.intervals import bootstrap
from tiewise.evaluation.leaderboard import rank_models
from tiewise.evaluation.paired import compare_many
from tiewise.evaluation.position import measure_position_bias, position_bias
from tiewise.evaluation.references import evaluate_tables
from tiewise.evaluation.rewardbench import score_rewardbench
from tiewise.evaluation.scores import compare, evaluate
from tiewise.evaluation.slices import evaluate_slices

PAIRS, FOLDS, OOF = simulated_tables(45)
GROUPS = [f"g{row // 3}" for row in range(45)]
PAIRS, FOLDS, OOF = (table.assign(group=GROUPS) for table in (PAIRS, FOLDS, OOF))
PROBS, LABELS = OOF[PROB_COLUMNS].to_numpy(), OOF["label"].to_numpy(int)
OTHERS = OOF.assign(**dict.fromkeys(PROB_COLUMNS, 1 / 3))
ORDERS = [OOF[[f"{name}_{order}" for name in PROB_COLUMNS]] for order in ("given", "swapped")]
SWAPPED = ORDERS[1].to_numpy()[:, [1, 0, 2]]
BENCH = PAIRS.assign(source=["math-prm", "hep-go", "donotanswer"] * 15)
VOTES = pd.DataFrame({"pair": [row // 2 for row in range(45)], "vote": LABELS, "group": GROUPS})
MODELS = {"model_a": ["m", "n", "o"] * 15, "model_b": ["n", "o", "m"] * 15}


def metric(name):
    return lambda **options: compare(
        LABELS, PROBS, OTHERS[PROB_COLUMNS], groups=GROUPS, metric=name, **options
    )


SCORES = {
    "evaluate": lambda **options: evaluate(LABELS, PROBS, groups=GROUPS, **options),
    "compare log_loss": metric("log_loss"),
    "compare brier": metric("brier"),
    "compare accuracy": metric("accuracy"),
    "compare decisive": metric("decisive_accuracy"),
    "bias": lambda **options: position_bias(
        PROBS + [[0.1, -0.1, 0]] * np.sign(PROBS[:, 1:2] - 0.2), PROBS, groups=GROUPS, **options
    ),
    "bias of both": lambda **options: measure_position_bias(
        ORDERS[0].to_numpy(), SWAPPED, groups=GROUPS, **options
    ),
    "leaderboard": lambda **options: rank_models(PAIRS.assign(**MODELS), OOF, **options),
    "rewardbench": lambda **options: score_rewardbench(BENCH, PROBS, **options),
    "slices": lambda **options: evaluate_slices(PAIRS, OOF, **options),
    "paired": lambda **options: compare_many({"run": OTHERS}, OOF, **options),
    "paired slices": lambda **options: compare_many({"run": OTHERS}, OOF, pairs=PAIRS, **options),
    "agreement": lambda **options: agreement_of_votes(VOTES, **options),
    "calibration": lambda **options: calibrate(LABELS, np.log(PROBS), groups=GROUPS, **options),
}
WITHOUT_RESAMPLES = ("agreement", "rewardbench")  # shares have Wilson intervals


def found(name, **options):
    """Return everything that a score says, as text."""
    return json.dumps(SCORES[name](**options).to_dict(), sort_keys=True)


@pytest.mark.parametrize("name", SCORES)
def test_options_reach_the_intervals(name):
    """Confidence level, number of resamples and seed each change the intervals."""
    base = {"confidence_level": 0.9, "n_resamples": 20, "seed": 3}
    given = found(name, **base)
    assert given == found(name, **base)
    assert given != found(name, **base | {"confidence_level": 0.6})
    others = [found(name, **base | change) for change in ({"n_resamples": 7}, {"seed": 5})]
    assert [given == other for other in others] == [name in WITHOUT_RESAMPLES] * 2


@pytest.mark.parametrize(
    "function", [evaluate, compare, position_bias, rank_models, score_rewardbench, bootstrap]
)
def test_defaults_of_the_intervals(function):
    """Without options the level is 95 %, and there are 999 resamples of seed 0."""
    parameters = inspect.signature(function).parameters
    defaults = {"confidence_level": 0.95, "n_resamples": 999, "seed": 0}
    assert {name: parameters[name].default for name in defaults} == defaults


def test_levels_of_results():
    """Results state the level of their intervals; that of calibrations is corrected."""
    options = {"n_resamples": 9}
    assert SCORES["slices"](**options).confidence_level == 0.95
    assert SCORES["evaluate"](**options).confidence_level == 0.95
    assert SCORES["rewardbench"](confidence_level=0.9, **options).confidence_level == 0.9
    assert SCORES["calibration"](**options).confidence_level == pytest.approx(1 - 0.05 / 3)


def test_groups_reach_the_intervals():
    """Scores depend on the groups of the rows, not on the rows alone."""
    groups = [*GROUPS[:-3], *["g0"] * 3]
    options = {"n_resamples": 20}
    with_groups = [
        evaluate(LABELS, PROBS, groups=GROUPS, **options),
        compare(LABELS, PROBS, OTHERS[PROB_COLUMNS], groups=GROUPS, **options),
        measure_position_bias(ORDERS[0].to_numpy(), SWAPPED, groups=GROUPS, **options),
        calibrate(LABELS, np.log(PROBS), groups=GROUPS, **options),
        agreement_of_votes(VOTES, **options),
        evaluate_tables(OOF, FOLDS, **options),
    ]
    without = [
        evaluate(LABELS, PROBS, groups=groups, **options),
        compare(LABELS, PROBS, OTHERS[PROB_COLUMNS], groups=groups, **options),
        measure_position_bias(ORDERS[0].to_numpy(), SWAPPED, groups=groups, **options),
        calibrate(LABELS, np.log(PROBS), groups=groups, **options),
        agreement_of_votes(VOTES.assign(group=groups), **options),
        evaluate_tables(OOF.assign(group=groups), FOLDS, **options),
    ]
    for one, other in zip(with_groups, without, strict=True):
        assert one.to_dict() != other.to_dict()


def test_votes_keep_the_index_of_their_rows():
    """Rows of any index keep it; a vote on swapped responses is for the other one."""
    texts = {"prompt": [["Q"]] * 3, "response_a": [["1"], ["2"], ["1"]]}
    texts |= {"response_b": [["2"], ["1"], ["2"]]}
    pairs = pd.DataFrame({**texts, "label": pd.array([0, 1, None], "Int8")}, index=[7, 3, 5])
    named = name_votes(pairs)
    assert named.index.tolist() == [7, 3, 5]
    assert named["pair"].nunique() == 1
    assert named["vote"].iloc[0] == named["vote"].iloc[1]
    assert named["vote"].isna().tolist() == [False, False, True]
    ties = name_votes(pairs.assign(label=pd.array([2, 2, 2], "Int8")))
    assert ties["vote"].tolist() == [2, 2, 2]
