"""What a page that is for this machine alone lets in: no strangers' names, no strangers' pages.

A server on loopback can still be reached by any page that a browser on the same machine shows. So
a request must be addressed to this machine by name (against DNS rebinding), must come from this
page itself where it says where it comes from, and may not be large.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from tiewise.errors import TiewiseError

HOSTS = ("127.0.0.1", "localhost")
MAX_BYTES = 256 * 1024
"""Of one request: several long answers, and no more."""

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class TooLarge(TiewiseError):  # noqa: N818 - what the request is
    """A request's body is larger than the page allows."""


class Guard:
    """Stands before an ASGI application and refuses what is not meant for it.

    Parameters
    ----------
    app
        The application.
    max_bytes
        Most bytes of a request's body, announced or not.
    """

    def __init__(self, app: App, *, max_bytes: int = MAX_BYTES) -> None:
        self.app, self.max_bytes = app, max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        reason = find_reason(scope, self.max_bytes)
        if reason is not None or scope["type"] != "http":
            await _refuse(send, *(reason or (403, "Only plain requests.")))
            return
        try:
            await self.app(scope, _bounded(receive, self.max_bytes), send)
        except TooLarge:
            await _refuse(send, 413, "Too large.")


def find_reason(scope: Scope, max_bytes: int) -> tuple[int, str] | None:
    """Return status and words for a request that is refused unread, None for one that is not.

    Examples
    --------
    >>> asked = {"headers": [(b"host", b"127.0.0.1:7860"), (b"origin", b"https://evil.example")]}
    >>> find_reason(asked, 100)
    (403, 'Requests from other pages are refused.')
    >>> find_reason({"headers": [(b"host", b"127.0.0.1:7860")]}, 100) is None
    True
    """
    headers = {
        name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]
    }
    host = headers.get("host", "")
    if host.rsplit(":", 1)[0] not in HOSTS:
        return 403, "This page answers to 127.0.0.1 and localhost alone."
    if headers.get("origin", f"http://{host}") != f"http://{host}":
        return 403, "Requests from other pages are refused."
    if headers.get("sec-fetch-site", "none") not in {"none", "same-origin"}:
        return 403, "Requests from other pages are refused."
    length = headers.get("content-length", "0")
    if not length.isdecimal() or int(length) > max_bytes:
        return 413, f"A request may hold {max_bytes:,} bytes."
    return None


def _bounded(receive: Receive, max_bytes: int) -> Receive:
    """Count what is received, for bodies that do not announce their length."""
    n_bytes = 0

    async def count() -> Message:
        nonlocal n_bytes
        message = await receive()
        n_bytes += len(message.get("body", b""))
        if n_bytes > max_bytes:
            raise TooLarge(f"A request may hold {max_bytes:,} bytes.")
        return message

    return count


async def _refuse(send: Send, status: int, words: str) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": words.encode()})
