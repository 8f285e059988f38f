"""Fixtures for the tests that need torch."""

import pytest

from fitting import Fitter

LONGEST = (
    "test_processes.py", "test_fit.py", "test_streaming.py", "test_backbones.py",
    "test_gpu_accept.py",
)  # fmt: skip


def pytest_collection_modifyitems(items):
    """Run the slowest files first, so that parallel workers finish together."""
    items.sort(key=lambda item: item.path.name not in LONGEST)


@pytest.fixture(scope="session")
def cache_dir(tmp_path_factory):
    """Share one cache between all tests: its backbones are built once."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def fitter(tmp_path, cache_dir):
    """Return a function that fits fold 0 of a few pairs."""
    return Fitter(tmp_path, cache_dir)
