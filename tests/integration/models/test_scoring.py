"""Truths about probabilities: of either order, in any company, in any layout."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from opened import Opened, open_tiny
from tiewise.data.labels import PROB_COLUMNS, swap_probs
from tiewise.data.schema import build_pairs
from tiewise.data.simulation.simulate import simulate
from tiewise.data.table import swap_pairs
from tiewise.errors import ConfigError, ModelError, NumericsError
from tiewise.models.dedup import take_rows
from tiewise.models.scoring import predict_pairs, score_rows

DECODERS = ("tiny", "tiny-llama")
KINDS = (*DECODERS, "tiny-bert")
LAYOUTS = ("padded", "sorted", "packed")


@pytest.fixture(scope="module")
def opened(cache_dir):
    """Open each kind and dtype once."""
    known: dict[tuple[str, str], Opened] = {}

    def of(kind: str, dtype: str = "float64") -> Opened:
        if (kind, dtype) not in known:
            known[kind, dtype] = open_tiny(kind, cache_dir, dtype=dtype)
        return known[kind, dtype]

    return of


@pytest.fixture(scope="module")
def pairs() -> pd.DataFrame:
    """Twenty-six pairs: some share a prompt, some have identical, empty or missing responses."""
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


def probs_of(opened: Opened, pairs: pd.DataFrame, **options) -> np.ndarray:
    """Give the probabilities of both orders averaged."""
    table = predict_pairs(opened.classifier, pairs, opened.tokenizer, opened.template, **options)
    return table[PROB_COLUMNS].to_numpy()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", KINDS)
def test_swapping_pairs_swaps_their_probabilities_to_the_last_bit(opened, pairs, kind, dtype):
    """However many of the pairs are swapped."""
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
def test_file_order_and_repeated_rows_change_no_bit(opened, pairs, kind):
    """Rows come back in the order given, duplicate ids and duplicate rows included."""
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
def test_a_row_does_not_depend_on_its_company(opened, pairs, kind, layout):
    """Five compositions of batches, from alone to all together, agree to 1e-9 in float64."""
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
def test_layouts_agree_in_float32_to_a_stated_tolerance(opened, pairs, kind, layout):
    """Whatever the layout and budget, a probability moves by less than 2e-5."""
    judge = opened(kind, "float32")
    exact = probs_of(judge, pairs, batch_tokens=1)
    for batch_tokens in (200, 1000, 20_000):
        probs = probs_of(judge, pairs, layout=layout, batch_tokens=batch_tokens)
        np.testing.assert_allclose(probs, exact, rtol=0, atol=2e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_scores_row_by_row_depend_on_nothing_but_the_row(opened, pairs, kind):
    """Alone or among others, in any order: the same bits."""
    judge = opened(kind, "float32")
    rows = judge.rows(pairs)
    together = score_rows(judge.classifier, rows, batch_tokens=1)
    for part in ([5], [25, 0, 7], list(range(12, 20))):
        alone = score_rows(judge.classifier, take_rows(rows, np.array(part)), batch_tokens=1)
        np.testing.assert_array_equal(alone, together[part])


@pytest.mark.parametrize("kind", KINDS)
def test_identical_responses_win_equally_often(opened, pairs, kind):
    """P(A) equals P(B) to the last bit."""
    is_same = (pairs["response_a"] == pairs["response_b"]).to_numpy()
    assert is_same.any()
    probs = probs_of(opened(kind, "float32"), pairs)
    np.testing.assert_array_equal(probs[is_same, 0], probs[is_same, 1])


def test_what_was_cut_and_what_is_degenerate_is_told(opened, pairs):
    """Counts stand beside the probabilities; ids and columns are as promised."""
    judge = opened("tiny")
    table = predict_pairs(judge.classifier, pairs, judge.tokenizer, judge.template)
    assert table.columns[:4].tolist() == ["id", *PROB_COLUMNS]
    by_id = table.drop_duplicates("id").set_index("id")
    assert by_id.loc["long", "n_truncated"] > 0
    assert by_id.loc["same", "n_truncated"] == 0
    assert by_id["is_degenerate"][["same", "empty"]].all()
    assert not by_id["is_degenerate"][["null", "long", "twin"]].any()
    assert (table["n_tokens"] <= judge.template.max_length).all()


def test_one_order_alone_keeps_its_logits(opened, pairs):
    """Without the swap, logits are the classifier's own and probabilities their softmax."""
    judge = opened("tiny")
    table = predict_pairs(
        judge.classifier, pairs, judge.tokenizer, judge.template, is_swapped=False
    )
    logits = score_rows(judge.classifier, judge.rows(pairs))
    np.testing.assert_allclose(table.filter(like="logit_"), logits, atol=1e-12)
    assert not table.columns.str.contains("given|swapped").any()
    np.testing.assert_allclose(table[PROB_COLUMNS].sum(axis=1), 1)


def test_the_classifier_is_left_as_it_was(opened, pairs):
    """Training mode is restored, also after an error."""
    judge = opened("tiny")
    judge.classifier.train()
    score_rows(judge.classifier, judge.rows(pairs))
    assert judge.classifier.training
    judge.classifier.eval()


def test_a_logit_that_is_not_finite_stops_and_names_its_row(cache_dir, pairs):
    """NaN in an embedding is found in the rows that hold its token, and nowhere else."""
    judge = open_tiny("tiny", cache_dir)
    rows = judge.rows(pairs)
    tokens, row_of = np.unique(rows.values, return_inverse=True)
    held = [set(row_of[rows.offsets[row] : rows.offsets[row + 1]]) for row in range(len(rows))]
    row = int(pairs.index[pairs["id"] == "long"][0])
    token = tokens[next(iter(held[row] - set().union(*held[:row], *held[row + 1 :])))]
    with torch.no_grad():
        judge.classifier.network.get_input_embeddings().weight[token] = torch.nan
    with pytest.raises(NumericsError, match=r"1 rows are not finite \(id=long\)"):
        predict_pairs(judge.classifier, pairs, judge.tokenizer, judge.template, is_swapped=False)


def test_running_out_of_memory_halves_the_batch(opened, pairs, monkeypatch):
    """Batches that do not fit are halved until they do; the result is the same."""
    judge = opened("tiny")
    rows = judge.rows(pairs)
    direct = score_rows(judge.classifier, rows)
    forward = type(judge.classifier).forward

    def forgetful(self, batch):
        if len(batch["lengths"]) > 3:
            raise torch.OutOfMemoryError("made up")
        return forward(self, batch)

    monkeypatch.setattr(type(judge.classifier), "forward", forgetful)
    np.testing.assert_allclose(score_rows(judge.classifier, rows), direct, atol=1e-9)


def test_an_unknown_layout_is_refused(opened, pairs):
    """The known ones are listed."""
    judge = opened("tiny")
    with pytest.raises(ConfigError, match="auto, padded, sorted, packed"):
        score_rows(judge.classifier, judge.rows(pairs), layout="square")
