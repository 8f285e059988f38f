"""What a model is fitted to: labels, soft labels, weights, and rows that say nothing of ties."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from strategies import pairs_tables
from tiewise.data.labels import PROB_COLUMNS
from tiewise.data.simulation.simulate import simulate
from tiewise.data.table import swap_pairs
from tiewise.data.targets import (
    choose_no_tie_sources,
    find_no_tie_sources,
    make_targets,
    mark_no_tie_rows,
)
from tiewise.errors import ConfigError, PairsError

SOFT_WEIGHTS = st.sampled_from([0.0, 0.25, 0.5, 1.0])


def told_tables() -> st.SearchStrategy[pd.DataFrame]:
    """Pairs tables of which every row has a label or a soft label."""
    return pairs_tables().filter(
        lambda pairs: len(pairs) and ("prob_a" in pairs or bool(pairs["label"].notna().all()))
    )


def soften(pairs: pd.DataFrame, probs: np.ndarray) -> pd.DataFrame:
    """Give pairs soft labels."""
    return pairs.assign(**dict(zip(PROB_COLUMNS, np.transpose(probs), strict=True)))


class TestMixture:
    def test_labels_become_one_hot_rows(self) -> None:
        """Without soft labels and weights, each row counts once for its label."""
        pairs = simulate(20)
        targets = make_targets(pairs)
        assert np.array_equal(targets.probs, np.eye(3)[pairs["label"].to_numpy(int)])
        assert (targets.weights == 1).all()
        assert not targets.floors.any()

    def test_soft_labels_and_weights_are_used_where_given(self) -> None:
        """They take the place of the labels, which may then be missing."""
        pairs = soften(simulate(2), [[0.5, 0.5, 0], [0.1, 0.1, 0.8]])
        pairs = pairs.assign(weight=[1.0, 3.0], label=pd.array([pd.NA, pd.NA], dtype="Int8"))
        targets = make_targets(pairs, soft_weight=0.0)
        assert targets.probs.tolist() == [[0.5, 0.5, 0], [0.1, 0.1, 0.8]]
        assert targets.weights.tolist() == [1, 3]

    @given(pairs=told_tables(), share=SOFT_WEIGHTS)
    def test_targets_are_distributions(self, pairs, share) -> None:
        """Whatever the mixture, each row sums to 1 and its floor is no more than its entropy."""
        targets = make_targets(pairs, soft_weight=share)
        assert np.allclose(targets.probs.sum(axis=1), 1)
        assert (targets.floors >= 0).all()
        assert (targets.floors <= np.log(3) + 1e-9).all()

    @given(pairs=told_tables(), share=SOFT_WEIGHTS)
    def test_the_swap_exchanges_the_targets(self, pairs, share) -> None:
        """make(swap) = swap(make), and both orders are the two, one after the other."""
        targets = make_targets(pairs, soft_weight=share)
        swapped = make_targets(swap_pairs(pairs), soft_weight=share)
        both = targets.in_both_orders()
        for name, part in vars(targets).items():
            one, other = np.split(getattr(both, name), 2)
            assert np.array_equal(one, part)
            # The entropy's terms are added in another order.
            assert np.allclose(other, getattr(swapped, name), rtol=0, atol=1e-12)

    @given(pairs=told_tables(), share=SOFT_WEIGHTS)
    def test_a_mixture_of_0_or_1_is_one_of_its_ends(self, pairs, share) -> None:
        """At 0 the soft labels of labelled rows might not be there; at 1 the labels might not."""
        is_labelled = pairs["label"].notna()
        hard = make_targets(pairs, soft_weight=0.0).probs[is_labelled]
        assert np.array_equal(hard, np.eye(3)[pairs["label"][is_labelled].to_numpy(int)])
        if "prob_a" in pairs:
            soft = make_targets(pairs, soft_weight=1.0).probs
            assert np.array_equal(soft, pairs[PROB_COLUMNS].to_numpy())
            between = make_targets(pairs, soft_weight=share).probs[is_labelled]
            assert np.allclose(between, (1 - share) * hard + share * soft[is_labelled])

    @given(pairs=told_tables(), share=SOFT_WEIGHTS)
    def test_a_soft_label_that_is_one_hot_is_the_label(self, pairs, share) -> None:
        """Written as probabilities of 0 and 1, a label teaches the same."""
        labelled = pairs[pairs["label"].notna()].drop(columns=PROB_COLUMNS, errors="ignore")
        if labelled.empty:
            return
        one_hot = np.eye(3)[labelled["label"].to_numpy(int)]
        hard, soft = make_targets(labelled), make_targets(soften(labelled, one_hot))
        for name, part in vars(hard).items():
            assert np.array_equal(part, getattr(soft, name))

    def test_a_missing_label_is_named(self) -> None:
        """The message says how many and which is first."""
        pairs = simulate(5)
        pairs.loc[3, "label"] = pd.NA
        with pytest.raises(PairsError, match="1 of 5 rows have no label, the first is id=3"):
            make_targets(pairs)

    def test_no_rows_are_refused(self) -> None:
        """There is nothing to fit on."""
        with pytest.raises(PairsError, match="no pair"):
            make_targets(simulate(1).head(0))


def sources(**n_rows: int) -> pd.DataFrame:
    """Rows of several sources; those of `mixed` are ties, all others A."""
    names = [name for name, n in n_rows.items() for _ in range(n)]
    labels = pd.array([2 if name == "mixed" else 0 for name in names], dtype="Int8")
    return pd.DataFrame({"id": range(len(names)), "source": names, "label": labels})


class TestTieless:
    def test_a_large_source_without_ties_is_found(self) -> None:
        """A small source may lack ties by chance; a large one did not offer them."""
        assert find_no_tie_sources(sources(small=50, large=300, mixed=10)) == ["large"]

    def test_without_any_tie_all_rows_count(self) -> None:
        """Then the model learns that ties are rare."""
        pairs = sources(one=300, two=250)
        assert find_no_tie_sources(pairs) == []
        assert not make_targets(pairs).decisive.any()

    def test_a_missing_source_is_a_source(self) -> None:
        """Rows without a source belong together."""
        pairs = sources(one=250, mixed=3).replace({"source": {"one": pd.NA}})
        assert find_no_tie_sources(pairs) == [""]
        assert make_targets(pairs).decisive.tolist() == [1.0] * 250 + [0.0] * 3

    def test_votes_count_and_teachers_do_not(self) -> None:
        """People's soft ties show that ties were offered; a teacher's say nothing of that."""
        pairs = soften(sources(large=300, mixed=3), [[0.5, 0.2, 0.3]] * 303)
        assert find_no_tie_sources(pairs) == []
        assert find_no_tie_sources(pairs.assign(teacher="t")) == ["large"]

    def test_a_teacher_may_teach_ties_where_people_could_not(self) -> None:
        """The label's share is about A against B alone, the teacher's about all three."""
        pairs = soften(sources(large=300, mixed=3), [[0.5, 0.2, 0.3]] * 303).assign(teacher="t")
        targets = make_targets(pairs, soft_weight=0.25)
        assert targets.decisive.tolist() == [0.75] * 300 + [0.0] * 3

    def test_marked_rows_are_not_detected_again(self) -> None:
        """What was found among all rows holds for any part of them."""
        pairs = mark_no_tie_rows(sources(large=300, mixed=3), ["large"])
        assert make_targets(pairs.iloc[[0, 302]]).decisive.tolist() == [1.0, 0.0]

    def test_named_sources_must_exist_and_have_no_ties(self) -> None:
        """A name is taken at its word, unless the rows contradict it."""
        pairs = sources(small=5, large=300, mixed=3)
        assert choose_no_tie_sources(pairs, ("small",)) == ["small"]
        assert choose_no_tie_sources(pairs, ("detect",)) == ["large"]
        assert choose_no_tie_sources(pairs, ()) == []
        with pytest.raises(ConfigError, match="no row is of that source; there are large, mixed"):
            choose_no_tie_sources(pairs, ("other",))
        with pytest.raises(ConfigError, match="--no-tie-sources mixed: 3 of its votes are ties"):
            choose_no_tie_sources(pairs, ("mixed",))
