"""One cluster of two nodes for all tests."""

import pytest

from ray_nodes import running_cluster


@pytest.fixture(scope="session")
def cluster():
    """Run a cluster of two nodes with one CPU each."""
    with running_cluster(1, 1) as started:
        yield started
