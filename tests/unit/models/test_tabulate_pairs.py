"""Predictions of pairs from the logits of their rows: orders, columns and names."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from small_tokenizers import byte_level
from tiewise.data.labels import LOGIT_COLUMNS, PROB_COLUMNS
from tiewise.errors import NumericsError
from tiewise.models.predictions import check_finite, tabulate_pairs
from tiewise.tokens.rows import token_rows
from tiewise.tokens.template import build_template

PAIRS = pd.DataFrame(
    {
        "id": ["x", "y"],
        "prompt": [["Which?"], ["How?"]],
        "response_a": [["The first answer."], ["same"]],
        "response_b": [["longer, but wrong " * 40], ["same"]],
    },
    index=[7, 3],
)
TOKENIZER = byte_level()
TEMPLATE = build_template(TOKENIZER, max_length=60)
LOGITS = np.log([[0.5, 0.3, 0.2], [0.6, 0.1, 0.3], [0.2, 0.7, 0.1], [0.4, 0.5, 0.1]])


def tabulated(**options):
    """Return the predictions of both pairs, and the rows and names that were scored."""
    asked = []

    def score(rows, *, names):
        asked.append((rows, list(names)))
        return LOGITS[: len(rows)]

    return tabulate_pairs(score, PAIRS, TOKENIZER, TEMPLATE, **options), asked


def test_both_orders_are_averaged():
    """The second half of the rows is in the swapped order; its probabilities are mapped back."""
    table, [(rows, names)] = tabulated()
    probs = np.exp(LOGITS)
    assert names == ["id=x", "id=y"] * 2
    assert table["id"].tolist() == ["x", "y"]
    swapped = probs[2:][:, [1, 0, 2]]
    assert np.allclose(table[[f"{name}_given" for name in PROB_COLUMNS]], probs[:2])
    assert np.allclose(table[[f"{name}_swapped" for name in PROB_COLUMNS]], swapped)
    assert np.allclose(table[PROB_COLUMNS], (probs[:2] + swapped) / 2)
    assert np.allclose(np.exp(table[LOGIT_COLUMNS]), table[PROB_COLUMNS])
    for is_swapped, positions in ((False, (0, 1)), (True, (2, 3))):
        own = token_rows(PAIRS, TOKENIZER, TEMPLATE, cache_dir=None, is_swapped=is_swapped)
        for place, position in enumerate(positions):
            assert rows.row(position).tolist() == own.row(place).tolist()


def test_one_order_is_the_given_one():
    """Rows are scored once, as they are given, and there are no columns of orders."""
    table, [(rows, names)] = tabulated(both_orders=False)
    assert (len(rows), names) == (2, ["id=x", "id=y"])
    assert np.allclose(table[PROB_COLUMNS], np.exp(LOGITS[:2]))
    columns = ["id", *PROB_COLUMNS, *LOGIT_COLUMNS, "n_tokens", "n_truncated", "is_degenerate"]
    assert table.columns.tolist() == columns


def test_facts_of_the_rows_follow():
    """Tokens are those of the row, cut ones are counted, and equal responses are marked."""
    table, [(rows, _)] = tabulated()
    orders = [f"{name}_{order}" for order in ("given", "swapped") for name in PROB_COLUMNS]
    columns = ["id", *PROB_COLUMNS, *LOGIT_COLUMNS, "n_tokens", "n_truncated", "is_degenerate"]
    assert table.columns.tolist() == [*columns, *orders]
    assert table["n_tokens"].tolist() == rows.lengths[:2].tolist()
    assert (table["n_truncated"] > 0).tolist() == [True, False]
    assert table["is_degenerate"].tolist() == [False, True]


def test_tokens_are_cached_where_asked(tmp_path):
    """The cache is a folder that is named, or there is none."""
    tabulated(cache_dir=tmp_path / "cache")
    assert list((tmp_path / "cache").rglob("*.arrays"))


def test_rows_without_finite_logits_are_named():
    """The first five are named, and all are counted."""
    logits = np.zeros((8, 3))
    names = [f"id={row}" for row in range(8)]
    assert check_finite(logits, names) is logits
    logits[1:7, 2] = [np.nan, np.inf, -np.inf, np.nan, np.nan, np.nan]
    with pytest.raises(NumericsError, match=r"of 6 rows are not finite \(id=1, .*, id=5\)"):
        check_finite(logits, names)
