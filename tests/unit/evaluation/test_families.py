"""Families of slices: every row in at most one slice of each, by what its texts say."""

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from strategies import turns
from tiewise.evaluation.families import (
    count_characters,
    cut_families,
    guess_language,
    is_blank,
    join_turns,
)
from tiewise.pairs.labels import WINNER_WORDS


@st.composite
def text_tables(draw):
    """Tables of any texts, models and winners, missing ones included."""
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
def test_every_family_names_a_slice_for_the_rows_it_knows(table):
    """Text families know every row; the others miss only where the table does."""
    families, omitted = cut_families(table)
    assert omitted["source"] == "no column source"
    for name, family in families.items():
        assert family.index.equals(table.index), name
        if name not in ("model pair", "outcome"):
            assert family.notna().all(), name
    if "outcome" in families:
        assert (families["outcome"].isna() == table["winner"].isna()).all()


@given(text_tables())
def test_exchanging_the_answers_changes_no_slice(table):
    """What a row is cut by does not depend on which answer is called A."""
    names = {"response_a": "response_b", "model_a": "model_b"}
    swapped = table.rename(columns={**names, **{b: a for a, b in names.items()}})
    swapped["winner"] = table["winner"].replace({"model_a": "model_b", "model_b": "model_a"})
    first, second = cut_families(table)[0], cut_families(swapped)[0]
    assert first.keys() == second.keys()
    for name, family in first.items():
        pd.testing.assert_series_equal(family, second[name], check_names=False)


@given(turns())
def test_counts_follow_the_joined_text(some_turns):
    """Joining adds a line break between turns and nothing else."""
    joined = join_turns(some_turns)
    assert len(joined) == count_characters(some_turns) + max(len(some_turns) - 1, 0)
    assert is_blank(some_turns) or joined.strip()


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
def test_languages_are_guessed_from_script_or_small_words(text, language):
    """A guess, and a guess that says when it has nothing to go by."""
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
def test_a_row_falls_into_its_slice(family, columns, name):
    """One example of each cut."""
    assert cut_families(one_row(**columns))[0][family].tolist() == [name]


def test_only_frequent_model_pairs_are_told_apart():
    """Of many pairs the twenty most frequent, most frequent first; others belong to no slice."""
    rows = [
        one_row(model_a=f"m{k:02}", model_b="z") for k in range(25) for _ in range(1 + (k == 7))
    ]
    family = cut_families(pd.concat(rows, ignore_index=True))[0]["model pair"]
    assert family.cat.categories[0] == "m07 / z"
    assert len(family.cat.categories) == 20
    assert family.isna().sum() == 5


def test_a_column_without_a_value_is_named():
    """A table that knows no model has no model pairs."""
    table = one_row(model_a=None, model_b=None)
    families, omitted = cut_families(table)
    assert "model pair" not in families
    assert omitted["model pair"] == "nothing is known in model_a, model_b"
