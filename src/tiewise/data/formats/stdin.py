"""Copy standard input to a file, because files are read more than once."""

from __future__ import annotations

import atexit
import functools
import shutil
import sys
import tempfile
from pathlib import Path

from tiewise.data.formats.opening import DAMAGE, open_text
from tiewise.errors import PairsError

STDIN = "-"
"""Name of standard input on the command line."""
_BINARY = {b"PAR1": ".parquet", b"ARRO": ".arrow", b"\xff\xff\xff\xff": ".arrow"}


@functools.cache
def copy_stdin() -> Path:
    """Return a temporary copy of standard input, whose suffix tells its kind.

    The first bytes decide: parquet, Arrow, JSON (a list or an object), else a delimited table; text
    may be compressed. The copy is deleted when the process ends.
    """
    if sys.stdin is None:  # as after <&- in a shell
        raise PairsError("- is standard input, which is closed; pipe a file, or name it")
    if sys.stdin.isatty():
        raise PairsError("- is standard input, which is a terminal; pipe a file, or name it")
    folder = Path(tempfile.mkdtemp(prefix="tiewise-stdin-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    copy = folder / "standard-input"
    with copy.open("wb") as file:
        shutil.copyfileobj(sys.stdin.buffer, file)
    return copy.rename(folder / f"standard-input{_suffix_of(copy)}")


def _suffix_of(path: Path) -> str:
    with path.open("rb") as file:
        start = file.read(4)
    if not start:
        raise PairsError("standard input is empty; pipe a file into tiewise")
    if start in _BINARY:
        return _BINARY[start]
    try:
        with open_text(path) as file:
            line = next(filter(str.strip, file), "")
    except (UnicodeError, *DAMAGE):
        return ".csv"  # whose reader names the problem
    return ".jsonl" if line.lstrip()[:1] in ("{", "[") else ".csv"
