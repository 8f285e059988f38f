"""Serve a judge over HTTP until a signal ends the server."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable

import uvicorn

from tiewise.errors import ConfigError
from tiewise.judges.judge import Judge
from tiewise.serving.guard import HOSTS, Guard
from tiewise.serving.server.app import make_app
from tiewise.serving.server.engine import Limits

TOKEN_VARIABLE = "TIEWISE_TOKEN"  # noqa: S105 - the name of a variable
"""Environment variable with the bearer token that requests must have."""


def serve(judge: Judge, *, host: str, port: int, announce: Callable[[str], None]) -> None:
    """Serve a judge until SIGINT or SIGTERM; accepted requests are answered first.

    `port` 0 is any free port, and `announce` is called with the address. ConfigError is raised when
    the port is in use, and when other machines can reach the server but no token is set.
    """
    token = os.environ.get(TOKEN_VARIABLE) or None
    is_local = host in HOSTS
    if not is_local and token is None:
        raise ConfigError(
            f"--host {host} lets other machines send requests. Set the environment variable "
            f"{TOKEN_VARIABLE} to a secret that they send as bearer token."
        )
    listener = listen(host, port)
    limits = Limits()
    app = Guard(
        make_app(judge, token=token, limits=limits),
        max_bytes=limits.max_bytes, seconds=limits.body_seconds, is_local=is_local,
    )  # fmt: skip
    config = uvicorn.Config(
        app, log_level="warning", server_header=False, ws="none", lifespan="on",
        timeout_graceful_shutdown=int(limits.seconds),
    )  # fmt: skip
    announce(f"http://{host}:{listener.getsockname()[1]}")
    uvicorn.Server(config).run(sockets=[listener])


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket; ConfigError if the address cannot be used."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except (OSError, OverflowError) as error:
        raise ConfigError(
            f"{host}, port {port}: {error}. Choose another --port, or 0 for any free port."
        ) from error
    listener.listen()
    return listener
