"""Check that a folder of ``tiewise pack`` is complete; it needs nothing but Python.

This file is copied into the folder, where the notebook calls it before anything is installed.
"""

from __future__ import annotations

import hashlib
import json
import sys
import sysconfig
from pathlib import Path
from typing import Any


def describe_python() -> str:
    """Return the Python that wheels are for, such as ``Python 3.11 on linux-x86_64``."""
    return f"Python {sys.version_info[0]}.{sys.version_info[1]} on {sysconfig.get_platform()}"


def check(folder: str | Path) -> dict[str, Any]:
    """Compare the files of a folder with its manifest; return what the manifest says about them.

    Raises
    ------
    ValueError
        A file is missing or changed, or the wheels are for another Python; the message names it.
    """
    path = Path(folder) / "manifest.json"
    try:
        manifest = json.loads(path.read_bytes())
        files, about = dict(manifest["files"]), dict(manifest["about"])
        packed_for = about["python"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} cannot be read ({error!r}). Copy the whole folder again."
        ) from error
    if packed_for != describe_python():  # first: file_digest is of Python 3.11
        raise ValueError(
            f"{folder} was packed for {packed_for}; this is {describe_python()}. Run "
            "tiewise pack with the Python of the notebook."
        )
    for name, sha256 in files.items():
        _check_file(Path(folder) / name, sha256)
    return about


def _check_file(path: Path, sha256: str) -> None:
    if not path.is_file():
        raise ValueError(f"{path} is missing. Copy the whole folder again.")
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ValueError(
            f"{path} cannot be read ({error}). Copy the whole folder again."
        ) from error
    if found != sha256:
        raise ValueError(f"{path} has changed. Copy the whole folder again.")


if __name__ == "__main__":
    place = Path(__file__).parent
    try:
        check(place)
    except ValueError as problem:
        print(f"error: {problem}", file=sys.stderr)  # noqa: T201 - this is a program of its own
        sys.exit(2)
    print(f"{place.name} is complete.")  # noqa: T201
