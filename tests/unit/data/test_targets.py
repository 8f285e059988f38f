"""Targets of a fit: labels, soft labels, weights, and rows of sources without ties."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from strategies import pairs_tables
from tiewise.data.labels import PROB_COLUMNS, swap_probs
from tiewise.data.pairs import build_pairs, pair_digests, swap_pairs
from tiewise.data.simulation.simulate import simulate
from tiewise.data.targets import (
    choose_no_tie_sources,
    find_no_tie_sources,
    make_targets,
    mark_no_tie_rows,
    pool_votes,
)
from tiewise.errors import ConfigError, PairsError

SOFT_WEIGHTS = st.sampled_from([0.0, 0.25, 0.5, 1.0])


def labelled_tables() -> st.SearchStrategy[pd.DataFrame]:
    """Pairs tables in which every row has a label or a soft label."""
    return pairs_tables().filter(
        lambda pairs: len(pairs) and ("prob_a" in pairs or bool(pairs["label"].notna().all()))
    )


def soften(pairs: pd.DataFrame, probs: np.ndarray) -> pd.DataFrame:
    """Return the pairs with soft labels."""
    return pairs.assign(**dict(zip(PROB_COLUMNS, np.transpose(probs), strict=True)))


class TestMixture:
    def test_labels_become_one_hot(self) -> None:
        """Without soft labels and weights, each row counts once for its label."""
        pairs = simulate(20)
        targets = make_targets(pairs)
        assert np.array_equal(targets.probs, np.eye(3)[pairs["label"].to_numpy(int)])
        assert (targets.weights == 1).all()
        assert not targets.target_entropy.any()

    def test_soft_labels_and_weights_count(self) -> None:
        """They replace the labels, which may then be missing."""
        pairs = soften(simulate(2), [[0.5, 0.5, 0], [0.1, 0.1, 0.8]])
        pairs = pairs.assign(weight=[1.0, 3.0], label=pd.array([pd.NA, pd.NA], dtype="Int8"))
        targets = make_targets(pairs, soft_weight=0.0)
        assert targets.probs.tolist() == [[0.5, 0.5, 0], [0.1, 0.1, 0.8]]
        assert targets.weights.tolist() == [1, 3]

    @given(pairs=labelled_tables(), share=SOFT_WEIGHTS)
    def test_targets_are_distributions(self, pairs, share) -> None:
        """Each row sums to 1, and the soft part's entropy is at most that of the mixture."""
        targets = make_targets(pairs, soft_weight=share)
        assert np.allclose(targets.probs.sum(axis=1), 1)
        assert (targets.target_entropy >= 0).all()
        assert (targets.target_entropy <= np.log(3) + 1e-9).all()

    @given(pairs=labelled_tables(), share=SOFT_WEIGHTS)
    def test_loss_mixes_label_and_soft_label(self, pairs, share) -> None:
        """Cross-entropy with the target, less its entropy, is that with the label and a KL."""
        targets = make_targets(pairs, soft_weight=share)
        predicted = np.random.default_rng(0).dirichlet(np.ones(3), len(pairs))
        found = -(targets.probs * np.log(predicted)).sum(axis=1) - targets.target_entropy
        labels = pairs["label"].fillna(0).to_numpy(int)
        hard = -np.log(predicted[np.arange(len(pairs)), labels])
        soft, weight = np.zeros(len(pairs)), np.zeros(len(pairs))
        if "prob_a" in pairs:
            probs = pairs[PROB_COLUMNS].to_numpy()
            soft = (probs * np.log(np.where(probs > 0, probs, 1) / predicted)).sum(axis=1)
            weight = np.where(pairs["label"].isna(), 1.0, share)
        assert np.allclose(found, (1 - weight) * hard + weight * soft)

    @given(pairs=labelled_tables(), share=SOFT_WEIGHTS)
    def test_swap_exchanges_targets(self, pairs, share) -> None:
        """make(swap) = swap(make), and both orders are the two, one after the other."""
        targets = make_targets(pairs, soft_weight=share)
        swapped = make_targets(swap_pairs(pairs), soft_weight=share)
        both = targets.in_both_orders()
        for name, part in vars(targets).items():
            one, other = np.split(getattr(both, name), 2)
            assert np.array_equal(one, part)
            # The entropy's terms are added in another order.
            assert np.allclose(other, getattr(swapped, name), rtol=0, atol=1e-12)

    @given(pairs=labelled_tables(), share=SOFT_WEIGHTS)
    def test_extreme_mixtures_use_one_part(self, pairs, share) -> None:
        """Share 0 ignores the soft labels of labelled rows; share 1 ignores the labels."""
        is_labelled = pairs["label"].notna()
        hard = make_targets(pairs, soft_weight=0.0).probs[is_labelled]
        assert np.array_equal(hard, np.eye(3)[pairs["label"][is_labelled].to_numpy(int)])
        if "prob_a" in pairs:
            soft = make_targets(pairs, soft_weight=1.0).probs
            assert np.array_equal(soft, pairs[PROB_COLUMNS].to_numpy())
            between = make_targets(pairs, soft_weight=share).probs[is_labelled]
            assert np.allclose(between, (1 - share) * hard + share * soft[is_labelled])

    @given(pairs=labelled_tables(), share=SOFT_WEIGHTS)
    def test_one_hot_soft_label_is_label(self, pairs, share) -> None:
        """A label written as probabilities of 0 and 1 gives the same targets."""
        labelled = pairs[pairs["label"].notna()].drop(columns=PROB_COLUMNS, errors="ignore")
        if labelled.empty:
            return
        one_hot = np.eye(3)[labelled["label"].to_numpy(int)]
        hard, soft = make_targets(labelled), make_targets(soften(labelled, one_hot))
        for name, part in vars(hard).items():
            assert np.array_equal(part, getattr(soft, name))

    def test_missing_label_is_named(self) -> None:
        """The message counts the rows and names the first."""
        pairs = simulate(5)
        pairs.loc[3, "label"] = pd.NA
        with pytest.raises(PairsError, match="1 of 5 rows have no label, the first is id=3"):
            make_targets(pairs)

    def test_empty_table_is_refused(self) -> None:
        """A fit needs at least one row."""
        with pytest.raises(PairsError, match="no pair"):
            make_targets(simulate(1).head(0))


