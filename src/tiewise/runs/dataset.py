"""Load the pairs that a configuration names, and assign them to folds.

Files are looked for in this order: those that are named, those in the environment variable
``TIEWISE_DATA``, ``data/train.csv``, and then the fallback of the preset: the embedded sample for a
CPU, the public Arena votes on the hub for a GPU.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from tiewise.config import DataConfig
from tiewise.data.folds import fold_by_group, fold_by_id, fold_by_position
from tiewise.data.formats import fetch_files, is_hub_path, read_many
from tiewise.data.formats.reading import without_notes
from tiewise.data.formats.sources import similar_file
from tiewise.data.formats.stdin import STDIN
from tiewise.data.pairs import row_digests, text_lengths
from tiewise.data.simulation.simulate import BAYES_COLUMNS, join_posterior, simulate
from tiewise.errors import PairsError, RunError
from tiewise.evaluation.agreement import name_votes
from tiewise.files import digest_file, digest_json
from tiewise.runs.folder import RunFolder
from tiewise.runs.tables import pairs_digest, read_data, read_folds

SAMPLE_SIZE = 1_500
HUB_DATASET = "hf://datasets/lmarena-ai/arena-human-preference-55k/train.csv"
_SAMPLE = f"embedded sample of {SAMPLE_SIZE} rows"
Fallback = Literal["sample", "hub"]
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Dataset:
    """Pairs and their origin: name and SHA-256 of each file, and counts of rows.

    `digest` is the SHA-256 over those of the sources, the counts and the draw by ``--limit``.
    """

    pairs: pd.DataFrame
    digest: str
    sources: tuple[str, ...]
    counts: dict[str, int]


def load_dataset(
    config: DataConfig, *, fallback: Fallback = "sample", labelled: bool = True
) -> Dataset:
    """Read the rows that a configuration names, or the fallback when no file is named or found.

    When `labelled`, every row must have a winner.
    """
    pairs, digests = _read(config, fallback, labelled=labelled)
    n, limit = len(pairs), config.limit
    n_kept = n if limit is None else min(limit, n)
    counts = {
        "n_read": n,
        "n_rejected": len(pairs.attrs.get("rejected", ())),
        "n_repaired": int(pairs.attrs.get("repaired", 0)),
        "n_left_out_by_limit": n - n_kept,
    }
    if n_kept < n:
        drawn = np.random.default_rng(config.data_seed).choice(n, size=n_kept, replace=False)
        pairs = pairs.iloc[np.sort(drawn)].reset_index(drop=True)
    draw = [limit, config.data_seed] if limit else None
    digest = digest_json([[digest for _, digest in digests], counts, draw])
    sources = tuple(f"{name} {own}" for name, own in digests)
    return Dataset(pairs, digest, sources, counts)


def find_data(config: DataConfig) -> list[str]:
    """Return the files to read, or an empty list when only a fallback is left."""
    return [str(file) for path in _name_data(config) for file in fetch_files(path)]


def locate_data(config: DataConfig) -> list[str]:
    """Return the absolute paths of the files and folders to read; hub paths and - are kept."""
    return [
        path if is_hub_path(path) or path == STDIN else str(Path(path).absolute())
        for path in _name_data(config)
    ]


def assign_folds(dataset: Dataset, config: DataConfig) -> pd.DataFrame:
    """Return the table of folds, a line per row of the data.

    Columns: id, fold, label, group, n_chars_prompt, n_chars_a, n_chars_b; the true probabilities
    where the data are simulated; pair and vote where several people voted on the same pair. An id
    that occurs twice is a PairsError: out-of-fold predictions are joined by id.
    """
    pairs = dataset.pairs
    repeated = pairs["id"][pairs["id"].duplicated()]
    if len(repeated):
        raise PairsError(
            f"id={repeated.iloc[0]} occurs more than once ({len(repeated)} repeated ids). A fit "
            "needs unique ids: renumber the rows, or read the files one by one."
        )
    known = ["label", "group", *(name for name in BAYES_COLUMNS if name in pairs)]
    table = pairs[["id", *known]].copy()
    table.insert(1, "fold", _fold_rows(pairs, config))
    votes = name_votes(pairs)
    several = [votes] if votes["pair"].duplicated().any() else []
    return pd.concat([table, text_lengths(pairs), *several], axis=1)


def reread_pairs(run: RunFolder, paths: Sequence[str] = ()) -> pd.DataFrame | None:
    """Read the texts of a run's data again, or return None if they have moved or changed.

    The files are looked for where the fit read them, then where the configuration names them from
    the current folder. If `paths` names the files, it is an error when they are not the run's data.
    """
    described, config = read_data(run), run.config.data
    if paths:
        return _reread(run, replace(config, data=tuple(paths)), described)
    located = tuple(described.get("paths", ()))
    if located and located != config.data and all(map(_exists, located)):
        with contextlib.suppress(PairsError, RunError):
            return _reread(run, replace(config, data=located), described)
    try:
        return _reread(run, config, described)
    except (PairsError, RunError) as error:
        origin = f" The fit read {', '.join(located)}." if located else ""
        _log.warning(
            "The texts of %s are not used; name its files with --data: %s%s",
            run.name,
            error,
            origin,
        )
    return None


def _reread(run: RunFolder, config: DataConfig, described: Mapping[str, Any]) -> pd.DataFrame:
    """Read the pairs that a configuration names; RunError when they are not those of the run."""
    is_sample = any(str(source).startswith(_SAMPLE) for source in described["sources"])
    with without_notes():
        dataset = load_dataset(config, fallback="sample" if is_sample else "hub")
    if dataset.digest != pairs_digest(described):
        tried = ", ".join(locate_data(config)) or dataset.sources[0]
        raise RunError(f"{tried}: these are not the data that {run.name} was fitted on.")
    # The same files in the same order, so the same rows. Ids may contain names of folders, and a
    # blend has those of its members' shared rows only.
    ids = read_folds(run)["id"]
    return (
        dataset.pairs.assign(id=ids.to_numpy()) if len(ids) == len(dataset.pairs) else dataset.pairs
    )


def _read(
    config: DataConfig, fallback: Fallback, *, labelled: bool
) -> tuple[pd.DataFrame, list[tuple[str, str]]]:
    """Return the rows, and the name and digest of each source."""
    paths = find_data(config)
    if not paths and fallback == "sample":
        sample = simulate(SAMPLE_SIZE, seed=0)
        return sample, [(_SAMPLE, digest_json(row_digests(sample).tolist()))]
    names = [Path(path).name for path in paths] or [HUB_DATASET]
    paths = paths or _fetch_fallback()
    pairs = read_many(
        paths,
        format=config.data_format,
        columns=config.columns,
        labelled=labelled,
        on_error=config.on_error,
    )
    if pairs.empty:
        raise PairsError(f"{', '.join(names)}: there are no rows; expected at least one pair.")
    return join_posterior(pairs, paths), list(zip(names, map(digest_file, paths), strict=True))


def _name_data(config: DataConfig) -> list[str]:
    """Return the files, folders and hub paths that are named, or else ``data/train.csv``."""
    # Split at every separator except the colon of hf://.
    from_environment = re.split(rf"{os.pathsep}(?!//)", os.environ.get("TIEWISE_DATA", ""))
    named = list(config.data) or [path for path in from_environment if path]
    for path in named:
        if not _exists(path):
            raise PairsError(
                f"{path}: there is no such file. Data are looked for in --data, in the environment "
                f"variable TIEWISE_DATA, and in data/train.csv.{similar_file(path)}"
            )
    return named or (["data/train.csv"] if Path("data/train.csv").is_file() else [])


def _fold_rows(pairs: pd.DataFrame, config: DataConfig) -> npt.NDArray[np.int64]:
    if config.n_splits == 1:
        return np.zeros(len(pairs), dtype=np.int64)
    if config.fold_rule == "position":
        return fold_by_position(len(pairs), config.n_splits)
    if config.fold_rule == "id":
        return fold_by_id(pairs["id"], config.n_splits)
    return fold_by_group(pairs["group"], pairs["label"], config.n_splits, seed=config.data_seed)


def _exists(path: str) -> bool:
    return is_hub_path(path) or path == STDIN or Path(path).exists()


def _fetch_fallback() -> list[str]:
    try:
        return [str(file) for file in fetch_files(HUB_DATASET)]
    except PairsError as error:
        raise PairsError(
            f"No data: {error} Name a file with --data, set TIEWISE_DATA, create data/train.csv, "
            "or run tiewise simulate --n 1500 --out train.csv."
        ) from error
