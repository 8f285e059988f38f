"""Features of meaning keep the law of signs, whatever the embedder."""

from __future__ import annotations

import numpy as np
from hypothesis import given

from strategies import text_fields
from tiewise.baseline.embeddings import DIRECTION, add_embeddings, without_directions
from tiewise.baseline.features import extract_features


def embed(texts: list[str]) -> np.ndarray:
    """Give each text three numbers that depend on it alone."""
    return np.array([[len(text), text.count("e"), 1.0] for text in texts])


@given(text_fields())
def test_exchange_negates_signed_and_keeps_shared_features(fields) -> None:
    """Adding embeddings keeps the law of `extract_features`."""
    prompts, first, second = fields
    orders = ((prompts, first, second), (prompts, second, first))
    one, other = (add_embeddings(extract_features(*order), *order, embed) for order in orders)
    assert np.array_equal(one.signed, -other.signed)
    assert np.array_equal(one.shared, other.shared)


def test_directions_can_be_left_out() -> None:
    """Without directions, only nearness is added."""
    fields = [["2+2?"]], [["four"]], [["4"]]
    plain = extract_features(*fields)
    features = without_directions(add_embeddings(plain, *fields, embed))
    assert features.signed_names == (*plain.signed_names, "nearer_prompt")
    assert features.signed.shape == (1, len(features.signed_names))
    assert not any(name.startswith(DIRECTION) for name in features.signed_names)


def test_each_distinct_text_is_embedded_once() -> None:
    """Ten equal rows cost as much as one."""
    asked: list[str] = []

    def remember(texts: list[str]) -> np.ndarray:
        asked.extend(texts)
        return embed(texts)

    fields = [["2+2?"]] * 10, [["four"]] * 10, [["4"]] * 10
    add_embeddings(extract_features(*fields), *fields, remember)
    assert sorted(asked) == ["2+2?", "4", "four"]
