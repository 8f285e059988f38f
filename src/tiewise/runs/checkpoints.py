"""Checkpoints that are whole or do not count.

A checkpoint is a folder ``checkpoint-STEP``. It is written under a temporary name, its last file is
a manifest with the size and SHA-256 of every other file (and of itself), the step and the fit it
belongs to, and one rename puts it in place. Nothing is read from a checkpoint before its manifest
is found to hold, so a process killed at any moment, a removed file, a flipped bit or a folder
copied from elsewhere leads to the checkpoint before, with a message, and never to a run that
continues as something else.

Adapters and converted backbones are sealed by the same manifest.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tiewise.errors import RunError
from tiewise.files import (
    atomic_folder,
    digest_file,
    digest_json,
    json_bytes,
    remove,
    remove_temporaries,
    write_json,
)

MANIFEST = "manifest.json"
_PREFIX = "checkpoint-"
_log = logging.getLogger(__name__)


@contextlib.contextmanager
def new_checkpoint(folder: Path, step: int, *, fit: str = "") -> Iterator[Path]:
    """Yield an empty folder that becomes ``folder/checkpoint-STEP``, sealed, when the block ends.

    Parameters
    ----------
    folder
        Where a fit's checkpoints are.
    step
        The optimiser step after which it is taken.
    fit
        Digest of the fit's identity: only the same fit goes on from here.

    Raises
    ------
    RunError
        When the disk is full; earlier checkpoints are left as they were.
    """
    try:
        with atomic_folder(folder / f"{_PREFIX}{step}") as temporary:
            yield temporary
            write_manifest(temporary, step=step, fit=fit)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise RunError(
            f"{folder}: no room to write the checkpoint of step {step}: {error}. The checkpoints "
            "before it are intact: free some space and run again with --resume."
        ) from error


def require_room(folder: Path, n_standing: int, *, size: int) -> None:
    """Foresee a full disk.

    Parameters
    ----------
    folder
        Where a fit's checkpoints are going to be; those that are there already count.
    n_standing
        How many will be there at once: one more than is kept, while the newest is written.
    size
        Bytes of one, at least.

    Raises
    ------
    RunError
        When the disk has less room than that.
    """
    folder.mkdir(parents=True, exist_ok=True)
    needed = max(0, n_standing - len(list_checkpoints(folder))) * size
    disk = shutil.disk_usage(folder)
    if disk.free < needed and disk.total:  # some file systems do not tell
        raise RunError(
            f"{folder}: the checkpoints to come take at least {needed / 1e6:.1f} MB, and "
            f"{disk.free / 1e6:.1f} MB are free there. Make room, or take another disk with "
            "--artifacts."
        )


def write_manifest(folder: Path, **about: Any) -> None:
    """Write the manifest: every file in `folder`, and what the folder is about."""
    files = {name: _describe(folder / name) for name in _names_in(folder)}
    body = {"files": files, "about": about}
    write_json(folder / MANIFEST, body | {"sha256": digest_json(body)})


def verify_manifest(folder: Path, *, is_closed: bool = True, **about: Any) -> str | None:
    """Return what is wrong with a sealed folder, or None when its manifest holds.

    Parameters
    ----------
    folder
        What :func:`seal` was called with.
    is_closed
        Whether a file that the manifest does not name is damage.
    **about
        What the folder must be about.
    """
    try:
        content = (folder / MANIFEST).read_bytes()
        manifest: dict[str, Any] = json.loads(content)
        if json_bytes(manifest) != content or digest_json(_body(manifest)) != manifest["sha256"]:
            return f"{MANIFEST} does not match its own digest"
        return _find_difference(folder, manifest, about, is_closed=is_closed)
    except FileNotFoundError:
        return f"{MANIFEST} is missing"
    except OSError as error:
        return f"{Path(error.filename or MANIFEST).name} cannot be read ({error.strerror})"
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return f"{MANIFEST} is not readable"


def newest_intact(folder: Path, *, fit: str | None = None) -> Path | None:
    """Return the newest intact checkpoint, of the fit named if one is; others go to the log."""
    about: dict[str, Any] = {} if fit is None else {"fit": fit}
    for checkpoint in reversed(list_checkpoints(folder)):
        damage = verify_manifest(checkpoint, step=step_of(checkpoint), **about)
        if damage is None:
            return checkpoint
        _log.warning("%s is skipped: %s.", checkpoint, damage)
    return None


def list_checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints in `folder`, oldest first, intact or not."""
    found = [path for path in folder.glob(f"{_PREFIX}*") if step_of(path) is not None]
    return sorted(found, key=lambda path: step_of(path) or 0)


def step_of(checkpoint: Path) -> int | None:
    """Return the step a checkpoint's name tells, or None for any other name.

    Examples
    --------
    >>> step_of(Path("checkpoints/checkpoint-40"))
    40
    """
    number = checkpoint.name.removeprefix(_PREFIX)
    return int(number) if number.isdecimal() else None


def keep_newest(folder: Path, n_kept: int, *, step: int) -> None:
    """Remove all but the newest `n_kept` checkpoints up to `step`, and what killed writers left.

    A checkpoint of a later step is one that could not be gone on from; kept, it would take the
    place of an intact one.
    """
    found = list_checkpoints(folder)
    standing = [path for path in found if (step_of(path) or 0) <= step][-n_kept:]
    for checkpoint in found:
        if checkpoint not in standing:
            remove(checkpoint)
    remove_temporaries(folder)


def _find_difference(
    folder: Path, manifest: dict[str, Any], about: dict[str, Any], *, is_closed: bool
) -> str | None:
    for name, value in about.items():
        if manifest["about"].get(name) != value:
            return f"{MANIFEST} says {name} {manifest['about'].get(name)}, not {value}"
    for name, described in manifest["files"].items():
        if not (folder / name).is_file():
            return f"{name} is missing"
        if _describe(folder / name) != described:
            return f"{name} does not match the manifest"
    if is_closed and (added := set(_names_in(folder)) - set(manifest["files"])):
        return f"{min(added)} is not in the manifest"
    return None


def _names_in(folder: Path) -> list[str]:
    names = (str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    return sorted(name for name in names if name != MANIFEST)


def _body(manifest: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in manifest.items() if name != "sha256"}


def _describe(path: Path) -> dict[str, Any]:
    return {"size": path.stat().st_size, "sha256": digest_file(path)}
