"""What runs beside the tests reaches no network either."""

from __future__ import annotations

import os
import pkgutil
import subprocess
import sys

import tiewise
from faults import Forked

PROGRAM = """
import importlib, sys
def refuse(event, arguments):
    if event.split(".")[0] == "socket" and event not in ("socket.__new__", "socket.gethostname"):
        raise RuntimeError(f"importing reached for the network: {event} {arguments}")
sys.addaudithook(refuse)
for name in sys.argv[1:]:
    importlib.import_module(name)
"""


def reach_out() -> int:
    """Return 7 where a connection to another machine is refused before it is tried."""
    import socket
    import warnings

    from pytest_socket import SocketConnectBlockedError

    warnings.simplefilter("ignore")
    try:
        socket.create_connection(("192.0.2.1", 443), timeout=0.2)
    except SocketConnectBlockedError:
        return 7
    return 1


def test_no_module_reaches_the_network_on_import():
    """Those that import torch and transformers included, and nobody told them to stay offline."""
    modules = pkgutil.walk_packages(tiewise.__path__, "tiewise.")
    names = [module.name for module in modules if not module.name.endswith("__main__")]
    environment = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"}
    command = [sys.executable, "-c", PROGRAM, *names]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def test_processes_under_torture_are_as_deaf_as_the_tests(tmp_path):
    """The guard of pytest-socket stands in forked processes too."""
    assert Forked(tmp_path, reach_out).end() == 7
