"""Tests of slices: assignment of rows, scores, differences to the other rows, Holm's method."""

import json
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from strategies import turns
from tiewise.data.labels import WINNER_WORDS
from tiewise.data.parse import count_characters, join_turns
from tiewise.errors import ScoresError
from tiewise.evaluation.intervals import Interval
from tiewise.evaluation.languages import guess_language
from tiewise.evaluation.scores import evaluate
from tiewise.evaluation.slices import (
    Slices,
    SliceScores,
    adjust_holm,
    evaluate_slices,
    join_rows,
    slice_rows,
)


def drawn_tables(n=400, seed=0, *, hard=0.0):
    """Return pairs and predictions in groups of four; two-turn rows are mispredicted by `hard`."""
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
    return next(row for row in slices.rows if (row.family, row.slice) == (family, name))


def test_slice_scores_match_evaluate():
    """Scores and counts equal those of the slice's rows alone; so does the difference."""
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


def test_accuracy_of_slice_has_wilson_interval():
    """It is that of the slice's rows alone, and keeps a width where all rows are right."""
    pairs, oof = drawn_tables()
    inside = oof["id"] // 4 % 2 == 1
    oof.loc[inside, ["prob_a", "prob_b", "prob_tie"]] = np.eye(3)[oof.loc[inside, "label"]]
    slices = evaluate_slices(pairs, oof)
    perfect, other = (find(slices, "turns", name).accuracy for name in ("2", "1"))
    assert perfect.value == perfect.high == 1
    assert perfect.low == pytest.approx(50 / (50 + stats.t.ppf(0.975, 49) ** 2))
    rows = oof[~inside]
    probs = rows[["prob_a", "prob_b", "prob_tie"]].to_numpy()
    alone = evaluate(rows["label"], probs, groups=rows["group"]).accuracy
    assert [other.low, other.high] == pytest.approx([alone.low, alone.high], abs=0.002)


def test_hard_slice_is_different():
    """A mispredicted slice differs after the adjustment; slices that differ by chance do not."""
    slices = evaluate_slices(*drawn_tables(hard=0.9))
    frame = slices.to_frame().set_index(["family", "slice"])
    assert frame.loc[("turns", "2"), "is_different"]
    assert frame.loc[("turns", "2"), "difference"] > 0
    assert not frame.loc["length gap", "is_different"].any()


def test_few_groups_get_no_star():
    """A slice of fewer than 30 groups, or with fewer outside it, is never marked as different."""
    pairs, oof = drawn_tables(800)
    is_rare = pairs["id"] < 80
    pairs["source"] = np.where(is_rare, "rare", "usual")
    is_bad = oof["id"] < 80
    wrong = np.eye(3)[(oof.loc[is_bad, "label"] + 1) % 3]
    oof.loc[is_bad, ["prob_a", "prob_b", "prob_tie"]] = wrong * 0.98 + 0.02 / 3
    slices = evaluate_slices(pairs, oof)
    rare, usual = (find(slices, "source", name) for name in ("rare", "usual"))
    assert (rare.n_groups, usual.n_groups_outside) == (20, 20)
    assert rare.p_holm < 0.05
    assert usual.p_holm < 0.05
    frame = slices.to_frame().set_index("family")
    assert not frame.loc["source", "is_different"].any()
    assert not any("*" in line for line in str(slices).splitlines()[1:] if "source" in line)


def test_chance_rarely_makes_slices_different():
    """Of twenty data sets without a hard slice at most four name one (expected: 5 %)."""
    named = 0
    for seed in range(20):
        slices = evaluate_slices(*drawn_tables(200, seed), n_resamples=199)
        named += slices.to_frame()["is_different"].any()
    assert named <= 4