def sources(**n_rows: int) -> pd.DataFrame:
    """Return rows of several sources; those of `mixed` are ties, all others A."""
    names = [name for name, n in n_rows.items() for _ in range(n)]
    labels = pd.array([2 if name == "mixed" else 0 for name in names], dtype="Int8")
    return pd.DataFrame({"id": range(len(names)), "source": names, "label": labels})


class TestNoTieSources:
    def test_large_source_is_detected(self) -> None:
        """A small source may lack ties by chance; a large one did not offer them."""
        assert find_no_tie_sources(sources(small=50, large=300, mixed=10)) == ["large"]
        assert find_no_tie_sources(sources(below=199, just=200, mixed=10)) == ["just"]

    def test_no_ties_anywhere_detects_nothing(self) -> None:
        """Ties may then just be rare."""
        pairs = sources(one=300, two=250)
        assert find_no_tie_sources(pairs) == []
        assert not make_targets(pairs).binary_fraction.any()

    def test_missing_source_is_a_source(self) -> None:
        """Rows without a source form one source."""
        pairs = sources(one=250, mixed=3).replace({"source": {"one": pd.NA}})
        assert find_no_tie_sources(pairs) == [""]
        assert make_targets(pairs).binary_fraction.tolist() == [1.0] * 250 + [0.0] * 3

    def test_only_votes_are_counted(self) -> None:
        """People's soft ties show that ties were offered; a teacher's soft labels do not."""
        pairs = soften(sources(large=300, mixed=3), [[0.5, 0.2, 0.3]] * 303)
        assert find_no_tie_sources(pairs) == []
        assert find_no_tie_sources(pairs.assign(teacher="t")) == ["large"]

    def test_teacher_ties_still_count(self) -> None:
        """The label's share is about A against B alone, the teacher's about all three."""
        pairs = soften(sources(large=300, mixed=3), [[0.5, 0.2, 0.3]] * 303).assign(teacher="t")
        targets = make_targets(pairs, soft_weight=0.25)
        assert targets.binary_fraction.tolist() == [0.75] * 300 + [0.0] * 3

    def test_votes_without_ties_are_about_a_and_b(self) -> None:
        """Soft labels that give a tie no share are votes, so the whole row is about A and B."""
        pairs = soften(sources(large=300, mixed=3), [[0.7, 0.3, 0.0]] * 300 + [[0, 0, 1]] * 3)
        for share in (0.0, 0.25, 1.0):
            targets = make_targets(pairs, soft_weight=share)
            assert targets.binary_fraction.tolist() == [1.0] * 300 + [0.0] * 3

    def test_marked_rows_are_kept(self) -> None:
        """The column of marks replaces the detection."""
        pairs = mark_no_tie_rows(sources(large=300, mixed=3), ["large"])
        assert make_targets(pairs.iloc[[0, 302]]).binary_fraction.tolist() == [1.0, 0.0]

    def test_named_sources_are_checked(self) -> None:
        """A named source must exist and have no ties."""
        pairs = sources(small=5, large=300, mixed=3)
        assert choose_no_tie_sources(pairs, ("small",)) == ["small"]
        assert choose_no_tie_sources(pairs, ("detect",)) == ["large"]
        assert choose_no_tie_sources(pairs, ()) == []
        with pytest.raises(ConfigError, match="is other; expected one of the sources large, mixed"):
            choose_no_tie_sources(pairs, ("other",))
        with pytest.raises(
            ConfigError, match="--no-tie-sources is mixed, but 3 of its votes are ties"
        ):
            choose_no_tie_sources(pairs, ("mixed",))


TEXT = st.sampled_from(["x", "y"])


