"""Folds hold out each row once and never split a prompt group."""

from __future__ import annotations

import time

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from strategies import turns
from tiewise.data.first_text import normalise
from tiewise.data.folds import (
    derive_groups,
    fold_by_group,
    fold_by_id,
    fold_by_position,
    merge_groups,
    split,
)
from tiewise.errors import FoldError, PairsError

few_names = st.sampled_from(["p", "q", "r", "s", "t"])
grouped_rows = st.lists(st.tuples(few_names, st.sampled_from([0, 1, 2, None])), max_size=40)


@given(n=st.integers(0, 60), n_splits=st.integers(2, 8))
def test_folds_by_position_match_the_notebook(n, n_splits):
    """Training and held-out rows are those of the notebook's list comprehensions."""
    notebook_folds = [
        (
            [i for i in range(n) if i % n_splits != fold],
            [i for i in range(n) if i % n_splits == fold],
        )
        for fold in range(n_splits)
    ]
    folds = fold_by_position(n, n_splits)
    for fold, (train_rows, eval_rows) in enumerate(notebook_folds):
        if train_rows and eval_rows:
            train_idx, eval_idx = split(folds, fold)
            assert (train_idx.tolist(), eval_idx.tolist()) == (train_rows, eval_rows)


@given(ids=st.lists(st.integers()), n_splits=st.integers(2, 8))
def test_folds_by_id_are_remainders(ids, n_splits):
    """The fold is `id % n_splits`, for integers and for integers as text."""
    expected = [value % n_splits for value in ids]
    assert fold_by_id(ids, n_splits).tolist() == expected
    assert fold_by_id(map(str, ids), n_splits).tolist() == expected


@pytest.mark.parametrize("value", ["a3f", "", None, 1.5, float("nan"), float("inf"), [1]])
def test_folds_by_id_need_integers(value):
    """Hashes, fractions and missing ids are refused."""
    with pytest.raises(FoldError, match="expected an integer"):
        fold_by_id([1, value])


@given(rows=grouped_rows, n_splits=st.integers(2, 5), seed=st.integers(0, 3), data=st.data())
def test_groups_are_never_split(rows, n_splits, seed, data):
    """No group is in two folds, no fold is empty, and the order of rows has no effect."""
    groups, labels = [group for group, _ in rows], [label for _, label in rows]
    assume(len(set(groups)) >= n_splits)
    folds = fold_by_group(groups, labels, n_splits, seed=seed)
    assert len({(group, fold) for group, fold in zip(groups, folds, strict=True)}) == len(
        set(groups)
    )
    assert set(folds.tolist()) == set(range(n_splits))
    order = data.draw(st.permutations(range(len(rows))))
    shuffled = fold_by_group(
        [groups[i] for i in order], [labels[i] for i in order], n_splits, seed=seed
    )
    np.testing.assert_array_equal(shuffled, folds[order])


@given(rows=grouped_rows, n_splits=st.integers(2, 5))
def test_every_row_is_held_out_once(rows, n_splits):
    """Each fold partitions the rows, and the held-out rows of all folds are all rows."""
    groups, labels = [group for group, _ in rows], [label for _, label in rows]
    assume(len(set(groups)) >= n_splits)
    folds = fold_by_group(groups, labels, n_splits)
    held_out = []
    for fold in range(n_splits):
        train_idx, eval_idx = split(folds, fold)
        assert sorted([*train_idx, *eval_idx]) == list(range(len(rows)))
        assert train_idx.tolist() == sorted(train_idx)
        assert eval_idx.tolist() == sorted(eval_idx)
        held_out.extend(eval_idx)
    assert sorted(held_out) == list(range(len(rows)))


def arena_like(n, seed=0):
    """Return groups of sizes as in arena data, most of them 1, and labels."""
    generator = np.random.default_rng(seed)
    sizes = np.minimum(generator.zipf(2.2, n), 200)
    groups = np.repeat(np.arange(n), sizes)[:n].astype(str)
    return groups, generator.choice(3, n, p=[0.35, 0.34, 0.31])


def test_classes_and_sizes_are_balanced():
    """With many groups, size and class shares of each fold differ by less than 0.005."""
    groups, labels = arena_like(20_000)
    folds = fold_by_group(groups, labels, 5)
    counts = pd.crosstab(folds, labels).to_numpy()
    assert np.abs(counts.sum(axis=1) / len(labels) - 0.2).max() < 0.005
    shares = counts / counts.sum(axis=1, keepdims=True)
    assert np.abs(shares - np.bincount(labels) / len(labels)).max() < 0.005