def test_few_groups_outside_limit_confidence():
    """A slice of nearly all groups is compared with few others, which limits its p-value.

    With two groups outside the slice, Student's t has one degree of freedom.
    """
    pairs, oof = drawn_tables(400)
    outside = pairs["id"] >= 392
    pairs["source"] = np.where(outside, "rare", "usual")
    shown = oof.loc[oof["id"] >= 392, ["prob_a", "prob_b", "prob_tie"]]
    oof.loc[oof["id"] >= 392, ["prob_a", "prob_b", "prob_tie"]] = 0.99 * shown + 0.01 / 3
    usual, rare = (find(evaluate_slices(pairs, oof), "source", name) for name in ("usual", "rare"))
    assert (usual.n_groups, rare.n_groups) == (98, 2)
    assert usual.p_value == pytest.approx(rare.p_value)


def test_each_attribute_counts_every_row():
    """The slices of an attribute of the texts have all rows together."""
    frame = evaluate_slices(*drawn_tables(), n_resamples=19).to_frame()
    for family in ("turns", "length gap", "prompt length", "code", "language"):
        assert frame.loc[frame["family"] == family, "n"].sum() == 400


def test_verdicts_are_sliced_by_accuracy():
    """Where every probability is 0 or 1, accuracies are compared; log loss is not defined."""
    pairs, oof = drawn_tables()
    verdicts = np.eye(3)[oof[["prob_a", "prob_b", "prob_tie"]].to_numpy().argmax(1)]
    oof[["prob_a", "prob_b", "prob_tie"]] = verdicts
    slices = evaluate_slices(pairs, oof)
    inside = find(slices, "turns", "2")
    is_right = verdicts.argmax(1) == oof["label"]
    is_inside = (oof["id"] // 4 % 2 == 1).to_numpy()
    expected = is_right[is_inside].mean() - is_right[~is_inside].mean()
    assert inside.difference.value == pytest.approx(expected)
    assert (inside.difference.excludes_zero, inside.difference.low >= -1) == (
        inside.p_value < 0.05,
        True,
    )
    assert math.isnan(inside.log_loss.value)
    assert slices.metric == slices.to_dict()["metric"] == "accuracy"
    assert slices.to_frame()["value"].tolist() == [row.accuracy.value for row in slices.rows]
    assert "accuracy" in str(slices)
    assert "log loss" not in str(slices)


def test_lines_of_slices_fit_a_terminal():
    """Long names are shortened, parts that all rows are in take one line, and marks come last."""
    pairs, oof = drawn_tables(800, hard=0.9)
    pairs["source"] = np.where(pairs["id"] < 8, "x" * 200, "usual")
    lines = str(evaluate_slices(pairs, oof)).splitlines()
    assert max(map(len, lines)) <= 100
    (rare,) = (line for line in lines if "xxx" in line)
    assert rare.endswith("~")
    assert "…" in rare
    assert any(line.endswith("*") for line in lines)
    assert "code: no code in all rows" in lines


def test_missing_columns_are_reported():
    """Attributes without their columns are omitted with the reason."""
    slices = evaluate_slices(*drawn_tables(), n_resamples=19)
    assert set(slices.omitted) == {"truncated", "model pair", "outcome", "source"}
    assert "source: omitted, no column source" in str(slices)


def test_slices_json_has_no_nan():
    """A slice of all rows has no other rows: its difference is null."""
    slices = evaluate_slices(*drawn_tables(), n_resamples=19)
    value = slices.to_dict()
    assert json.loads(json.dumps(value, allow_nan=False)) == value
    whole = next(line for line in value["slices"] if line["slice"] == "no code")
    assert whole["difference"]["value"] is None
    assert whole["p_holm"] is None
    assert whole["few_groups"] is False


def test_row_order_does_not_matter():
    """Shuffled predictions and pairs give the same slices."""
    pairs, oof = drawn_tables()
    first = evaluate_slices(pairs, oof, n_resamples=19).to_dict()
    shuffled = pairs.sample(frac=1, random_state=2), oof.sample(frac=1, random_state=3)
    second = evaluate_slices(*shuffled, n_resamples=19).to_dict()
    for one, two in zip(first["slices"], second["slices"], strict=True):
        assert one["log_loss"]["value"] == pytest.approx(two["log_loss"]["value"])
        assert one["log_loss"]["high"] == pytest.approx(two["log_loss"]["high"], nan_ok=True)


@given(st.lists(st.floats(0, 1) | st.just(float("nan")), max_size=12))
def test_holm_follows_its_definition(p_values):
    """The k-th smallest of m is multiplied by m - k + 1, monotone, at most one."""
    adjusted = adjust_holm(p_values)
    known = sorted(p for p in p_values if not math.isnan(p))
    expected, worst = [], 0.0
    for position, p_value in enumerate(known):
        worst = max(worst, min(1.0, p_value * (len(known) - position)))
        expected.append(worst)
    np.testing.assert_allclose(np.sort(adjusted[~np.isnan(adjusted)]), expected)
    np.testing.assert_array_equal(np.isnan(adjusted), np.isnan(np.array(p_values, dtype=float)))


def test_predictions_of_other_data_are_refused():
    """The message names unknown and repeated ids."""
    pairs, oof = drawn_tables()
    with pytest.raises(ScoresError, match="pairs has no row for 390 ids"):
        evaluate_slices(pairs.head(10), oof)
    with pytest.raises(ScoresError, match="more than once: 0"):
        evaluate_slices(pd.concat([pairs, pairs.head(1)]), oof)


def test_slice_names_are_escaped_in_html():
    """Names of sources and models come from the data."""
    pairs, oof = drawn_tables()
    html = evaluate_slices(pairs.assign(source="<b>x"), oof, n_resamples=19)._repr_html_()
    assert "<b>" not in html
    assert "&lt;b&gt;x" in html


@st.composite
def text_tables(draw):
    """Return tables of any texts, models and winners, including missing ones."""
    n = draw(st.integers(1, 6))
    fields = {
        name: draw(st.lists(turns(), min_size=n, max_size=n))
        for name in ("prompt", "response_a", "response_b")
    }
    models = st.lists(st.sampled_from(["x", "y", "z", None]), min_size=n, max_size=n)
    winners = st.lists(st.sampled_from([*WINNER_WORDS, None]), min_size=n, max_size=n)
    truncated = st.lists(st.integers(0, 3), min_size=n, max_size=n)
    return pd.DataFrame(
        {
            **fields,
            "model_a": pd.Series(draw(models), dtype="string"),
            "model_b": pd.Series(draw(models), dtype="string"),
            "winner": pd.Series(draw(winners), dtype="string"),
            "n_truncated": draw(truncated),
        }
    )


@given(text_tables())
def test_every_known_row_has_a_slice(table):
    """Attributes of texts have a slice for every row; others miss rows without a value."""
    slicings, omitted = slice_rows(table)
    assert omitted["source"] == "no column source"
    for name, slices in slicings.items():
        assert slices.index.equals(table.index), name
        if name not in ("model pair", "outcome"):
            assert slices.notna().all(), name
    if "outcome" in slicings:
        assert (slicings["outcome"].isna() == table["winner"].isna()).all()


@given(text_tables())
def test_swapping_responses_keeps_slices(table):
    """The slice of a row does not depend on which response is A."""
    names = {"response_a": "response_b", "model_a": "model_b"}
    swapped = table.rename(columns={**names, **{b: a for a, b in names.items()}})
    swapped["winner"] = table["winner"].replace({"model_a": "model_b", "model_b": "model_a"})
    first, second = slice_rows(table)[0], slice_rows(swapped)[0]
    assert first.keys() == second.keys()
    for name, slices in first.items():
        pd.testing.assert_series_equal(slices, second[name], check_names=False)


@given(turns())
def test_character_count_matches_joined_text(some_turns):
    """Joining adds one line break between turns and nothing else."""
    joined = join_turns(some_turns)
    assert len(joined) == count_characters(some_turns) + max(len(some_turns) - 1, 0)


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("What is the capital of France and how do I get there?", "English"),
        ("Schreibe ein Gedicht über die Katze und den Hund, bitte.", "German"),
        ("Écris un poème sur le chat et la souris dans une forêt.", "French"),
        ("¿Cómo se dice hola en japonés y por qué?", "Spanish"),
        ("Qual é a diferença entre o gato e um cão, por favor?", "Portuguese"),
        ("Come si dice ciao in giapponese, e perché il gatto non dorme?", "Italian"),
        ("写一首关于猫的诗", "Chinese"),
        ("猫についての詩を書いてください", "Japanese"),
        ("고양이에 대한 시를 써줘", "Korean"),
        ("Напиши стихотворение о кошке", "Cyrillic script"),
        ("اكتب قصيدة عن القطة", "Arabic script"),
        ("zkratka xyz", "other Latin script"),
        ("2 + 2 = ?", "no letters"),
        ("", "no letters"),
    ],
)
def test_language_is_guessed(text, language):
    """Script or short words decide; text without either is reported as such."""
    assert guess_language([text]) == language


