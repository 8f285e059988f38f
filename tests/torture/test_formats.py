"""Many damaged files are refused, or read as they were written.

``TIEWISE_TORTURE`` sets their number: 5,000 in full, 300 when quick, else 100; ``TIEWISE_FILES``
overrides it.
"""

from __future__ import annotations

import os
import re

import numpy as np
import pytest
from pandas.testing import assert_frame_equal

from tiewise.data.formats import read_pairs, write_pairs
from tiewise.data.pairs import build_pairs
from tiewise.errors import PairsError

SCALE = {"full": "5000", "quick": "300"}.get(os.environ.get("TIEWISE_TORTURE", ""), "100")
N_FILES = int(os.environ.get("TIEWISE_FILES", SCALE))
pytestmark = pytest.mark.timeout(3600)


def some_pairs(n=40):
    """Return pairs of every label, with missing turns, long texts and text ids."""
    texts = [[f"turn {row}", None, "é😀" * row] for row in range(n)]
    words = ["model_a", "model_b", "tie", "both_bad"]
    return build_pairs(
        {
            "id": [f"id{row}" for row in range(n)],
            "prompt": texts,
            "response_a": texts[::-1],
            "response_b": [[], *texts[1:]],
            "winner": [words[row % 4] for row in range(n)],
            "model_a": ["m", None] * (n // 2),
            "weight": [0.5] * n,
        }
    )


def damage(data, generator):
    """Flip a bit, zero a block, remove the end, or copy a block."""
    data = bytearray(data)
    place, other = (int(generator.integers(len(data))) for _ in range(2))
    kind = generator.integers(4)
    if kind == 0:
        data[place] ^= 1 << int(generator.integers(8))
    elif kind == 1:
        data[place : place + 64] = bytes(len(data[place : place + 64]))
    elif kind == 2:
        del data[place:]
    else:
        data[place : place + 64] = data[other : other + len(data[place : place + 64])]
    return bytes(data)


@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_damaged_parquet_is_refused(tmp_path, on_error):
    """A damaged file of ours is refused, or read as the pairs that were written."""
    path = tmp_path / "pairs.parquet"
    pairs = some_pairs()
    write_pairs(pairs, path)
    data = path.read_bytes()
    generator = np.random.default_rng(0)
    n_refused = 0
    for _ in range(N_FILES):
        path.write_bytes(damage(data, generator))
        try:
            read = read_pairs(path, on_error=on_error)
        except PairsError:
            n_refused += 1
            continue
        assert_frame_equal(read, pairs)
    print(f"{n_refused} of {N_FILES} damaged files refused, the others read as written")  # noqa: T201
    assert n_refused > N_FILES * 0.5


def test_damaged_csv_loses_rows_only(tmp_path):
    """Damage loses rows, which are named; no row is added.

    Texts may differ, since a csv has no checksum: a flipped letter is another text.
    """
    path = tmp_path / "pairs.csv"
    pairs = some_pairs()
    write_pairs(pairs, path)
    data = path.read_bytes()
    generator = np.random.default_rng(0)
    for _ in range(N_FILES):
        path.write_bytes(damage(data, generator))
        try:
            read = read_pairs(path, on_error="skip")
        except PairsError:
            continue
        assert len(read) + len(read.attrs["rejected"]) <= len(pairs) + 1
        assert set(read["label"]) <= {0, 1, 2}


def test_flipped_bit_changes_no_label(tmp_path):
    """Wherever the bit is, the row keeps its label or is refused."""
    path = tmp_path / "pairs.csv"
    pairs = some_pairs(12)
    write_pairs(pairs, path)
    data = path.read_bytes()
    n_read = 0
    for bit in np.random.default_rng(0).permutation(len(data) * 8)[:N_FILES].tolist():
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        try:
            read = read_pairs(path, on_error="skip")
        except PairsError:
            continue
        lost = [int(re.match(r"row (\d+)", why)[1]) for why in read.attrs["rejected"]]
        if len(read) + len(lost) != len(pairs):  # two lines became one, or one became two
            continue
        n_read += 1
        assert read["label"].tolist() == pairs["label"].drop(lost).tolist(), bit
    print(f"{N_FILES} flipped bits, {n_read} files of as many rows read")  # noqa: T201
    assert n_read > 0.8 * N_FILES
