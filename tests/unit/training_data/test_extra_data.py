"""Extra rows never share a conversation with the rows that a fold is scored on."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiewise.config.run_config import DataConfig
from tiewise.errors import PairsError
from tiewise.formats import write_pairs
from tiewise.pairs.folds import derive_groups, fold_first_turn
from tiewise.pairs.schema import COLUMNS
from tiewise.simulation.simulate import simulate
from tiewise.training_data.extra_data import find_barred, read_weighted


def tables() -> st.SearchStrategy[pd.DataFrame]:
    """Prompts and sessions, few of each."""
    row = st.tuples(st.sampled_from(["p", "P ", "q", "r"]), st.sampled_from(["s", "t", None]))
    return st.lists(row, min_size=1, max_size=8).map(_tabulate)


def _tabulate(rows: list[tuple[str, str | None]]) -> pd.DataFrame:
    table = pd.DataFrame({"prompt": [[text] for text, _ in rows]})
    table["session"] = pd.Series([session for _, session in rows], dtype=object)
    return table.assign(group=derive_groups(table))


@given(pairs=tables(), extra=tables(), data=st.data())
def test_no_extra_row_shares_prompt_or_session_with_a_held_out_row(pairs, extra, data) -> None:
    """Of a fold those are barred, and with them whatever a chain of rows connects."""
    folds = np.array(data.draw(st.lists(st.integers(0, 2), min_size=8, max_size=8)))[: len(pairs)]
    barred = find_barred(pairs, folds, extra, 3)
    for row in range(len(extra)):
        for other in range(len(pairs)):
            is_same_prompt = fold_first_turn(extra["prompt"][row]) == fold_first_turn(
                pairs["prompt"][other]
            )
            session = extra["session"][row]
            if is_same_prompt or (session is not None and session == pairs["session"][other]):
                assert barred[row, folds[other]]


def test_strangers_are_learned_from_in_every_fold() -> None:
    """What shares nothing is barred nowhere."""
    pairs = pd.DataFrame({"prompt": [["p"], ["q"]], "group": ["1", "2"]})
    extra = pd.DataFrame({"prompt": [["r"]], "group": ["3"]})
    assert not find_barred(pairs, [0, 1], extra, 2).any()
    assert find_barred(pairs, [0, 1], extra.head(0), 2).shape == (0, 2)


def test_weights_multiply_the_rows_of_their_file(tmp_path) -> None:
    """One weight a file, times the weight a row has already."""
    pairs = simulate(4, seed=0)[list(COLUMNS)]
    write_pairs(pairs, tmp_path / "one.parquet")
    write_pairs(pairs.assign(weight=[1.0, 2.0, 3.0, 4.0]), tmp_path / "two.parquet")
    paths = [tmp_path / "one.parquet", tmp_path / "two.parquet"]
    read = read_weighted(paths, [0.5, 2.0], DataConfig(), labelled=True)
    assert read["weight"].tolist() == [0.5] * 4 + [2.0, 4.0, 6.0, 8.0]
    assert "weight" not in read_weighted(paths[:1], [], DataConfig(), labelled=True)
    with pytest.raises(PairsError, match="1 weights are given for 2 files"):
        read_weighted(paths, [0.5], DataConfig(), labelled=True)
