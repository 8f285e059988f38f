"""The run as one file: packed next to the predictions, fetched once by each node."""

from __future__ import annotations

import os
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tiewise.config import BLEND
from tiewise.errors import RunError
from tiewise.files import atomic_folder, atomic_path, digest_file, file_lock
from tiewise.judges.blending import load_mixture
from tiewise.runs.folder import RunFolder, open_run

_NOT_PACKED = {
    "checkpoints", "tracking", "figures", "report.html", "history.jsonl", "env.json", ".lock",
}  # fmt: skip
"""Files and folders of a run that predictions do not depend on."""


def pack_run(run: RunFolder, path: Path) -> None:
    """Write a run, and those that it blends, as ``runs/NAME/…`` into a tar file.

    Equal runs give equal bytes. Links are followed.
    """
    with (
        atomic_path(path) as temporary,
        tarfile.open(temporary, "w", dereference=True) as archive,
    ):
        for member in _find_runs(run):
            for file in _find_files(member.path):
                name = file.relative_to(member.path)
                if _NOT_PACKED.isdisjoint(name.parts):
                    archive.add(file, Path("runs", member.name, name), filter=_without_owner)


def fetch_run(fs: Any, path: str, sha256: str, name: str, cache_dir: Path) -> RunFolder:
    """Return the run of an archive, which is copied and unpacked unless the cache has it.

    One process of a node does this; the others wait for it. RunError is raised when the archive is
    missing or damaged.
    """
    folder = cache_dir / "fetched" / sha256
    with file_lock(folder.with_suffix(".lock"), wait=True):
        if not folder.is_dir():
            with atomic_folder(folder) as temporary:
                _unpack(fs, path, sha256, temporary)
    return open_run(name, folder)


def _unpack(fs: Any, path: str, sha256: str, folder: Path) -> None:
    copy = folder / "run.tar"
    try:
        with fs.open(path, "rb") as source, copy.open("wb") as file:
            shutil.copyfileobj(source, file)
    except FileNotFoundError:
        raise RunError(f"{path} is missing. Name another output folder.") from None
    if digest_file(copy) != sha256:
        raise RunError(f"{path} is damaged. Name another output folder.")
    with tarfile.open(copy) as archive:
        archive.extractall(folder, filter="data")
    copy.unlink()


def _find_files(folder: Path) -> list[Path]:
    """Return all files below a folder, in order, also those of linked folders."""
    below = os.walk(folder, followlinks=True)
    return sorted(Path(parent, name) for parent, _, names in below for name in names)


def _find_runs(run: RunFolder) -> Iterator[RunFolder]:
    yield run
    if run.config.model.backbone == BLEND:
        for name in load_mixture(run.mixture_path).members:
            yield from _find_runs(open_run(name, run.path.parent.parent))


def _without_owner(file: tarfile.TarInfo) -> tarfile.TarInfo:
    """Return a file of an archive without what differs between copies of a run."""
    return file.replace(mtime=0, mode=0o644, uid=0, gid=0, uname="", gname="", deep=False)
