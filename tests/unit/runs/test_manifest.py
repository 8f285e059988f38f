"""Tests of manifests."""

import shutil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiewise.runs.manifest import MANIFEST, verify_manifest, write_manifest


@pytest.fixture
def folder(tmp_path):
    return make_folder(tmp_path / "folder")


def make_folder(folder):
    (folder / "inner").mkdir(parents=True)
    (folder / "state.bin").write_bytes(b"weights")
    (folder / "inner" / "more.json").write_text("{}")
    write_manifest(folder, step=2, fit="own")
    return folder


def test_written_folder_is_intact(folder):
    """A folder matches its new manifest, and also a copy of the folder does."""
    assert verify_manifest(folder) is None
    assert verify_manifest(shutil.copytree(folder, folder.parent / "copy")) is None


def test_facts_are_compared(folder):
    """The facts asked for must be stated with the same values."""
    assert verify_manifest(folder, step=2, fit="own") is None
    assert verify_manifest(folder, step=8) == "manifest.json says step 2, not 8"
    assert verify_manifest(folder, seed=1) == "manifest.json says seed None, not 1"


def test_extra_file_is_damage(folder):
    """A file that the manifest does not list is damage, unless extra files are allowed."""
    (folder / "optimizer.pt").write_bytes(b"")
    assert verify_manifest(folder) == "optimizer.pt is not in manifest.json"
    assert verify_manifest(folder, allow_extra_files=True) is None


def test_missing_file_is_damage(folder):
    """A listed file that is gone, or the manifest itself, is named."""
    (folder / "inner" / "more.json").unlink()
    assert verify_manifest(folder, allow_extra_files=True) == "inner/more.json is missing"
    (folder / MANIFEST).unlink()
    assert verify_manifest(folder) == "manifest.json is missing"


def test_new_manifest_replaces_old(folder):
    """After a change, a second manifest states the new content."""
    (folder / "state.bin").write_bytes(b"other weights")
    assert verify_manifest(folder) == "state.bin does not match manifest.json"
    write_manifest(folder)
    assert verify_manifest(folder) is None


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"1", b'{"sha256": 1}', b"[" * 100_000])
def test_unreadable_manifest_is_damage(folder, content):
    """Any other content of the manifest is damage and no exception."""
    (folder / MANIFEST).write_bytes(content)
    assert verify_manifest(folder) == "manifest.json is damaged"


def test_manifest_states_own_digest(folder):
    """Replacing the digest of a file in the manifest needs a new digest of the manifest."""
    path = folder / MANIFEST
    path.write_text(path.read_text().replace('"step": 2', '"step": 3'))
    assert verify_manifest(folder, step=3) == "manifest.json is damaged"


@given(data=st.data())
def test_any_flipped_bit_is_found(tmp_path_factory, data):
    """A folder with one flipped bit in one file differs from its manifest."""
    folder = make_folder(tmp_path_factory.mktemp("run") / "folder")
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    path = data.draw(st.sampled_from(paths))
    content = bytearray(path.read_bytes())
    position = data.draw(st.integers(0, len(content) - 1))
    content[position] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(content)
    assert verify_manifest(folder) is not None
