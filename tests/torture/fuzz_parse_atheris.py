"""Coverage-guided fuzzing of the cell parser; needs atheris (Linux).

    python tests/torture/fuzz_parse_atheris.py -runs=1000000 FOLDER tests/torture/corpus

It takes libFuzzer's flags. New inputs go to FOLDER; the committed corpus is only read. A crash, an
exception other than ParseError, or a disagreement with json ends the run and saves the input.
"""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).parents[1]))

with atheris.instrument_imports(include=["tiewise.data.parse"]):
    from tiewise.data.parse import parse_turns

from oracles import turns_by_json
from tiewise.errors import ParseError


def check_cell(data: bytes) -> None:
    """Parse the bytes as a cell and compare the result with that of json."""
    text = data.decode("utf-8", "surrogateescape")
    try:
        turns = parse_turns(text)
    except ParseError:
        assert turns_by_json(text) is None
        return
    assert turns == turns_by_json(text)
    "".join(turn or "" for turn in turns).encode()


if __name__ == "__main__":
    atheris.Setup(sys.argv, check_cell)
    atheris.Fuzz()
