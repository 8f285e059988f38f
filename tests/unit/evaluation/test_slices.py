"""Slices: scores of parts, held against the rest, corrected for the number looked at."""

import json
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiewise.errors import ScoresError
from tiewise.evaluation.scores import evaluate
from tiewise.evaluation.slices import correct_holm, evaluate_slices, join_rows


def drawn_tables(n=400, seed=0, *, hard=0.0):
    """Rows of known probability in groups of four; two-turn rows are mispredicted by `hard`."""
    generator = np.random.default_rng(seed)
    true = generator.dirichlet([2, 2, 2], n)
    labels = (generator.random(n)[:, None] > true.cumsum(1)[:, :2]).sum(1)
    two_turns = np.arange(n) // 4 % 2 == 1
    shown = np.where(two_turns[:, None], (1 - hard) * true + hard * true[:, ::-1], true)
    pairs = pd.DataFrame(
        {
            "id": np.arange(n),
            "prompt": [["Hi"] * (1 + int(two)) for two in two_turns],
            "response_a": [["x" * size] for size in generator.integers(1, 400, n)],
            "response_b": [["x" * size] for size in generator.integers(1, 400, n)],
        }
    )
    oof = pd.DataFrame({"id": pairs["id"], "label": labels, "group": np.arange(n) // 4})
    oof[["prob_a", "prob_b", "prob_tie"]] = shown
    return pairs, oof.sample(frac=1, random_state=0)


def find(slices, family, name):
    return next(row for row in slices.rows if (row.family, row.name) == (family, name))


def test_a_slice_is_scored_as_if_it_stood_alone():
    """Values and counts are those of the rows of the slice; the difference is against the rest."""
    pairs, oof = drawn_tables()
    table = join_rows(pairs, oof)
    inside = table["prompt"].map(len) == 2
    scores = {
        part: evaluate(
            table.loc[rows, "label"],
            table.loc[rows, ["prob_a", "prob_b", "prob_tie"]].to_numpy(),
            groups=table.loc[rows, "group"],
        )
        for part, rows in (("inside", inside), ("rest", ~inside))
    }
    row = find(evaluate_slices(pairs, oof), "turns", "2")
    expected = scores["inside"]
    assert (row.n, row.n_groups) == (expected.n, expected.n_groups)
    assert row.log_loss.value == pytest.approx(expected.log_loss.value)
    assert row.accuracy.value == pytest.approx(expected.accuracy.value)
    difference = expected.log_loss.value - scores["rest"].log_loss.value
    assert row.difference.value == pytest.approx(difference)
    width = expected.log_loss.high - expected.log_loss.low
    assert row.log_loss.high - row.log_loss.low == pytest.approx(width, rel=0.15)


def test_a_hard_slice_is_found_and_an_ordinary_one_is_not():
    """What was mispredicted stands out after correction; chance does not."""
    slices = evaluate_slices(*drawn_tables(hard=0.9))
    frame = slices.to_frame().set_index(["family", "slice"])
    assert frame.loc[("turns", "2"), "is_different"]
    assert frame.loc[("turns", "2"), "difference"] > 0
    assert not frame.loc["length gap", "is_different"].any()


def test_chance_alone_rarely_stands_out():
    """Over twenty data sets without any hard slice, at most a few name one (5 % expected)."""
    named = 0
    for seed in range(20):
        slices = evaluate_slices(*drawn_tables(200, seed), n_resamples=199)
        named += slices.to_frame()["is_different"].any()
    assert named <= 4


def test_every_row_is_counted_in_each_family_of_texts():
    """Slices of a family share the rows out."""
    frame = evaluate_slices(*drawn_tables(), n_resamples=19).to_frame()
    for family in ("turns", "length gap", "prompt length", "code", "language"):
        assert frame.loc[frame["family"] == family, "n"].sum() == 400


def test_what_cannot_be_cut_is_named():
    """No models, no winners, no truncation: said, not guessed."""
    slices = evaluate_slices(*drawn_tables(), n_resamples=19)
    assert set(slices.omitted) == {"truncated", "model pair", "outcome", "source"}
    assert "source: omitted, no column source" in str(slices)


def test_slices_go_to_json_without_nan():
    """A slice that is everything has no rest: null, not NaN."""
    slices = evaluate_slices(*drawn_tables(), n_resamples=19)
    value = slices.to_dict()
    assert json.loads(json.dumps(value, allow_nan=False)) == value
    whole = next(line for line in value["slices"] if line["slice"] == "no code")
    assert whole["difference"]["value"] is None
    assert whole["p_holm"] is None


def test_order_of_rows_changes_nothing():
    """Shuffled predictions and pairs give the same slices."""
    pairs, oof = drawn_tables()
    first = evaluate_slices(pairs, oof, n_resamples=19).to_dict()
    shuffled = pairs.sample(frac=1, random_state=2), oof.sample(frac=1, random_state=3)
    second = evaluate_slices(*shuffled, n_resamples=19).to_dict()
    for one, two in zip(first["slices"], second["slices"], strict=True):
        assert one["log_loss"]["value"] == pytest.approx(two["log_loss"]["value"])
        assert one["log_loss"]["high"] == pytest.approx(two["log_loss"]["high"], nan_ok=True)


@given(st.lists(st.floats(0, 1) | st.just(float("nan")), max_size=12))
def test_holm_is_the_step_down_of_its_definition(p_values):
    """The k-th smallest of m times m - k + 1, never below an earlier one, at most one."""
    corrected = correct_holm(p_values)
    known = sorted(p for p in p_values if not math.isnan(p))
    expected, worst = [], 0.0
    for position, p_value in enumerate(known):
        worst = max(worst, min(1.0, p_value * (len(known) - position)))
        expected.append(worst)
    np.testing.assert_allclose(np.sort(corrected[~np.isnan(corrected)]), expected)
    np.testing.assert_array_equal(np.isnan(corrected), np.isnan(np.array(p_values, dtype=float)))


def test_predictions_of_other_data_are_refused():
    """Unknown and repeated ids are named."""
    pairs, oof = drawn_tables()
    with pytest.raises(ScoresError, match="not in pairs, as id"):
        evaluate_slices(pairs.head(10), oof)
    with pytest.raises(ScoresError, match="more than once, as 0"):
        evaluate_slices(pd.concat([pairs, pairs.head(1)]), oof)


def test_texts_in_a_slice_name_are_escaped():
    """Sources and models are named by strangers."""
    pairs, oof = drawn_tables()
    html = evaluate_slices(pairs.assign(source="<b>x"), oof, n_resamples=19)._repr_html_()
    assert "<b>" not in html
    assert "&lt;b&gt;x" in html
