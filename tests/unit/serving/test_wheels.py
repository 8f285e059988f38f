"""Installed packages are written as wheels that install the same files."""

from __future__ import annotations

import base64
import csv
import hashlib
import json
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

from tiewise.errors import RunError
from tiewise.serving.check_pack import check
from tiewise.serving.wheels import find_package, find_packages, write_wheel

SMALL = ("lazy-loader", "tqdm", "tyro", "PyYAML")


def check_record(archive):
    """Compare the files of a wheel with its RECORD, which names each once with its SHA-256."""
    [record] = [name for name in archive.namelist() if name.endswith(".dist-info/RECORD")]
    rows = list(csv.reader(archive.read(record).decode().splitlines()))
    assert sorted(row[0] for row in rows) == sorted(archive.namelist())
    for name, digest, size in rows:
        if name != record:
            data = archive.read(name)
            encoded = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode()
            assert (digest, size) == (f"sha256={encoded.rstrip('=')}", str(len(data)))


@pytest.mark.parametrize("name", SMALL)
def test_wheel_has_the_installed_files(tmp_path, name):
    """Each module and each file of metadata has the bytes of the installation."""
    package = find_package(name)
    path = write_wheel(package, tmp_path)
    with zipfile.ZipFile(path) as archive:
        check_record(archive)
        folder = Path(str(package.locate_file("")))
        for file in archive.namelist():
            if not file.endswith("RECORD"):
                assert archive.read(file) == (folder / file).read_bytes()
        names = {Path(name).name for name in package.read_text("RECORD").replace(",", "\n").split()}
        assert {Path(file).name for file in archive.namelist()} >= names & {
            "METADATA", "WHEEL", "entry_points.txt", "__init__.py", "py.typed",
        }  # fmt: skip
    assert path.name.lower().startswith(f"{name.replace('-', '_')}-{package.version}-".lower())
    assert write_wheel(package, tmp_path).read_bytes() == path.read_bytes()


def test_name_has_every_tag(tmp_path):
    """The name of a wheel states the Pythons and platforms of its metadata."""
    package = find_package("numpy")
    tags = [line[5:] for line in package.read_text("WHEEL").splitlines() if line[:5] == "Tag: "]
    source = tmp_path / "numpy"  # its own files are large
    source.mkdir()
    (source / "__init__.py").touch()
    name = write_wheel(package, tmp_path, source=source).name
    python, abi, platform = name.removesuffix(".whl").split("-")[2:]
    assert set(tags) == {f"{python}-{abi}-{each}" for each in platform.split(".")}


def test_needed_packages_are_found():
    """All that a package needs is found, with its extras and without what is left out."""
    names = {package.name.lower() for package in find_packages(["tiewise"])}
    assert {"tiewise", "numpy", "scikit-learn", "skops", "threadpoolctl"} <= names
    assert not names & {"torch", "matplotlib", "pytest"}
    assert "numpy" not in {
        package.name for package in find_packages(["tiewise"], left_out={"numpy"})
    }
    with pytest.raises(RunError, match="no-such-package is not installed"):
        find_packages(["no-such-package[extra]>=1"])


def test_damaged_installations_are_refused(tmp_path):
    """A missing file is named; a link to a checkout and an egg are no installations."""
    info = tmp_path / "small-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: small\nVersion: 1.0\n")
    record = "../../bin/small,,\nsmall/__init__.py,,\nsmall-1.0.dist-info/METADATA,,\n"
    (info / "RECORD").write_text(record)
    package = metadata.Distribution.at(info)
    with pytest.raises(RunError, match="small was not installed from a wheel"):
        write_wheel(package, tmp_path)
    (info / "WHEEL").write_text("Tag: py3-none-any\n")
    with pytest.raises(RunError, match=r"__init__\.py cannot be read"):
        write_wheel(package, tmp_path)
    (info / "RECORD").write_text("small.pth,,\nsmall-1.0.dist-info/METADATA,,\n")
    with pytest.raises(RunError, match="small is installed as a link to a checkout"):
        write_wheel(package, tmp_path)
    record = "__editable___small_finder.py,,\nsmall.pth,,\nsmall-1.0.dist-info/METADATA,,\n"
    (info / "RECORD").write_text(record)
    (tmp_path / "__editable___small_finder.py").touch()
    (info / "direct_url.json").write_text('{"url": "file:///x", "dir_info": {"editable": true}}')
    with pytest.raises(RunError, match="small is installed as a link to a checkout"):
        write_wheel(package, tmp_path)


def test_check_explains_unusable_folders(tmp_path):
    """Without a readable manifest the check says so; another Python is named before any file."""
    with pytest.raises(ValueError, match=r"manifest\.json cannot be read .* Copy the whole folder"):
        check(tmp_path)
    for text in ("[]", "{}", "{", '{"files": {}, "about": {}}'):
        (tmp_path / "manifest.json").write_text(text)
        with pytest.raises(ValueError, match=r"manifest\.json cannot be read"):
            check(tmp_path)
    manifest = {"files": {"wheel": "0"}, "about": {"python": "Python 3.10 on win-amd64"}}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match=r"was packed for Python 3\.10"):
        check(tmp_path)
