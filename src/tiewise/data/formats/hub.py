"""Find the files that a path names: one file, or those of a folder or a data set on the hub.

The files of a folder are shards of one table, or they are refused: several tables are never joined
unless each is named.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from pathlib import Path, PurePath, PurePosixPath
from typing import Any, NamedTuple

from tiewise.data.formats.stdin import STDIN, copy_stdin
from tiewise.errors import PairsError

SUFFIXES = (".csv", ".tsv", ".parquet", ".arrow", ".jsonl", ".ndjson", ".json")
COMPRESSIONS = (".gz", ".bz2", ".xz", ".zst")
_SCHEME = "hf://"
_log = logging.getLogger(__name__)
_match_address = re.compile(
    r"hf://datasets/(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>[^/]+))?(/(?P<file>.+))?", re.ASCII
).fullmatch
_match_shard = re.compile(
    r"(?:(?P<name>.+?)[-_.])?(?P<number>\d+)(?:[-_]of[-_](?P<total>\d+))?"
    r"(?:-[0-9a-f]{8,}(?:[-.][\w.-]+)?)?"
).fullmatch
_split_words = re.compile(r"[^a-z0-9]+").split
_TRAINING = {"train", "training"}
_ANY_SPLIT = {"", "data", "part", "shard", "chunk", "file"}
_METADATA = {"dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json"}
_MAX_LISTED = 40


class _Table(NamedTuple):
    """Names that shards of one table share, all but the number."""

    folder: str
    name: str
    suffix: str
    total: int | None


def is_hub_path(path: object) -> bool:
    """Return whether a path names a data set on the hub."""
    return isinstance(path, str) and path.startswith(_SCHEME)


def fetch_files(path: str | Path) -> list[Path]:
    """Return the local files that a path names, after downloading those of a hub path.

    ``-`` is a copy of standard input. A folder, or a data set without a file, means its training
    files, else all (`choose_files`).
    """
    if str(path) == STDIN:
        return [copy_stdin()]
    if is_hub_path(path):
        file = split_hub_path(str(path))[2]
        found = _fetch(str(path))
        return [found] if file is not None else _choose_in(found, path)
    return _choose_in(Path(path), path) if Path(path).is_dir() else [Path(path)]


def split_hub_path(path: str) -> tuple[str, str | None, str | None]:
    """Return the repository, revision and file of ``hf://datasets/OWNER/NAME[@REVISION][/FILE]``."""
    found = _match_address(path)
    if found is None:
        raise PairsError(
            f"{path} is no hub path; expected hf://datasets/OWNER/NAME with an optional @REVISION "
            "and /FILE"
        )
    return found["repo"], found["revision"], found["file"]


def choose_files(names: Sequence[str], suffixes: Sequence[str] = SUFFIXES) -> list[str]:
    """Return the files of a data set that make up its one table, in the order of its shards.

    Files whose split has the word ``train`` in its name come first, else all files count. They must
    be one file, or numbered shards of one name with none missing; PairsError names them otherwise.

    >>> choose_files(["train-1.parquet", "train-0.parquet", "test.parquet", "a.csv"])
    ['train-0.parquet', 'train-1.parquet']
    """
    known = [name for name in sorted(names) if _is_data(name, suffixes)]
    training = [name for name in known if _TRAINING & set(_split_words(_split_of(name)))] or known
    tables = {_table_of(name) for name in training}
    numbers = sorted(_number_of(name) for name in training)
    first, total = (numbers[0], next(iter(tables)).total) if training else (0, None)
    is_whole = len(tables) <= 1 and first in (0, 1) and total in (None, len(numbers))
    is_one = len(training) <= 1 and total in (None, 1)
    if not is_one and not (is_whole and numbers == list(range(first, first + len(numbers)))):
        reason = "shards are missing" if len(tables) == 1 and total else "it has several tables"
        more = [f"and {len(training) - _MAX_LISTED} more"] if len(training) > _MAX_LISTED else []
        listed = ", ".join([*training[:_MAX_LISTED], *more])
        raise PairsError(f"{reason}; name one file, or the files of one table: {listed}")
    return sorted(training, key=_number_of)


