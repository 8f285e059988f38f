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
    manifest = json.loads((Path(folder) / "manifest.json").read_bytes())
    for name, sha256 in manifest["files"].items():
        path = Path(folder) / name
        if not path.is_file():
            raise ValueError(f"{path} is missing. Copy the whole folder again.")
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
                raise ValueError(f"{path} has changed. Copy the whole folder again.")
    about: dict[str, Any] = manifest["about"]
    if about["python"] != describe_python():
        raise ValueError(
            f"{folder} was packed for {about['python']}; this is {describe_python()}. Run "
            "tiewise pack with the Python of the notebook."
        )
    return about


if __name__ == "__main__":
    place = Path(__file__).parent
    try:
        check(place)
    except ValueError as problem:
        print(f"error: {problem}", file=sys.stderr)  # noqa: T201 - this is a program of its own
        sys.exit(2)
    print(f"{place.name} is complete.")  # noqa: T201
