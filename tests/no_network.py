"""Block the network in the process that imports this module, and in its forked processes.

Loopback addresses and Unix sockets still work.
"""

import os
import sys
from typing import Any

LOOPBACK = {"127.0.0.1", "::1", "localhost", None}


def refuse(event: str, arguments: tuple[Any, ...]) -> None:
    """Raise RuntimeError before another machine is looked up or connected to."""
    if event == "socket.getaddrinfo":
        host = arguments[0]
    elif event in {"socket.connect", "socket.sendto"} and isinstance(arguments[1], tuple):
        host = arguments[1][0]
    else:
        return
    if host not in LOOPBACK:
        message = f"reached for the network: {event} {arguments}"
        raise RuntimeError(message)


os.environ.pop("HF_HUB_OFFLINE", None)
sys.addaudithook(refuse)
