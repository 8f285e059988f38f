"""Tests of the public functions that predict, score and rank."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from strategies import clean_text
from tiewise.data.formats import write_pairs
from tiewise.data.labels import PROB_COLUMNS, swap_probs
from tiewise.data.pairs import TEXT_COLUMNS, build_pairs, is_degenerate, swap_pairs
from tiewise.data.simulation.simulate import simulate
from tiewise.errors import PairsError
from tiewise.judges.judge import Judge, predict, rank, score


class PreferLonger:
    """A judge that prefers the response with more characters."""

    def predict(self, pairs, *, swap=None):
        n_a, n_b = (
            pairs[name].map(lambda turns: sum(len(turn or "") for turn in turns)) + 1
            for name in ("response_a", "response_b")
        )
        total = n_a + n_b + 1
        return pd.DataFrame({"prob_a": n_a / total, "prob_b": n_b / total, "prob_tie": 1 / total})


LONGER = Judge("longer", PreferLonger())


@given(st.lists(clean_text(), min_size=2, max_size=6))
def test_all_responses_are_compared(responses):
    """[i, j] is the prediction for i and j, [j, i] its swap, and the diagonal is NaN."""
    probs = LONGER.compare_all("Which?", responses)
    np.testing.assert_array_equal(probs.transpose(1, 0, 2)[..., [1, 0, 2]], probs)
    for i, j in np.ndindex(len(responses), len(responses)):
        if i == j:
            assert np.isnan(probs[i, j]).all()
            continue
        lengths = np.array([len(responses[i]) + 1, len(responses[j]) + 1, 1])
        np.testing.assert_allclose(probs[i, j], lengths / lengths.sum())


def test_response_may_be_turns():
    """A response is a text or a list of turns, some missing; a lone surrogate is repaired."""
    probs = LONGER.compare_all(["Hi", None], ["abc", ["a", None, "\ud83d"]])
    np.testing.assert_allclose(probs[0, 1], swap_probs(probs[1, 0][None])[0])
    assert probs[0, 1, 0] == pytest.approx(4 / 8)


def test_shipped_model_is_the_default():
    """Without a run, the shipped model scores and ranks, with equal probabilities for a pair."""
    responses = ["It is 4.", "I cannot help with that.", "2 + 2 = 4, as counting shows."]
    ranking = rank("What is 2 + 2?", responses, n_resamples=20)
    probs = score("What is 2 + 2?", responses[1], responses[2])
    np.testing.assert_array_equal(ranking.probs[1, 2], probs)
    swapped = score("What is 2 + 2?", responses[2], responses[1])
    np.testing.assert_array_equal(swapped, probs[[1, 0, 2]])
    assert ranking.order[-1] == 1


def test_table_matches_single_scores(tmp_path):
    """Rows keep order and duplicate ids; a file and Kaggle's columns give equal results."""
    pairs = simulate(6, seed=1).iloc[[3, 0, 3, 5]].assign(id=[7, 8, 7, 9])
    table = predict(pairs)
    assert table["id"].tolist() == [7, 8, 7, 9]
    for row, probs in zip(pairs.itertuples(), table[PROB_COLUMNS].to_numpy(), strict=True):
        np.testing.assert_allclose(score(row.prompt, row.response_a, row.response_b), probs)
    swapped = predict(swap_pairs(pairs))
    np.testing.assert_array_equal(swap_probs(swapped[PROB_COLUMNS].to_numpy()), table[PROB_COLUMNS])
    write_pairs(pairs, tmp_path / "pairs.csv")
    pd.testing.assert_frame_equal(predict(tmp_path / "pairs.csv"), table)
    cells = pd.read_csv(tmp_path / "pairs.csv")
    pd.testing.assert_frame_equal(predict(cells[["id", *TEXT_COLUMNS]]), table)


def test_degenerate_rows_are_flagged():
    """A row with identical responses or a blank one is degenerate."""
    texts = {"response_a": [["4"], ["4"], [None]], "response_b": [["5"], ["4"], [" "]]}
    pairs = build_pairs({"id": [1, 2, 3], "prompt": [["?"]] * 3, **texts})
    np.testing.assert_array_equal(predict(pairs)["is_degenerate"], is_degenerate(pairs))


@pytest.mark.parametrize("responses", [[], ["one"], "two"])
def test_fewer_than_two_responses_are_refused(responses):
    """One text is not read as a list of characters."""
    with pytest.raises(PairsError, match="at least two responses"):
        LONGER.compare_all("Which?", responses)


def _batches(table):
    """Return one table as each kind of batch, with a way to read it as a frame."""
    arrays = {name: np.empty(len(table), dtype=object) for name in table}
    for name in table:
        for row, cell in enumerate(table[name].tolist()):  # lists as Ray Data has them
            arrays[name][row] = np.array(cell, dtype=object) if name in TEXT_COLUMNS else cell
    yield table, lambda batch: batch
    yield pa.Table.from_pandas(table), lambda batch: batch.to_pandas()
    yield arrays, pd.DataFrame


@pytest.mark.parametrize("n", [0, 1, 7])
def test_batch_gets_columns(n):
    """A batch of each kind comes back in its kind, with the columns of predict and all its own."""
    table = simulate(8, seed=1).drop(columns="label").iloc[:n].set_index(np.arange(n) + 5)
    shipped = Judge("shipped")
    added = ["prob_a", "prob_b", "prob_tie", "is_degenerate"]
    expected = None if n == 0 else shipped.predict(table)[added].to_numpy()
    for batch, read in _batches(table):
        found = shipped(batch)
        assert type(found) is type(batch)
        frame = read(found)
        assert [*frame] == [*read(batch), *added]
        assert len(frame) == n
        if n:
            np.testing.assert_array_equal(frame[added].to_numpy(), expected)
            assert frame["id"].tolist() == table["id"].tolist()


def test_batch_with_predictions_refused():
    """A batch that has a column of the predictions already is not changed."""
    table = simulate(2, seed=1).assign(prob_tie=0.1)
    with pytest.raises(PairsError, match="has columns prob_tie already"):
        Judge("shipped")(table)
