"""Many more requests to the server than tests/integration/serving/test_server.py sends."""

import pytest

from faults import scaled
from served import check_documented, check_load, export_tiny, running

N_CLIENT_REQUESTS = scaled(quick=0, full=200)
pytestmark = [
    pytest.mark.skipif(not N_CLIENT_REQUESTS, reason="TIEWISE_TORTURE is not full"),
    pytest.mark.timeout(1800),
]


@pytest.fixture(scope="module")
def export_dir(tmp_path_factory):
    """Export a tiny model."""
    folder = tmp_path_factory.mktemp("model")
    return export_tiny(folder / "cache", folder)


def test_long_load_with_a_stop(export_dir):
    """Every accepted one of 3,200 requests is answered once and right, others in words."""
    check_load(export_dir, n_each=N_CLIENT_REQUESTS, n_before=3_000)


def test_many_requests_are_answered_as_documented(export_dir):
    """200 requests to each route get a documented answer."""
    with running(export_dir) as server:
        check_documented(server.address, n_examples=200)