@st.composite
def votes(draw: st.DrawFn) -> pd.DataFrame:
    """Votes on few different pairs, some of them swapped."""
    n = draw(st.integers(1, 12))

    def column(values: st.SearchStrategy[object]) -> list[object]:
        return draw(st.lists(values, min_size=n, max_size=n))

    columns = {name: column(TEXT.map(lambda text: [text])) for name in ("prompt", "response_a")}
    columns |= {"response_b": [["z"]] * n, "model_a": column(TEXT), "model_b": column(TEXT)}
    columns |= {"winner": column(st.sampled_from(["model_a", "model_b", "tie"]))}
    pairs = build_pairs({"id": range(n), **columns, "weight": column(st.integers(0, 3))})
    is_swapped = np.array(column(st.booleans()), dtype=bool)
    return pd.concat([pairs[~is_swapped], swap_pairs(pairs[is_swapped])]).sort_values("id")


@given(pairs=votes())
def test_no_vote_is_lost(pairs) -> None:
    """The total weight and its share of ties are unchanged."""
    pooled = pool_votes(pairs)
    single, together = make_targets(pairs), make_targets(pooled)
    assert together.weights.sum() == pytest.approx(single.weights.sum())
    for table, targets in ((pairs, single), (pooled, together)):
        targets.probs[:] *= targets.weights[:, None]
        assert len(table) == len(targets.probs)
    assert together.probs[:, 2].sum() == pytest.approx(single.probs[:, 2].sum())


@given(pairs=votes())
def test_each_pair_occurs_once(pairs) -> None:
    """Same texts and same models make one row, in the order of first appearance."""
    pooled = pool_votes(pairs)
    keys = [
        (digest, *sorted([(str(row.response_a), row.model_a), (str(row.response_b), row.model_b)]))
        for digest, row in zip(pair_digests(pooled), pooled.itertuples(), strict=True)
    ]
    assert len(set(keys)) == len(keys)
    assert pooled["id"].is_monotonic_increasing


@given(pairs=votes(), is_swapped=st.lists(st.booleans(), min_size=12, max_size=12))
def test_order_of_responses_is_ignored(pairs, is_swapped) -> None:
    """Swapping votes at most swaps the pooled row."""
    mask = np.array(is_swapped[: len(pairs)])
    turned = pd.concat([pairs[~mask], swap_pairs(pairs[mask])]).sort_values("id")
    one, other = pool_votes(pairs), pool_votes(turned)
    probs = other[PROB_COLUMNS].to_numpy()
    is_now_swapped = mask[[pairs["id"].tolist().index(name) for name in other["id"]]]
    back = np.where(is_now_swapped[:, None], swap_probs(probs), probs)
    assert np.allclose(back, one[PROB_COLUMNS].to_numpy())


@given(pairs=votes())
def test_pooling_is_idempotent(pairs) -> None:
    """Pooled rows stay as they are."""
    once = pool_votes(pairs)
    again = pool_votes(once)
    pd.testing.assert_frame_equal(once, again)


def test_votes_in_other_orders_are_added() -> None:
    """A vote for B on the swapped pair is a vote for A, and a vote counts by its weight."""
    texts = {"prompt": [["Q"]] * 3, "response_a": [["4"], ["5"], ["4"]]}
    texts |= {"response_b": [["5"], ["4"], ["5"]], "weight": [1, 2, 1]}
    pooled = pool_votes(build_pairs({"id": [1, 2, 3], **texts, "label": [0, 1, 2]}))
    assert pooled[PROB_COLUMNS].to_numpy().tolist() == [[0.75, 0.0, 0.25]]
    assert (pooled["winner"].tolist(), pooled["weight"].tolist()) == (["model_a"], [4.0])


def test_equal_votes_are_a_tie() -> None:
    """One vote for A and one for B make a tie."""
    texts = {"prompt": [["Q"]] * 2, "response_a": [["4"]] * 2, "response_b": [["5"]] * 2}
    pooled = pool_votes(build_pairs({"id": [1, 2], **texts, "label": [0, 1]}))
    assert pooled["winner"].tolist() == ["tie"]
    assert pooled[["prob_a", "prob_b", "prob_tie"]].to_numpy().tolist() == [[0.5, 0.5, 0.0]]


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 1, 0]])
def test_sums_of_weights_are_equal_up_to_rounding(order) -> None:
    """0.1 + 0.2 for A and 0.3 for B are a tie, in any order of the rows."""
    texts = {"prompt": [["Q"]] * 3, "response_a": [["4"]] * 3, "response_b": [["5"]] * 3}
    votes = build_pairs({"id": [1, 2, 3], **texts, "label": [0, 0, 1], "weight": [0.1, 0.2, 0.3]})
    assert pool_votes(votes.iloc[order].reset_index(drop=True))["winner"].tolist() == ["tie"]


def test_teacher_labels_are_refused() -> None:
    """Rows without labels and a teacher's soft labels are no votes."""
    texts = {"prompt": [["Q"]], "response_a": [["4"]], "response_b": [["5"]]}
    pairs = build_pairs({"id": [1], **texts})
    with pytest.raises(PairsError, match="1 of 1 rows have no label"):
        pool_votes(pairs)
    with pytest.raises(PairsError, match="a teacher's soft labels are no votes"):
        pool_votes(pairs.assign(prob_a=0.5, prob_b=0.5, prob_tie=0.0, teacher="t"))
