"""Fixtures for the tests that need torch."""

import pytest

from fitting import Fitter

LONGEST = (
    "test_frozen.py",
    "test_processes.py",
    "test_fit.py",
    "test_streaming.py",
    "test_backbones.py",
)


def pytest_collection_modifyitems(items):
    """Begin with the files that take longest, so that workers side by side end together."""
    items.sort(key=lambda item: item.path.name not in LONGEST)


@pytest.fixture(scope="session")
def cache_dir(tmp_path_factory):
    """One cache for all: the backbones in it are built once."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def fitter(tmp_path, cache_dir):
    """Fits fold 0 of a few pairs."""
    return Fitter(tmp_path, cache_dir)
