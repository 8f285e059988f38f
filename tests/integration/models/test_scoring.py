"""Probabilities do not depend on the order of a pair or a file, on other rows, or on the layout."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from loaded_runs import LoadedModel, open_tiny
from strategies import token_rows
from tiewise.data.labels import PROB_COLUMNS, swap_probs
from tiewise.data.pairs import build_pairs, swap_pairs
from tiewise.data.simulation.simulate import simulate
from tiewise.errors import ConfigError, ModelError, NumericsError
from tiewise.models.scoring import predict_pairs, score_rows
from tiewise.tokens.rows import find_distinct, take_rows
from tiny_models import make_rows

DECODERS = ("tiny", "tiny-llama")
KINDS = (*DECODERS, "tiny-bert")
LAYOUTS = ("padded", "sorted", "packed")


@pytest.fixture(scope="module")
def opened(cache_dir):
    """Return a function that opens each kind and dtype once."""
    known: dict[tuple[str, str], LoadedModel] = {}

    def of(kind: str, dtype: str = "float64") -> LoadedModel:
        if (kind, dtype) not in known:
            known[kind, dtype] = open_tiny(kind, cache_dir, dtype=dtype)
        return known[kind, dtype]

    return of


@pytest.fixture(scope="module")
def pairs() -> pd.DataFrame:
    """Return 26 pairs; some share a prompt, some have identical, empty or missing responses."""
    table = simulate(20, seed=3)
    odd = {
        "id": ["same", "empty", "null", "long", "twin", "twin"],
        "prompt": [["Why?"], ["Why?"], [None], ["Go on " * 60], ["One?", "Two?"], ["One?", "Two?"]],
        "response_a": [["Yes."], [""], [None], ["x Ω z " * 80], ["a", "b"], ["a", "b"]],
        "response_b": [["Yes."], [""], ["No."], ["short"], ["c", None], ["c", None]],
    }
    names = ["prompt", "response_a", "response_b"]
    columns = {name: [*table[name], *odd[name]] for name in names}
    return build_pairs({"id": [*map(str, table["id"]), *odd["id"]], **columns})


def probs_of(opened: LoadedModel, pairs: pd.DataFrame, **options) -> np.ndarray:
    """Return the probabilities averaged over both orders."""
    table = predict_pairs(opened.classifier, pairs, opened.tokenizer, opened.template, **options)
    return table[PROB_COLUMNS].to_numpy()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", KINDS)
def test_swapped_pairs_swap_exactly(opened, pairs, kind, dtype):
    """Swapping any subset of pairs swaps their probabilities, bit for bit."""
    judge = opened(kind, dtype)
    direct = probs_of(judge, pairs, batch_tokens=700)
    for seed in range(2):
        is_swapped = np.random.default_rng(seed).random(len(pairs)) < 0.5
        mixed = pairs.copy()
        mixed[is_swapped] = swap_pairs(pairs)[is_swapped]
        probs = probs_of(judge, mixed, batch_tokens=700)
        np.testing.assert_array_equal(
            np.where(is_swapped[:, None], swap_probs(probs), probs), direct
        )


@pytest.mark.parametrize("kind", KINDS)
def test_file_order_changes_no_bit(opened, pairs, kind):
    """Shuffled and repeated pairs get the same bits, in the order of the input."""
    judge = opened(kind, "float32")
    direct = probs_of(judge, pairs, batch_tokens=700)
    order = np.random.default_rng(0).permutation(np.repeat(np.arange(len(pairs)), 2))
    shuffled = pairs.iloc[order]
    table = predict_pairs(
        judge.classifier, shuffled, judge.tokenizer, judge.template, batch_tokens=700
    )
    np.testing.assert_array_equal(table[PROB_COLUMNS].to_numpy(), direct[order])
    assert table["id"].tolist() == shuffled["id"].tolist()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", KINDS)
def test_batch_mates_change_nothing(opened, pairs, kind, layout):
    """Five ways to form batches, from single rows to all rows, agree to 1e-9 in float64."""
    judge = opened(kind)
    if not judge.classifier.can_pack and layout == "packed":
        with pytest.raises(ModelError, match="packed"):
            score_rows(judge.classifier, judge.rows(pairs), layout=layout)
        return
    rows = judge.rows(pairs)
    alone = score_rows(judge.classifier, rows, layout="padded", batch_tokens=1)
    assert np.ptp(alone, axis=0).min() > 0.3, "the rows must differ, or this test shows nothing"
    compositions = {
        "one by one": [np.array([row]) for row in range(len(rows))],
        "all together": [np.arange(len(rows))],
        "halves": np.array_split(np.arange(len(rows)), 2),
        "sevens, backwards": np.array_split(np.arange(len(rows))[::-1], 7),
        "shuffled fives": np.array_split(np.random.default_rng(0).permutation(len(rows)), 8),
    }
    for name, parts in compositions.items():
        scored = np.empty_like(alone)
        for part in parts:
            scored[part] = score_rows(
                judge.classifier, take_rows(rows, part), layout=layout, batch_tokens=10**6
            )
        np.testing.assert_allclose(scored, alone, rtol=0, atol=1e-9, err_msg=name)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", DECODERS)
def test_layouts_agree_in_float32(opened, pairs, kind, layout):
    """Layout and token budget change a probability by less than 2e-5."""
    judge = opened(kind, "float32")
    exact = probs_of(judge, pairs, batch_tokens=1)
    for batch_tokens in (200, 1000, 20_000):
        probs = probs_of(judge, pairs, layout=layout, batch_tokens=batch_tokens)
        np.testing.assert_allclose(probs, exact, rtol=0, atol=2e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_single_rows_score_exactly(opened, pairs, kind):
    """With a budget of one token a row gets the same bits in any selection of rows."""
    judge = opened(kind, "float32")
    rows = judge.rows(pairs)
    together = score_rows(judge.classifier, rows, batch_tokens=1)
    for part in ([5], [25, 0, 7], list(range(12, 20))):
        alone = score_rows(judge.classifier, take_rows(rows, np.array(part)), batch_tokens=1)
        np.testing.assert_array_equal(alone, together[part])


@pytest.mark.parametrize("kind", KINDS)
def test_identical_responses_score_equally(opened, pairs, kind):
    """P(A) equals P(B) bit for bit when the responses are identical."""
    is_same = (pairs["response_a"] == pairs["response_b"]).to_numpy()
    assert is_same.any()
    probs = probs_of(opened(kind, "float32"), pairs)
    np.testing.assert_array_equal(probs[is_same, 0], probs[is_same, 1])


def test_table_counts_truncated_tokens(opened, pairs):
    """The table has token counts and marks degenerate pairs; its first columns are fixed."""
    judge = opened("tiny")
    table = predict_pairs(judge.classifier, pairs, judge.tokenizer, judge.template)
    assert table.columns[:4].tolist() == ["id", *PROB_COLUMNS]
    by_id = table.drop_duplicates("id").set_index("id")
    assert by_id.loc["long", "n_truncated"] > 0
    assert by_id.loc["same", "n_truncated"] == 0
    assert by_id["is_degenerate"][["same", "empty"]].all()
    assert not by_id["is_degenerate"][["null", "long", "twin"]].any()
    assert (table["n_tokens"] <= judge.template.max_length).all()


def test_one_order_keeps_logits(opened, pairs):
    """In one order, logits are the classifier's and probabilities are their softmax."""
    judge = opened("tiny")
    table = predict_pairs(
        judge.classifier, pairs, judge.tokenizer, judge.template, both_orders=False
    )
    logits = score_rows(judge.classifier, judge.rows(pairs))
    np.testing.assert_allclose(table.filter(like="logit_"), logits, atol=1e-12)
    assert not table.columns.str.contains("given|swapped").any()
    np.testing.assert_allclose(table[PROB_COLUMNS].sum(axis=1), 1)


