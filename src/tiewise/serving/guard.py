"""The socket of a local server, and its protection against other pages and large or slow requests.

Any page in a browser on the same machine can send requests to a local server. A request is
therefore refused unless it is addressed to this machine by name (against DNS rebinding), comes from
the server's own page if it names its origin, is small, and arrives in time.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import socket
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from tiewise.errors import ConfigError

HOSTS = ("127.0.0.1", "localhost")
MAX_BYTES = 256 * 1024
"""Largest size of a request: several long responses."""

_MOST_DISCARDED, _DISCARD_SECONDS = 16, 5.0
"""Multiple of the largest size, and seconds, in which a refused body is read to its end."""

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


def listen(host: str, port: int, *, flags: str) -> socket.socket:
    """Return a listening socket; port 0 is any free one.

    ConfigError, which begins with `flags`, is raised when the address cannot be used.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Only for a socket that names TCP does asyncio switch off Nagle's algorithm, with which the
    # body of each answer waits 40 ms for the client's delayed acknowledgement of the headers.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except (OSError, OverflowError) as error:
        listener.close()
        reason = str(error).rstrip(".")
        raise ConfigError(
            f"{flags}: {reason}. Name an address of this machine, and a free port, or port 0 for "
            "any."
        ) from error
    listener.listen()
    return listener


class Guard:
    """ASGI middleware that refuses unwanted requests to an application.

    `max_bytes` is the largest size of a request body in bytes, announced or not, and `seconds` the
    time in which it must arrive. `is_local` says whether only pages of this server on this machine
    may send requests; a server for other machines has other names. With a `token`, requests must
    have it as bearer token, except those for ``/health``; it is checked before a body is read.
    """

    def __init__(
        self,
        app: App,
        *,
        max_bytes: int = MAX_BYTES,
        seconds: float = 60,
        is_local: bool = True,
        token: str | None = None,
    ) -> None:
        self.app, self.max_bytes, self.seconds = app, max_bytes, seconds
        self.is_local, self.token = is_local, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on to the application, or refuse it."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        refusal = find_refusal(scope, self.max_bytes, is_local=self.is_local)
        if refusal is None and scope["type"] != "http":
            refusal = (403, "Only HTTP requests are answered.")
        if refusal is None and self.token is not None and not _has_token(scope, self.token):
            refusal = (401, "Send the header Authorization: Bearer TOKEN.")
        if refusal is not None:
            await _discard_body(receive, _MOST_DISCARDED * self.max_bytes)
            await _refuse(send, *refusal)
            return
        try:
            async with asyncio.timeout(self.seconds):
                messages = await _read_body(receive, self.max_bytes)
        except TimeoutError:
            await _refuse(send, 408, f"The body did not arrive in {self.seconds:g} seconds.")
            return
        if messages is None:
            await _discard_body(receive, _MOST_DISCARDED * self.max_bytes)
            await _refuse(send, 413, _too_large(self.max_bytes))
            return
        await self.app(scope, _replay(messages, receive), send)


def find_refusal(scope: Scope, max_bytes: int, *, is_local: bool = True) -> tuple[int, str] | None:
    """Return status and message for a request that is refused by its headers, else None.

    Examples
    --------
    >>> asked = {"headers": [(b"host", b"127.0.0.1:7860"), (b"origin", b"https://evil.example")]}
    >>> find_refusal(asked, 100)
    (403, 'Requests from other pages are refused.')
    >>> find_refusal({"headers": [(b"host", b"127.0.0.1:7860")]}, 100) is None
    True
    """
    headers = {
        name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]
    }
    length = headers.get("content-length", "0")
    if not length.isdecimal() or int(length) > max_bytes:
        return 413, _too_large(max_bytes)
    if not is_local:
        return None
    host = headers.get("host", "")
    if host.rsplit(":", 1)[0] not in HOSTS:
        return 403, f"The host is not {' or '.join(HOSTS)}."
    own_origin = f"http://{host}"
    is_foreign = headers.get("origin", own_origin) != own_origin
    if is_foreign or headers.get("sec-fetch-site", "none") not in {"none", "same-origin"}:
        return 403, "Requests from other pages are refused."
    return None


def _has_token(scope: Scope, token: str) -> bool:
    given = [value for name, value in scope["headers"] if name.lower() == b"authorization"]
    expected = f"Bearer {token}".encode()
    return scope["path"] == "/health" or (
        len(given) == 1 and secrets.compare_digest(given[0], expected)
    )


async def _read_body(receive: Receive, max_bytes: int) -> list[Message] | None:
    """Return the messages of a body; None when it is too large, whatever length it announced."""
    messages: list[Message] = []
    n_bytes = 0
    while not messages or messages[-1].get("more_body", False):
        messages.append(await receive())
        n_bytes += len(messages[-1].get("body", b""))
        if n_bytes > max_bytes:
            return None
    return messages


async def _discard_body(receive: Receive, max_bytes: int) -> None:
    """Read the rest of a refused body, up to a size and for a few seconds.

    A client that is still sending would get a closed connection in place of the refusal.
    """
    n_bytes, has_more = 0, True
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_DISCARD_SECONDS):
            while has_more and n_bytes <= max_bytes:
                message = await receive()
                n_bytes += len(message.get("body", b""))
                has_more = message.get("more_body", False)


def _replay(messages: list[Message], receive: Receive) -> Receive:
    """Return a function that repeats messages, and then receives further ones."""
    waiting = iter(messages)

    async def receive_next() -> Message:
        message = next(waiting, None)
        return await receive() if message is None else message

    return receive_next


def _too_large(max_bytes: int) -> str:
    return f"The request is too large; at most {max_bytes:,} bytes are read."


async def _refuse(send: Send, status: int, message: str) -> None:
    headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
    body = json.dumps({"error": {"message": message, "code": status}}).encode()
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