def one_row(**columns):
    texts = {"prompt": [["Q"]], "response_a": [["yes"]], "response_b": [["no"]]}
    return pd.DataFrame({**texts, **{name: [value] for name, value in columns.items()}})


@pytest.mark.parametrize(
    ("family", "columns", "name"),
    [
        ("turns", {"prompt": ["a", "b", "c", "d", "e"]}, "4 or more"),
        ("turns", {"prompt": ["a"]}, "1"),
        ("length gap", {"response_a": ["x" * 30], "response_b": ["x" * 10]}, "1.5 to 3 times"),
        ("length gap", {"response_a": ["x" * 300], "response_b": [None]}, "3 times or more"),
        ("length gap", {"response_a": ["abc"], "response_b": ["xyz"]}, "less than 1.1 times"),
        ("prompt length", {"prompt": ["x" * 500]}, "500 to 1,999"),
        ("null or empty", {"response_a": [None]}, "a response null or empty"),
        ("null or empty", {"response_b": [" \n"]}, "a response null or empty"),
        ("null or empty", {}, "both complete"),
        ("truncated", {"n_truncated": 1}, "truncated"),
        ("code", {"response_b": ["Use this:\n```\nx\n```"]}, "code"),
        ("code", {"prompt": ["def f(x):\n  return x"]}, "code"),
        ("code", {"prompt": ["what is a class?"]}, "no code"),
        ("model pair", {"model_a": "zeta", "model_b": "alpha"}, "alpha / zeta"),
        ("outcome", {"winner": "model_b"}, "A or B won"),
        ("outcome", {"winner": "tie"}, "tie"),
        ("outcome", {"winner": "tie (bothbad)"}, "tie, both bad"),
        ("source", {"source": "mt_bench"}, "mt_bench"),
    ],
)
def test_row_is_assigned_to_slice(family, columns, name):
    """Examples of each attribute."""
    assert slice_rows(one_row(**columns))[0][family].tolist() == [name]