def test_training_mode_is_restored(opened, pairs):
    """A classifier in training mode is in training mode afterwards."""
    judge = opened("tiny")
    judge.classifier.train()
    score_rows(judge.classifier, judge.rows(pairs))
    assert judge.classifier.training
    judge.classifier.eval()


def test_infinite_logits_name_their_row(cache_dir, pairs):
    """A NaN in the embedding of one token stops scoring and names the row with that token."""
    judge = open_tiny("tiny", cache_dir)
    rows = judge.rows(pairs)
    tokens, row_of = np.unique(rows.values, return_inverse=True)
    held = [set(row_of[rows.offsets[row] : rows.offsets[row + 1]]) for row in range(len(rows))]
    row = int(pairs.index[pairs["id"] == "long"][0])
    token = tokens[next(iter(held[row] - set().union(*held[:row], *held[row + 1 :])))]
    with torch.no_grad():
        judge.classifier.network.get_input_embeddings().weight[token] = torch.nan
    with pytest.raises(NumericsError, match=r"1 rows are not finite \(id=long\)"):
        predict_pairs(judge.classifier, pairs, judge.tokenizer, judge.template, both_orders=False)


@pytest.mark.parametrize("most", [1, 3])
def test_memory_errors_halve_the_batch(opened, pairs, monkeypatch, most):
    """A batch that does not fit into memory is halved until it does; the result is the same."""
    judge = opened("tiny")
    rows = judge.rows(pairs)
    direct = score_rows(judge.classifier, rows)
    forward = type(judge.classifier).forward

    def out_of_memory(self, batch):
        if len(batch["lengths"]) > most:
            raise torch.OutOfMemoryError("simulated")
        return forward(self, batch)

    monkeypatch.setattr(type(judge.classifier), "forward", out_of_memory)
    np.testing.assert_allclose(score_rows(judge.classifier, rows), direct, atol=1e-9)


