"""Many mutated cells give turns or a ParseError, in agreement with json.

``TIEWISE_TORTURE`` sets their number: 1,000,000 in full, 100,000 when quick, else 20,000;
``TIEWISE_CELLS`` overrides it. ``TIEWISE_SEED`` sets the seed; a failure names it and the cell.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from oracles import turns_by_json
from tiewise.data.parse import parse_turns
from tiewise.errors import ParseError

SCALE = {"full": "1000000", "quick": "100000"}.get(os.environ.get("TIEWISE_TORTURE", ""), "20000")
N_CELLS = int(os.environ.get("TIEWISE_CELLS", SCALE))
SEED = int(os.environ.get("TIEWISE_SEED", "0"))

CORPUS = [
    path.read_text(encoding="utf-8")
    for path in sorted((Path(__file__).parent / "corpus").iterdir())
]
PIECES = (
    *'[]{}",\\:\x00\n\t \ufeff\ud83d\ude00\u2028\x7f\u0301',
    *("null", "true", "NaN", "Infinity", "-1", "1e999", "9" * 40, "\\u", "\\ud83d", "\\ude00"),
    *("\\u00", "\\x41", "'", "None", "eval(", "[" * 50, "]" * 50, '"', '",', ',"', "/*", "//"),
)


def mutated(cell: str, generator: random.Random) -> str:
    """Cut, repeat, replace or insert in up to four places."""
    for _ in range(generator.randint(1, 4)):
        start = generator.randint(0, len(cell))
        end = min(len(cell), start + generator.choice((0, 0, 1, 1, 2, 8)))
        kind = generator.random()
        if kind < 0.6:
            middle = generator.choice(PIECES)
        elif kind < 0.8:
            middle = chr(
                generator.choice((generator.randrange(256), generator.randrange(0x110000)))
            )
        else:
            middle = cell[start:end] * generator.randint(0, 3)
        cell = cell[:start] + middle + cell[end:]
    return cell


def turns_by_us(cell: str) -> list[str | None] | None:
    """Return the turns as this package reads them; None if it refuses the cell."""
    try:
        return parse_turns(cell)
    except ParseError:
        return None


@pytest.mark.timeout(3600)
def test_mutated_cells():
    """No mutated cell crashes, disagrees with json, or yields text that does not encode."""
    generator = random.Random(SEED)
    n_accepted = 0
    for number in range(N_CELLS):
        cell = mutated(generator.choice(CORPUS), generator)
        turns = turns_by_us(cell)
        assert turns == turns_by_json(cell), (SEED, number, cell)
        if turns is not None:
            n_accepted += 1
            "".join(turn or "" for turn in turns).encode()
    assert N_CELLS * 0.05 < n_accepted < N_CELLS * 0.95
