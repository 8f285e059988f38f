"""Fixtures of the tests with vLLM."""

import pytest


@pytest.fixture(scope="session")
def cache_dir(tmp_path_factory):
    """Share one cache between all tests."""
    return tmp_path_factory.mktemp("cache")
