"""Names of models are numbered alike for both sides, and exchanged with them."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiewise.errors import PairsError
from tiewise.pairs.model_names import UNKNOWN, number_models
from tiewise.pairs.schema import build_pairs
from tiewise.pairs.table import swap_pairs

names = st.lists(
    st.tuples(*[st.none() | st.sampled_from(["vicuna", "alpaca", "gpt-4", "Ω"])] * 2),
    min_size=1,
).filter(lambda rows: any(name for row in rows for name in row))


def table(rows):
    """Build pairs that were answered by these models."""
    texts = {name: [["x"]] * len(rows) for name in ("prompt", "response_a", "response_b")}
    sides = {"model_a": [a for a, _ in rows], "model_b": [b for _, b in rows]}
    return build_pairs({"id": range(len(rows)), **texts, **sides})


@given(names)
def test_equal_names_have_equal_numbers_and_unknown_ones_none(rows):
    """On either side, in any row."""
    found = number_models(table(rows))
    known = sorted({name for row in rows for name in row if name})
    expected = [[known.index(name) if name else UNKNOWN for name in row] for row in rows]
    assert found.codes.tolist() == expected
    assert found.n_models == len(known)


@given(names)
def test_exchanged_rows_have_exchanged_numbers(rows):
    """As the swap of the pairs table says."""
    pairs = table(rows)
    both = number_models(pairs).with_swapped().codes
    swapped = number_models(swap_pairs(pairs)).codes
    np.testing.assert_array_equal(both, np.concatenate([number_models(pairs).codes, swapped]))


@pytest.mark.parametrize("rows", [[(None, None)], []])
def test_without_a_name_there_is_nothing_to_learn(rows):
    """The flag that asked for it is named."""
    with pytest.raises(PairsError, match="--model-names-weight"):
        number_models(table(rows) if rows else pd.DataFrame({"id": [1]}))
