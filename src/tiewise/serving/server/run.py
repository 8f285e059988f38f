"""Serve a judge over HTTP until a signal ends the server."""

from __future__ import annotations

import os
from collections.abc import Callable

import uvicorn

from tiewise.errors import ConfigError
from tiewise.judges.judge import Judge
from tiewise.judges.served import TOKEN_VARIABLE
from tiewise.serving.guard import HOSTS, Guard, listen
from tiewise.serving.server.app import make_app
from tiewise.serving.server.engine import Limits

_MOST_CONNECTIONS = 128
"""Each may hold a body of the largest size in memory."""


def serve(judge: Judge, *, host: str, port: int, announce: Callable[[str], None]) -> None:
    """Serve a judge until SIGINT or SIGTERM; accepted requests are answered first.

    `port` 0 is any free port, and `announce` is called with the address. ConfigError is raised when
    the port is in use, and when other machines can reach the server but no token is set.
    """
    token = os.environ.get(TOKEN_VARIABLE, "").strip() or None
    is_local = host in HOSTS
    if not is_local and token is None:
        raise ConfigError(
            f"--host {host} lets other machines send requests. Set the environment variable "
            f"{TOKEN_VARIABLE} to a secret that they send as bearer token."
        )
    listener = listen(host, port, flags=f"--host {host} --port {port}")
    limits = Limits()
    app = Guard(
        make_app(judge, has_token=token is not None, limits=limits),
        max_bytes=limits.max_bytes, seconds=limits.body_seconds, is_local=is_local, token=token,
    )  # fmt: skip
    config = uvicorn.Config(
        app, log_level="warning", server_header=False, ws="none", lifespan="on",
        limit_concurrency=_MOST_CONNECTIONS,
        timeout_graceful_shutdown=int(limits.seconds),
    )  # fmt: skip
    shown = f"[{host}]" if ":" in host else host
    announce(f"http://{shown}:{listener.getsockname()[1]}")
    uvicorn.Server(config).run(sockets=[listener])
