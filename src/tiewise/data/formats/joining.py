"""Read several files into one pairs table."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import numpy.typing as npt
import pandas as pd

from tiewise.data.folds import derive_groups, merge_groups
from tiewise.data.formats.reading import ReadOptions, read_pairs
from tiewise.data.labels import PROB_COLUMNS
from tiewise.data.pairs import FURTHER_COLUMNS, FURTHER_WORDS, as_ids, check_pairs
from tiewise.errors import PairsError


def read_many(paths: Sequence[str | Path], **options: Unpack[ReadOptions]) -> pd.DataFrame:
    """Read several files into one pairs table.

    Parameters
    ----------
    paths
        At least one file, each as for :func:`read_pairs`.
    **options
        As for :func:`read_pairs`, for every file.

    Returns
    -------
    DataFrame
        The rows of all files in order. ``source`` names the file of each row that has no source of
        its own. Groups are united across the files. Where two files use the same id, all ids are
        ``file:id``. ``attrs`` sum up those of the files.
    """
    if not paths:
        raise PairsError("there is no file to read; name at least one")
    return join_tables(
        name_files(paths), [read_pairs(path, **options) for path in paths], derive_groups
    )


def join_tables(
    names: Sequence[str],
    tables: Sequence[pd.DataFrame],
    find_groups: Callable[[pd.DataFrame], npt.NDArray[np.str_]],
) -> pd.DataFrame:
    """Join the pairs tables of named files; `find_groups` is `derive_groups`, or its result."""
    tables = [
        table.assign(source=table["source"].fillna(name))
        for name, table in zip(names, tables, strict=True)
    ]
    joined = pd.concat(align_pairs(_with_unique_ids(names, tables)), ignore_index=True)
    joined["id"] = as_ids(joined["id"])
    groups = merge_groups(find_groups(joined).tolist(), joined["group"])
    joined["group"] = pd.array(groups, dtype="string")
    joined.attrs = {
        "format": " ".join(dict.fromkeys(table.attrs["format"] for table in tables)),
        "rejected": [
            f"{name}, {why}"
            for name, table in zip(names, tables, strict=True)
            for why in table.attrs["rejected"]
        ],
        "repaired": sum(table.attrs["repaired"] for table in tables),
        "unread": list(dict.fromkeys(name for table in tables for name in table.attrs["unread"])),
        "notes": list(dict.fromkeys(note for table in tables for note in table.attrs["notes"])),
    }
    check_pairs(joined)
    return joined


def name_files(paths: Sequence[str | Path]) -> list[str]:
    """Return the files' names, with as many of their folders as tell them apart.

    They are the same from whatever folder the paths are given. Files that are named twice keep
    their paths as they were given.

    >>> name_files(["new/votes.csv", "old/votes.csv"]), name_files(["new/votes.csv", "more.csv"])
    (['new/votes.csv', 'old/votes.csv'], ['votes.csv', 'more.csv'])
    """
    given = [str(path).rstrip("/") for path in paths]
    # Not resolve: a link in a cache has the file's name, and its target has not.
    whole = [path if "://" in path else os.path.abspath(path) for path in given]  # noqa: PTH100
    parts = [path.split("/") for path in whole]
    for n_parts in range(1, max(map(len, parts), default=0) + 1):
        names = ["/".join(part[-n_parts:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    return given


def align_pairs(tables: Sequence[pd.DataFrame]) -> list[pd.DataFrame]:
    """Add the optional columns that any table has to all: weight 1, one-hot soft labels."""
    names = [name for name in FURTHER_COLUMNS if any(name in table for table in tables)]
    return [
        table.assign(**{name: _default(table, name) for name in names if name not in table})
        for table in tables
    ]


def _with_unique_ids(names: Sequence[str], tables: Sequence[pd.DataFrame]) -> list[pd.DataFrame]:
    ids = pd.concat([pd.Series(table["id"].astype(str).unique()) for table in tables])
    if ids.is_unique:
        return [table.astype({"id": object}) for table in tables]
    return [
        table.assign(id=f"{name}:" + table["id"].astype(str))
        for name, table in zip(names, tables, strict=True)
    ]


def _default(table: pd.DataFrame, name: str) -> Any:
    if name in PROB_COLUMNS:
        return (table["label"] == PROB_COLUMNS.index(name)).astype("Float64").astype(float)
    if name in FURTHER_WORDS:
        return pd.Series(pd.NA, index=table.index, dtype="string")
    return pd.Series(1.0, index=table.index)