def test_rare_classes_are_balanced():
    """A class of 3 % is spread over the folds, although its rows are few in each large group."""
    generator = np.random.default_rng(0)
    labels = np.where(generator.random(2000) < 0.03, 2, generator.integers(0, 2, 2000))
    folds = fold_by_group((np.arange(2000) // 10).astype(str), labels, 5)
    counts = pd.crosstab(folds, labels).to_numpy()
    assert (counts.sum(axis=1) == 400).all()
    assert np.ptp(counts[:, 2]) <= 2


def test_seed_determines_the_folds():
    """Another seed gives other folds; the same seed gives the same folds."""
    groups, labels = arena_like(500)
    first, second = (fold_by_group(groups, labels, seed=seed) for seed in (0, 1))
    assert (first != second).any()
    np.testing.assert_array_equal(first, fold_by_group(groups, labels, seed=0))


def test_published_folds_do_not_change():
    """The folds of a fixed example are those of earlier versions."""
    groups = [f"g{number % 9}" for number in range(18)]
    labels = [number % 3 for number in range(18)]
    folds = fold_by_group(groups, labels, 3, seed=7)
    assert folds.tolist()[:9] == folds.tolist()[9:] == [1, 1, 2, 2, 0, 1, 0, 2, 0]


def test_many_rows_take_seconds():
    """Folds by group of 60,000 rows take less than five seconds."""
    groups, labels = arena_like(60_000)
    start = time.process_time()
    fold_by_group(groups, labels, 5)
    assert time.process_time() - start < 5


@pytest.mark.parametrize(
    ("groups", "labels", "n_splits", "match"),
    [
        (["p"], [0], 2, "groups is 1; expected at least 2"),
        (["p", "q"], [0], 2, "labels is 1; expected 2"),
        (["p", "q"], [0, 1], 1, "at least 2"),
    ],
)
def test_impossible_folds_are_refused(groups, labels, n_splits, match):
    """Fewer groups than folds, or lists that do not belong together, are refused."""
    with pytest.raises(FoldError, match=match):
        fold_by_group(groups, labels, n_splits)


@pytest.mark.parametrize("n_splits", [1, 0, -3])
def test_one_split_is_refused(n_splits):
    """Fewer than two folds raise an error, for each fold rule."""
    for make in (lambda: fold_by_position(4, n_splits), lambda: fold_by_id([1], n_splits)):
        with pytest.raises(FoldError, match="at least 2"):
            make()


@pytest.mark.parametrize(
    ("folds", "fold", "match"),
    [
        ([0, 1], 2, "a fold with rows: 0, 1"),
        ([0, 1], -1, "fold is -1"),
        ([], 0, "none"),
        ([0, 0], 0, "every row"),
    ],
)
def test_split_refuses_invalid_folds(folds, fold, match):
    """A fold that holds out no row or every row is an error."""
    with pytest.raises(FoldError, match=match):
        split(folds, fold)


def pairs_of(prompts, **columns):
    return pd.DataFrame({"prompt": prompts, **columns})


@given(prompt=turns(), later=turns())
@example(prompt=["Straße ΣΣ"], later=[])
def test_case_and_spaces_do_not_matter(prompt, later):
    """Prompts that differ in case, white space or later turns share a prompt group.

    A first turn without a visible character is passed over, so later turns count then.
    """
    first = (prompt or [None])[0] or ""
    later = later if normalise(first) else []
    variants = [[first, *later], [f"  {first}\n\t"], [first.casefold()], prompt[:1]]
    assert len(set(derive_groups(pairs_of(variants)))) == 1


@given(prompts=st.lists(turns(), max_size=8))
def test_names_do_not_depend_on_other_rows(prompts):
    """A row has the same group alone and in any table, so files can be joined."""
    groups = derive_groups(pairs_of(prompts))
    assert groups.tolist() == [derive_groups(pairs_of([prompt]))[0] for prompt in prompts]


def test_other_first_turns_are_other_groups():
    """Differences in anything but case and repeated white space give different groups."""
    prompts = [["Hi"], ["Hi!"], ["H i"], ["hj"], [""]]
    assert len(set(derive_groups(pairs_of(prompts)))) == len(prompts)


@given(
    rows=st.lists(st.tuples(few_names, st.none() | st.integers(0, 4)), max_size=12), data=st.data()
)
def test_sessions_merge_groups(rows, data):
    """Rows share a group exactly when a chain of equal prompts and sessions connects them."""
    names, sessions = [[name] for name, _ in rows], [session for _, session in rows]
    groups = derive_groups(pairs_of(names, session=sessions))
    expected = components_by_flooding(rows)
    assert [[a == b for a in groups] for b in groups] == [
        [a == b for a in expected] for b in expected
    ]
    order = data.draw(st.permutations(range(len(rows))))
    shuffled = pairs_of([names[i] for i in order], session=[sessions[i] for i in order])
    assert derive_groups(shuffled).tolist() == [groups[i] for i in order]


def components_by_flooding(rows):
    """Return the component of each row, found by propagating the smallest row number."""
    numbers = list(range(len(rows)))
    for _ in rows:
        for i, (name, session) in enumerate(rows):
            for j, (other_name, other_session) in enumerate(rows):
                if name == other_name or (session is not None and session == other_session):
                    numbers[i] = min(numbers[i], numbers[j])
    return numbers


@pytest.mark.parametrize("missing", [None, float("nan"), pd.NA])
def test_missing_sessions_merge_nothing(missing):
    """Rows without a session do not share a group."""
    groups = derive_groups(pairs_of([["a"], ["b"], ["c"]], session=pd.array([missing] * 3, object)))
    assert len(set(groups)) == 3


def test_merged_groups_have_the_smallest_name():
    """Groups connected by a chain of keys get the name that sorts first."""
    assert merge_groups(["c", "b", "a", "z"], ["s", "s", "t", "t"]).tolist() == ["b", "b", "a", "a"]
    assert merge_groups([], []).tolist() == []


@pytest.mark.parametrize("prompt", ["How do magnets work?", None, np.nan, 7])
def test_groups_of_texts_are_refused(prompt):
    """A prompt that is no list of turns would be grouped by its first character."""
    table = pd.DataFrame({"prompt": [["Hi"], prompt, prompt]})
    with pytest.raises(PairsError, match=r"row 1: the prompt is .*; expected a list"):
        derive_groups(table)
    with pytest.raises(PairsError, match="the columns are text; expected prompt"):
        derive_groups(pd.DataFrame({"text": ["Hi"]}))
