"""Open files as text, and the records of a file before its format is known.

Files are unpacked and read in the encoding of their byte order mark, else as UTF-8.
The first bytes decide, not the name: a file that was unpacked on its way keeps its old name.
"""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import lzma
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TextIO

import pyarrow as pa

from tiewise.errors import PairsError

NOT_UTF8 = "is not UTF-8; convert the file to UTF-8"
_MAX_SHOWN = 10
_ENCODINGS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_FOREIGN = (
    (b"PK\x03\x04", "a zip archive or an Excel workbook", "unpack it, or save the sheet as csv"),
    (b"\xd0\xcf\x11\xe0", "an Excel workbook", "save the sheet as csv"),
    (b"PAR1", "parquet", "let its name end in .parquet, without a compression"),
    (b"ARROW1", "arrow", "let its name end in .arrow"),
    (b"SQLite format 3", "an SQLite database", "export the table as csv"),
    (b"version https://git-lfs", "a pointer of Git LFS", "fetch the file with git lfs pull"),
    (b"%PDF", "a PDF document", "export the table as csv"),
    (b"<!DOCTYPE", "a web page", "download the file itself"),
    (b"<html", "a web page", "download the file itself"),
)
DAMAGE = (EOFError, OSError, zlib.error, lzma.LZMAError, pa.ArrowException)
"""Errors of a compressed file that is cut off or damaged."""


class ParsedRecord(NamedTuple):
    """A record, and the reason why it cannot be read, if there is one.

    `is_first` marks the first record of a file, or of a row group of a parquet file.
    """

    values: dict[str, Any]
    problem: str | None = None
    is_first: bool = False


def mark_first(records: Iterable[ParsedRecord]) -> Iterator[ParsedRecord]:
    """Yield records, the first one marked."""
    for number, entry in enumerate(records):
        yield entry if number else entry._replace(is_first=True)


Opened = tuple[tuple[str, ...], Iterator[ParsedRecord]]
"""Columns, and records with exactly these columns."""


def check_columns(where: object, columns: Sequence[str]) -> tuple[str, ...]:
    """Return the columns; PairsError if one occurs twice or holds a zero byte."""
    if any("\x00" in name for name in columns):
        raise PairsError(f"{where} looks like UTF-16 without a byte order mark; write UTF-8")
    repeated = sorted(name for name, n in Counter(columns).items() if n > 1)
    if repeated:
        raise PairsError(f"{where}: the columns {', '.join(repeated[:_MAX_SHOWN])} occur twice")
    return tuple(columns)


def open_text(path: Path, newline: str | None = None) -> TextIO:
    """Open a file as text; bytes that are not UTF-8 become lone surrogates."""
    with _open_bytes(path) as file:
        start = file.read(4)
    encoding = next((name for mark, name in _ENCODINGS if start.startswith(mark)), "utf-8-sig")
    return io.TextIOWrapper(
        _open_bytes(path), encoding=encoding, errors="surrogateescape", newline=newline
    )


def check_content(path: Path, *kinds: str) -> None:
    """Raise PairsError for a file that by its first bytes is of another kind than `kinds`."""
    start = _read_start(path)
    for mark, name, advice in _FOREIGN:
        if start.startswith(mark) and name not in kinds:
            raise PairsError(f"{path} is {name}; {advice}")


def damaged(path: Path, error: BaseException) -> PairsError:
    """Return the error for a file that cannot be read to its end."""
    return PairsError(f"{path} is damaged: {error}")


def _open_bytes(path: Path) -> BinaryIO:
    start = _read_start(path)
    found = (opener for mark, opener in _UNPACKERS if start.startswith(mark))
    opener = next(found, lambda path: path.open("rb"))
    file: BinaryIO = opener(path)
    return file


def _open_zstd(path: Path) -> Any:
    return io.BufferedReader(pa.input_stream(str(path), compression="zstd"))


def _read_start(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(24)


_UNPACKERS: tuple[tuple[bytes, Callable[[Path], Any]], ...] = (
    (b"\x1f\x8b", gzip.open),
    (b"BZh91AY&SY", bz2.open),
    (b"\xfd7zXZ\x00", lzma.open),
    (b"\x28\xb5\x2f\xfd", _open_zstd),
)
