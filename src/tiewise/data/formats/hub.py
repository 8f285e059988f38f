"""Data sets on the hub: ``hf://datasets/OWNER/NAME[@REVISION][/FILE]`` to files on this disk.

Without a file the data set's training files are meant, or all of its files where none is called so;
several are the shards of one table. The hub's own client fetches them and keeps them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tiewise.errors import PairsError

_SCHEME = "hf://"
_address = re.compile(
    r"hf://datasets/(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>[^/]+))?(/(?P<file>.+))?", re.ASCII
).fullmatch


class Address(NamedTuple):
    """What an ``hf://`` path names."""

    repo: str
    revision: str | None
    file: str | None


def is_hub_path(path: object) -> bool:
    """Tell whether a path leads to the hub.

    Examples
    --------
    >>> is_hub_path("hf://datasets/lmsys/mt_bench_human_judgments"), is_hub_path("train.csv")
    (True, False)
    """
    return isinstance(path, str) and path.startswith(_SCHEME)


def parse_address(path: str) -> Address:
    """Split an ``hf://`` path.

    Raises
    ------
    PairsError
        Where it is not spelled as such a path is.

    Examples
    --------
    >>> parse_address("hf://datasets/lmsys/mt_bench_human_judgments@main/data/human.parquet")
    Address(repo='lmsys/mt_bench_human_judgments', revision='main', file='data/human.parquet')
    """
    found = _address(path)
    if found is None:
        raise PairsError(
            f"{path}: expected hf://datasets/OWNER/NAME, and after it @REVISION or /FILE where "
            "they are meant"
        )
    return Address(found["repo"], found["revision"], found["file"])


def fetch(path: str, suffixes: Sequence[str]) -> list[Path]:
    """Fetch what an ``hf://`` path names, unless it is on this disk already.

    Parameters
    ----------
    path
        See the module.
    suffixes
        Of the files that can be read.

    Returns
    -------
    list of Path
        At least one file, in the order of their names.

    Raises
    ------
    PairsError
        Where the hub does not give it, or it holds nothing that can be read.
    """
    address = parse_address(path)
    try:
        return _download(address, suffixes)
    except ImportError as error:
        raise PairsError(
            f"{path}: the hub needs huggingface_hub: pip install 'tiewise[train]'"
        ) from error
    except PairsError:
        raise
    except (OSError, ValueError) as error:
        reason = (str(error).strip().splitlines() or [repr(error)])[0]
        raise PairsError(
            f"{path}: the hub did not give it: {reason} Is it spelled so, and is there a network? "
            "A gated data set needs `hf auth login` first. Without a network, name a file."
        ) from error


def choose_files(names: Sequence[str], suffixes: Sequence[str]) -> list[str]:
    """Choose the files of a data set that make up one table.

    Examples
    --------
    >>> names = ["data/train-1.parquet", "data/train-0.parquet", "data/test-0.parquet", "a.csv"]
    >>> choose_files(names, [".parquet", ".csv"])
    ['data/train-0.parquet', 'data/train-1.parquet']
    """
    known = sorted(name for name in names if Path(name).suffix in suffixes)
    training = [name for name in known if "train" in Path(name).name] or known
    if len({Path(name).suffix for name in training}) > 1:
        raise PairsError(f"name one of its files: {', '.join(training)}")
    return training


def _download(address: Address, suffixes: Sequence[str]) -> list[Path]:
    import huggingface_hub

    place: dict[str, Any] = {"repo_type": "dataset", "revision": address.revision}
    if address.file is not None:
        return [Path(huggingface_hub.hf_hub_download(address.repo, address.file, **place))]
    patterns = [f"*{suffix}" for suffix in suffixes]
    folder = Path(huggingface_hub.snapshot_download(address.repo, allow_patterns=patterns, **place))
    names = [str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()]
    chosen = choose_files(names, suffixes)
    if not chosen:
        raise PairsError(f"{address.repo} holds no file that ends in {', '.join(suffixes)}")
    return [folder / name for name in chosen]
