"""Plan the units of a prediction: parts of parquet files that are read and scored on their own."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from typing import Any

import pandas as pd
import pyarrow.parquet as pq

from tiewise.cluster.storage import N_THREADS, address_of, is_folder, open_storage, tag_file
from tiewise.config import UNIT_ROWS
from tiewise.console import describe_os_error
from tiewise.data.formats.detection import Columns
from tiewise.data.formats.hub import choose_data, data_suffix
from tiewise.data.formats.opening import ParsedRecord, check_columns
from tiewise.data.formats.parquet import read_row_group, report_damage
from tiewise.data.formats.parts import TableFormat, find_table_format, read_part
from tiewise.data.formats.sources import Source
from tiewise.errors import ConfigError, FilesError, PairsError

_MANY_UNITS = 8
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Unit:
    """Rows of one row group of a parquet file.

    `path` is the address of the file, `tag` its fingerprint (:func:`storage.tag_file`). The unit is
    `n_rows` rows of row group `group`, after the first `skip`.
    """

    path: str
    group: int
    skip: int
    n_rows: int
    tag: str

    @property
    def key(self) -> str:
        """Beginning of the name of its part in an output folder."""
        return f"{self.tag}-{self.group}-{self.skip}"

    def __str__(self) -> str:
        last = self.skip + self.n_rows - 1
        return f"{self.path}, row group {self.group}, rows {self.skip} to {last}"


def find_inputs(data: str) -> tuple[Any, list[str]]:
    """Return the file system of an address, and the files of its one table, in order."""
    fs, root = open_storage(data)
    fs.invalidate_cache()  # of listings: files may have been added since
    if not is_folder(fs, root):
        return fs, [root]
    names = [path.removeprefix(f"{root}/") for path in fs.find(root)]
    return fs, [f"{root}/{name}" for name in choose_data(names, data)]


def plan_units(paths: Sequence[str], fs: Any, unit_rows: int = UNIT_ROWS) -> list[Unit]:
    """Return the units of parquet files, in the order of their rows.

    Only footers are read. A row group is cut into units of `unit_rows` rows, so no unit spans two
    groups. PairsError is raised for files that are no parquet, or have no rows or different
    columns.
    """
    if unit_rows < 1:
        raise ConfigError(f"--unit-rows is {unit_rows}; expected at least 1.")
    for path in paths:
        _check_suffix(path)
    with ThreadPoolExecutor(N_THREADS) as pool:
        footers = list(pool.map(lambda path: _read_footer(fs, path), paths))
    _check_columns(footers)
    units = [unit for footer in footers for unit in _cut(footer, unit_rows)]
    if not units:
        raise PairsError("The input has no rows: there is nothing to predict.")
    most = max(unit.skip // unit_rows + 1 for unit in units)
    if most > _MANY_UNITS:
        _log.info(
            "A row group has %d units, and each reads the rows before its own again. Row groups of "
            "%d rows, as tiewise convert writes them, are read once.",
            most, UNIT_ROWS,
        )  # fmt: skip
    return units


def read_units_format(
    units: Sequence[Unit], format_name: str | None = None, columns: Columns = ()
) -> TableFormat:
    """Return the format of the table that the units are parts of; PairsError when none fits."""
    with _open_unit(units[0]) as first:
        records = chain(first.records, *map(_read_records, units[1:]))
        return find_table_format(first._replace(records=records), format_name, columns)


def read_unit(unit: Unit, known: TableFormat, size: int) -> Iterator[Callable[[], pd.DataFrame]]:
    """Yield, for each `size` rows of a unit, a function that parses them to a pairs table.

    See :func:`tiewise.data.formats.parts.read_part`. Rows are numbered within the row group.
    PairsError is raised when the file is damaged, or is not the one that was planned, and OSError
    when the store fails, which may pass.
    """
    with _open_unit(unit) as source:
        yield from read_part(source, known, first=unit.skip, size=size)


@contextlib.contextmanager
def _open_unit(unit: Unit) -> Iterator[Source]:
    fs, path = open_storage(unit.path)
    try:
        fs.invalidate_cache(path)
        if tag_file(fs.info(path)) != unit.tag:
            raise PairsError(f"{unit.path} was changed while it was predicted. Run again.")
        with fs.open(path) as file:
            name = f"{unit.path}, row group {unit.group}"
            names, records = read_row_group(file, name, unit.group, unit.skip, unit.n_rows)
            yield Source(name, check_columns(name, names), records)
    except FileNotFoundError:
        raise PairsError(f"{unit.path}: there is no such file.") from None


def _read_records(unit: Unit) -> Iterator[ParsedRecord]:
    with _open_unit(unit) as source:
        yield from source.records


@dataclass(frozen=True, slots=True)
class _Footer:
    """The address, fingerprint and columns of a file, and the rows of its row groups."""

    path: str
    tag: str
    columns: frozenset[str]
    group_rows: tuple[int, ...]


def _check_suffix(path: str) -> None:
    suffix = data_suffix(path)
    if suffix != ".parquet":
        raise PairsError(
            f"{path} is {suffix or 'a file without a suffix'}; expected parquet, whose row groups "
            "can be read one at a time. tiewise convert FILE --out pairs.parquet makes such a file "
            "from a local one."
        )


def _read_footer(fs: Any, path: str) -> _Footer:
    try:
        info = fs.info(path)
        with report_damage(f"{path} is no parquet file, or"), fs.open(path) as file:
            # Not metadata.schema: in pyarrow 26 the two refer to each other, so that neither is
            # freed before the next garbage collection.
            opened = pq.ParquetFile(file)
            columns, metadata = frozenset(opened.schema_arrow.names), opened.metadata
    except FileNotFoundError:
        raise PairsError(f"{path}: there is no such file.") from None
    except OSError as error:
        raise FilesError(f"{path} cannot be read: {describe_os_error(error)}") from error
    rows = (metadata.row_group(group).num_rows for group in range(metadata.num_row_groups))
    return _Footer(address_of(fs, path), tag_file(info), columns, tuple(rows))


def _check_columns(footers: Sequence[_Footer]) -> None:
    for footer in footers:
        if footer.columns != footers[0].columns:
            raise PairsError(
                f"{footer.path} and {footers[0].path} have different columns; name one file"
            )


def _cut(footer: _Footer, unit_rows: int) -> Iterator[Unit]:
    for group, n_rows in enumerate(footer.group_rows):
        for skip in range(0, n_rows, unit_rows):
            yield Unit(footer.path, group, skip, min(unit_rows, n_rows - skip), footer.tag)
