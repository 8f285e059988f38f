"""What the CPU-class model is fitted to."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from tiewise.errors import PairsError
from tiewise.simulate import simulate
from tiewise.targets import can_tie, fitting_targets


def test_labels_become_one_hot_rows() -> None:
    """Without soft labels and weights, each row counts once for its label."""
    pairs = simulate(20)
    targets, weights = fitting_targets(pairs)
    assert targets.argmax(axis=1).tolist() == pairs["label"].tolist()
    assert (weights == 1).all()


def test_soft_labels_and_weights_are_used_where_given() -> None:
    """They take the place of the labels, which may then be missing."""
    pairs = simulate(2).assign(prob_a=[0.5, 0.1], prob_b=[0.5, 0.1], prob_tie=[0, 0.8])
    pairs = pairs.assign(weight=[1.0, 3.0], label=pd.array([pd.NA, pd.NA], dtype="Int8"))
    targets, weights = fitting_targets(pairs)
    assert targets.tolist() == [[0.5, 0.5, 0], [0.1, 0.1, 0.8]]
    assert weights.tolist() == [1, 3]


def test_a_missing_label_is_named() -> None:
    """The message says how many and which is first."""
    pairs = simulate(5)
    pairs.loc[3, "label"] = pd.NA
    with pytest.raises(PairsError, match="1 of 5 rows have no label, the first is id=3"):
        fitting_targets(pairs)


def test_no_rows_are_refused() -> None:
    """There is nothing to fit on."""
    with pytest.raises(PairsError, match="no pair"):
        fitting_targets(simulate(1).head(0))


def sources(**n_rows: int) -> pd.DataFrame:
    """Rows of several sources."""
    return pd.DataFrame({"source": [name for name, n in n_rows.items() for _ in range(n)]})


def test_rows_of_a_large_source_without_ties_could_not_tie() -> None:
    """A small source may lack ties by chance; a large one did not offer them."""
    pairs = sources(small=50, large=300, mixed=10)
    is_tie = (pairs["source"] == "mixed").to_numpy(float)
    targets = np.stack([1 - is_tie, 0 * is_tie, is_tie], axis=1)
    assert pairs["source"][~can_tie(pairs, targets)].unique().tolist() == ["large"]


def test_without_any_tie_all_rows_count() -> None:
    """Then the model learns that ties are rare."""
    assert can_tie(sources(one=300), np.eye(3)[np.zeros(300, int)]).all()


def test_a_missing_source_is_a_source() -> None:
    """Rows without a source belong together."""
    pairs = pd.DataFrame({"source": pd.array([pd.NA] * 250 + ["x"] * 3, dtype="string")})
    targets = np.eye(3)[[0] * 250 + [2] * 3]
    assert can_tie(pairs, targets).sum() == 3
