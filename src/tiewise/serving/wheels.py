"""Write installed packages as wheels, for a machine without a network.

A wheel is a zip file of what an installation has in its folder of packages, with a list of digests.
It is made from the installed files, so that it has the versions that work here, needs no network,
and exists for a package that no index has. Programs and manuals outside the folder of packages are
left out: installers make the programs again, from the entry points.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import json
import zipfile
from collections.abc import Collection, Iterable, Iterator
from importlib import metadata
from pathlib import Path, PurePosixPath

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tiewise.errors import RunError

_OF_INSTALLER = {"INSTALLER", "REQUESTED", "RECORD", "direct_url.json"}
_OLDEST = (1980, 1, 1, 0, 0, 0)
"""Time of each file in a wheel, so that equal files give equal bytes."""
_LEVEL = 1
"""Of compression: higher levels take several times as long for 15 % less."""


def find_packages(
    requirements: Iterable[str], *, left_out: Collection[str] = ()
) -> list[metadata.Distribution]:
    """Return the installed packages that requirements name, and all that these need, by name.

    Packages in `left_out` and what only they need are not among them. RunError names a package that
    is not installed.
    """
    found: dict[str, metadata.Distribution] = {}
    queue, seen = [Requirement(text) for text in requirements], set()
    while queue:
        wanted = queue.pop()
        name = canonicalize_name(wanted.name)
        if name in left_out or str(wanted) in seen:
            continue
        seen.add(str(wanted))
        found[name] = find_package(name)
        queue += _needed_by(found[name], wanted.extras)
    return [found[name] for name in sorted(found)]


def find_package(name: str) -> metadata.Distribution:
    """Return an installed package; RunError when there is none of that name."""
    try:
        return metadata.distribution(name)
    except metadata.PackageNotFoundError as error:
        raise RunError(f"{name} is not installed. Install it: pip install {name}") from error


def _needed_by(package: metadata.Distribution, extras: Collection[str]) -> Iterator[Requirement]:
    for text in package.requires or ():
        needed = Requirement(text)
        if needed.marker is None or any(
            needed.marker.evaluate({"extra": extra}) for extra in ("", *extras)
        ):
            yield needed


def write_wheel(
    package: metadata.Distribution, folder: Path, *, source: Path | None = None
) -> Path:
    """Write the wheel of an installed package into a folder; return its path.

    `source` is the folder of its modules where it is not installed but imported from a checkout.
    RunError is raised when files are missing, or were not installed by an installer of wheels.
    """
    info = _find_info(package)
    files = dict(_list_files(package, info))
    if source is not None:
        own = (path for path in source.rglob("*") if path.is_file() and path.suffix != ".pyc")
        files = {name: path for name, path in files.items() if name.startswith(f"{info}/")}
        files |= {path.relative_to(source.parent).as_posix(): path for path in own}
    is_modules = [not name.startswith(f"{info}/") and not name.endswith(".pth") for name in files]
    if not any(is_modules) or (source is None and _is_editable(package)):
        raise RunError(f"{package.name} is installed as a link to a checkout. Install its wheel.")
    path = folder / f"{info.removesuffix('.dist-info')}-{_read_tags(package)}.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=_LEVEL) as archive:
        lines = [_add(archive, name, file, package) for name, file in sorted(files.items())]
        _write(archive, f"{info}/RECORD", "".join([*lines, f"{info}/RECORD,,\n"]).encode())
    return path


def _is_editable(package: metadata.Distribution) -> bool:
    """Return whether modules are imported from a checkout, by a link or a finder of modules."""
    origin = json.loads(package.read_text("direct_url.json") or "{}")
    return bool(origin.get("dir_info", {}).get("editable"))


def _find_info(package: metadata.Distribution) -> str:
    """Return the name of the folder of metadata, which begins as the wheel's name does."""
    infos = {name.split("/")[0] for name in _read_names(package) if name.endswith("/METADATA")}
    info = next((name for name in infos if name.endswith(".dist-info")), None)
    if info is None or "Tag: " not in (package.read_text("WHEEL") or ""):
        raise RunError(
            f"{package.name} was not installed from a wheel, so it cannot be packed. Install it "
            "with pip, in an environment that is not conda's."
        )
    return info


def _read_names(package: metadata.Distribution) -> list[str]:
    """Return the names in RECORD; `package.files` of Python 3.12 leaves out missing files."""
    return [row[0] for row in csv.reader((package.read_text("RECORD") or "").splitlines()) if row]


def _list_files(package: metadata.Distribution, info: str) -> Iterator[tuple[str, Path]]:
    ignored = {f"{info}/{name}" for name in _OF_INSTALLER}
    for name in _read_names(package):
        path = PurePosixPath(name)
        is_outside = path.is_absolute() or ".." in path.parts
        if not is_outside and name not in ignored and path.suffix != ".pyc":
            yield name, Path(str(package.locate_file(name)))


def _read_tags(package: metadata.Distribution) -> str:
    """Return the tags of Python, binary interface and platform, as the name of a wheel has them."""
    lines = (package.read_text("WHEEL") or "").splitlines()
    tags = [line.partition(": ")[2].strip() for line in lines if line.startswith("Tag: ")]
    parts = zip(*(tag.split("-", 2) for tag in tags), strict=True)
    return "-".join(".".join(dict.fromkeys(part)) for part in parts)


def _add(archive: zipfile.ZipFile, name: str, file: Path, package: metadata.Distribution) -> str:
    """Add a file to a wheel; return its line of RECORD."""
    try:
        data, mode = file.read_bytes(), file.stat().st_mode
    except OSError as error:
        raise RunError(
            f"{package.name}: {file} cannot be read ({error.strerror}). Install it again: "
            f"pip install --force-reinstall {package.name}=={package.version}"
        ) from error
    _write(archive, name, data, mode)
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
    quoted = f'"{name}"' if "," in name else name
    return f"{quoted},sha256={digest},{len(data)}\n"


def _write(archive: zipfile.ZipFile, name: str, data: bytes, mode: int = 0o100644) -> None:
    entry = zipfile.ZipInfo(name, _OLDEST)
    entry.external_attr = mode << 16
    archive.writestr(entry, data, zipfile.ZIP_DEFLATED, _LEVEL)
