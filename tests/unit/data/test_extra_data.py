"""Extra rows never share a conversation with the rows that a fold is scored on."""

from __future__ import annotations

import numpy as np
import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from tiewise.data.extra_data import find_leaking_rows
from tiewise.data.folds import derive_groups, fold_first_turn


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
    barred = find_leaking_rows(pairs, folds, extra, 3)
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
    assert not find_leaking_rows(pairs, [0, 1], extra, 2).any()
    assert find_leaking_rows(pairs, [0, 1], extra.head(0), 2).shape == (0, 2)
