"""Groups that are given by name are kept apart, kept together, or refused by row."""

import math
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

import tiewise as tw
from tiewise.data.folds import fold_by_group, read_groups
from tiewise.data.formats import read_many, write_pairs
from tiewise.data.pairs import build_pairs
from tiewise.errors import FoldError, ScoresError, TiewiseError

PROBS = [[0.6, 0.3, 0.1], [0.2, 0.5, 0.3], [0.3, 0.3, 0.4], [0.5, 0.2, 0.3]]
LABELS = [0, 1, 2, 1]


def partition(names):
    """Return for each row the first row of its group."""
    names = list(names)
    return [names.index(name) for name in names]


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        ([1, "1", 1, "2"], [0, 1, 0, 3]),
        ([1, 1.0, True, 2], [0, 0, 0, 3]),
        ([("s", 1), ("s", 2), ("s", 1.0), ("t", 1)], [0, 1, 0, 3]),
        (["a", "a\x00", "a ", "A"], [0, 1, 2, 3]),
        (["nan", "None", "", "<NA>"], [0, 1, 2, 3]),
        ([10**30, 10**30 + 1, -1, 0], [0, 1, 2, 3]),
        ([0.1, 0.25, 0.1, -0.0], [0, 1, 0, 3]),
        (pd.Series([3, 3, 4, 5], index=[9, 8, 7, 6]), [0, 0, 2, 3]),
        (pd.Categorical(["x", "y", "x", "z"]), [0, 1, 0, 3]),
        (pd.MultiIndex.from_tuples([(1, "a"), (1, "b"), (1, "a"), (2, "a")]), [0, 1, 0, 3]),
        (np.array([2**53, 2**53 + 1, 0, 1]), [0, 1, 2, 3]),
        (iter(["p", "q", "p", "r"]), [0, 1, 0, 3]),
    ],
)
def test_different_groups_stay_apart(groups, expected):
    """Rows share a group exactly when their values are equal, in scores and in folds."""
    groups = list(groups) if isinstance(groups, type(iter([]))) else groups
    assert partition(read_groups(groups)) == expected
    scores = tw.evaluate(LABELS, PROBS, groups=groups)
    assert scores.n_groups == len(set(expected))
    folds = fold_by_group(groups, LABELS, 2)
    assert all(folds[row] == folds[first] for row, first in enumerate(expected))
    plain = tw.evaluate(LABELS, PROBS, groups=[str(first) for first in expected])
    assert scores.log_loss == plain.log_loss


@pytest.mark.parametrize(
    "missing",
    [None, math.nan, pd.NA, pd.NaT, np.float64("nan")],
    ids=lambda value: f"{type(value).__name__} {value}",
)
@pytest.mark.parametrize("others", [["a", "b", "c"], [1, 2, 3], [("a", 1), ("b", 1), ("c", 1)]])
def test_missing_group_is_refused_by_row(missing, others):
    """A missing group is no group of its own, whatever its type: the message names the row."""
    groups = [*others[:2], missing, others[2]]
    for error, call in (
        (FoldError, lambda: fold_by_group(groups, LABELS, 2)),
        (ScoresError, lambda: tw.evaluate(LABELS, PROBS, groups=groups)),
        (ScoresError, lambda: tw.compare(LABELS, PROBS, PROBS, groups=groups)),
    ):
        with pytest.raises(error, match="missing in 1 rows, the first at row 2"):
            call()


@pytest.mark.parametrize(
    ("groups", "match"),
    [
        (["a", ["b"], "c", "d"], "at row 1; expected text"),
        ([1, 2, {"a": 1}, 3], "at row 2; expected text"),
        ([("a", None), ("b", 1), ("c", 1), ("d", 1)], "at row 0; expected text"),
        ([1.0, 2.0, 3.0, 1e16], "at row 3; .*larger ones are rounded"),
        ([1.0, 2.0, 3.0, math.inf], "at row 3"),
        ([Decimal(1), 2, 3, 4], "at row 0"),
        (np.zeros((4, 2)), "at row 0"),
        ("abcd", "groups is a str"),
        (pd.DataFrame({"a": [1], "b": [2], "c": [3], "d": [4]}), "groups is a DataFrame"),
        (["a", "b"], "2 entries for 4 rows|number of labels is 4"),
    ],
)
def test_other_values_are_refused(groups, match):
    """Values that cannot be compared are refused with a message, in scores and in folds."""
    for call in (
        lambda: fold_by_group(groups, LABELS, 2),
        lambda: tw.evaluate(LABELS, PROBS, groups=groups),
    ):
        with pytest.raises(TiewiseError, match=match):
            call()


def test_classifier_reads_groups_in_the_same_way():
    """The estimator refuses a missing group and a list of another length."""
    from tiewise.data.simulation.simulate import simulate

    pairs = simulate(60)
    for groups, match in (([*range(59), None], "missing in 1 rows"), ([1, 2], "2 entries for 60")):
        with pytest.raises(FoldError, match=match):
            tw.PreferenceClassifier().fit(pairs, pairs["label"], groups=groups)


rows = st.lists(
    st.tuples(st.sampled_from("pqrst"), st.sampled_from(["g", "h", "i", None])),
    min_size=1,
    max_size=6,
)


@given(first=rows, second=rows, suffix=st.sampled_from([".csv", ".parquet"]))
def test_given_groups_survive_joining(first, second, suffix, tmp_path_factory):
    """Joined rows share a group exactly when given groups and prompts connect them."""
    folder = tmp_path_factory.mktemp("joined")
    paths = [folder / f"{name}{suffix}" for name in ("first", "second")]
    for path, own in zip(paths, (first, second), strict=True):
        texts = {"prompt": [[text] for text, _ in own], "response_a": [["x"]] * len(own)}
        columns = {**texts, "response_b": [["y"]] * len(own), "label": [0] * len(own)}
        groups = [group for _, group in own]
        write_pairs(build_pairs({"id": range(len(own)), **columns, "group": groups}), path)
    joined = read_many(paths)["group"].tolist()
    keys = [[text, *([f"group {group}"] if group else [])] for text, group in first + second]
    names = sorted({key for own in keys for key in own})
    edges = [(names.index(own[0]), names.index(key)) for own in keys for key in own]
    graph = coo_array((np.ones(len(edges)), np.transpose(edges)), shape=[len(names)] * 2)
    component = connected_components(graph, directed=False)[1]
    expected = [component[names.index(own[0])] for own in keys]
    assert partition(joined) == partition(expected)


@pytest.mark.parametrize("others", [[12.0, 13.0], ["12.0", "13.0"], [12, 13], ["12", "13"]])
def test_sessions_are_compared_as_numbers(others):
    """A session that one file writes as an integer and another one as a float is one session."""
    texts = {"prompt": [["a"], ["b"], ["c"], ["d"]], "response_a": [["x"]] * 4}
    table = pd.DataFrame({**texts, "session": pd.Series(["12", "14", *others], dtype=object)})
    groups = tw.derive_groups(table)
    assert partition(groups) == [0, 1, 0, 3]


def test_rare_class_is_balanced():
    """A class of one row in a hundred is spread over the folds as evenly as the frequent ones."""
    labels = np.array(([2] + [0] * 49 + [1] * 50) * 10)
    for seed in range(5):
        sizes = np.random.default_rng(seed).integers(1, 6, 1_000)
        groups = np.repeat(np.arange(1_000), sizes)[:1_000].astype(str)
        folds = fold_by_group(groups, labels, 5, seed=seed)
        assert np.bincount(folds[labels == 2], minlength=5).tolist() == [2] * 5
        assert np.ptp(np.bincount(folds)) <= 3
