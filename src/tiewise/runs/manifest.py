"""Manifests: the SHA-256 of the files of a folder, so that damage is found before a file is read.

Folders that are written as a whole have one, ``manifest.json``: checkpoints, adapters, feature
models and converted backbones.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tiewise.files import digest_file, digest_json, json_bytes, read_json, write_json

MANIFEST = "manifest.json"


def write_manifest(folder: Path, **about: Any) -> None:
    """Write the SHA-256 of each file of a folder, at any depth, and facts such as ``step=40``."""
    files = {name: digest_file(folder / name) for name in _list_files(folder)}
    body = {"files": files, "about": about}
    write_json(folder / MANIFEST, body | {"sha256": digest_json(body)})


def listed_files(folder: Path) -> list[str]:
    """Return the names of the files in a manifest; none if it cannot be read."""
    try:
        return [str(name) for name in read_json(folder / MANIFEST)["files"]]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def verify_manifest(folder: Path, *, allow_extra_files: bool = False, **about: Any) -> str | None:
    """Return the first difference between a folder and its manifest, or None.

    The manifest must state the facts `about`, and all files unless `allow_extra_files` is true.
    """
    path = folder / MANIFEST
    if not path.exists():
        return f"{MANIFEST} is missing"
    try:
        manifest = read_json(path)
        body = {"files": manifest["files"], "about": manifest["about"]}
        if digest_json(body) != manifest["sha256"] or json_bytes(manifest) != path.read_bytes():
            return f"{MANIFEST} is damaged"
        return next(_differences(folder, body, about, allow_extra_files), None)
    except OSError as error:
        return f"{Path(error.filename or MANIFEST).name} cannot be read ({error.strerror})"
    except (ValueError, KeyError, TypeError):
        return f"{MANIFEST} is damaged"


def _differences(
    folder: Path, body: dict[str, Any], about: dict[str, Any], allow_extra_files: bool
) -> Iterator[str]:
    for name, value in about.items():
        if body["about"].get(name) != value:
            yield f"{MANIFEST} says {name} {body['about'].get(name)}, not {value}"
    for name, sha256 in body["files"].items():
        if not (folder / name).is_file():
            yield f"{name} is missing"
        elif digest_file(folder / name) != sha256:
            yield f"{name} does not match {MANIFEST}"
    if not allow_extra_files:
        extra = set(_list_files(folder)) - set(body["files"])
        yield from (f"{name} is not in {MANIFEST}" for name in sorted(extra))


def _list_files(folder: Path) -> list[str]:
    names = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(name for name in names if name != MANIFEST)
