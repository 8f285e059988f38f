"""Truths about rows that share their beginnings."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from strategies import token_rows
from tiewise.predicting.prefix_tree import build_tree, plan_trees, shared_tokens

LEAST = st.integers(2, 8)


@given(token_rows(), LEAST)
def test_every_row_can_be_read_along_its_path(rows, min_shared):
    """Joining the nodes from the root to a row's leaf gives the row, at its own positions."""
    tree = build_tree(rows, np.arange(len(rows.lengths)), min_shared=min_shared)
    for row, leaf in enumerate(tree.leaves.tolist()):
        spans = [slice(tree.offsets[node], tree.offsets[node + 1]) for node in tree.path(leaf)]
        read = np.concatenate([tree.values[span] for span in spans])
        places = np.concatenate([tree.positions[span] for span in spans])
        np.testing.assert_array_equal(read, rows.row(row))
        np.testing.assert_array_equal(places, np.arange(len(read)))


@given(token_rows(), LEAST)
def test_nodes_are_not_empty_and_parents_come_first(rows, min_shared):
    """Each node holds a token, a leaf its row's last, and parents stand before their children."""
    tree = build_tree(rows, np.arange(len(rows.lengths)), min_shared=min_shared)
    assert (np.diff(tree.offsets) > 0).all()
    assert (tree.parents < np.arange(len(tree.parents))).all()
    last = [rows.row(row)[-1] for row in range(len(rows.lengths))]
    np.testing.assert_array_equal(tree.values[tree.last_tokens], last)
    assert len(set(tree.leaves.tolist())) == len(rows.lengths)


@given(token_rows(), LEAST, st.integers(0, 2**31))
def test_no_tree_holds_more_tokens_than_its_rows(rows, min_shared, seed):
    """Sharing never adds a token, and the order in which rows are named does not matter."""
    order = np.random.default_rng(seed).permutation(len(rows.lengths))
    tree = build_tree(rows, order, min_shared=min_shared)
    same = build_tree(rows, np.arange(len(rows.lengths)), min_shared=min_shared)
    assert len(tree.values) == len(same.values) <= rows.lengths.sum()


@given(token_rows(), st.integers(1, 120))
def test_a_plan_holds_every_row_once_and_keeps_to_the_budget(rows, max_tokens):
    """Trees partition the rows; only a row that is too long by itself goes over the budget."""
    plan = plan_trees(rows, max_tokens=max_tokens, min_shared=4)
    assert sorted(np.concatenate(plan).tolist()) == list(range(len(rows.lengths)))
    for tree_rows in plan:
        tree = build_tree(rows, tree_rows, min_shared=4)
        # Nested beginnings can fall short of the least length twice: once for each level.
        assert len(tree.values) <= max_tokens + 4 * len(tree_rows) or len(tree_rows) == 1


@given(token_rows(), LEAST)
def test_what_sharing_saves_is_known_before(rows, min_shared):
    """A single tree has at least as many tokens as the estimate leaves."""
    order = np.arange(len(rows))
    tree = build_tree(rows, order, min_shared=min_shared)
    saved = shared_tokens(rows, min_shared=min_shared)
    assert rows.lengths.sum() - saved <= len(tree.values)
    assert (saved == 0) or (len(tree.values) < rows.lengths.sum())


def test_all_ordered_pairs_of_answers_share_prompt_and_first_answer():
    """N answers cost the prompt once, each answer once in front and N - 1 times behind."""
    from tiewise.tokens.rows import TokenRows

    generator = np.random.default_rng(0)
    prompt, answers = generator.integers(0, 9, 20), generator.integers(9, 99, (6, 50))
    rows = [
        np.concatenate([prompt, answers[i], answers[j]])
        for i in range(6)
        for j in range(6)
        if i != j
    ]
    table = TokenRows(
        values=np.concatenate(rows).astype(np.int32),
        offsets=np.cumsum([0, *map(len, rows)]).astype(np.int64),
        type_ids=None,
        n_truncated=np.zeros(len(rows), np.int64),
    )
    tree = build_tree(table, np.arange(30))
    assert len(tree.values) == 20 + 6 * 50 + 30 * 50
    assert shared_tokens(table) == table.lengths.sum() - len(tree.values)