def test_row_that_does_not_fit_is_an_error(opened, pairs, monkeypatch):
    """A single row cannot be halved."""
    judge = opened("tiny")

    def out_of_memory(self, batch):
        raise torch.OutOfMemoryError("simulated")

    monkeypatch.setattr(type(judge.classifier), "forward", out_of_memory)
    with pytest.raises(torch.OutOfMemoryError):
        score_rows(judge.classifier, judge.rows(pairs))


def test_unknown_layouts_are_refused(opened, pairs):
    """The message lists the known layouts."""
    judge = opened("tiny")
    with pytest.raises(ConfigError, match="padded, sorted, packed"):
        score_rows(judge.classifier, judge.rows(pairs), layout="square")


@given(token_rows())
def test_representatives_have_equal_contents(rows):
    """Representatives are distinct, and each row has the tokens of its representative."""
    representatives, inverse = find_distinct(rows)
    contents = [rows.row(int(row)).tolist() for row in representatives]
    assert len({tuple(content) for content in contents}) == len(contents)
    for row, place in enumerate(inverse.tolist()):
        assert rows.row(row).tolist() == contents[place]


def test_other_segments_are_other_rows():
    """Rows with the same tokens in other segments are scored by themselves."""
    rows = make_rows((4, 4), segments=True)
    values = np.tile(rows.values[:4], 2)
    types = np.array([0, 0, 1, 1, 0, 1, 1, 1], dtype=np.int8)
    same = dataclasses.replace(rows, values=values, type_ids=np.tile(types[:4], 2))
    assert len(find_distinct(same)[0]) == 1
    assert len(find_distinct(dataclasses.replace(same, type_ids=types))[0]) == 2


@given(token_rows(), st.integers(0, 2**31))
def test_order_depends_on_contents(rows, seed):
    """Shuffled rows give equal representatives in the same order."""
    order = np.random.default_rng(seed).permutation(len(rows.lengths))
    shuffled = take_rows(rows, order)
    one, other = find_distinct(rows)[0], find_distinct(shuffled)[0]
    assert [rows.row(int(row)).tolist() for row in one] == [
        shuffled.row(int(row)).tolist() for row in other
    ]


@given(token_rows(), st.data())
def test_taken_rows_keep_order(rows, data):
    """Rows are returned in the order of the indices, with repetitions."""
    indices = np.array(data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=9)), dtype=int)
    taken = take_rows(rows, indices)
    assert len(taken) == len(indices)
    for place, row in enumerate(indices.tolist()):
        np.testing.assert_array_equal(taken.row(place), rows.row(row))
        assert taken.n_truncated[place] == rows.n_truncated[row]
