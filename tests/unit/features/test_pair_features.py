"""Features of pairs: exact symmetry, independence of rows, and the meaning of single features."""

from __future__ import annotations

import time

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from strategies import any_text, text_fields
from tiewise.features.pair_features import describe_texts, extract_features
from tiewise.features.text_counts import count_text, split_words


def described(*texts: str, prompt: str = "") -> dict[str, np.ndarray]:
    """Return the features of some responses to one prompt."""
    words = split_words(prompt)
    return describe_texts([count_text(text, split_words(text), words) for text in texts])


@given(text_fields())
def test_swap_negates_signed_features(fields) -> None:
    """Exchanging the responses negates the signed features and keeps the shared ones, exactly."""
    prompts, first, second = fields
    given_order = extract_features(prompts, first, second)
    exchanged = extract_features(prompts, second, first)
    assert np.array_equal(given_order.signed, -exchanged.signed)
    assert np.array_equal(given_order.shared, exchanged.shared)


@given(text_fields())
def test_features_are_finite_and_named(fields) -> None:
    """There is a column for each name, no name twice, and no NaN."""
    features = extract_features(*fields)
    assert features.signed.shape == (len(fields[0]), len(features.signed_names))
    assert features.shared.shape == (len(fields[0]), len(features.shared_names))
    names = features.signed_names + features.shared_names
    assert len(set(names)) == len(names)
    assert np.isfinite(features.signed).all()
    assert np.isfinite(features.shared).all()


@given(text_fields())
def test_row_ignores_other_rows(fields) -> None:
    """The features of a row do not depend on the other rows."""
    together = extract_features(*fields)
    alone = extract_features(*(field[-1:] for field in fields))
    assert np.array_equal(together.signed[-1:], alone.signed)
    assert np.array_equal(together.shared[-1:], alone.shared)


def test_equal_responses_have_no_signed_features() -> None:
    """No signed feature favours A or B, and the overlap is complete."""
    features = extract_features([["Why?"]], [["Because so."]], [["Because so."]])
    assert not features.signed.any()
    assert features.shared[0, features.shared_names.index("is_same")] == 1


def test_last_turn_differs_in_conversations() -> None:
    """With one turn the last turn is the whole; with two turns it has its own features."""
    responses = [["Yes."]], [["No, and here is a long reason for it."]]
    single = extract_features([["Q"]], *responses)
    double = extract_features([["Q", "R"]], *([["same", *row[0]]] for row in responses))
    columns = [i for i, name in enumerate(single.signed_names) if name.startswith("last_")]
    assert not single.signed[0, columns].any()
    assert double.signed[0, columns].any()


def test_chunks_change_nothing() -> None:
    """More rows than one chunk have the features of small tables, one after the other."""
    fields = [[[letter] for letter in letters] * 1001 for letters in ("pq", "ab", "cc")]
    features = extract_features(*fields)
    assert len(features) == 2002
    assert np.array_equal(features.signed[:2], features.signed[-2:])


def test_chosen_rows_keep_names() -> None:
    """`rows` returns the features of those rows."""
    features = extract_features([["a"], ["b"]], [["x"], ["y"]], [["z"], ["w w"]])
    chosen = features.rows([1])
    assert chosen.signed_names == features.signed_names
    assert np.array_equal(chosen.shared, features.shared[1:])


def test_long_texts_take_bounded_time() -> None:
    """A text of two million characters costs no more than one of a few thousand words."""
    text = ["word " * 400_000]
    start = time.process_time()
    extract_features([text], [text], [["short"]])
    assert time.process_time() - start < 2


@given(st.lists(any_text(80), min_size=1, max_size=5), any_text(30))
def test_text_features_are_finite(texts: list[str], prompt: str) -> None:
    """No text, empty or strange, gives NaN or infinity."""
    for name, values in described(*texts, prompt=prompt).items():
        assert np.isfinite(values).all(), name


def test_repetition_raises_its_features() -> None:
    """A sentence five times raises each measure of repetition."""
    varied = "The harbour was quiet, and boats lay in the mist until a bell rang twice far out."
    features = described(varied, "The harbour was quiet now. " * 5)
    for name in ("repeated_pairs", "repeated_fours", "repeated_sentences"):
        assert features[name][1] > features[name][0]
    assert features["distinct_share"][1] < features["distinct_share"][0]


def test_open_code_block_is_counted() -> None:
    """An odd number of fences is an open code block."""
    assert described("```\nx\n```", "```\nx")["open_fence"].tolist() == [0, 1]


def test_other_scripts_have_a_share() -> None:
    """The share of bytes outside ASCII shows another script."""
    share = described("plain words", "просто слова")["foreign_share"]
    assert share[0] == 0
    assert share[1] > 0.5