def choose_data(names: Sequence[str], path: object) -> list[str]:
    """Return `choose_files`, log which data files are not read, and name `path` in errors."""
    try:
        chosen = choose_files(names)
    except PairsError as error:
        raise PairsError(f"{path}: {error}") from None
    if not chosen:
        raise PairsError(f"{path} holds no file that ends in {', '.join(SUFFIXES)}")
    others = sorted(name for name in names if _is_data(name, SUFFIXES) and name not in chosen)
    if others:
        listed = ", ".join(others[:_MAX_LISTED])
        _log.info("%s: read %s; not read: %s", path, ", ".join(chosen[:_MAX_LISTED]), listed)
    return chosen


def data_suffix(path: str | PurePath) -> str:
    """Return the suffix that tells the format, in lower case, without that of a compression.

    >>> data_suffix("train.CSV"), data_suffix("train.jsonl.gz"), data_suffix("train.gz")
    ('.csv', '.jsonl', '')
    """
    whole = PurePosixPath(path)
    is_compressed = whole.suffix.lower() in COMPRESSIONS
    return (PurePosixPath(whole.stem) if is_compressed else whole).suffix.lower()


def _is_data(name: str, suffixes: Sequence[str]) -> bool:
    path = PurePosixPath(name)
    is_hidden = any(part.startswith((".", "_")) for part in path.parts)
    return data_suffix(path) in suffixes and not is_hidden and path.name not in _METADATA


def _match(name: str) -> tuple[str, re.Match[str] | None]:
    """Return a file's name without its suffixes, and how it is numbered."""
    stem = re.split(rf"\.(?={data_suffix(name)[1:]}\b)", PurePosixPath(name).name.lower())[0]
    return stem, _match_shard(stem)


def _table_of(name: str) -> _Table:
    path = PurePosixPath(name)
    stem, shard = _match(name)
    suffix = path.name.lower().removeprefix(stem)
    if shard is None:
        return _Table(str(path.parent), f"{stem}.", suffix, None)
    total = shard["total"]
    return _Table(str(path.parent), shard["name"] or "", suffix, int(total) if total else None)


def _number_of(name: str) -> int:
    shard = _match(name)[1]
    return 0 if shard is None else int(shard["number"])


def _split_of(name: str) -> str:
    """Return the name of a file's split: of the file without its number, or of its folder."""
    stem, shard = _match(name)
    split = stem if shard is None else shard["name"] or ""
    return split if split not in _ANY_SPLIT else PurePosixPath(name).parent.name.lower()


def _choose_in(folder: Path, path: str | Path) -> list[Path]:
    names = [each.relative_to(folder).as_posix() for each in folder.rglob("*") if each.is_file()]
    return [folder / name for name in choose_data(names, path)]


def _fetch(path: str) -> Path:
    try:
        return _download(*split_hub_path(path))
    except ImportError as error:
        raise PairsError(
            f"{path}: the hub needs huggingface_hub. Run pip install 'tiewise[train]'."
        ) from error
    except (OSError, ValueError) as error:
        reason = (str(error).strip().splitlines() or [repr(error)])[0]
        raise PairsError(
            f"{path}: the hub did not provide it: {reason} Check the name and the network. A gated "
            "data set needs `hf auth login` first. Without a network, name a file."
        ) from error


def _download(repo: str, revision: str | None, file: str | None) -> Path:
    """Return the local path of one file, or of the folder of all files that can be read."""
    import huggingface_hub

    options: dict[str, Any] = {"repo_type": "dataset", "revision": revision}
    if file is not None:
        return Path(huggingface_hub.hf_hub_download(repo, file, **options))
    patterns = [f"*{suffix}{kind}" for suffix in SUFFIXES for kind in ("", *COMPRESSIONS)]
    return Path(huggingface_hub.snapshot_download(repo, allow_patterns=patterns, **options))
