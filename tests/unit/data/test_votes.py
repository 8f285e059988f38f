"""Votes pooled to soft labels: nothing is lost, and the order of presentation does not matter."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiewise.data.labels import PROB_COLUMNS, swap_probs
from tiewise.data.schema import build_pairs
from tiewise.data.table import pair_digests, swap_pairs
from tiewise.data.targets import make_targets
from tiewise.data.votes import pool_votes
from tiewise.errors import PairsError

TEXT = st.sampled_from(["x", "y"])


@st.composite
def votes(draw: st.DrawFn) -> pd.DataFrame:
    """Votes on few different pairs, some of them standing the other way round."""
    n = draw(st.integers(1, 12))

    def column(values: st.SearchStrategy[object]) -> list[object]:
        return draw(st.lists(values, min_size=n, max_size=n))

    columns = {name: column(TEXT.map(lambda text: [text])) for name in ("prompt", "response_a")}
    columns |= {"response_b": [["z"]] * n, "model_a": column(TEXT), "model_b": column(TEXT)}
    columns |= {"winner": column(st.sampled_from(["model_a", "model_b", "tie"]))}
    pairs = build_pairs({"id": range(n), **columns, "weight": column(st.integers(0, 3))})
    is_turned = np.array(column(st.booleans()), dtype=bool)
    return pd.concat([pairs[~is_turned], swap_pairs(pairs[is_turned])]).sort_values("id")


@given(pairs=votes())
def test_no_vote_is_lost(pairs) -> None:
    """Over all pairs, the weights and the tie's share of them stay what they were."""
    pooled = pool_votes(pairs)
    single, together = make_targets(pairs), make_targets(pooled)
    assert together.weights.sum() == pytest.approx(single.weights.sum())
    for table, targets in ((pairs, single), (pooled, together)):
        targets.probs[:] *= targets.weights[:, None]
        assert len(table) == len(targets.probs)
    assert together.probs[:, 2].sum() == pytest.approx(single.probs[:, 2].sum())


@given(pairs=votes())
def test_each_pair_stands_once(pairs) -> None:
    """Same texts and same models: one row, in the order of first appearance."""
    pooled = pool_votes(pairs)
    keys = [
        (digest, *sorted([(str(row.response_a), row.model_a), (str(row.response_b), row.model_b)]))
        for digest, row in zip(pair_digests(pooled), pooled.itertuples(), strict=True)
    ]
    assert len(set(keys)) == len(keys)
    assert pooled["id"].is_monotonic_increasing


@given(pairs=votes(), is_turned=st.lists(st.booleans(), min_size=12, max_size=12))
def test_presentation_does_not_matter(pairs, is_turned) -> None:
    """Turning any votes turns at most the pooled row, never what it says of the two responses."""
    mask = np.array(is_turned[: len(pairs)])
    turned = pd.concat([pairs[~mask], swap_pairs(pairs[mask])]).sort_values("id")
    one, other = pool_votes(pairs), pool_votes(turned)
    probs = other[PROB_COLUMNS].to_numpy()
    is_other_way = mask[[pairs["id"].tolist().index(name) for name in other["id"]]]
    back = np.where(is_other_way[:, None], swap_probs(probs), probs)
    assert np.allclose(back, one[PROB_COLUMNS].to_numpy())


@given(pairs=votes())
def test_pooling_twice_is_pooling_once(pairs) -> None:
    """What is pooled stays as it is."""
    once = pool_votes(pairs)
    again = pool_votes(once)
    pd.testing.assert_frame_equal(once, again)


def test_two_leaders_are_a_tie() -> None:
    """One vote for A and one for B: nobody won."""
    texts = {"prompt": [["Q"]] * 2, "response_a": [["4"]] * 2, "response_b": [["5"]] * 2}
    pooled = pool_votes(build_pairs({"id": [1, 2], **texts, "label": [0, 1]}))
    assert pooled["winner"].tolist() == ["tie"]
    assert pooled[["prob_a", "prob_b", "prob_tie"]].to_numpy().tolist() == [[0.5, 0.5, 0.0]]


def test_what_is_no_vote_is_refused() -> None:
    """Rows without labels, and a teacher's soft labels."""
    texts = {"prompt": [["Q"]], "response_a": [["4"]], "response_b": [["5"]]}
    pairs = build_pairs({"id": [1], **texts})
    with pytest.raises(PairsError, match="1 of 1 rows have no label"):
        pool_votes(pairs)
    with pytest.raises(PairsError, match="a teacher's soft labels are no votes"):
        pool_votes(pairs.assign(prob_a=0.5, prob_b=0.5, prob_tie=0.0, teacher="t"))
