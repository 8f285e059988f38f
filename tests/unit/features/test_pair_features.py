"""Signed features change sign and shared ones do not, bit for bit."""

from __future__ import annotations

import time

import numpy as np
from hypothesis import given

from strategies import text_fields
from tiewise.features.pair_features import extract_features


@given(text_fields())
def test_exchange_negates_signed_and_keeps_shared_features(fields) -> None:
    """The law on which the symmetry of every model above rests."""
    prompts, first, second = fields
    given_order = extract_features(prompts, first, second)
    exchanged = extract_features(prompts, second, first)
    assert np.array_equal(given_order.signed, -exchanged.signed)
    assert np.array_equal(given_order.shared, exchanged.shared)


@given(text_fields())
def test_features_are_finite_and_named(fields) -> None:
    """A column for each name, no name twice, no NaN."""
    features = extract_features(*fields)
    assert features.signed.shape == (len(fields[0]), len(features.signed_names))
    assert features.shared.shape == (len(fields[0]), len(features.shared_names))
    names = features.signed_names + features.shared_names
    assert len(set(names)) == len(names)
    assert np.isfinite(features.signed).all()
    assert np.isfinite(features.shared).all()


@given(text_fields())
def test_a_row_is_described_alike_alone(fields) -> None:
    """The features of a row do not depend on the other rows."""
    together = extract_features(*fields)
    alone = extract_features(*(field[-1:] for field in fields))
    assert np.array_equal(together.signed[-1:], alone.signed)
    assert np.array_equal(together.shared[-1:], alone.shared)


def test_equal_responses_have_no_signed_features() -> None:
    """Nothing speaks for A or B, and the overlap is whole."""
    features = extract_features([["Why?"]], [["Because so."]], [["Because so."]])
    assert not features.signed.any()
    assert features.shared[0, features.shared_names.index("is_same")] == 1


def test_the_last_turn_counts_only_where_there_are_several() -> None:
    """In one turn, the last is the whole; in two it is told apart."""
    responses = [["Yes."]], [["No, and here is a long reason for it."]]
    single = extract_features([["Q"]], *responses)
    double = extract_features([["Q", "R"]], *([["same", *row[0]]] for row in responses))
    columns = [i for i, name in enumerate(single.signed_names) if name.startswith("last_")]
    assert not single.signed[0, columns].any()
    assert double.signed[0, columns].any()


def test_chunks_do_not_show() -> None:
    """More rows than one chunk give the rows of the small tables, one after the other."""
    fields = [[[letter] for letter in letters] * 1001 for letters in ("pq", "ab", "cc")]
    features = extract_features(*fields)
    assert len(features) == 2002
    assert np.array_equal(features.signed[:2], features.signed[-2:])


def test_choosing_rows_keeps_the_names() -> None:
    """`rows` gives the features of those rows."""
    features = extract_features([["a"], ["b"]], [["x"], ["y"]], [["z"], ["w w"]])
    chosen = features.rows([1])
    assert chosen.signed_names == features.signed_names
    assert np.array_equal(chosen.shared, features.shared[1:])


def test_no_pair_takes_long() -> None:
    """A row of a hundred million characters' worth of trouble costs no more than a long one."""
    text = ["word " * 400_000]
    start = time.process_time()
    extract_features([text], [text], [["short"]])
    assert time.process_time() - start < 2
