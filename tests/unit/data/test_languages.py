"""Languages are counted by their codes."""

from __future__ import annotations

import pandas as pd
import pytest

from tiewise.config import DataConfig
from tiewise.data.formats import write_pairs
from tiewise.data.languages import count_languages
from tiewise.data.simulation.simulate import simulate
from tiewise.runs.training_rows import load_training_rows


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["English", "ENGLISH", "en", "en_GB", "French"], {"en": 4, "fr": 1}),
        (["unknown", "xx", "<script>", None, ""], {}),
        (["Russian"] * 199 + ["Thai"], {"ru": 199}),
        ([None, None], {}),
    ],
)
def test_only_known_languages_count(words, expected):
    """Names and codes are one language; unknown words and rare languages are left out."""
    assert count_languages(pd.DataFrame({"language": words})) == expected


def test_pairs_without_languages():
    """Pairs need no column of languages."""
    assert count_languages(pd.DataFrame({"prompt": ["p"]})) == {}


def test_fit_keeps_the_languages(tmp_path):
    """The description of the data of a run has the languages of its rows."""
    pairs = simulate(60, seed=0).assign(language="German")
    write_pairs(pairs, tmp_path / "pairs.parquet")
    rows = load_training_rows(DataConfig(data=(str(tmp_path / "pairs.parquet"),)))
    assert rows.described["languages"] == {"de": 60}
