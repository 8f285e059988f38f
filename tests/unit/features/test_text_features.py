"""Features of texts are finite and behave as their names say."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from strategies import any_text
from tiewise.features.text_counts import count_text, split_words
from tiewise.features.text_features import describe_texts


def described(*texts: str, prompt: str = "") -> dict[str, np.ndarray]:
    """Describe some answers to one prompt."""
    words = split_words(prompt)
    counted = [count_text(text, split_words(text), words) for text in texts]
    counts, byte_counts = (np.array(part, dtype=float) for part in zip(*counted, strict=True))
    sizes = (np.full(len(texts), len(part)) for part in (words.distinct, words.content))
    return describe_texts(counts, byte_counts, *sizes)


@given(st.lists(any_text(80), min_size=1, max_size=5), any_text(30))
def test_every_feature_is_finite(texts: list[str], prompt: str) -> None:
    """No text, empty or strange, gives NaN or infinity."""
    for name, values in described(*texts, prompt=prompt).items():
        assert np.isfinite(values).all(), name


@given(st.lists(any_text(40), min_size=2, max_size=5))
def test_a_text_is_described_alike_beside_any_others(texts: list[str]) -> None:
    """The features of a row do not depend on the other rows."""
    together = described(*texts)
    alone = described(texts[0])
    assert all(together[name][0] == alone[name][0] for name in alone)


def test_repetition_shows_in_every_measure_of_it() -> None:
    """Saying a sentence five times raises each measure of repetition."""
    varied = "The harbour was quiet, and boats lay in the mist until a bell rang twice far out."
    features = described(varied, "The harbour was quiet now. " * 5)
    for name in ("repeated_pairs", "repeated_fours", "repeated_sentences"):
        assert features[name][1] > features[name][0]
    assert features["distinct_share"][1] < features["distinct_share"][0]


def test_an_open_code_block_is_noticed() -> None:
    """A fence without its partner is odd."""
    assert described("```\nx\n```", "```\nx")["open_fence"].tolist() == [0, 1]


def test_other_scripts_are_noticed() -> None:
    """The share of characters outside ASCII tells a language by its script."""
    share = described("plain words", "просто слова")["foreign_share"]
    assert share[0] == 0
    assert share[1] > 0.5
