"""Which rows a command works on, and where they were looked for.

In this order: the files named, the files in the environment variable ``TIEWISE_DATA``,
``data/train.csv``, and then what the preset falls back to: the embedded sample for a CPU, the
public Arena votes on the hub for a GPU.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from tiewise.config import DataConfig
from tiewise.errors import PairsError
from tiewise.files import digest_file, digest_json
from tiewise.folds import fold_by_group, fold_by_id, fold_by_position
from tiewise.formats import read_many
from tiewise.pairs import text_lengths
from tiewise.simulate import BAYES_COLUMNS, simulate

SAMPLE_SIZE = 1_500
HUB_DATASET = "lmarena-ai/arena-human-preference-55k"
Fallback = Literal["sample", "hub"]


@dataclass(frozen=True)
class Dataset:
    """Pairs with their provenance.

    pairs
        The pairs table.
    digest
        SHA-256 over the files' digests (or the sample's definition) and the draw.
    sources
        A line a file: its name and digest.
    counts
        Rows read, rejected, repaired and left out by ``--limit``.
    """

    pairs: pd.DataFrame
    digest: str
    sources: tuple[str, ...]
    counts: dict[str, int]

    def describe(self) -> dict[str, Any]:
        """Return what a run remembers of its data, without the texts."""
        return {"digest": self.digest, "sources": list(self.sources), "counts": self.counts}


def load_dataset(
    config: DataConfig, *, fallback: Fallback = "sample", labelled: bool = True
) -> Dataset:
    """Read the rows that a configuration names.

    Parameters
    ----------
    config
        Which files, which format, how many rows.
    fallback
        Where to turn when no file is named or found.
    labelled
        Whether every row must have a winner.

    Raises
    ------
    PairsError
        When there is no data, or a file cannot be read.
    """
    paths = find_data(config)
    options: dict[str, Any] = {
        "format": config.data_format,
        "labelled": labelled,
        "on_error": config.on_error,
    }
    if paths:
        pairs = read_many(paths, **options)
        sources = tuple(f"{Path(path).name} {digest_file(path)}" for path in paths)
    elif fallback == "sample":
        pairs = simulate(SAMPLE_SIZE, seed=0)
        sources = (f"embedded sample of {SAMPLE_SIZE} rows",)
    else:
        path = _download_hub_dataset()
        pairs = read_many([path], **options)
        sources = (f"{HUB_DATASET} {digest_file(path)}",)
    counts = {
        "n_read": len(pairs),
        "n_rejected": len(pairs.attrs.get("rejected", ())),
        "n_repaired": int(pairs.attrs.get("repaired", 0)),
    }
    kept = draw_rows(len(pairs), config.limit, seed=config.data_seed)
    counts["n_left_out_by_limit"] = len(pairs) - len(kept)
    draw = [config.limit, config.data_seed] if config.limit else None
    digest = digest_json([sources, counts, draw])
    return Dataset(pairs.iloc[kept].reset_index(drop=True), digest, sources, counts)


def find_data(config: DataConfig) -> list[str]:
    """Return the files to read, or an empty list when only a fallback is left.

    Raises
    ------
    PairsError
        When a file that was named does not exist.
    """
    from_environment = os.environ.get("TIEWISE_DATA", "").split(os.pathsep)
    named = list(config.data) or [path for path in from_environment if path]
    missing = [path for path in named if not Path(path).is_file()]
    if missing:
        raise PairsError(
            f"{missing[0]}: there is no such file. Data are looked for in --data, in the "
            "environment variable TIEWISE_DATA, and in data/train.csv."
        )
    if named:
        return named
    return ["data/train.csv"] if Path("data/train.csv").is_file() else []


def draw_rows(n: int, limit: int | None, *, seed: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return the positions of the rows kept by ``--limit``, ascending; all when limit is None.

    Examples
    --------
    >>> draw_rows(4, None, seed=0).tolist()
    [0, 1, 2, 3]
    >>> len(draw_rows(100, 10, seed=0))
    10
    """
    if limit is None or limit >= n:
        return np.arange(n)
    return np.sort(np.random.default_rng(seed).choice(n, size=limit, replace=False))


def deal_folds(dataset: Dataset, config: DataConfig) -> pd.DataFrame:
    """Return the table of folds, a line per row of the data.

    Columns: id, fold, label, group, n_chars_prompt, n_chars_a, n_chars_b, and the true
    probabilities where the data are simulated.

    Raises
    ------
    FoldError
        When the rows cannot be split that way.
    PairsError
        When an id stands twice: out-of-fold predictions could not be told apart.
    """
    pairs = dataset.pairs
    repeated = pairs["id"][pairs["id"].duplicated()]
    if len(repeated):
        raise PairsError(
            f"id={repeated.iloc[0]} stands more than once ({len(repeated)} repeated ids). A fit "
            "needs ids that tell rows apart: renumber them, or read the files one by one."
        )
    folds = {
        "group": lambda: fold_by_group(
            pairs["group"], pairs["label"].to_numpy(int), config.n_splits, seed=config.data_seed
        ),
        "position": lambda: fold_by_position(len(pairs), config.n_splits),
        "id": lambda: fold_by_id(pairs["id"], config.n_splits),
    }[config.fold_rule]()
    known = ["label", "group", *(name for name in BAYES_COLUMNS if name in pairs)]
    table = pairs[["id", *known]].copy()
    table.insert(1, "fold", folds)
    return pd.concat([table, text_lengths(pairs)], axis=1)


def _download_hub_dataset() -> str:
    ways = (
        "Name a file with --data, set TIEWISE_DATA, put one at data/train.csv, or run "
        "tiewise simulate --n 1500 --out train.csv."
    )
    try:
        from huggingface_hub import hf_hub_download

        return str(hf_hub_download(HUB_DATASET, "train.csv", repo_type="dataset"))
    except ImportError as error:
        raise PairsError(f"No data: the hub needs pip install 'tiewise[train]'. {ways}") from error
    except (OSError, ValueError) as error:
        raise PairsError(
            f"No data: {HUB_DATASET} could not be fetched ({error}). {ways}"
        ) from error
