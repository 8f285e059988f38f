"""Read records from csv and tsv files.

A file is read strictly: a quote that is not closed, or that ends inside a field, is an error,
because no row after it can be trusted. A row with too few or too many fields, or with bytes that
are not UTF-8, is passed on with its problem. Text never counts as missing, not even ``NA``.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TextIO

from tiewise.data.formats.hub import data_suffix
from tiewise.data.formats.opening import (
    DAMAGE,
    NOT_UTF8,
    Opened,
    ParsedRecord,
    check_columns,
    damaged,
    open_text,
)
from tiewise.data.parse import repair_text
from tiewise.errors import PairsError

_FIELD_LIMIT = 2**31 - 1
_DELIMITERS = (",", "\t", ";", "|")
_match_excel_line = re.compile(r'"?sep=(?P<delimiter>[^"])"?').fullmatch


def open_csv(path: Path) -> Opened:
    """Open a csv file, or a tsv file; columns without a name are not read.

    The delimiter is a comma (.csv) or a tab (.tsv); a header of one field is split at another one,
    and Excel's line ``sep=`` before the header names it.
    """
    lines = _read_csv(path)
    header = next(lines, None)
    if header is None:
        raise PairsError(f"{path}: the file is empty")
    names = [_name_of(cell) for cell in header]
    columns = check_columns(path, [name for name in names if name])
    return columns, (_as_record(names, fields) for fields in lines)


def _read_csv(path: Path) -> Iterator[list[str]]:
    # The limit is global to the process, so it is only ever raised.
    csv.field_size_limit(max(_FIELD_LIMIT, csv.field_size_limit()))
    n_skipped, delimiter = _find_dialect(path)
    with open_text(path, newline="") as file:
        for _ in range(n_skipped):
            file.readline()
        reader = csv.reader(file, delimiter=delimiter, strict=True)
        try:
            yield from filter(None, reader)
        except csv.Error as error:
            raise PairsError(
                f"{path}, line {n_skipped + reader.line_num}: {error}. A quote is not closed, or "
                "not doubled inside a field. Write the file again with every field quoted."
            ) from None
        except UnicodeError as error:
            raise PairsError(f"{path}, line {n_skipped + reader.line_num}: {error}") from None
        except DAMAGE as error:
            raise damaged(path, error) from None


def _find_dialect(path: Path) -> tuple[int, str]:
    """Return the number of lines before the header, and the delimiter."""
    usual = "\t" if data_suffix(path) == ".tsv" else ","
    try:
        with open_text(path, newline="") as file:
            n_skipped, line = _skip_blank(file)
            excel = _match_excel_line(line.strip("\r\n"))
            if excel is not None:
                return n_skipped + 1, excel["delimiter"]
    except UnicodeError:
        return 0, usual
    except DAMAGE as error:
        raise damaged(path, error) from None
    if _count_fields(line, usual) > 1:
        return n_skipped, usual
    return n_skipped, max((usual, *_DELIMITERS), key=lambda each: _count_fields(line, each))


def _skip_blank(file: TextIO) -> tuple[int, str]:
    n_skipped = 0
    while (line := file.readline()) and not line.strip("\r\n"):
        n_skipped += 1
    return n_skipped, line


def _count_fields(line: str, delimiter: str) -> int:
    try:
        return len(next(csv.reader([line], delimiter=delimiter, strict=True), []))
    except csv.Error:
        return 0


def _name_of(cell: str) -> str:
    return cell.strip().strip("\ufeff")


def _as_record(names: Sequence[str], fields: list[str]) -> ParsedRecord:
    cells = list(zip(names, fields, strict=False))
    values = {name: field for name, field in cells if name}
    n_named = max((place for place, name in enumerate(names, 1) if name), default=0)
    if not n_named <= len(fields) <= len(names):
        return ParsedRecord(values, f"has {len(fields)} fields where the header has {len(names)}")
    if [*map(_name_of, fields)] == names:
        return ParsedRecord(values, "repeats the header; remove such lines from joined files")
    # The first column may be the index that pandas writes; elsewhere text without a name is lost.
    lost = [place for place, (name, field) in enumerate(cells[1:], 2) if field and not name]
    if lost:
        return ParsedRecord(values, f"has text in column {lost[0]}, which has no name")
    is_utf8 = [*map(repair_text, fields)] == fields
    return ParsedRecord(values, None if is_utf8 else NOT_UTF8)
