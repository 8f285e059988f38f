"""Convert files of any size: texts wait in a temporary file, all other columns in memory.

The temporary file is next to the output, and as large as the texts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from tiewise.config import CHUNK_ROWS, UNIT_ROWS
from tiewise.data.first_text import SYSTEM_COLUMN
from tiewise.data.folds import derive_groups, merge_groups
from tiewise.data.formats.detection import OpenedTable, open_table
from tiewise.data.formats.joining import join_tables, name_files
from tiewise.data.formats.parquet import regroup
from tiewise.data.formats.reading import (
    ReadOptions,
    build_table,
    check_any_read,
    report_rejected,
)
from tiewise.data.formats.writing import CONVERTED, check_suffix, write_converted
from tiewise.data.ids import as_integer
from tiewise.data.pairs import FURTHER_COLUMNS, FURTHER_WORDS, TEXT_COLUMNS, as_ids
from tiewise.errors import PairsError
from tiewise.files import remove, temporary_path

_TURNS = pa.large_list(pa.large_string())
_SCHEMA = pa.schema([*((n, _TURNS) for n in TEXT_COLUMNS), (SYSTEM_COLUMN, pa.large_string())])


@dataclass(frozen=True)
class ConvertedFiles:
    """A converted table without its texts, and the number of ties that were left out."""

    pairs: pd.DataFrame
    n_ties_dropped: int
    has_own_groups: bool
    """Whether groups were given that do not follow from prompts and sessions."""


def convert_files(
    paths: Sequence[str | Path], out: Path, **options: Unpack[ReadOptions]
) -> ConvertedFiles:
    """Write what :func:`read_many` reads, as pairs (.parquet, .csv) or preferences (.jsonl).

    The result is that of :func:`write_pairs` and :func:`write_preference`, but memory holds the
    texts of a few thousand rows at a time.
    """
    if not paths:
        raise PairsError("there is no file to read; name at least one")
    check_suffix(out, *CONVERTED)
    out.parent.mkdir(parents=True, exist_ok=True)
    texts = _Texts(temporary_path(out.with_suffix(".arrow")))
    try:
        with texts:
            tables = [_read_file(path, texts, **options) for path in paths]
        pairs = join_tables(name_files(paths), tables, texts.find_groups)
        groups = texts.find_groups(pairs)
        n_ties = write_converted(pairs, texts.put_back(pairs), out, groups)
    finally:
        remove(texts.path)
    return ConvertedFiles(pairs, n_ties, bool((pairs["group"] != groups).any()))


def _read_file(path: str | Path, texts: _Texts, **options: Unpack[ReadOptions]) -> pd.DataFrame:
    """Return the pairs table of a file, whose texts are moved to `texts`."""
    opened = open_table(
        path,
        options.get("format"),
        options.get("columns", ()),
        options.get("labelled", True),
        options.get("on_error", "raise"),
    )
    numbered = enumerate(opened.records)
    chunks = []
    while records := list(islice(numbered, CHUNK_ROWS)):
        chunks.append(texts.take(build_table(opened, records, lambda: False, _pass_over)))
    rejected = [why for table in chunks for why in table.attrs["rejected"]]
    if rejected:
        report_rejected(opened, rejected)
    chunks = chunks or [build_table(opened, ())]
    table = _concatenate(chunks)
    n_repaired = sum(chunk.attrs["repaired"] for chunk in chunks)
    integers = [as_integer(name) for name in table["id"].astype(str)]
    if None not in integers:  # the ids of all rows that are read, as in one table
        table["id"] = as_ids(integers)
        n_repaired += sum(chunk.attrs["float_ids"] for chunk in chunks)
    table.attrs = {
        "format": opened.format,
        "rejected": rejected,
        "repaired": n_repaired,
        "unread": list(dict.fromkeys(name for each in chunks for name in each.attrs["unread"])),
        "notes": opened.notes,
    }
    check_any_read(opened, table)
    return table


def _pass_over(opened: OpenedTable, rejected: list[str]) -> None:
    """Report rejected rows later, for the whole file."""


def _concatenate(chunks: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Join the chunks of one file; a column that one of them lacks is missing in its rows."""
    names = [name for name in FURTHER_COLUMNS if any(name in chunk for chunk in chunks)]
    whole = [
        chunk.assign(**{name: _absent(name, chunk) for name in names if name not in chunk})
        for chunk in chunks
    ]
    first = [name for name in whole[0] if name not in FURTHER_COLUMNS]
    # A chunk of integer ids among others of words: one type for all, as for a whole file.
    is_one_type = len({chunk["id"].dtype for chunk in whole}) == 1
    joined = [each if is_one_type else each.astype({"id": "string"}) for each in whole]
    return pd.concat(joined, ignore_index=True)[[*first, *names]]


def _absent(name: str, chunk: pd.DataFrame) -> Any:
    if name in FURTHER_WORDS:
        return pd.Series(pd.NA, index=chunk.index, dtype="string")
    return 1.0 if name == "weight" else np.nan


class _Texts:
    """The texts of pairs in a temporary file, and the digests of their first user texts."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.digests: list[npt.NDArray[np.str_]] = []

    def __enter__(self) -> None:
        self.writer = pa.ipc.new_stream(str(self.path), _SCHEMA)

    def __exit__(self, *_: object) -> None:
        self.writer.close()

    def take(self, pairs: pd.DataFrame) -> pd.DataFrame:
        """Store the texts of pairs; return the pairs without them."""
        self.digests.append(derive_groups(pairs.drop(columns="session", errors="ignore")))
        texts = pairs.reindex(columns=_SCHEMA.names)
        # As objects: pyarrow 17 makes no texts of a column of numbers, as one of NaN alone is.
        columns = (texts[field.name].to_numpy(object) for field in _SCHEMA)
        arrays = [
            pa.array(column, field.type, from_pandas=True)
            for column, field in zip(columns, _SCHEMA, strict=True)
        ]
        self.writer.write_table(pa.Table.from_arrays(arrays, schema=_SCHEMA))
        nothing: Any = {name: pd.Series([[]] * len(pairs), dtype=object) for name in TEXT_COLUMNS}
        if SYSTEM_COLUMN in pairs:
            nothing[SYSTEM_COLUMN] = pd.Series(pd.NA, index=pairs.index, dtype="string")
        # A new table: one with replaced columns may keep the array of the old ones.
        kept = pd.DataFrame({name: nothing.get(name, pairs[name]) for name in pairs})
        kept.attrs = pairs.attrs
        return kept

    def find_groups(self, pairs: pd.DataFrame) -> npt.NDArray[np.str_]:
        """Return what `derive_groups` finds in all pairs with their texts."""
        digests = np.concatenate(self.digests) if self.digests else np.array([], dtype="U16")
        return merge_groups(digests.tolist(), pairs["session"]) if "session" in pairs else digests

    def put_back(self, pairs: pd.DataFrame) -> Iterator[pd.DataFrame]:
        """Yield all pairs with their texts, as many at a time as a row group has."""
        if pairs.empty:
            yield pairs
            return
        start = 0
        with pa.ipc.open_stream(str(self.path)) as reader:
            for group in regroup((pa.Table.from_batches([batch]) for batch in reader), UNIT_ROWS):
                part = pairs.iloc[start : start + len(group)]
                names = [*TEXT_COLUMNS, *([SYSTEM_COLUMN] if SYSTEM_COLUMN in pairs else [])]
                texts: Any = {
                    name: pd.Series(
                        group[name].to_pylist(), index=part.index, dtype=pairs[name].dtype
                    )
                    for name in names
                }
                yield part.assign(**texts)
                start += len(group)
