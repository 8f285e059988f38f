"""Several files as one pairs table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from tiewise.data.folds import derive_groups, merge_groups
from tiewise.data.formats.reading import OnError, read_pairs
from tiewise.data.labels import PROB_COLUMNS
from tiewise.data.schema import FURTHER_COLUMNS, as_ids, check_pairs
from tiewise.errors import PairsError


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
    return join_pairs(name_files(paths), [read_pairs(path, **options) for path in paths])


def join_pairs(names: Sequence[str], tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Join pairs tables that were read from files of these names, as :func:`read_many` does."""
    tables = [
        table.assign(source=table["source"].fillna(name))
        for name, table in zip(names, tables, strict=True)
    ]
    joined = pd.concat(align_pairs(_with_own_ids(names, tables)), ignore_index=True)
    joined["id"] = as_ids(joined["id"])
    groups = merge_groups(derive_groups(joined).tolist(), joined["group"])
    joined["group"] = pd.array(groups, dtype="string")
    joined.attrs = {
        "format": " ".join(dict.fromkeys(table.attrs["format"] for table in tables)),
        "rejected": _all_rejected(names, tables),
        "repaired": sum(table.attrs["repaired"] for table in tables),
    }
    check_pairs(joined)
    return joined


def name_files(paths: Sequence[str | Path]) -> list[str]:
    """Return the files' names, or their whole paths where two of the names are equal."""
    names = [Path(path).name for path in paths]
    return names if len(set(names)) == len(names) else [str(path) for path in paths]


def _with_own_ids(names: Sequence[str], tables: list[pd.DataFrame]) -> list[pd.DataFrame]:
    ids = pd.concat([pd.Series(table["id"].astype(str).unique()) for table in tables])
    if ids.is_unique:
        return [table.astype({"id": object}) for table in tables]
    return [
        table.assign(id=f"{name}:" + table["id"].astype(str))
        for name, table in zip(names, tables, strict=True)
    ]


def align_pairs(tables: list[pd.DataFrame]) -> list[pd.DataFrame]:
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
    if name in ("session", "teacher"):
        return pd.Series(pd.NA, index=table.index, dtype="string")
    return pd.Series(1.0, index=table.index)


def _all_rejected(names: Sequence[str], tables: list[pd.DataFrame]) -> list[str]:
    return [
        f"{name}, {why}"
        for name, table in zip(names, tables, strict=True)
        for why in table.attrs["rejected"]
    ]
