"""Protection of the local demo page against other web pages.

Any page in a browser on the same machine can send requests to a local server. A request is
therefore refused unless it is addressed to this machine by name (against DNS rebinding), comes from
the demo page itself if it names its origin, and is small.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from tiewise.errors import TiewiseError

HOSTS = ("127.0.0.1", "localhost")
MAX_BYTES = 256 * 1024
"""Largest size of a request: several long responses."""

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class TooLargeError(TiewiseError):
    """The body of a request is larger than allowed."""


class Guard:
    """ASGI middleware that refuses unwanted requests to an application.

    `max_bytes` is the largest size of a request body in bytes, announced or not.
    """

    def __init__(self, app: App, *, max_bytes: int = MAX_BYTES) -> None:
        self.app, self.max_bytes = app, max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on to the application, or refuse it."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        refusal = find_refusal(scope, self.max_bytes)
        if refusal is None and scope["type"] != "http":
            refusal = (403, "Only HTTP requests are answered.")
        if refusal is not None:
            await _refuse(send, *refusal)
            return
        try:
            await self.app(scope, _limit(receive, self.max_bytes), send)
        except TooLargeError as error:
            await _refuse(send, 413, str(error))


def find_refusal(scope: Scope, max_bytes: int) -> tuple[int, str] | None:
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
    host = headers.get("host", "")
    if host.rsplit(":", 1)[0] not in HOSTS:
        return 403, f"The host is not {' or '.join(HOSTS)}."
    own_origin = f"http://{host}"
    is_foreign = headers.get("origin", own_origin) != own_origin
    if is_foreign or headers.get("sec-fetch-site", "none") not in {"none", "same-origin"}:
        return 403, "Requests from other pages are refused."
    length = headers.get("content-length", "0")
    if not length.isdecimal() or int(length) > max_bytes:
        return 413, _too_large(max_bytes)
    return None


def _limit(receive: Receive, max_bytes: int) -> Receive:
    """Count received bytes, because a body need not announce its length."""
    n_bytes = 0

    async def receive_limited() -> Message:
        nonlocal n_bytes
        message = await receive()
        n_bytes += len(message.get("body", b""))
        if n_bytes > max_bytes:
            raise TooLargeError(_too_large(max_bytes))
        return message

    return receive_limited


def _too_large(max_bytes: int) -> str:
    return f"The request is too large; at most {max_bytes:,} bytes are read."


async def _refuse(send: Send, status: int, message: str) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": message.encode()})
