"""From any file or table of pairs to the pairs table."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pandas as pd

from ..errors import PairsError, TiewiseError
from ..folds import derive_groups, unite_groups
from ..pairs import (
    COLUMNS,
    FURTHER_COLUMNS,
    PROB_COLUMNS,
    TEXT_COLUMNS,
    as_ids,
    build_pairs,
    check_pairs,
)
from .cells import ONE_HOT_COLUMNS, Record, Row, is_missing, json_cell
from .kaggle import read_kaggle, read_own, read_wsdm
from .sources import Numbered, Source, open_source

OnError = Literal["raise", "skip"]
_SHOWN = 3
_PEEKED = 20
_TEST_FILE = (
    "Is this the test file? Read it with labelled=False, or on the command line with --unlabelled."
)
_is_integral = re.compile(r"-?(?:0|[1-9][0-9]{0,14})(?:\.0*)?").fullmatch


class Format(NamedTuple):
    """One spelling of a data set of pairs."""

    read: Callable[..., Iterator[Row]]
    needs: tuple[str, ...]
    """The columns without which a file is not of this format."""
    labels: tuple[tuple[str, ...], ...] = ()
    """Groups of columns, one of which must be there when labels are asked for."""


_FLAT_LABELS = (ONE_HOT_COLUMNS, ("winner",), PROB_COLUMNS)
FORMATS = {
    "pairs": Format(read_own, COLUMNS),
    "kaggle": Format(read_kaggle, COLUMNS[:4], _FLAT_LABELS),
    "wsdm": Format(read_wsdm, COLUMNS[:4], _FLAT_LABELS),
}
"""Every format by name, the more special before the more general."""


def read_pairs(
    path: str | Path | pd.DataFrame | Any,
    *,
    format: str | None = None,  # noqa: A002
    labelled: bool = True,
    on_error: OnError = "raise",
) -> pd.DataFrame:
    """Read pairs of any known format.

    Parameters
    ----------
    path
        A file that ends in .csv, .tsv, .parquet, .jsonl or .json; a pandas frame; or a table with
        a ``to_pandas`` method, such as a ``datasets.Dataset``.
    format
        A name in ``FORMATS``; told from the columns when None.
    labelled
        False reads files without winners, and leaves the label out of files that have them.
    on_error
        "raise" refuses the file when any row is wrong; "skip" leaves such rows out.

    Returns
    -------
    DataFrame
        A pairs table, one row for each comparison in the order of the file. ``attrs`` says what
        happened on the way: ``format`` the format's name; ``rejected`` a list with one message for
        each row left out; ``repaired`` the number of rows that had to be mended, because of lone
        surrogates in a text or integer ids spelled as floats.

    Raises
    ------
    PairsError
        Where the file or a row of it cannot be read; the message names the first rows, and how
        many there are.
    """
    if on_error not in ("raise", "skip"):
        raise PairsError(f"on_error must be 'raise' or 'skip', found {on_error!r}")
    source = open_source(path)
    head = list(islice(source.records, _PEEKED))
    name = format or _sniff(source, head)
    _check_format(source, name, labelled=labelled)
    rows, rejected = _read_rows(chain(head, source.records), FORMATS[name], labelled=labelled)
    if rejected and on_error == "raise":
        raise _rejection(source.name, rejected)
    n_repaired = _mend_ids(rows)
    pairs = build_pairs(_as_columns(rows))
    pairs.attrs = {"format": name, "rejected": rejected, "repaired": n_repaired}
    return pairs


def read_many(
    paths: Sequence[str | Path],
    *,
    format: str | None = None,  # noqa: A002
    labelled: bool = True,
    on_error: OnError = "raise",
) -> pd.DataFrame:
    """Read several files into one pairs table.

    Parameters
    ----------
    paths
        At least one file, each as for :func:`read_pairs`.
    format, labelled, on_error
        As for :func:`read_pairs`, for every file.

    Returns
    -------
    DataFrame
        The rows of all files in order. ``source`` names the file of each row that does not name
        its own source; groups are united across the files; where two files use the same id, all
        ids are spelled ``file:id``. ``attrs`` sums up those of the files.
    """
    if not paths:
        raise PairsError("there is no file to read; name at least one")
    options: dict[str, Any] = {"format": format, "labelled": labelled, "on_error": on_error}
    tables = [read_pairs(path, **options) for path in paths]
    names = _file_names(paths)
    for name, table in zip(names, tables, strict=True):
        table["source"] = table["source"].fillna(name)
    joined = pd.concat(_alike(_with_own_ids(names, tables)), ignore_index=True)
    joined["id"] = as_ids(joined["id"])
    groups = unite_groups(derive_groups(joined).tolist(), joined["group"])
    joined["group"] = pd.array(groups, dtype="string")
    joined.attrs = {
        "format": " ".join(dict.fromkeys(table.attrs["format"] for table in tables)),
        "rejected": _all_rejected(names, tables),
        "repaired": sum(table.attrs["repaired"] for table in tables),
    }
    check_pairs(joined)
    return joined


def _sniff(source: Source, head: list[Numbered]) -> str:
    columns = set(source.columns)
    fitting = [name for name, known in FORMATS.items() if columns.issuperset(known.needs)]
    if not fitting:
        needs = "\n".join(f"  {name}: {', '.join(known.needs)}" for name, known in FORMATS.items())
        raise PairsError(
            f"{source.name}: no known format has the columns {', '.join(source.columns)}. "
            f"Each format needs at least:\n{needs}"
        )
    if fitting[0] == "kaggle" and not columns.issuperset(ONE_HOT_COLUMNS):
        # Without one-hot winners only the texts tell lists of turns from plain text.
        return "kaggle" if any(_holds_lists(record.values) for record in head) else "wsdm"
    return fitting[0]


def _holds_lists(record: Record) -> bool:
    try:
        return all(json_cell(record, name) for name in TEXT_COLUMNS)
    except (PairsError, KeyError):
        return False


def _check_format(source: Source, name: str, *, labelled: bool) -> None:
    if name not in FORMATS:
        raise PairsError(f"unknown format {name!r}; the known ones are {', '.join(FORMATS)}")
    missing = [column for column in FORMATS[name].needs if column not in source.columns]
    if missing:
        raise PairsError(
            f"{source.name}: the columns {', '.join(missing)} are missing for the format {name}; "
            f"found {', '.join(source.columns)}"
        )
    labels = FORMATS[name].labels
    if labelled and labels and not any(set(group) <= set(source.columns) for group in labels):
        needed = ", or ".join(", ".join(group) for group in labels)
        raise PairsError(
            f"{source.name}: there is no winner among the columns {', '.join(source.columns)}; "
            f"expected {needed}.\n{_TEST_FILE}"
        )


def _read_rows(
    records: Iterable[Numbered], known: Format, *, labelled: bool
) -> tuple[list[Row], list[str]]:
    rows: list[Row] = []
    rejected: list[str] = []
    for position, record in enumerate(records):
        try:
            rows.extend(_rows_of(record, known, labelled=labelled))
        except TiewiseError as error:
            has_id = not is_missing(record.values.get("id"))
            named = f" (id={record.values['id']})" if has_id else ""
            rejected.append(f"row {position}{named}: {error}")
    return rows, rejected


def _rows_of(record: Numbered, known: Format, *, labelled: bool) -> list[Row]:
    if record.problem is not None:
        raise PairsError(record.problem)
    rows = list(known.read(record.values, labelled=labelled))
    if any(is_missing(row["id"]) for row in rows):
        raise PairsError("id is missing")
    return rows


def _rejection(name: str, rejected: list[str]) -> PairsError:
    shown = "\n  ".join(rejected[:_SHOWN])
    count = "1 row" if len(rejected) == 1 else f"{len(rejected)} rows"
    hint = f"\n{_TEST_FILE}" if all("winner" in why for why in rejected) else ""
    return PairsError(
        f"{name}: {count} cannot be read:\n  {shown}"
        f"{_more(len(rejected) - _SHOWN)}\nTo leave such rows out, read with on_error='skip'.{hint}"
    )


def _more(count: int) -> str:
    return f"\n  and {count} more" if count > 0 else ""


def _mend_ids(rows: list[Row]) -> int:
    """Turn integer ids spelled as floats into integers; count the rows mended here or before."""
    words = [str(row["id"]) for row in rows]
    if all(map(_is_integral, words)):
        for row, word in zip(rows, words, strict=True):
            row["is_repaired"] |= "." in word
            row["id"] = int(word.partition(".")[0])
    return sum(row.pop("is_repaired") for row in rows)


def _as_columns(rows: list[Row]) -> dict[str, list[Any]]:
    names = dict.fromkeys(chain(COLUMNS[:4], *rows))
    return {name: [row.get(name) for row in rows] for name in names}


def _file_names(paths: Sequence[str | Path]) -> list[str]:
    names = [Path(path).name for path in paths]
    return names if len(set(names)) == len(names) else [str(path) for path in paths]


def _with_own_ids(names: list[str], tables: list[pd.DataFrame]) -> list[pd.DataFrame]:
    ids = pd.concat([pd.Series(table["id"].astype(str).unique()) for table in tables])
    if ids.is_unique:
        return [table.astype({"id": object}) for table in tables]
    return [
        table.assign(id=f"{name}:" + table["id"].astype(str))
        for name, table in zip(names, tables, strict=True)
    ]


def _alike(tables: list[pd.DataFrame]) -> list[pd.DataFrame]:
    """Give every table the further columns of any: weight 1, and the label as a soft label."""
    for name in FURTHER_COLUMNS:
        if any(name in table.columns for table in tables):
            tables = [
                table if name in table.columns else table.assign(**{name: _filled(table, name)})
                for table in tables
            ]
    return tables


def _filled(table: pd.DataFrame, name: str) -> Any:
    if name in PROB_COLUMNS:
        return (table["label"] == PROB_COLUMNS.index(name)).astype("Float64").astype(float)
    return pd.Series(1.0 if name == "weight" else pd.NA, index=table.index)


def _all_rejected(names: list[str], tables: list[pd.DataFrame]) -> list[str]:
    return [
        f"{name}, {why}"
        for name, table in zip(names, tables, strict=True)
        for why in table.attrs["rejected"]
    ]
