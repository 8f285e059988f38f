"""Tests of RewardBench accuracy."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from tiewise.data.formats import read_pairs
from tiewise.data.labels import swap_probs
from tiewise.data.pairs import build_pairs, swap_pairs
from tiewise.errors import ScoresError
from tiewise.evaluation.rewardbench import N_CODE, SECTIONS, score_rewardbench

SUBSETS = ["hep-go", "math-prm", "llmbar-natural", "donotanswer", "alpacaeval-easy"]


def make_pairs(labels, subsets):
    n = len(labels)
    texts = {name: [[f"{name} {row}"] for row in range(n)] for name in ("response_a", "response_b")}
    prompts = [[f"prompt {row}"] for row in range(n)]
    return build_pairs(
        {"id": range(n), "prompt": prompts, **texts, "label": labels, "source": subsets}
    )


tables = st.lists(
    st.tuples(
        st.sampled_from([0, 1, 1, 0, 2, None]),
        st.sampled_from(SUBSETS),
        st.tuples(*[st.integers(1, 5)] * 3),
    ),
    min_size=1,
    max_size=12,
).filter(lambda rows: any(label in (0, 1) for label, _, _ in rows))


@settings(max_examples=10)
@given(rows=tables)
def test_scores_follow_the_definition(rows):
    """Subsets, weighted sections and their mean equal a row-by-row count; ties are left out."""
    labels, subsets, odds = zip(*rows, strict=True)
    probs = np.array(odds) / np.sum(odds, axis=1, keepdims=True)
    found = score_rewardbench(make_pairs(labels, subsets), probs, n_resamples=9)
    right = {}
    for label, subset, odd in rows:
        if label in (0, 1):
            margin = odd[label] - odd[1 - label]
            right.setdefault(subset, []).append((np.sign(margin) + 1) / 2)
    accuracy = {subset: np.mean(values) for subset, values in right.items()}
    weight = {s: N_CODE if s == "math-prm" else len(values) for s, values in right.items()}
    sections = []
    for listed in SECTIONS.values():
        of_section = [s for s in accuracy if s in listed.split()]
        if of_section:
            total = sum(weight[s] for s in of_section)
            sections.append(sum(weight[s] * accuracy[s] for s in of_section) / total)
    assert {s: i.value for s, i in found.subsets.items()} == pytest.approx(accuracy)
    assert found.overall.value == pytest.approx(np.mean(sections))
    assert found.n_without_choice == sum(label not in (0, 1) for label in labels)


@settings(max_examples=10)
@given(rows=tables)
def test_swapping_responses_keeps_scores(rows):
    """Swapped pairs with swapped probabilities give the same numbers and intervals."""
    labels, subsets, odds = zip(*rows, strict=True)
    probs = np.array(odds) / np.sum(odds, axis=1, keepdims=True)
    pairs = make_pairs(labels, subsets)
    one = score_rewardbench(pairs, probs, n_resamples=9)
    other = score_rewardbench(swap_pairs(pairs), swap_probs(probs), n_resamples=9)
    assert repr(one.to_dict()) == repr(other.to_dict())


def test_uniform_probabilities_score_half():
    """Equal probabilities count half."""
    pairs = make_pairs([0, 1, 0, 1], SUBSETS[:4])
    assert score_rewardbench(pairs, np.full((4, 3), 1 / 3)).overall.value == 0.5


@pytest.mark.parametrize(("lost", "value"), [(None, 1.0), (0, 0.5), (5, 0.5)])
def test_chosen_must_beat_every_rejected(tmp_path, lost, value):
    """In RewardBench 2 one lost comparison of six makes the prompt wrong."""
    record = {
        "prompt": "Sky?",
        "chosen": ["blue", "azure"],
        "rejected": ["green", "red", "brown"],
        "subset": "Ties",
        "models": ["m"] * 5,
    }
    records = [{"id": "1", **record}, {"id": "2", **record, "prompt": "Sea?"}]
    pairs = read_pairs(pd.DataFrame(records))
    right = [0.8, 0.1, 0.1]
    probs = np.array(
        [right if label == 0 else swap_probs(np.array([right]))[0] for label in pairs["label"]]
    )
    if lost is not None:
        probs[lost] = probs[lost][[1, 0, 2]]
    found = score_rewardbench(pairs, probs)
    assert (found.overall.value, found.n) == (value, 2)
    assert list(found.sections) == ["Ties"]


@pytest.mark.parametrize("ids", [["7", "7"], ["7", "8"], ["a/01/02", "a/01/03"], ["x/1", "x/1"]])
def test_repeated_ids_are_separate_prompts(ids):
    """Without the ids of RewardBench 2 every row counts, also within one group."""
    pairs = make_pairs([0, 0], ["x", "x"]).assign(group="g")
    pairs["id"] = pd.array(ids, dtype="string")
    found = score_rewardbench(pairs, [[0.7, 0.2, 0.1], [0.2, 0.7, 0.1]])
    assert (found.n, found.overall.value) == (2, 0.5)


def test_repeated_prompts_are_separate():
    """RewardBench 2 read twice has twice the prompts, each with all of its responses."""
    once = make_pairs([0] * 4, ["Ties"] * 4).assign(group="g")
    once["id"] = pd.array(["1/0/0", "1/0/1", "2/0/0", "2/0/1"], dtype="string")
    probs = np.array([[0.7, 0.2, 0.1], [0.2, 0.7, 0.1], [0.7, 0.2, 0.1], [0.7, 0.2, 0.1]])
    found = score_rewardbench(once, probs)
    assert (found.n, found.overall.value) == (2, 0.5)
    again = score_rewardbench(pd.concat([once, once]), np.vstack([probs, probs]))
    assert (again.n, again.overall.value) == (4, 0.5)


def test_perfect_subsets_have_a_width():
    """All prompts right: the intervals end at one and start below, for each weighting."""
    found = score_rewardbench(make_pairs([0] * 40, SUBSETS * 8), [[0.7, 0.2, 0.1]] * 40)
    for interval in (found.overall, *found.sections.values(), *found.subsets.values()):
        assert interval.value == interval.high == 1
        assert 0.4 < interval.low < 0.95
    eight = found.subsets["hep-go"]
    assert eight.low == pytest.approx(8 / (8 + stats.t.ppf(0.975, 7) ** 2))
    # The mean of four sections: the section of math-prm, which outweighs hep-go, has 16 prompts.
    share = N_CODE / (N_CODE + 8)
    kish = 16 / (3 / 8 + (share**2 + (1 - share) ** 2) / 8)
    assert found.overall.low == pytest.approx(kish / (kish + stats.t.ppf(0.975, 39) ** 2))


def test_only_ties_are_refused():
    """Ties alone are not preferences."""
    with pytest.raises(ScoresError, match="no row has a choice"):
        score_rewardbench(make_pairs([2], ["x"]), [[0.1, 0.1, 0.8]])


def test_scores_print_with_intervals():
    """One line per number, each with its interval; few groups are marked."""
    text = str(score_rewardbench(make_pairs([0, 1, 2], SUBSETS[:3]), np.full((3, 3), 1 / 3)))
    assert "1 rows without a choice left out" in text
    assert "(2 groups: rough)" in text
    assert all("[" in line for line in text.splitlines()[1:])
