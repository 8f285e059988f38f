"""Tests and fixtures reach loopback addresses only."""

import socket

import pytest
from pytest_socket import SocketConnectBlockedError

ELSEWHERE = ("192.0.2.1", 443)
"""An address that is reserved for documentation."""

pytestmark = pytest.mark.filterwarnings("ignore:A test tried to use socket")


def refused(address) -> bool:
    """Return whether a connection is refused before it leaves this machine."""
    try:
        socket.create_connection(address, timeout=0.2).close()
    except SocketConnectBlockedError:
        return True
    except OSError:
        return False
    return False


@pytest.fixture(scope="module")
def refused_in_a_fixture():
    """Try it in a fixture of module scope."""
    return refused(ELSEWHERE)


def test_only_loopback_can_be_reached(refused_in_a_fixture):
    """Connections to other machines are refused in a test and in its fixtures."""
    assert refused(ELSEWHERE)
    assert refused_in_a_fixture
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert not refused(server.getsockname())