def test_only_frequent_model_pairs_are_slices():
    """The twenty most frequent pairs are slices, in this order; other rows are in none."""
    rows = [
        one_row(model_a=f"m{k:02}", model_b="z") for k in range(25) for _ in range(1 + (k == 7))
    ]
    slices = slice_rows(pd.concat(rows, ignore_index=True))[0]["model pair"]
    assert slices.cat.categories[0] == "m07 / z"
    assert len(slices.cat.categories) == 20
    assert slices.isna().sum() == 5


def test_column_without_values_is_reported():
    """A table without model names has no slices by model pair."""
    slicings, omitted = slice_rows(one_row(model_a=None, model_b=None))
    assert "model pair" not in slicings
    assert omitted["model pair"] == "no values in model_a, model_b"


def test_marks_follow_adjusted_p():
    """A slice is marked by its p-value after Holm's adjustment, below one minus the level."""
    one = Interval(1.0, 0.9, 1.1)
    rows = [
        SliceScores("code", name, 90, 40, one, one, one, p_value=0.001, p_holm=p_holm)
        for name, p_holm in (("code", 0.2), ("no code", 0.049), ("rare", math.nan))
    ]
    slices = Slices(tuple(rows), {}, 0.95)
    assert slices.to_frame()["is_different"].tolist() == [False, True, False]
    assert [line.endswith("*") for line in str(slices).splitlines()[3:]] == [False, True, False]
