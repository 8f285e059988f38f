"""No test reaches the network, and Hypothesis is the same on every machine."""

import os

import hypothesis
import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
hypothesis.settings.register_profile(
    "tiewise", deadline=None, derandomize=True, print_blob=True, max_examples=25
)
hypothesis.settings.load_profile("tiewise")


@pytest.fixture(autouse=True)
def _no_network(request):
    """Only loopback may be reached."""
    socket_disabled = pytest.importorskip("pytest_socket")
    socket_disabled.socket_allow_hosts(["127.0.0.1", "::1"], allow_unix_socket=True)
    yield
    socket_disabled._remove_restrictions()
